//! Measurements: what is asked for, and what was found.

use super::Job;
use serde::{Deserialize, Serialize};

/// One configuration to measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What to draw, all of it at once.
    pub job: Job,
    /// On the CPU, whatever draws the pictures.
    pub cpu: bool,
    /// Of the job's network calls the first one alone.
    pub call: bool,
}

/// What a trial found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Time of each run, milliseconds, in order; the runs that prepare are not among them.
    pub ms: Vec<f64>,
    /// Network calls an image.
    pub calls: usize,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Kernels that a run starts on the GPU; 0 on the CPU.
    pub dispatches: usize,
    /// The network's time inputs in the call; empty unless one call was measured.
    pub times: Vec<f32>,
}

/// What a race of the two interpreters found: both called the same network on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Race {
    /// The adapter's name.
    pub adapter: String,
    /// SHA-256 of the model's file.
    pub sha256: String,
    /// Milliseconds on the adapter.
    pub gpu: f64,
    /// Milliseconds on the CPU.
    pub cpu: f64,
    /// The adapter's answer was another one than the CPU's.
    #[serde(default)]
    pub wrong: bool,
}
