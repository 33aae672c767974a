//! The CPU interpreter against networks computed by diffusers in f64 (`tests/golden/make.py`).

use limbeck_shared::cpu::{Cond, Exec, Keep};
use limbeck_shared::graph::{Graph, NetworkConfig};
use safetensors::SafeTensors;

struct Golden {
    bytes: Vec<u8>,
    graph: Graph,
}

fn load(name: &str) -> Golden {
    let path = format!("{}/../tests/golden/unet_{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (_, meta) = SafeTensors::read_metadata(&bytes).unwrap();
    let config: NetworkConfig = serde_json::from_str(&meta.metadata().as_ref().unwrap()["config"]).unwrap();
    Golden { graph: config.build().unwrap(), bytes }
}

impl Golden {
    fn get(&self, name: &str) -> Vec<f32> {
        let st = SafeTensors::deserialize(&self.bytes).unwrap();
        let t = st.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
    fn labels(&self) -> Vec<u32> {
        let st = SafeTensors::deserialize(&self.bytes).unwrap();
        let Ok(t) = st.tensor("in.label") else { return vec![] };
        t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
    /// Tensors of a prefix, laid out as theta.
    fn flat(&self, prefix: &str) -> Vec<f32> {
        let mut theta = vec![0.0; self.graph.param_count()];
        for p in &self.graph.params {
            theta[p.range()].copy_from_slice(&self.get(&format!("{prefix}.{}", p.name)));
        }
        theta
    }
}

fn relative(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-12f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

#[test]
fn every_parameter_of_the_file_has_its_place() {
    for name in ["plain", "cifar", "scale_shift"] {
        let g = load(name);
        let st = SafeTensors::deserialize(&g.bytes).unwrap();
        let mut names: Vec<String> = st.names().iter().filter_map(|n| n.strip_prefix("model.")).map(String::from).collect();
        let mut ours: Vec<String> = g.graph.params.iter().map(|p| p.name.clone()).collect();
        names.sort();
        ours.sort();
        assert_eq!(names, ours, "{name}");
        for p in &g.graph.params {
            assert_eq!(st.tensor(&format!("model.{}", p.name)).unwrap().shape(), p.shape, "{}", p.name);
        }
    }
}

#[test]
fn outputs_and_gradients_match() {
    for name in ["plain", "cifar", "scale_shift"] {
        let g = load(name);
        let exec = Exec::new(g.graph.clone()).unwrap();
        let (theta, x, target) = (g.flat("model"), g.get("in.x"), g.get("in.target"));
        let (times, labels) = (g.get("in.t"), g.labels());
        let cond = Cond { times: &times, labels: &labels, dropout: None };
        let (y, tape) = exec.forward(&theta, &x, 2, cond, Keep::ForAll).unwrap();
        let error = relative(&y, &g.get("out.y"));
        assert!(error < 1e-4, "{name}: output off by {error:e}");

        let dy: Vec<f32> = y.iter().zip(&target).map(|(a, b)| 2.0 * (a - b) / y.len() as f32).collect();
        let grads = exec.backward(&theta, &tape, &dy, true, true).unwrap();
        let dx = grads.dx.unwrap();
        let error = relative(&dx, &g.get("grad.x"));
        assert!(error < 1e-3, "{name}: input gradient off by {error:e}");
        let (found, expected) = (grads.dtheta.unwrap(), g.flat("grad"));
        // A key's bias shifts every score of a row alike, so its exact gradient is 0 and both files hold rounding there:
        // gradients are compared on the scale of the parameter's own gradient, or of a thousandth of the largest.
        let floor = expected.iter().fold(0f32, |m, v| m.max(v.abs())) * 1e-3;
        for p in &g.graph.params {
            let (a, b) = (&found[p.range()], &expected[p.range()]);
            let scale = b.iter().fold(floor, |m, v| m.max(v.abs()));
            let error = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            assert!(error < 1e-3, "{name}: gradient of {} off by {error:e}", p.name);
        }

        // A frozen network: the same input gradient, no parameter gradient, fewer values kept.
        let (again, frozen) = exec.forward(&theta, &x, 2, cond, Keep::ForInput).unwrap();
        assert_eq!(again, y);
        assert!(frozen.floats() < tape.floats(), "{} against {}", frozen.floats(), tape.floats());
        let only = exec.backward(&theta, &frozen, &dy, true, false).unwrap();
        assert_eq!(only.dx.unwrap(), dx);
        assert!(only.dtheta.is_none());
        assert!(exec.backward(&theta, &frozen, &dy, false, true).is_err());

        // Nothing kept: the same output.
        let mut bare = vec![0.0; y.len()];
        exec.infer(&theta, &x, 2, cond, &mut bare, None).unwrap();
        assert_eq!(bare, y);
    }
}
