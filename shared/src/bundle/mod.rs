//! One file is a model.
//!
//! A bundle is one `.safetensors` file. Its tensors are the networks' weights in half precision, network 0 under diffusers' plain
//! names and network k >= 1 under `net{k}.` (in a routed bundle without those that begin network 0's tensor of the same name, which
//! is where [`read`] then takes them from); its metadata holds
//! - `limbeck`: JSON of [`Meta`], versioned;
//! - `config`: JSON of network 0 in diffusers' form, so that other tools find it;
//! - `format`: `pt`, which diffusers asks for.
//!
//! [`read`] checks all of it before anything is drawn: see [`BundleError`] for what it refuses.

mod check;
mod error;
mod json;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use error::BundleError;
pub use read::{read, sha256};
pub use write::{f16_bits, write};

use crate::graph::{Graph, NetworkConfig};
use crate::program::{Guidance, ModelSpec, Parameterization, Program, Router, Sampler};
use crate::schedule::Schedule;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the format that this build reads and writes.
pub const VERSION: u32 = 1;
/// Longest file, bytes.
pub const MAX_FILE: u64 = 1 << 30;
/// Longest safetensors header (tensor table and metadata), bytes.
pub const MAX_HEADER: u64 = 8 << 20;
/// Most parameters in all networks together.
pub const MAX_PARAMS: u64 = 500_000_000;
/// Largest image edge, pixels.
pub const MAX_EDGE: usize = 1024;
/// Most image channels.
pub const MAX_CHANNELS: usize = 16;
/// Most sampling steps.
pub const MAX_STEPS: usize = 1000;
/// Largest guidance weight.
pub const MAX_GUIDANCE: f64 = 20.0;

/// All that a bundle says about its networks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Meta {
    /// Version of the format, [`VERSION`].
    pub version: u32,
    /// The model's name, 1 to 200 bytes.
    pub name: String,
    /// The networks, 1 to 8. Either all draw, or all are classifiers (features for evaluation).
    pub networks: Vec<NetworkConfig>,
    /// What the networks answer. Without meaning for a classifier.
    pub parameterization: Parameterization,
    /// The noise schedule. Without meaning for a classifier.
    pub schedule: Schedule,
    /// The schedule's time at which drawing starts, where that is not [`Schedule::start`].
    pub init_time: Option<f64>,
    /// The networks take a target time beside the noise level.
    pub second_time: bool,
    /// The networks take the guidance weight as their last time input.
    pub guidance_input: bool,
    /// What the model can be drawn with; the first is the default. Empty for a classifier only.
    pub samplers: Vec<SamplerSpec>,
    /// Names of the classes, by label; empty for an unconditional model.
    pub classes: Vec<String>,
    /// The label that stands for "no class": the row of the label table after the classes.
    pub null_label: Option<u32>,
    /// The guidance weights the model draws with; none if it has no guidance.
    pub guidance: Option<GuidanceRange>,
    /// The images it draws (or classifies).
    pub image: ImageSpec,
    /// Where it comes from.
    pub training: TrainingRecord,
    /// Licence of the weights, an SPDX expression or a sentence.
    pub licence: String,
    /// Which network answers at which noise level; none: network 0 at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// One drawn image, for checking an interpreter.
    pub golden: Option<Golden>,
}

/// One way of drawing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SamplerSpec {
    /// The sampler.
    pub sampler: Sampler,
    /// Numbers of steps on offer, each 1 to [`MAX_STEPS`]; empty: any of them.
    pub steps: Vec<usize>,
    /// The number of steps to take unless told otherwise; one of `steps`.
    pub default_steps: usize,
}

/// Guidance weights `w` of `f(null) + w (f(given) - f(null))`, within 0 to [`MAX_GUIDANCE`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GuidanceRange {
    /// Least.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// The weight unless told otherwise.
    pub default: f64,
    /// Noise levels `sigma / alpha` at which a weight holds, unless told otherwise; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub levels: Option<[f64; 2]>,
}

/// The images a model draws.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ImageSpec {
    /// Channels, 1 to [`MAX_CHANNELS`]: 1 grey, 3 red, green, blue. The coordinates of points (with height and width 1).
    pub channels: usize,
    /// Rows, 1 to [`MAX_EDGE`].
    pub height: usize,
    /// Columns, 1 to [`MAX_EDGE`].
    pub width: usize,
    /// The values of black and white in the network's data.
    pub range: [f64; 2],
}

impl ImageSpec {
    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }
    /// Values in one image.
    pub fn values(&self) -> usize {
        self.channels * self.height * self.width
    }
    /// Whether a screen can show it: more than a few pixels, in one channel, or three and more.
    pub fn is_picture(&self) -> bool {
        self.height * self.width >= 4 && self.channels != 2
    }
    /// Brings drawn images into [`ImageSpec::range`], as files, screens and measures want them: a network overshoots black and
    /// white a little. Points (height and width 1) stay where they are.
    pub fn clamp(&self, images: &mut [f32]) {
        if self.height * self.width > 1 {
            let [low, high] = self.range.map(|v| v as f32);
            images.iter_mut().for_each(|v| *v = v.clamp(low, high));
        }
    }
}

/// How the weights were made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRecord {
    /// The method, e.g. `edm` or `boot`.
    pub method: String,
    /// The preset it was run from.
    pub preset: String,
    /// SHA-256 of the teacher's bundle, 64 lower-case hexadecimal digits; none for a model without teacher.
    pub teacher_sha256: Option<String>,
    /// Training images (or noises, for a data-free method) seen.
    pub images_seen: u64,
    /// Wall time, seconds.
    pub seconds: f64,
    /// The command line.
    pub command: String,
    /// Measured figures, free-form.
    pub evaluation: BTreeMap<String, serde_json::Value>,
}

impl TrainingRecord {
    /// The record of a model that has seen nothing yet.
    pub fn new(method: &str, preset: &str) -> TrainingRecord {
        TrainingRecord {
            method: method.into(),
            preset: preset.into(),
            teacher_sha256: None,
            images_seen: 0,
            seconds: 0.0,
            command: String::new(),
            evaluation: BTreeMap::new(),
        }
    }
}

/// One image with all that determines it: an interpreter that reproduces the pixels reads the bundle right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Golden {
    /// Seed of the draw; the image is number 0.
    pub seed: u64,
    /// The class; none: the null label, or an unconditional model.
    pub label: Option<u32>,
    /// The sampler.
    pub sampler: Sampler,
    /// Its steps.
    pub steps: usize,
    /// The guidance weight, 1 for none.
    pub guidance: f64,
    /// The result `[channels, height, width]` in [`ImageSpec::range`].
    pub pixels: Vec<f32>,
}

/// A model, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// What the file says about itself.
    pub meta: Meta,
    /// The networks.
    pub graphs: Vec<Graph>,
    /// Their weights, each of length [`Graph::param_count`].
    pub thetas: Vec<Vec<f32>>,
    /// SHA-256 of the whole file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl Meta {
    /// What sampler builders need to know.
    pub fn spec(&self) -> ModelSpec {
        ModelSpec {
            schedule: self.schedule,
            parameterization: self.parameterization,
            second_time: self.second_time,
            guidance_input: self.guidance_input,
            null_label: self.null_label.is_some(),
            init_time: self.init_time,
        }
    }

    /// True if the networks are classifiers: they give features, not images.
    pub fn is_classifier(&self) -> bool {
        self.networks.iter().all(|n| matches!(n, NetworkConfig::Classifier(_)))
    }

    /// The program that draws: what is not given takes the bundle's default (first sampler, its default steps, default guidance).
    ///
    /// # Errors
    /// [`BundleError::Unsupported`] lists what the bundle supports; the program builder's own error if the sampler cannot be built.
    pub fn draw_program(&self, sampler: Option<Sampler>, steps: Option<usize>, guidance: Option<Guidance>) -> crate::Result<Program> {
        let (sampler, steps, guidance) = self.resolve(sampler, steps, guidance)?;
        let program = crate::program::build(sampler, &self.spec(), steps, guidance)?;
        self.router.iter().try_fold(program, |program, router| router.route(program, &self.schedule))
    }

    /// The sampler, steps and guidance that [`Meta::draw_program`] uses for a request.
    ///
    /// # Errors
    /// [`BundleError::Unsupported`].
    pub fn resolve(
        &self,
        sampler: Option<Sampler>,
        steps: Option<usize>,
        guidance: Option<Guidance>,
    ) -> Result<(Sampler, usize, Guidance), BundleError> {
        check::resolve(self, sampler, steps, guidance)
    }
}

impl Bundle {
    /// See [`Meta::spec`].
    pub fn spec(&self) -> ModelSpec {
        self.meta.spec()
    }

    /// See [`Meta::draw_program`].
    ///
    /// # Errors
    /// As [`Meta::draw_program`].
    pub fn draw_program(&self, sampler: Option<Sampler>, steps: Option<usize>, guidance: Option<Guidance>) -> crate::Result<Program> {
        self.meta.draw_program(sampler, steps, guidance)
    }

    /// The weights of one network as half-precision bit patterns, as GPU kernels read them.
    ///
    /// # Errors
    /// [`BundleError::F16Overflow`] (possible only for a bundle stored in F32).
    pub fn f16_bits(&self, network: usize) -> Result<Vec<u16>, BundleError> {
        let (Some(graph), Some(theta)) = (self.graphs.get(network), self.thetas.get(network)) else {
            return Err(BundleError::Weights { what: "network".into(), found: network, expected: self.graphs.len() });
        };
        f16_bits(network, graph, theta)
    }
}
