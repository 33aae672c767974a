//! Dropout (Srivastava et al. 2014), inverted: what stays is divided by the chance to stay, so that drawing needs no factor.

use crate::rng::{self, Stream};

/// Streams of the dropped values: one a node of the graph.
const STREAM: u32 = 1 << 20;

/// `to [c][n][hw] = x * factor`, or added to it; the factor of a value is 0 with probability `rate` and `1 / (1 - rate)` otherwise, by
/// the image's number and the node alone.
pub fn apply(rate: f64, seed: u64, node: usize, images: &[u64], channels: usize, x: &[f32], to: &mut [f32], add: bool) {
    let n = images.len();
    let area = x.len() / (channels * n).max(1);
    let (rate, kept) = (rate as f32, (1.0 / (1.0 - rate)) as f32);
    let mut draws = vec![0f32; channels * area];
    for (j, &image) in images.iter().enumerate() {
        rng::uniforms(seed, Stream::Other(STREAM + node as u32), image, &mut draws);
        for (c, draws) in draws.chunks_exact(area).enumerate() {
            let row = (c * n + j) * area..(c * n + j + 1) * area;
            for ((to, x), draw) in to[row.clone()].iter_mut().zip(&x[row]).zip(draws) {
                let value = if *draw < rate { 0.0 } else { x * kept };
                *to = if add { *to + value } else { value };
            }
        }
    }
}
