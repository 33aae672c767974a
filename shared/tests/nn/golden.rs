//! diffusers' numbers (`tests/golden/make.py`, computed in f64) through candle's own operations and through the CPU interpreter.

use super::*;
use limbeck_shared::graph::NetworkConfig;
use safetensors::SafeTensors;

pub const NAMES: [&str; 3] = ["plain", "cifar", "scale_shift"];

pub struct Golden {
    pub graph: Graph,
    pub theta: Vec<f32>,
    pub call: Call,
    pub expected: Answer,
}

pub fn load(name: &str) -> Golden {
    let path = format!("{}/../tests/golden/unet_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
    let config: NetworkConfig = serde_json::from_str(&meta.metadata().as_ref().unwrap()["config"]).unwrap();
    let graph = config.build().unwrap();
    let st = SafeTensors::deserialize(&bytes).unwrap();
    let get = |name: &str| -> Vec<f32> {
        let t = st.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let params = |prefix: &str| -> Vec<f32> { graph.params.iter().flat_map(|p| get(&format!("{prefix}.{}", p.name))).collect() };
    let labels =
        st.tensor("in.label").map(|t| t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect());
    let (y, target) = (get("out.y"), get("in.target"));
    // The files' loss is the mean squared difference from the target.
    let dy = y.iter().zip(&target).map(|(a, b)| 2.0 * (a - b) / y.len() as f32).collect();
    let call = Call { n: 2, x: get("in.x"), times: get("in.t"), labels: labels.unwrap_or_default(), dy };
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
