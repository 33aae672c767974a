//! Groups of noise levels and what each keeps of its base.

use anyhow::{Result, bail};
use limbeck_shared::graph::prune::Kept;
use serde::{Deserialize, Serialize};

/// Most groups: as many networks as a bundle holds.
pub const MAX_GROUPS: usize = 8;
/// The groups and what each keeps of the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdcConfig {
    /// Part of all noise levels by which a group reaches over its ends in training.
    #[serde(default = "overlap")]
    pub overlap: f64,
    /// Probability that a label is replaced by the null label, for a base that has one.
    #[serde(default = "label_dropout")]
    pub label_dropout: f64,
    /// The groups start from fresh weights instead of the base's: the one-stage training that the paper compares with.
    #[serde(default)]
    pub scratch: bool,
    /// What the groups learn to answer.
    #[serde(default)]
    pub target: Target,
    /// Every block's units in the order in which groups share them; none: each group has its own weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Kept>,
    /// The groups, the noisiest first.
    pub groups: Vec<GroupConfig>,
}

/// What pruned copies learn to answer to a noisy image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// What was mixed into it, as in the paper.
    #[default]
    Data,
    /// What the base answers. Beyond the paper: the base's answer is the mean of the other target over all images that the noisy one
    /// can come from, so its gradients do not vary with which of them it was, most of all where there is much noise.
    Base,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Its noise levels as uniform time ([`limbeck_shared::schedule::Schedule::at_uniform`]), lower and upper end.
    pub range: [f64; 2],
    /// Units that stay of each block ([`limbeck_shared::graph::prune::blocks`]); with `order` the first so many of it.
    pub kept: Kept,
}

fn overlap() -> f64 {
    0.02
}
pub(crate) fn label_dropout() -> f64 {
    0.1
}

/// Checks ranges.
///
/// # Errors
/// Names the key.
pub(super) fn check(config: &TdcConfig) -> Result<()> {
    let n = config.groups.len();
    if !(1..=MAX_GROUPS).contains(&n) {
        bail!("`method.groups`: found {n}, expected 1 to {MAX_GROUPS}");
    }
    if !(0.0..0.5).contains(&config.overlap) {
        bail!("`method.overlap`: found {}, expected 0 to below 0.5", config.overlap);
    }
    if !(0.0..1.0).contains(&config.label_dropout) {
        bail!("`method.label_dropout`: found {}, expected a probability below 1", config.label_dropout);
    }
    for (g, group) in config.groups.iter().enumerate() {
        let [low, high] = group.range;
        let follows = g == 0 || config.groups[g - 1].range[0] == high;
        if !(0.0 <= low && low < high && high <= 1.0 && follows) {
            bail!("`method.groups.{g}.range`: found [{low}, {high}], expected a range of [0, 1] that ends where the one before begins");
        }
        let order = config.order.as_deref().unwrap_or(&group.kept);
        if group.kept.len() != order.len() || !group.kept.iter().zip(order).all(|(kept, order)| order.starts_with(kept)) {
            bail!("`method.groups.{g}.kept`: found units in another order than `method.order`, expected the first of each block");
        }
    }
    Ok(())
}
