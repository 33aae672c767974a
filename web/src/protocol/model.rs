//! What the page is told of a model.

use limbeck_shared::bundle::GuidanceRange;
use limbeck_shared::program::{ModelSpec, Sampler};
use serde::{Deserialize, Serialize};

/// What the page needs to know about an opened bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The model's name.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// `[channels, height, width]`.
    pub shape: [usize; 3],
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Guidance weights on offer.
    pub guidance: Option<GuidanceSpec>,
    /// Ways of drawing, the default first.
    pub ways: Vec<Way>,
    /// What sampler builders need to know.
    pub spec: ModelSpec,
    /// Parameters of each network.
    pub params: Vec<usize>,
    /// Multiply-accumulates of one call of each network on one image.
    pub macs: Vec<u64>,
    /// Method of training.
    pub method: String,
    /// Preset of training.
    pub preset: String,
    /// SHA-256 of the teacher's bundle.
    pub teacher: Option<String>,
    /// Images (or noises) seen in training.
    pub images_seen: u64,
    /// Training time in seconds.
    pub seconds: f64,
    /// Command line of the training.
    pub command: String,
    /// Measured figures: name and JSON text.
    pub evaluation: Vec<(String, String)>,
    /// Schedule and parameterisation, as short JSON.
    pub schedule: String,
    /// As above.
    pub parameterization: String,
    /// Licence of the weights.
    pub licence: String,
}

/// Guidance weights on offer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuidanceSpec {
    /// Least.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Unless told otherwise.
    pub default: f64,
}

impl From<GuidanceRange> for GuidanceSpec {
    fn from(r: GuidanceRange) -> GuidanceSpec {
        GuidanceSpec { min: r.min, max: r.max, default: r.default }
    }
}

/// A sampler with a number of steps, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// The sampler.
    pub sampler: Sampler,
    /// Its steps.
    pub steps: usize,
    /// Network calls for one image without guidance.
    pub calls: usize,
    /// The bundle's own choice.
    pub default: bool,
    /// The sampler takes any number of steps; this one is only among the usual ones.
    pub open: bool,
}
