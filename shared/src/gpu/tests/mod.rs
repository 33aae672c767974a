//! Tests on a real device; without an adapter they fail.

mod faults;
mod ops;
mod programs;
mod reference;
mod timings;

use super::{Engine, Occupancy, Options, WeightStorage, block_on};
use crate::graph::Graph;
use crate::rng::{self, Stream};

/// An engine on whatever adapter there is, a software one included.
pub fn engine(storage: WeightStorage) -> Engine {
    block_on(Engine::new(Options { storage, ..Options::default() })).expect("these tests need a Vulkan adapter (mesa's lavapipe will do)")
}

/// One engine for either occupancy: kernels and fusions differ.
pub fn engines(storage: WeightStorage) -> [Engine; 2] {
    [Occupancy::Wide, Occupancy::Narrow].map(|occupancy| {
        let options = Options { storage, occupancy: Some(occupancy), ..Options::default() };
        block_on(Engine::new(options)).expect("these tests need a Vulkan adapter (mesa's lavapipe will do)")
    })
}

/// Standard normals, told apart by `stream`.
pub fn normals(stream: u32, n: usize) -> Vec<f32> {
    let mut out = vec![0f32; n];
    rng::normals(11, Stream::Other(stream), 0, &mut out);
    out
}

/// Parameters none of which is at a value that hides mistakes: a fresh theta plus noise, rounded to half precision.
pub fn theta(graph: &Graph, seed: u64) -> Vec<f32> {
    let mut theta = graph.init(seed);
    for (v, e) in theta.iter_mut().zip(normals(1000 + seed as u32, graph.param_count())) {
        *v = half::f16::from_f32(*v + 0.1 * e).to_f32();
    }
    theta
}

/// Largest difference over the largest magnitude of `want`.
pub fn relative(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let diff = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(got.iter().all(|v| v.is_finite()), "a value that is not finite");
    diff / want.iter().fold(0f32, |m, v| m.max(v.abs()))
}
