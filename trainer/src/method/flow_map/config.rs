//! Settings of a flow map's training, and which go together.

use super::field::Derivative;
use super::residual::{Condition, Stop};
use anyhow::{Result, bail};
use limbeck_shared::cpu::Precision;
use limbeck_shared::cpu::conv::half::Parts;
use limbeck_shared::program::Guidance;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings of a flow map's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowMapConfig {
    /// The condition off the diagonal.
    pub condition: Condition,
    /// What gradients do not flow through.
    #[serde(default)]
    pub stop: Stop,
    /// What no gradient flows through is asked of the average of the weights (as shortcut models do, Frans et al. 2024), not of them.
    #[serde(default)]
    pub averaged_targets: bool,
    /// How derivatives are taken.
    #[serde(default)]
    pub derivative: Derivative,
    /// Standard deviation of the data, and of the noise.
    pub sigma_data: f64,
    /// Part of the batch on the diagonal.
    #[serde(default = "eta")]
    pub eta: f64,
    /// The largest t - s, rising to 1 over this many images; 0: 1 from the start.
    #[serde(default)]
    pub widen: u64,
    /// Steps of the grid of shortcut, consistency and progressive; a power of two.
    #[serde(default = "grid")]
    pub grid: u32,
    /// How likely a gap of the shortcut condition is against half of it; 1: all alike.
    #[serde(default = "one")]
    pub longer: f64,
    /// Learn the weight of each pair of times ([`weight`]).
    #[serde(default)]
    pub weight: bool,
    /// Begin with the teacher's weights, preconditioned as it is.
    #[serde(default)]
    pub warm_start: bool,
    /// Begin with the weights of this flow map, of the same network and preconditioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Use the teacher's velocity; without, a teacher is only where a warm start begins.
    #[serde(default = "yes")]
    pub distill: bool,
    /// Weight of the teacher's guidance; 1: none.
    #[serde(default = "one")]
    pub guidance: f64,
    /// Least and largest noise level `sigma / alpha` of the teacher at which it guides; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_levels: Option<[f64; 2]>,
    /// Only jumps from pure noise (s = 0), which no image is needed for: with LSD and a teacher the student that BOOT finds.
    #[serde(default)]
    pub from_noise: bool,
}

fn eta() -> f64 {
    0.75
}
fn grid() -> u32 {
    16
}
fn yes() -> bool {
    true
}
fn one() -> f64 {
    1.0
}

impl FlowMapConfig {
    /// The teacher's guidance and where it holds.
    pub fn guided(&self) -> Guidance {
        Guidance { weight: self.guidance, levels: self.guidance_levels }
    }

    /// Checks the keys against each other, against whether there is a teacher, and the precision.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn check(&self, teacher: bool, precision: Precision) -> Result<()> {
        let c = self;
        if !(c.sigma_data > 0.0 && c.sigma_data.is_finite()) {
            bail!("`method.sigma_data`: found {}, expected a positive number", c.sigma_data);
        }
        if !(0.0..=1.0).contains(&c.eta) {
            bail!("`method.eta`: found {}, expected a part from 0 to 1", c.eta);
        }
        if !c.grid.is_power_of_two() || c.grid > 1024 {
            bail!("`method.grid`: found {}, expected a power of two from 1 to 1024", c.grid);
        }
        if !(c.longer > 0.0 && c.longer.is_finite()) {
            bail!("`method.longer`: found {}, expected a positive number", c.longer);
        }
        if c.averaged_targets && c.stop == Stop::None {
            bail!("`method.averaged_targets`: found true with stop none, expected a stop: gradients flow through every part there");
        }
        if !c.guidance.is_finite() || (c.guidance != 1.0 && !(teacher && c.distill)) {
            bail!("`method.guidance`: found {}, expected a number, and 1 without a teacher to distill", c.guidance);
        }
        if !self.guided().is_sound() {
            bail!("`method.guidance_levels`: found {:?}, expected two rising levels from 0", c.guidance_levels);
        }
        let frozen = teacher && c.distill;
        if frozen && c.condition == Condition::MeanFlow {
            bail!("`method.condition`: found mean_flow with a teacher, expected another condition, or `distill = false`");
        }
        if !frozen && c.condition == Condition::Progressive {
            bail!("`method.condition`: found progressive without a teacher to distill, expected one (--teacher FILE)");
        }
        if c.from_noise && (!frozen || c.eta != 0.0 || !matches!(c.condition, Condition::Lsd | Condition::PsdU | Condition::PsdM)) {
            bail!("`method.from_noise`: found {:?} with eta {}, expected lsd or psd, a teacher to distill, and eta 0", c.condition, c.eta);
        }
        if c.derivative == Derivative::Difference && precision == Precision::Bf16(Parts::One) {
            bail!(
                "`method.derivative`: found difference with precision bf16, expected precision f32 or bf16x3: a difference needs their digits"
            );
        }
        Ok(())
    }
}
