//! The learned weight of a flow map's losses: `exp(-w(s, t)) l + w(s, t)` in place of each image's loss l.
//!
//! At the optimum `w = ln E[l | s, t]`, so that every pair of times counts the same (Boffi et al., arXiv 2505.18825, after
//! Karras et al., arXiv 2312.02696, eq. 14 to 16). `w` is a small network of both times, zero at the start and bounded, because
//! the weighted loss keeps falling when `w` runs after a loss that diverges: watch the raw terms.

use crate::method::NetSpec;
use anyhow::Result;
use candle_core::Tensor;
use limbeck_shared::cpu::Exec;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::graph::mlp::MlpConfig;
use limbeck_shared::nn::Network;
use std::sync::Arc;

/// Bound on `|w|`.
const MOST: f64 = 4.0;

/// The network: a perceptron that sees nothing but the times.
pub fn network(seed: u64) -> Result<NetSpec> {
    let config =
        MlpConfig { dim: 1, hidden: 64, layers: 1, num_class_embeds: None, limbeck_second_time: true, limbeck_guidance_input: false };
    let graph = NetworkConfig::Mlp(config).build()?;
    let mut theta = graph.init(seed);
    for p in graph.params.iter().filter(|p| p.name.starts_with("output.")) {
        theta[p.range()].fill(0.0);
    }
    Ok(NetSpec { name: "weight", exec: Arc::new(Exec::new(graph)?), theta, averaged: false })
}

/// `w(s, t)` of every image, `[n]`.
///
/// # Errors
/// From candle.
pub fn weight(net: &Network, s: &[f64], t: &[f64]) -> Result<Tensor> {
    let nothing = Tensor::zeros((s.len(), 1), candle_core::DType::F32, net.theta().device())?;
    let times: Vec<f32> = s.iter().zip(t).flat_map(|(s, t)| [*s as f32, *t as f32]).collect();
    Ok(net.forward(&nothing, &times, &[])?.flatten_all()?.clamp(-MOST, MOST)?)
}

/// `exp(-w) l + w`.
///
/// # Errors
/// From candle.
pub fn weighted(losses: &Tensor, w: &Tensor) -> Result<Tensor> {
    Ok(((losses * w.neg()?.exp()?)? + w)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Decay, OptimizerConfig};
    use crate::device::device;
    use crate::optim::Adam;

    fn values(t: &Tensor) -> Vec<f64> {
        t.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
    }

    /// C1.6: at `w = 0` the weighted loss and its gradient in l are the unweighted ones.
    #[test]
    fn a_fresh_weight_changes_nothing() {
        let spec = network(3).unwrap();
        let net = Network::trained(spec.exec, &spec.theta, device()).unwrap();
        let w = weight(&net, &[0.1, 0.5], &[0.9, 0.5]).unwrap();
        assert_eq!(values(&w), [0.0, 0.0]);
        let losses = candle_core::Var::new(&[0.3f32, 2.0], device()).unwrap();
        let total = weighted(&losses, &w).unwrap();
        assert_eq!(values(&total), values(&losses));
        let grads = total.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(grads.get(&losses).unwrap()), [1.0, 1.0]);
    }

    /// C1.6: with l fixed the minimiser is `w = ln l`, where the loss is `1 + ln l`; here l depends on the times.
    #[test]
    fn a_trained_weight_is_the_logarithm_of_the_loss() {
        let spec = network(3).unwrap();
        let config = OptimizerConfig { lr: 3e-3, decay: Decay::Constant, ..Default::default() };
        let (mut theta, mut adam) = (spec.theta.clone(), Adam::new(spec.theta.len()));
        let s: Vec<f64> = (0..64).map(|i| f64::from(i) / 64.0 * 0.5).collect();
        let t: Vec<f64> = s.iter().map(|s| s + 0.4).collect();
        let l: Vec<f32> = s.iter().map(|s| (1.0 - 4.0 * s) as f32).map(f32::exp).collect();
        let losses = Tensor::new(l.as_slice(), device()).unwrap();
        let mut w = vec![];
        for _ in 0..1500 {
            let net = Network::trained(spec.exec.clone(), &theta, device()).unwrap();
            let found = weight(&net, &s, &t).unwrap();
            let grads = weighted(&losses, &found).unwrap().mean_all().unwrap().backward().unwrap();
            let grad = grads.get(net.theta()).unwrap().to_vec1::<f32>().unwrap();
            adam.step(&config, config.lr, 1.0, &grad, &mut theta, &mut [], 0.0);
            w = values(&found);
        }
        for (w, l) in w.iter().zip(&l) {
            assert!((w - f64::from(l.ln())).abs() < 0.05, "{w} against {}", l.ln());
        }
    }
}
