//! Settings of `limbeck prune`: defaults, a TOML file, and `--set key=value`. Unknown keys are errors.

use crate::config::{Arithmetic, EmaConfig, LogConfig, OptimizerConfig, parse};
use crate::data::DataSpec;
use crate::method::tdc::{MAX_GROUPS, Target};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The shipped settings.
const SHIPPED: &str = include_str!("../../presets/prune.toml");

/// Everything a pruning is determined by, besides the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneConfig {
    /// Name of the routed model.
    pub name: String,
    /// Number N of groups.
    pub groups: usize,
    /// Where the groups end.
    pub grouping: Grouping,
    /// What orders them from easy to hard.
    pub difficulty: Difficulty,
    /// The floor factor k: the i-th easiest group gets `i/N + (N - i)/N k` of the base's multiply-accumulates.
    pub floor: f64,
    /// Who proposes widths.
    pub policy: PolicyKind,
    /// Command of `policy = "external"`, with its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Rounds of the search for each group.
    pub rounds: usize,
    /// Images of the short fine-tuning in each round.
    pub short: u64,
    /// Images that losses and gradients are measured on.
    pub probe: usize,
    /// Each group has its own weights, instead of the first of shared ones.
    pub separate: bool,
    /// Groups start from fresh weights: one-stage training, for comparison.
    pub scratch: bool,
    /// What groups learn to answer: `data`, the paper's, or `base`.
    #[serde(default)]
    pub target: Target,
    /// Part of all noise levels by which a group reaches over its ends.
    pub overlap: f64,
    /// Key of all random numbers.
    pub seed: u64,
    /// Images of the fine-tuning, all groups together.
    pub images: u64,
    /// Images a step.
    pub batch: usize,
    /// How convolutions multiply while training.
    #[serde(default)]
    pub precision: Arithmetic,
    /// The real images.
    pub data: DataSpec,
    /// Adam.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// The averaged weights that are exported.
    #[serde(default)]
    pub ema: EmaConfig,
    /// How often what is written.
    #[serde(default)]
    pub log: LogConfig,
}

/// How noise levels are cut into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Equal parts of the schedule's uniform time: as many steps of a sampler in each.
    Equal,
    /// Equal parts of the signal-to-noise ratio in decibels.
    Snr,
    /// Cut where gradients of the base's loss differ.
    Gradient,
    /// A group for each step of a student of a few steps.
    Steps,
}

/// Which groups need the larger networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// The higher the signal-to-noise ratio the harder, as in the paper.
    Snr,
    /// By how much a group's loss rises when the base is pruned by 30 % throughout.
    Sensitivity,
}

/// A decision maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// Every block by the same ratio.
    Uniform,
    /// The least Taylor importance for its cost first.
    Taylor,
    /// Uniform, Taylor, two at random, then mutations of the best so far.
    Evolve,
    /// Another program, asked over a pipe.
    External,
}

/// The shipped settings or those of a file, with `key=value` overrides.
///
/// # Errors
/// Names the file or key, what was found, and what was expected.
pub fn resolve(file: Option<&Path>, overrides: &[String]) -> Result<PruneConfig> {
    let origin = file.map_or("the shipped settings".into(), |f| format!("`{}`", f.display()));
    let text = match file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("{origin} cannot be read"))?,
        None => SHIPPED.to_string(),
    };
    let config: PruneConfig = parse(&text, &origin, "a pruning", overrides)?;
    config.check().with_context(|| origin)?;
    Ok(config)
}

impl PruneConfig {
    fn check(&self) -> Result<()> {
        if !(1..=MAX_GROUPS).contains(&self.groups) {
            bail!("`groups`: found {}, expected 1 to {MAX_GROUPS}", self.groups);
        }
        if !(self.floor > 0.0 && self.floor <= 1.0) {
            bail!("`floor`: found {}, expected above 0 to 1", self.floor);
        }
        let counts = [("rounds", self.rounds), ("probe", self.probe), ("batch", self.batch), ("images", self.images as usize)];
        if let Some((key, _)) = counts.iter().find(|c| c.1 == 0) {
            bail!("`{key}`: found 0, expected at least 1");
        }
        if (self.policy == PolicyKind::External) == self.command.is_empty() {
            bail!("`command`: found {:?}, expected the program of `policy = \"external\"`, and none for other policies", self.command);
        }
        Ok(())
    }
}
