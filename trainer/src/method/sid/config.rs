//! Settings of SiD: steps, guidance, and the term on real images.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings of SiD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SidConfig {
    /// Steps K of the generator.
    pub steps: usize,
    /// Which step's output an iteration matches.
    pub matching: Matching,
    /// Weight of delta^2; 1.0 is safe, 1.2 best in the paper.
    pub alpha: f64,
    /// Treat both networks' answers as constants: the gradient is then `-omega delta`, whatever alpha. For comparison.
    pub detached: bool,
    /// Noise level of the first step; 2.5 for data of standard deviation 0.5.
    pub sigma_init: f64,
    /// The generator is matched at times uniform from 0 to this in the rho grid.
    pub t_max: f64,
    /// Mean of ln(sigma) in the fake score's training.
    pub p_mean: f64,
    /// Standard deviation of ln(sigma) there.
    pub p_std: f64,
    /// Guidance.
    pub guidance: Guidance,
    /// Least and largest noise level at which it holds; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_levels: Option<[f64; 2]>,
    /// Probability that the fake score trains without the label; used where it is asked without one.
    pub label_dropout: f64,
    /// A student of the same teacher whose weights the generator begins with, such as one of fewer steps; none: the teacher's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// The term on real images; none: no image is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
}

/// The adversarial term and its three phases, in images seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Adversarial {
    /// Weight in the generator's loss; the identity loss has 1, both are halved.
    pub weight: f64,
    /// Until here only the fake score trains, and learns to tell real images from drawn ones.
    pub freeze: u64,
    /// From here on the generator's loss has the term.
    pub begin: u64,
    /// Real images used, the first of the data; 0: all.
    pub images: usize,
}

impl Default for Adversarial {
    fn default() -> Self {
        Adversarial { weight: 0.01, freeze: 100_000, begin: 200_000, images: 0 }
    }
}

impl Default for SidConfig {
    fn default() -> Self {
        SidConfig {
            steps: 1,
            matching: Matching::Uniform,
            alpha: 1.2,
            detached: false,
            sigma_init: 2.5,
            t_max: 0.8,
            p_mean: -1.2,
            p_std: 1.2,
            guidance: Guidance::None,
            guidance_levels: None,
            label_dropout: 0.1,
            start: None,
            adversarial: None,
        }
    }
}

/// Which step of the chain is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// One k for the batch, uniform in 1..=K (the paper's).
    Uniform,
    /// One k for each image: less variance, K - 1 calls without gradient for every image.
    PerImage,
    /// Always the last.
    Final,
}

/// Guidance strategies by the weights kappa of `f(null) + kappa (f(label) - f(null))`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guidance {
    /// Conditional networks, no guidance.
    None,
    /// The same kappa everywhere: the student learns the teacher's guided density.
    Lsg(f64),
    /// The fake score without a label, the teacher with it.
    ZeroCfg,
    /// The fake score at -1 in the generator's loss; trained with this kappa (1 or -1).
    AntiCfg(f64),
    /// kappa_1 (training of the fake score), kappa_2 and kappa_3 (its two answers in the generator's loss), kappa_4 (teacher).
    Kappas([f64; 4]),
}

impl Guidance {
    /// kappa_1 to kappa_4.
    pub fn kappas(self) -> [f64; 4] {
        match self {
            Guidance::None => [1.0; 4],
            Guidance::Lsg(k) => [k; 4],
            Guidance::ZeroCfg => [0.0, 0.0, 0.0, 1.0],
            Guidance::AntiCfg(train) => [train, -1.0, -1.0, 1.0],
            Guidance::Kappas(k) => k,
        }
    }
}

impl SidConfig {
    /// Checks ranges, for a teacher with these noise levels.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn check(&self, sigma_min: f64, sigma_max: f64) -> Result<()> {
        if !(1..=64).contains(&self.steps) {
            bail!("`method.steps`: found {}, expected 1 to 64", self.steps);
        }
        if !(self.sigma_init > sigma_min && self.sigma_init <= sigma_max) {
            bail!("`method.sigma_init`: found {}, expected a noise level in ({sigma_min}, {sigma_max}]", self.sigma_init);
        }
        if !(self.t_max > 0.0 && self.t_max <= 1.0) {
            bail!("`method.t_max`: found {}, expected a time in (0, 1]", self.t_max);
        }
        if !(0.0..1.0).contains(&self.label_dropout) {
            bail!("`method.label_dropout`: found {}, expected a probability below 1", self.label_dropout);
        }
        if !(self.alpha.is_finite() && self.p_mean.is_finite() && self.p_std >= 0.0) {
            bail!("`method`: found alpha {}, p_mean {}, p_std {}, expected finite numbers", self.alpha, self.p_mean, self.p_std);
        }
        let kappas = self.guidance.kappas();
        if !kappas.iter().all(|k| k.is_finite()) {
            bail!("`method.guidance`: found {kappas:?}, expected finite weights");
        }
        if self.guidance_levels.is_some_and(|[low, high]| !(0.0 <= low && low < high)) {
            bail!("`method.guidance_levels`: found {:?}, expected two rising levels from 0", self.guidance_levels);
        }
        if let Some(a) = &self.adversarial
            && !(a.weight >= 0.0 && a.weight.is_finite())
        {
            bail!("`method.adversarial.weight`: found {}, expected a weight from 0", a.weight);
        }
        Ok(())
    }
}
