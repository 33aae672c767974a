//! BOOT: data-free distillation of a diffusion model into one step by bootstrapping.
//!
//! Gu, Zhai, Zhang, Liu, Susskind, "BOOT: Data-free Distillation of Denoising Diffusion Models with Bootstrapping"
//! (arXiv 2306.05544). The student reads pure noise and a target time t' and answers the signal y that the teacher's
//! trajectory from that noise has at t'; one call at t' = 1 draws. No image is ever read.
//!
//! Written in linear-flow time, 0 noise and 1 data: `x_t = t y_t + (1 - t) e`, `e = sigma_data eps`. One step of the teacher's
//! ODE from t to t' = t + h is, for the signal,
//!
//!   y_t' = (1 - kappa) f(x_t, t) + kappa y_t,    1 - kappa = h / (t' (1 - t))           (signal ODE, discretised)
//!
//! so the loss is `|| y_theta(eps, t') - sg[ y_t' ] ||^2` with y_t = y_theta(eps, t). At t = 0 the target is `f(eps)`: the paper's
//! boundary loss is contained. Because `v = y - e` with the same e on both sides, a flat weight here is a flat weight on the
//! velocity.
//!
//! Deviations: targets t' (not t) are drawn uniformly, so that every time is a regression target, 1 included; the convex
//! coefficient `1 - kappa` stands for the paper's `delta lambda'_t`, which diverges at both ends; the student keeps the teacher's
//! noise input at sigma_max and reads t' through an embedding that starts at zero, so it begins as `f(eps)` at every time and
//! the boundary loss begins at 0.

use super::{
    EdmTeacher, Loss, Method, NetSpec, Pass, classes, edm_teacher, edm_x0, extend, noise, per_image, tensor, uniform, with_second_time,
};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::{Bundle, MAX_GUIDANCE, Meta, SamplerSpec};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::{Adapter, edm_adapter};
use limbeck_shared::nn::Network;
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::flow_sigma;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;

/// Settings of BOOT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootConfig {
    /// Step of the bootstrap; the student converges to the teacher's solver with `1 / delta` steps.
    pub delta: f64,
    /// Euler, or Heun's exponential form (two teacher calls).
    #[serde(default)]
    pub solver: Solver,
    /// Weight of an extra boundary loss at t' = 0 on a quarter of the images; 0: none, the main loss contains it.
    #[serde(default)]
    pub boundary: f64,
    /// Guidance weights the student reads as an input, drawn uniformly: `[least, largest]`; none: no guidance input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<[f64; 2]>,
    /// Bound on the teacher's x0: images lie in [-1, 1]; 0: none (points).
    #[serde(default = "one")]
    pub clip: f64,
}

fn one() -> f64 {
    1.0
}

/// Solver of the bootstrap step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Solver {
    /// One teacher call; local error O(h^2).
    #[default]
    Euler,
    /// Two teacher calls; local error O(h^3).
    Heun,
}

/// The method.
pub struct Boot {
    config: BootConfig,
    meta: Meta,
    sigma_data: f64,
    sigma_max: f64,
    teacher: Network,
    student: Arc<Exec>,
    start: Vec<f32>,
}

impl Boot {
    /// Prepares the student from the teacher.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(config: &BootConfig, teacher: &Bundle, name: &str, precision: Precision) -> Result<Boot> {
        if !(config.delta > 0.0 && config.delta <= 0.5) {
            bail!("`method.delta`: found {}, expected a step in (0, 0.5]", config.delta);
        }
        let EdmTeacher { sigma_data, sigma_max, .. } = edm_teacher(teacher)?;
        if config.guidance.is_some() && teacher.meta.null_label.is_none() {
            bail!("`method.guidance`: found a range, expected none for a teacher without a null label");
        }
        if let Some([least, most]) = config.guidance
            && !(least >= 0.0 && most >= least && most <= MAX_GUIDANCE)
        {
            bail!("`method.guidance`: found [{least}, {most}], expected two weights from 0 to {MAX_GUIDANCE}, the smaller first");
        }
        if !(config.boundary >= 0.0 && config.boundary.is_finite()) {
            bail!("`method.boundary`: found {}, expected a weight from 0", config.boundary);
        }
        let network = with_second_time(&teacher.meta.networks[0], config.guidance.is_some())?;
        let student = network.build()?;
        let start = extend(&teacher.graphs[0], &teacher.thetas[0], &student);
        let mut meta = teacher.meta.clone();
        meta.name = name.to_string();
        meta.networks = vec![network];
        meta.second_time = true;
        meta.guidance_input = config.guidance.is_some();
        meta.guidance = config.guidance.map(|[min, max]| limbeck_shared::bundle::GuidanceRange { min, max, default: min, levels: None });
        meta.init_time = Some(sigma_max);
        meta.samplers = vec![SamplerSpec { sampler: Sampler::OneStep, steps: vec![1], default_steps: 1 }];
        meta.golden = None;
        meta.training.method = "boot".into();
        meta.training.preset = name.to_string();
        meta.training.teacher_sha256 = Some(teacher.sha256.clone());
        meta.training.evaluation = Default::default();
        let frozen = Arc::new(Exec::with_precision(teacher.graphs[0].clone(), precision)?);
        Ok(Boot {
            config: config.clone(),
            meta,
            sigma_data,
            sigma_max,
            teacher: Network::frozen(frozen, &teacher.thetas[0], device())?,
            student: Arc::new(Exec::with_precision(student, precision)?),
            start,
        })
    }

    /// `y_theta(eps, t')`: one preconditioned call at sigma_max on pure noise.
    fn signal(&self, net: &Network, eps: &Tensor, target: &[f64], labels: &[u32], guidance: &[f64]) -> Result<Tensor> {
        let Adapter { c_in, c_skip, c_out } = edm_adapter(1.0, self.sigma_max, self.sigma_data);
        let level = (self.sigma_max.ln() / 4.0) as f32;
        let times: Vec<f32> =
            (0..target.len()).flat_map(|i| [Some(level), Some(target[i] as f32), guidance.get(i).map(|&w| w as f32)]).flatten().collect();
        let f = net.forward(&(eps * (c_in * self.sigma_max))?, &times, labels)?;
        Ok(((f * c_out)? + (eps * (c_skip * self.sigma_max))?)?)
    }

    /// The teacher's x0 at flow times `t` from the signal `y`, guided and clipped. `y` does not enter where t = 0.
    fn denoise(&self, eps: &Tensor, y: &Tensor, t: &[f64], labels: &[u32], guidance: &[f64]) -> Result<Tensor> {
        // x / alpha = y + sigma eps; sigma stays within the teacher's range at both ends.
        let sigma: Vec<f64> = t.iter().map(|&t| flow_sigma(self.sigma_data, self.sigma_max, t).max(0.002)).collect();
        let signal = y.broadcast_mul(&per_image(t.iter().map(|&t| if t > 0.0 { 1.0 } else { 0.0 }))?)?;
        let x = (signal + eps.broadcast_mul(&per_image(sigma.iter().copied())?)?)?;
        let mut x0 = edm_x0(&self.teacher, self.sigma_data, &x, &sigma, labels)?;
        if let (false, Some(null)) = (guidance.is_empty(), self.meta.null_label) {
            let without = edm_x0(&self.teacher, self.sigma_data, &x, &sigma, &vec![null; labels.len()])?;
            x0 = (&without + (x0 - &without)?.broadcast_mul(&per_image(guidance.iter().copied())?)?)?;
        }
        Ok(if self.config.clip > 0.0 { x0.clamp(-self.config.clip, self.config.clip)? } else { x0 })
    }

    /// The bootstrap target at `to` from the student's own signal `y` at `from`; nothing in it is differentiated.
    fn target(&self, eps: &Tensor, y: &Tensor, from: &[f64], to: &[f64], labels: &[u32], guidance: &[f64]) -> Result<Tensor> {
        bootstrap(self.config.solver, y, from, to, |y, t| self.denoise(eps, y, t, labels, guidance))
    }
}

/// One step of the signal ODE from `from` to `to`; `f(y, t)` is the teacher's x0 from the signal `y` at `t`.
fn bootstrap(solver: Solver, y: &Tensor, from: &[f64], to: &[f64], f: impl Fn(&Tensor, &[f64]) -> Result<Tensor>) -> Result<Tensor> {
    let gain = per_image(from.iter().zip(to).map(|(t, s)| (s - t) / (s * (1.0 - t))))?;
    let kappa = (1.0 - &gain)?;
    let kept = y.broadcast_mul(&kappa)?;
    let here = f(y, from)?;
    let euler = (&kept + here.broadcast_mul(&gain)?)?;
    if solver == Solver::Euler {
        return Ok(euler);
    }
    let there = f(&euler, to)?;
    Ok((kept + ((here + there)? * 0.5)?.broadcast_mul(&gain)?)?)
}

impl Method for Boot {
    fn networks(&self, _seed: u64) -> Result<Vec<NetSpec>> {
        Ok(vec![NetSpec { name: "student", exec: self.student.clone(), theta: self.start.clone(), averaged: true }])
    }

    fn needs_data(&self) -> bool {
        false
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let shape = self.student.graph().input_shape();
        let n = (pass.images.end - pass.images.start) as usize;
        let eps = tensor(noise(pass.seed, &pass.images, shape, Stream::Noise), n, shape)?;
        let table = if self.student.graph().classes == 0 { 0 } else { self.meta.classes.len() };
        let labels = classes(pass.seed, pass.images.clone(), Stream::Label, table);
        let guidance: Vec<f64> = match self.config.guidance {
            Some([least, most]) => uniform(pass.seed, &pass.images, Stream::Other(0)).iter().map(|u| least + (most - least) * u).collect(),
            None => vec![],
        };
        let to: Vec<f64> = uniform(pass.seed, &pass.images, Stream::Time).iter().map(|u| 1.0 - u).collect();
        let from: Vec<f64> = to.iter().map(|t| (t - self.config.delta).max(0.0)).collect();

        let student = &pass.nets[0];
        let y = self.signal(&student.detached(), &eps, &from, &labels, &guidance)?;
        let target = self.target(&eps, &y, &from, &to, &labels, &guidance)?.detach();
        let main = (self.signal(student, &eps, &to, &labels, &guidance)? - target)?.sqr()?.mean_all()?;
        if self.config.boundary == 0.0 {
            return Ok(Loss { nets: vec![0], value: main, terms: vec![] });
        }
        let quarter = n.div_ceil(4);
        let (eps, zeros) = (eps.narrow(0, 0, quarter)?, vec![0.0; quarter]);
        let (labels, guidance) = (&labels[..labels.len().min(quarter)], &guidance[..guidance.len().min(quarter)]);
        let f = self.denoise(&eps, &eps, &zeros, labels, guidance)?.detach();
        let boundary = (self.signal(student, &eps, &zeros, labels, guidance)? - f)?.sqr()?.mean_all()?;
        let terms = vec![("bootstrap", f64::from(main.to_scalar::<f32>()?)), ("boundary", f64::from(boundary.to_scalar::<f32>()?))];
        Ok(Loss { nets: vec![0], value: (main + (boundary * self.config.boundary)?)?, terms })
    }

    fn meta(&self, _data: Option<&dyn Dataset>) -> Result<Meta> {
        Ok(self.meta.clone())
    }
}
