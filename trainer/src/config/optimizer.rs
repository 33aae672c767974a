//! How weights move: the optimiser, its learning rate over time, and the average of the weights.

use serde::{Deserialize, Serialize};

/// The optimiser and its learning rate over time, all counted in images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Adam or RAdam.
    pub kind: OptimizerKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Images over which the rate rises linearly from 0.
    pub warmup: u64,
    /// `constant`, `cosine` down to a hundredth at the end, or `sqrt`.
    pub decay: Decay,
    /// Images after which `sqrt` begins to fall.
    pub hold: u64,
    /// Largest global norm of the gradient; 0 is no limit.
    pub clip: f64,
    /// Every row of every weight keeps the norm it began with.
    pub weight_norm: bool,
}

/// Which optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Kingma and Ba 2015.
    Adam,
    /// Liu et al. 2020: Adam whose first steps do not trust a second moment of few gradients.
    RAdam,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// The peak throughout.
    Constant,
    /// A half cosine to a hundredth of the peak.
    Cosine,
    /// `1 / sqrt(images / hold)` from `hold` images on (Karras et al., arXiv 2312.02696).
    Sqrt,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            kind: OptimizerKind::Adam,
            lr: 3e-4,
            betas: [0.9, 0.99],
            eps: 1e-8,
            warmup: 10_000,
            decay: Decay::Cosine,
            hold: 100_000,
            clip: 1.0,
            weight_norm: false,
        }
    }
}

impl OptimizerConfig {
    /// The rate at `images` of `total` seen.
    pub fn rate(&self, images: u64, total: u64) -> f64 {
        let warm = if self.warmup == 0 { 1.0 } else { (images as f64 / self.warmup as f64).min(1.0) };
        let decay = match self.decay {
            Decay::Constant => 1.0,
            Decay::Sqrt => (self.hold as f64 / (images.max(1) as f64)).sqrt().min(1.0),
            Decay::Cosine => {
                let progress = images.saturating_sub(self.warmup) as f64 / total.saturating_sub(self.warmup).max(1) as f64;
                0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos())
            }
        };
        self.lr * warm * decay
    }
}

/// Exponential moving average of the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Images after which a weight's influence has halved.
    pub half_life: u64,
    /// The half-life is at most this part of the images seen, so that early averages are not of the start.
    pub ramp: f64,
}

impl Default for EmaConfig {
    fn default() -> Self {
        EmaConfig { half_life: 50_000, ramp: 0.05 }
    }
}

impl EmaConfig {
    /// Weight of the old average after a step of `batch` images that ends at `images` seen.
    pub fn keep(&self, images: u64, batch: usize) -> f64 {
        let half_life = (self.half_life as f64).min(self.ramp * images as f64).max(1e-8);
        0.5f64.powf(batch as f64 / half_life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_decays() {
        let o = OptimizerConfig { lr: 1.0, warmup: 100, ..Default::default() };
        assert_eq!(o.rate(50, 1000), 0.5);
        assert_eq!(o.rate(100, 1000), 1.0);
        assert!((o.rate(1000, 1000) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn an_average_halves_in_its_half_life() {
        let e = EmaConfig { half_life: 1000, ramp: 1.0 };
        let after: f64 = (0..10).map(|_| e.keep(1_000_000, 100)).product();
        assert!((after - 0.5).abs() < 1e-12);
    }
}
