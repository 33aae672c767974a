//! Whole U-Nets against diffusers (see `tests/golden/make.py`).

use super::super::{Engine, WeightStorage, block_on};
use super::{engines, relative};
use crate::graph::{Graph, NetworkConfig};
use safetensors::{Dtype, SafeTensors};

struct Golden {
    graph: Graph,
    theta: Vec<f32>,
    x: Vec<f32>,
    times: Vec<f32>,
    labels: Vec<u32>,
    y: Vec<f32>,
}

fn load(name: &str) -> Golden {
    let path = format!("{}/../tests/golden/unet_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let config: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["config"]).unwrap();
    let config: NetworkConfig = serde_json::from_value(config).unwrap();
    let graph = config.build().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let t = file.tensor(name).unwrap();
        assert_eq!(t.dtype(), Dtype::F32, "{name}");
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let theta = graph.params.iter().flat_map(|p| floats(&format!("model.{}", p.name))).collect();
    let labels = match file.tensor("in.label") {
        Ok(t) => t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect(),
        Err(_) => vec![],
    };
    Golden { theta, x: floats("in.x"), times: floats("in.t"), labels, y: floats("out.y"), graph }
}

/// f32 storage shows the kernels' own error. f16 storage adds the rounding of the weights and nothing else: with weights that are
/// already rounded, both give the same bits.
#[test]
fn unets_agree_with_diffusers() {
    let halves = engines(WeightStorage::F16);
    for (single, half, name) in
        engines(WeightStorage::F32).iter().zip(&halves).flat_map(|(s, h)| ["plain", "cifar", "scale_shift"].map(|name| (s, h, name)))
    {
        let g = load(name);
        let rounded: Vec<f32> = g.theta.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
        let forward = |engine: &Engine, theta: &[f32]| {
            let model = engine.load(std::slice::from_ref(&g.graph), &[theta.to_vec()]).unwrap();
            block_on(model.forward_plan(0, 2).unwrap().forward(&g.x, &g.times, &g.labels)).unwrap()
        };
        let (exact, stored) = (forward(single, &g.theta), forward(half, &g.theta));
        let errors = [relative(&exact, &g.y), relative(&stored, &g.y)];
        println!("{name}, {:?}: {:.2e} {:.2e}", half.occupancy(), errors[0], errors[1]);
        assert!(errors[0] < 1e-5 && errors[1] < 2e-3, "{name}: {errors:?}");
        assert!(forward(single, &rounded) == stored, "{name}");
    }
}
