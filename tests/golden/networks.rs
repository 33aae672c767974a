//! The golden networks (`make.py`), and by how much each back end may miss them: one question and one table, whoever answers.
//! Included by the tests of every back end, native, in node and in browsers.

use limbeck_shared::graph::{Graph, NetworkConfig};
use safetensors::SafeTensors;

/// A test in a browser cannot open files.
const FILES: [(&str, &[u8]); 3] = [
    ("plain", include_bytes!("unet_plain.safetensors")),
    ("cifar", include_bytes!("unet_cifar.safetensors")),
    ("scale_shift", include_bytes!("unet_scale_shift.safetensors")),
];

/// Who computes.
#[allow(dead_code, reason = "each includer has its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// candle's own operations in f64.
    CandleF64,
    /// candle's own operations in f32.
    CandleF32,
    /// The CPU interpreter, native or in wasm.
    Cpu,
    /// The WebGPU engine with weights in single precision.
    Gpu,
    /// The WebGPU engine with weights rounded to half precision, as it draws: the files' weights are not.
    GpuHalf,
}

impl Backend {
    /// Largest error, over the largest value.
    fn tolerance(self) -> f32 {
        match self {
            Backend::CandleF64 => 1e-5,
            Backend::CandleF32 | Backend::Cpu => 1e-4,
            Backend::Gpu => 1e-5,
            Backend::GpuHalf => 2e-3,
        }
    }
}

/// One network, two images, and diffusers' answer.
pub struct Golden {
    /// The file's name.
    pub name: &'static str,
    /// The network.
    pub graph: Graph,
    /// Its parameters.
    pub theta: Vec<f32>,
    /// `[2, c, h, w]`.
    pub x: Vec<f32>,
    /// `[2]`.
    pub times: Vec<f32>,
    /// `[2]`, or none.
    pub labels: Vec<u32>,
    /// `[2, c, h, w]`.
    y: Vec<f32>,
}

impl Golden {
    /// All of them.
    ///
    /// # Panics
    /// If a file is damaged.
    pub fn all() -> impl Iterator<Item = Golden> {
        FILES.into_iter().map(|(name, bytes)| {
            let (_, meta) = SafeTensors::read_metadata(bytes).unwrap();
            let config: NetworkConfig = serde_json::from_str(&meta.metadata().as_ref().unwrap()["config"]).unwrap();
            let graph = config.build().unwrap();
            let file = SafeTensors::deserialize(bytes).unwrap();
            let floats = |name: &str| -> Vec<f32> {
                let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            let labels = file
                .tensor("in.label")
                .map(|t| t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect());
            let theta = graph.params.iter().flat_map(|p| floats(&format!("model.{}", p.name))).collect();
            Golden { name, theta, x: floats("in.x"), times: floats("in.t"), labels: labels.unwrap_or_default(), y: floats("out.y"), graph }
        })
    }

    /// The error of an answer over the largest value.
    ///
    /// # Errors
    /// In words, if it is more than the table allows.
    pub fn judge(&self, backend: Backend, found: &[f32]) -> Result<f32, String> {
        if found.len() != self.y.len() {
            return Err(format!("{}: {} values, expected {}", self.name, found.len(), self.y.len()));
        }
        let scale = self.y.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = found.iter().zip(&self.y).fold(0f32, |m, (a, b)| if a.is_nan() { f32::INFINITY } else { m.max((a - b).abs()) });
        let (error, most) = (worst / scale, backend.tolerance());
        if error < most {
            Ok(error)
        } else {
            Err(format!("{}, {backend:?}: off by {error:e} of the largest value, allowed {most:e}", self.name))
        }
    }
}
