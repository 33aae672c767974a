//! Adam and RAdam, gradient clipping, weight normalisation and the weight average over flat parameters.

use crate::config::{OptimizerConfig, OptimizerKind};
use limbeck_shared::graph::Graph;
use rayon::prelude::*;
use std::ops::Range;

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
        let (rate, eps) = corrected(config, rate, self.steps);
        let (rate, eps, adaptive) = (rate as f32, eps.unwrap_or_default() as f32, eps.is_some());
        let (b1, b2, scale) = (b1 as f32, b2 as f32, scale as f32);
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
                theta[i] -= if adaptive { rate * m[i] / (v[i].sqrt() + eps) } else { rate * m[i] };
            }
            average(ema, theta, keep);
        });
    }
}

/// Rate and epsilon of step `steps`, counted from 1, with the bias corrections in them; without an epsilon there is no second moment
/// yet that can be trusted, and RAdam steps along the first alone.
pub fn corrected(config: &OptimizerConfig, rate: f64, steps: u64) -> (f64, Option<f64>) {
    let [b1, b2] = config.betas;
    let c1 = 1.0 - b1.powf(steps as f64);
    let c2 = (1.0 - b2.powf(steps as f64)).sqrt();
    let rectified = match config.kind {
        OptimizerKind::Adam => Some(1.0),
        OptimizerKind::RAdam => rectification(b2, steps),
    };
    match rectified {
        Some(r) => (r * rate * c2 / c1, Some(config.eps * c2)),
        None => (rate / c1, None),
    }
}

/// RAdam's factor on Adam's step (Liu et al. 2020, Algorithm 2), none while the second moment is of too few steps.
fn rectification(b2: f64, steps: u64) -> Option<f64> {
    let most = 2.0 / (1.0 - b2) - 1.0;
    let decayed = b2.powf(steps as f64);
    let length = most - 2.0 * steps as f64 * decayed / (1.0 - decayed);
    (length > 5.0).then(|| ((length - 4.0) * (length - 2.0) * most / ((most - 4.0) * (most - 2.0) * length)).sqrt())
}

/// `ema <- keep * ema + (1 - keep) * theta`, unless it is empty.
pub fn average(ema: &mut [f32], theta: &[f32], keep: f64) {
    let keep = keep as f32;
    ema.iter_mut().zip(theta).for_each(|(e, t)| *e = keep * *e + (1.0 - keep) * t);
}

/// Forced weight normalisation (Karras et al., arXiv 2312.02696, section 2.3): every row of every weight matrix and kernel keeps
/// the norm it began with, so that the learning rate turns rows and never grows them. Rows that began at zero are free.
#[derive(Debug)]
pub struct RowNorms(Vec<(Range<usize>, f64)>);

impl RowNorms {
    /// The norms of these weights.
    pub fn new(graph: &Graph, theta: &[f32]) -> RowNorms {
        let matrices = graph.params.iter().filter(|p| p.shape.len() > 1 && !p.fixed);
        let rows = matrices.flat_map(|p| {
            let len = p.range().len() / p.shape[0];
            (0..p.shape[0]).map(move |i| p.range().start + i * len..p.range().start + (i + 1) * len)
        });
        let norms = rows.map(|row| (row.clone(), norm(&theta[row])));
        RowNorms(norms.filter(|r| r.1 > 0.0).collect())
    }

    /// Scales every row back.
    pub fn restore(&self, theta: &mut [f32]) {
        for (row, kept) in &self.0 {
            let row = &mut theta[row.clone()];
            let found = norm(row);
            if found > 0.0 {
                let scale = (kept / found) as f32;
                row.iter_mut().for_each(|w| *w *= scale);
            }
        }
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
        let config =
            OptimizerConfig { lr: 0.1, betas: [0.9, 0.999], eps: 0.0, warmup: 0, decay: Decay::Constant, clip: 0.0, ..Default::default() };
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
        let config =
            OptimizerConfig { lr: 0.01, betas: [0.9, 0.99], eps: 1e-8, warmup: 0, decay: Decay::Constant, clip: 0.0, ..Default::default() };
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

    /// Against torch.optim.RAdam (lr 0.01, betas 0.9 and 0.99, eps 1e-8, f64), whose fifth step is the last without a second moment.
    #[test]
    fn radam_takes_torchs_steps() {
        let config = OptimizerConfig { kind: OptimizerKind::RAdam, betas: [0.9, 0.99], eps: 1e-8, ..Default::default() };
        let (mut theta, mut adam) = (vec![0.5f32, -1.0], Adam::new(2));
        let table = [
            (1, [0.490_025_050_133_959_5, -0.988]),
            (4, [0.460_196_216_110_203, -0.953_127_349_576_058_2]),
            (5, [0.450_298_362_977_96, -0.941_881_637_051_298_2]),
            (6, [0.449_482_591_281_738_8, -0.941_072_501_005_943_6]),
            (8, [0.447_222_237_201_216_45, -0.938_835_646_198_574_5]),
            (12, [0.440_768_518_507_280_7, -0.932_465_868_058_033_9]),
        ];
        for step in 1..=12 {
            let grad = [(3.0 * theta[0]).sin(), theta[1].powi(3) - 0.2];
            adam.step(&config, 0.01, 1.0, &grad, &mut theta, &mut [], 0.0);
            for (_, expected) in table.iter().filter(|t| t.0 == step) {
                for (found, expected) in theta.iter().zip(expected) {
                    assert!((f64::from(*found) - expected).abs() < 1e-6, "step {step}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn normalised_rows_keep_their_norm_and_zero_rows_are_free() {
        let config = limbeck_shared::graph::mlp::MlpConfig {
            dim: 2,
            hidden: 4,
            layers: 1,
            num_class_embeds: None,
            limbeck_second_time: true,
            limbeck_guidance_input: false,
        };
        let graph = limbeck_shared::graph::mlp::build(&config).unwrap();
        let start = graph.init(1);
        let rows = RowNorms::new(&graph, &start);
        let mut theta: Vec<f32> = start.iter().enumerate().map(|(i, w)| 3.0 * w + 0.1 * (i as f32).sin()).collect();
        let moved = theta.clone();
        rows.restore(&mut theta);
        let mut free = 0;
        for p in graph.params.iter().filter(|p| p.shape.len() > 1) {
            for i in 0..p.shape[0] {
                let len = p.range().len() / p.shape[0];
                let row = p.range().start + i * len..p.range().start + (i + 1) * len;
                let kept = norm(&start[row.clone()]);
                if kept == 0.0 {
                    assert_eq!(theta[row.clone()], moved[row]);
                    free += 1;
                } else {
                    assert!((norm(&theta[row.clone()]) - kept).abs() < 1e-6 * kept, "{}", p.name);
                    assert_ne!(theta[row.clone()], start[row]);
                }
            }
        }
        assert_eq!(free, 4, "the second time's last layer begins at zero");
    }
}
