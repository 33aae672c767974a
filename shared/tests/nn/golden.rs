//! diffusers' numbers (`tests/golden/make.py`, computed in f64) through candle's own operations and through the CPU interpreter.

use super::*;
use limbeck_shared::cpu::Precision;
use limbeck_shared::cpu::conv::half::Parts;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::Network;
use safetensors::SafeTensors;
use std::sync::Arc;

pub const NAMES: [&str; 3] = ["plain", "cifar", "scale_shift"];

pub struct Golden {
    pub graph: Graph,
    pub theta: Vec<f32>,
    pub call: Call,
    pub expected: Answer,
}

/// Tensors of one file by name, and its network.
pub fn file(name: &str) -> (Graph, impl Fn(&str) -> Vec<f32>, Vec<u32>) {
    let path = format!("{}/../tests/golden/unet_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
    let config: NetworkConfig = serde_json::from_str(&meta.metadata().as_ref().unwrap()["config"]).unwrap();
    let st = SafeTensors::deserialize(&bytes).unwrap();
    let labels =
        st.tensor("in.label").map(|t| t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect());
    let labels = labels.unwrap_or_default();
    let get = move |name: &str| -> Vec<f32> {
        let st = SafeTensors::deserialize(&bytes).unwrap();
        let t = st.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    (config.build().unwrap(), get, labels)
}

pub fn load(name: &str) -> Golden {
    let (graph, get, labels) = file(name);
    let params = |prefix: &str| -> Vec<f32> { graph.params.iter().flat_map(|p| get(&format!("{prefix}.{}", p.name))).collect() };
    let (y, target) = (get("out.y"), get("in.target"));
    // The files' loss is the mean squared difference from the target.
    let dy = y.iter().zip(&target).map(|(a, b)| 2.0 * (a - b) / y.len() as f32).collect();
    let call = Call { n: 2, x: get("in.x"), times: get("in.t"), labels, dy };
    let expected = Answer { y: wide(&y), dx: wide(&get("grad.x")), dtheta: wide(&params("grad")) };
    Golden { theta: params("model"), call, expected, graph }
}

#[test]
fn candle_in_f64() {
    for name in NAMES {
        let g = load(name);
        assert_close(name, &g.graph, &by_stock(&g.graph, &g.theta, &g.call, DType::F64), &g.expected, 1e-5, 1e-4);
    }
}

#[test]
fn candle_in_f32() {
    for name in NAMES {
        let g = load(name);
        assert_close(name, &g.graph, &by_stock(&g.graph, &g.theta, &g.call, DType::F32), &g.expected, 1e-4, 1e-3);
    }
}

#[test]
fn cpu() {
    for name in NAMES {
        let g = load(name);
        let exec = Exec::new(g.graph.clone()).unwrap();
        assert_close(name, &g.graph, &by_cpu(&exec, &g.theta, &g.call), &g.expected, 1e-4, 1e-3);
    }
}

#[test]
fn differences() {
    for name in NAMES {
        let g = load(name);
        let stock = by_stock(&g.graph, &g.theta, &g.call, DType::F64);
        let direction = Direction::near(&g.graph, &stock);
        let exact = direction.difference(&g.graph, &g.theta, &g.call);
        let e = (direction.dot(&stock) - exact).abs() / exact.abs();
        assert!(e < 1e-5, "{name}: candle's gradient and differences are {e:e} apart");
    }
}

/// The whole network with products of bf16: split in two parts it meets f32's bounds, rounded it stays within bf16's.
#[test]
fn cpu_in_bf16() {
    for name in NAMES {
        let g = load(name);
        let exec = |parts| Exec::with_precision(g.graph.clone(), Precision::Bf16(parts)).unwrap();
        assert_close(name, &g.graph, &by_cpu(&exec(Parts::Two), &g.theta, &g.call), &g.expected, 1e-4, 1e-3);
        let rounded = by_cpu(&exec(Parts::One), &g.theta, &g.call);
        let off = |a: &[f64], b: &[f64]| {
            let (mut d, mut s) = (0.0, 0.0);
            a.iter().zip(b).for_each(|(a, b)| (d, s) = (d + (a - b).powi(2), s + b * b));
            (d / s).sqrt()
        };
        let found = [off(&rounded.y, &g.expected.y), off(&rounded.dx, &g.expected.dx), off(&rounded.dtheta, &g.expected.dtheta)];
        assert!(found.iter().all(|&e| (1e-4..2e-2).contains(&e)), "{name}: {found:?}");
    }
}

/// candle's operations with the convolution gradient that CUDA uses.
#[test]
fn composed() {
    for name in NAMES {
        let g = load(name);
        let net = Network::trained(Arc::new(Exec::new(g.graph.clone()).unwrap()), &g.theta, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&Tensor::from_slice(&g.call.x, g.call.x_shape(&g.graph), &Device::Cpu).unwrap()).unwrap();
        let y = net.composed(x.as_tensor(), &g.call.times, &g.call.labels).unwrap();
        let grads = (&y * g.call.dy(&g.graph, DType::F32)).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |t: &Tensor| wide(&t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let found = Answer { y: flat(&y), dx: flat(grads.get(&x).unwrap()), dtheta: flat(grads.get(net.theta()).unwrap()) };
        assert_close(name, &g.graph, &found, &g.expected, 1e-4, 1e-3);

        let frozen = Network::frozen(Arc::new(Exec::new(g.graph.clone()).unwrap()), &g.theta, &Device::Cpu).unwrap();
        let y = frozen.composed(x.as_tensor(), &g.call.times, &g.call.labels).unwrap();
        let grads = (&y * g.call.dy(&g.graph, DType::F32)).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(frozen.theta()).is_none() && grads.get(&x).is_some(), "{name}: frozen");
    }
}
