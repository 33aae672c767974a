//! Adam, gradient clipping and the weight average over flat parameters, each one pass over memory.

use crate::config::OptimizerConfig;
use rayon::prelude::*;

const BLOCK: usize = 1 << 15;

/// Adam's state for one network (Kingma and Ba 2015, Algorithm 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// First moment.
    pub m: Vec<f32>,
    /// Second moment.
    pub v: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
}

impl Adam {
    /// Zero moments.
    pub fn new(len: usize) -> Adam {
        Adam { m: vec![0.0; len], v: vec![0.0; len], steps: 0 }
    }

    /// One step: moments, weights, and the average `ema <- keep * ema + (1 - keep) * theta`, unless it is empty.
    /// `scale` multiplies the gradient.
    pub fn step(&mut self, config: &OptimizerConfig, rate: f64, scale: f64, grad: &[f32], theta: &mut [f32], ema: &mut [f32], keep: f64) {
        self.steps += 1;
        let [b1, b2] = config.betas;
        // Bias corrections folded into the rate and epsilon.
        let c1 = 1.0 - b1.powf(self.steps as f64);
        let c2 = (1.0 - b2.powf(self.steps as f64)).sqrt();
        let rate = (rate * c2 / c1) as f32;
        let eps = (config.eps * c2) as f32;
        let (b1, b2, scale, keep) = (b1 as f32, b2 as f32, scale as f32, keep as f32);
        let mut averages: Vec<&mut [f32]> = ema.chunks_mut(BLOCK).collect();
        // A network without an average gets an empty block for each block of weights.
        averages.resize_with(theta.len().div_ceil(BLOCK), Default::default);
        let weights = theta.par_chunks_mut(BLOCK).zip(averages).zip(grad.par_chunks(BLOCK));
        let moments = self.m.par_chunks_mut(BLOCK).zip(self.v.par_chunks_mut(BLOCK));
        weights.zip(moments).for_each(|(((theta, ema), grad), (m, v))| {
            for i in 0..theta.len() {
                let g = grad[i] * scale;
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                theta[i] -= rate * m[i] / (v[i].sqrt() + eps);
            }
            ema.iter_mut().zip(theta).for_each(|(e, t)| *e = keep * *e + (1.0 - keep) * *t);
        });
    }
}

/// Euclidean norm in f64, the same for any number of threads.
pub fn norm(grad: &[f32]) -> f64 {
    let parts: Vec<f64> = grad.par_chunks(BLOCK).map(|c| c.iter().map(|&g| f64::from(g) * f64::from(g)).sum()).collect();
    parts.iter().sum::<f64>().sqrt()
}

/// Factor that brings a gradient of this norm within the limit (0: none).
pub fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit > 0.0 && norm > limit { limit / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Decay;

    #[test]
    fn first_step_moves_each_weight_by_the_rate() {
        let config = OptimizerConfig { lr: 0.1, betas: [0.9, 0.999], eps: 0.0, warmup: 0, decay: Decay::Constant, clip: 0.0 };
        let (mut theta, mut ema) = (vec![1.0, -2.0, 3.0], vec![0.0; 3]);
        Adam::new(3).step(&config, 0.1, 1.0, &[5.0, -0.01, 2.0], &mut theta, &mut ema, 0.5);
        for (found, expected) in theta.iter().zip([0.9, -1.9, 2.9]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!((ema[0] - 0.45).abs() < 1e-6);
        let mut alone = vec![1.0, -2.0, 3.0];
        Adam::new(3).step(&config, 0.1, 1.0, &[5.0, -0.01, 2.0], &mut alone, &mut [], 0.5);
        assert_eq!(alone, theta);
    }

    #[test]
    fn several_steps_match_the_formula_in_f64() {
        let config = OptimizerConfig { lr: 0.01, betas: [0.9, 0.99], eps: 1e-8, warmup: 0, decay: Decay::Constant, clip: 0.0 };
        let (mut theta, mut ema, mut adam) = (vec![0.5f32], vec![0.5f32], Adam::new(1));
        let (mut x, mut m, mut v) = (0.5f64, 0.0f64, 0.0f64);
        for t in 1..=20 {
            let g = (x * 3.0).sin();
            adam.step(&config, 0.01, 1.0, &[g as f32], &mut theta, &mut ema, 0.9);
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            x -= 0.01 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.99f64.powi(t))).sqrt() + 1e-8);
            assert!((f64::from(theta[0]) - x).abs() < 1e-5);
        }
    }

    #[test]
    fn clipping_bounds_the_norm() {
        let g = [3.0f32, 4.0];
        assert_eq!(norm(&g), 5.0);
        assert_eq!(clip_factor(5.0, 1.0), 0.2);
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert_eq!(clip_factor(5.0, 0.0), 1.0);
    }
}
