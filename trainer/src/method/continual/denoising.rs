//! Denoising in any parameterisation: noisy images, what a network answers to them, and what it should.

use crate::method::{log_normal, noise, per_image, tensor, uniform};
use anyhow::Result;
use candle_core::Tensor;
use limbeck_shared::denoiser::{ModelSpec, Parameterization, adapter, edm_adapter, time_inputs};
use limbeck_shared::nn::Network;
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;
use std::ops::Range;

/// Noisy images and their times.
#[derive(Clone)]
pub(crate) struct Noised {
    /// `[n, c, h, w]`.
    pub(crate) x: Tensor,
    /// Schedule time of each.
    pub(crate) t: Vec<f64>,
    /// Class of each; empty for a network without classes.
    pub(crate) labels: Vec<u32>,
}

impl Noised {
    /// `x_t = alpha x0 + sigma eps`, and the answer that a network of this parameterisation is trained towards.
    pub(crate) fn new(spec: &ModelSpec, x0: &Tensor, eps: &Tensor, t: Vec<f64>, labels: Vec<u32>) -> Result<(Noised, Tensor)> {
        let mix = |coefficients: Vec<[f64; 2]>| -> Result<Tensor> {
            let of_x0 = x0.broadcast_mul(&per_image(coefficients.iter().map(|c| c[0]))?)?;
            Ok((of_x0 + eps.broadcast_mul(&per_image(coefficients.iter().map(|c| c[1]))?)?)?)
        };
        let x = mix(t.iter().map(|&t| [spec.schedule.alpha(t), spec.schedule.sigma(t)]).collect())?;
        let target = mix(t.iter().map(|&t| target(spec, t)).collect())?;
        Ok((Noised { x, t, labels }, target))
    }

    /// Both batches, one after the other.
    pub(crate) fn and(&self, other: &Noised) -> Result<Noised> {
        Ok(Noised {
            x: Tensor::cat(&[&self.x, &other.x], 0)?,
            t: [&self.t[..], &other.t[..]].concat(),
            labels: [&self.labels[..], &other.labels[..]].concat(),
        })
    }

    /// What a network answers, in its own terms.
    pub(crate) fn asked(&self, net: &Network, spec: &ModelSpec) -> Result<Tensor> {
        let mut times = vec![];
        for &t in &self.t {
            times.extend(time_inputs(spec, t, None, None)?);
        }
        let c_in = self.t.iter().map(|&t| Ok(adapter(spec, t, None)?.c_in)).collect::<Result<Vec<_>>>()?;
        let x = if c_in.iter().all(|&c| c == 1.0) { self.x.clone() } else { self.x.broadcast_mul(&per_image(c_in)?)? };
        Ok(net.forward(&x, &times, &self.labels)?)
    }
}

/// Weights of x0 and eps in the answer at time `t`; every answer is trained with a flat weight, which is DDPM's simple loss for eps
/// (Ho et al. 2020, eq. 14) and EDM's own for EDM (Karras et al. 2022, eq. 8).
fn target(spec: &ModelSpec, t: f64) -> [f64; 2] {
    let s = &spec.schedule;
    let (alpha, sigma) = (s.alpha(t), s.sigma(t));
    match spec.parameterization {
        Parameterization::X0 => [1.0, 0.0],
        Parameterization::Eps => [0.0, 1.0],
        Parameterization::V => [-sigma, alpha],
        // Flow maps are no denoisers; on its diagonal one is the velocity.
        Parameterization::Flow | Parameterization::FlowMap { .. } | Parameterization::EdmFlowMap { .. } => [s.d_alpha(t), s.d_sigma(t)],
        Parameterization::Edm { sigma_data } => {
            let a = edm_adapter(alpha, sigma, sigma_data);
            [(1.0 - a.c_skip * alpha) / a.c_out, -a.c_skip * sigma / a.c_out]
        }
    }
}

/// Standard deviation of the data that a parameterisation counts on; 1 where it does not say.
pub(super) fn data_std(spec: &ModelSpec) -> f64 {
    if let Parameterization::Edm { sigma_data } = spec.parameterization { sigma_data } else { 1.0 }
}

/// A time to train at for each image: one of DDPM's discrete steps, EDM's log-normal noise level (its mean -1.2 moved by
/// `ln(sigma_data / 0.5)`), else uniform.
pub(crate) fn times(spec: &ModelSpec, seed: u64, images: &Range<u64>, stream: Stream) -> Vec<f64> {
    if let Some(steps) = spec.schedule.discrete_steps() {
        return images.clone().map(|k| f64::from(rng::below(seed, stream, k, steps) + 1) / f64::from(steps)).collect();
    }
    match spec.schedule {
        Schedule::Edm { .. } => log_normal(seed, images, stream, -1.2 + (data_std(spec) / 0.5).ln(), 1.2),
        _ => uniform(seed, images, stream),
    }
}

/// Standard normals `[n, c, h, w]` as a tensor.
pub(super) fn normals(seed: u64, images: &Range<u64>, shape: [usize; 3], stream: Stream) -> Result<Tensor> {
    tensor(noise(seed, images, shape, stream), (images.end - images.start) as usize, shape)
}
