//! SiD: data-free distillation into one or a few steps by score identities.
//!
//! Zhou, Zheng, Wang, Yin, Huang, "Score identity Distillation" (arXiv 2404.04057); guidance from "Long and Short Guidance in
//! SiD" (2406.01561); K steps by uniform matching and Zero-/Anti-CFG from "Few-Step Diffusion via Score identity Distillation"
//! (2505.12674). Three networks of one architecture, all started from the teacher: the frozen teacher f_phi, the fake score
//! f_psi, which learns to denoise what the generator draws, and the generator G_theta.
//!
//! With `x_t = x_g + sigma eps` and `delta = f_phi(x_t) - f_psi(x_t)`, the generator descends
//!
//!   L = 100/B sum omega delta (f_phi - x_g - alpha delta),    omega = 1 / max(1e-5, sg[mean |x_g - f_phi|])
//!
//! through x_g and through both networks' inputs (Algorithm 1). Were f_psi exact, its expectation would be `(1 - alpha)` times
//! the weighted mean of delta^2, so the value says nothing about progress: look at `fd`.
//!
//! The K-step generator denoises at times that fall linearly in the rho grid, fresh noise before each step; every iteration
//! matches the output of one step, and only that step's call carries a gradient. The fake score is not told which step it was.
//! One iteration of one step costs 4 network passes for the fake score and 7 for the generator, a forward pass being one.
//!
//! The optional adversarial term ("Adversarial Score identity Distillation", 2410.14919) needs no new weights: the encoder of the
//! fake score is the discriminator, its logits the mean over channels of the last map before the middle.
//!
//! Deviations: a step whose gradient is not finite is counted and left out as a whole (upstream drops the samples); gradients are
//! limited by their norm, not value by value; logits and denoised image come from two calls, not one, an encoder's pass more.

use super::guided::{entries, guided};
use super::{
    EdmTeacher, Loss, Method, NetSpec, Pass, classes, edm_raw, edm_teacher, edm_x0, log_normal, noise, per_image, real, tensor, uniform,
};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::{Bundle, Meta, SamplerSpec};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::nn::Network;
use limbeck_shared::program::{self, Sampler};
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;
use std::path::Path;
use std::sync::Arc;

mod config;
mod loss;
#[cfg(test)]
mod tests;

pub use config::{Adversarial, Guidance, Matching, SidConfig};
use loss::{Answers, bce, denoising, identity, lambda, weight};

/// The method.
pub struct Sid {
    config: SidConfig,
    meta: Meta,
    sigma_data: f64,
    schedule: Schedule,
    /// Noise level of every step, falling from sigma_init.
    levels: Vec<f64>,
    teacher: Network,
    generator: Arc<Exec>,
    fake: Arc<Exec>,
    /// The fake score's first half.
    encoder: Option<Arc<Exec>>,
    /// The teacher's weights, which the fake score begins with.
    start: Vec<f32>,
    /// The generator's, if others.
    student: Option<Vec<f32>>,
}

/// Numbers of one of the two phases: each draws its own.
#[derive(Clone, Copy)]
struct Draws {
    seed: u64,
    phase: u32,
}

impl Draws {
    fn stream(self, which: u32) -> Stream {
        Stream::Other(10_000 + 1_000 * self.phase + which)
    }
    fn chain(self, step: usize) -> Stream {
        self.stream(100 + step as u32)
    }
}

impl Sid {
    /// Prepares the three networks from the teacher.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(config: &SidConfig, teacher: &Bundle, name: &str, precision: Precision) -> Result<Sid> {
        let EdmTeacher { sigma_data, sigma_min, sigma_max } = edm_teacher(teacher)?;
        config.check(sigma_min, sigma_max)?;
        if config.guidance.kappas() != [1.0; 4] && teacher.meta.null_label.is_none() {
            bail!("`method.guidance`: found {:?}, expected none for a teacher without a null label", config.guidance);
        }
        let graph = &teacher.graphs[0];
        let encoder = match (&config.adversarial, graph.encoder) {
            (None, _) => None,
            (Some(_), None) => bail!("`method.adversarial`: found a teacher without an encoder, expected a U-Net"),
            (Some(_), Some(node)) => Some(Arc::new(Exec::with_precision(graph.until(node), precision)?)),
        };
        let mut meta = teacher.meta.clone();
        meta.name = name.to_string();
        meta.init_time = Some(config.sigma_init);
        // The levels of a chain of k steps are among those of K wherever k divides K.
        let steps: Vec<usize> = (1..=config.steps).filter(|k| config.steps.is_multiple_of(*k)).collect();
        meta.samplers = vec![SamplerSpec { sampler: Sampler::Renoise, steps, default_steps: config.steps }];
        meta.guidance = None;
        meta.golden = None;
        meta.training.method = "sid".into();
        meta.training.preset = name.to_string();
        meta.training.teacher_sha256 = Some(teacher.sha256.clone());
        meta.training.evaluation = Default::default();
        let exec = || Ok::<_, anyhow::Error>(Arc::new(Exec::with_precision(teacher.graphs[0].clone(), precision)?));
        Ok(Sid {
            config: config.clone(),
            meta,
            sigma_data,
            schedule: teacher.meta.schedule,
            levels: teacher.meta.schedule.renoised(config.sigma_init, config.steps),
            teacher: Network::frozen(exec()?, &teacher.thetas[0], device())?,
            generator: exec()?,
            fake: exec()?,
            encoder,
            start: teacher.thetas[0].clone(),
            student: config.start.as_deref().map(|file| student(file, teacher)).transpose()?,
        })
    }

    fn x0(&self, net: &Network, x: &Tensor, sigma: &[f64], labels: &[u32]) -> Result<Tensor> {
        edm_x0(net, self.sigma_data, x, sigma, labels)
    }

    /// `f(null) + kappa (f(label) - f(null))` at the levels where guidance holds, the plain answer at others.
    fn guided(&self, net: &Network, x: &Tensor, sigma: &[f64], labels: &[u32], kappa: f64) -> Result<Tensor> {
        let Some(null) = self.meta.null_label.filter(|_| kappa != 1.0) else {
            return self.x0(net, x, sigma, labels);
        };
        let kappa = program::Guidance { weight: kappa, levels: self.config.guidance_levels };
        let weights: Vec<f64> = sigma.iter().map(|&s| kappa.at(s)).collect();
        guided(&weights, labels, null, |rows, labels| match rows {
            None => self.x0(net, x, sigma, labels),
            Some(picked) => self.x0(net, &x.index_select(&Tensor::new(picked, device())?, 0)?, &entries(sigma, 1, rows), labels),
        })
    }

    /// Which step each image's output is matched at.
    fn matched(&self, pass: &Pass<'_>) -> Vec<usize> {
        let n = (pass.images.end - pass.images.start) as usize;
        let draw = |index| 1 + rng::below(pass.seed, Stream::Other(9_999), index, self.config.steps as u32) as usize;
        match self.config.matching {
            Matching::Uniform => vec![draw(pass.first); n],
            Matching::PerImage => pass.images.clone().map(draw).collect(),
            Matching::Final => vec![self.config.steps; n],
        }
    }

    /// The input of each image's matched step, without gradient, and its noise level.
    fn chain(&self, generator: &Network, pass: &Pass<'_>, d: Draws, at: &[usize], labels: &[u32]) -> Result<(Tensor, Vec<f64>)> {
        let generator = generator.detached();
        let (n, shape) = (at.len(), self.generator.graph().input_shape());
        let last = at.iter().copied().max().unwrap_or(1);
        let (mut input, mut x): (Option<Tensor>, Option<Tensor>) = (None, None);
        for k in 1..=last {
            let sigma = self.levels[k - 1];
            let eps = (tensor(noise(d.seed, &pass.images, shape, d.chain(k)), n, shape)? * sigma)?;
            // The first input is noise alone.
            let here = match &x {
                None => eps,
                Some(x) => (x + eps)?,
            };
            let matched = per_image(at.iter().map(|&a| if a == k { 1.0 } else { 0.0 }))?;
            let part = here.broadcast_mul(&matched)?;
            input = Some(match input {
                None => part,
                Some(sum) => (sum + part)?,
            });
            if k < last {
                x = Some(self.x0(&generator, &here, &vec![sigma; n], labels)?);
            }
        }
        let Some(input) = input else { bail!("`batch`: found no image, expected at least one") };
        Ok((input.detach(), at.iter().map(|&k| self.levels[k - 1]).collect()))
    }

    /// The fake score learns to denoise the generator's images, and to tell them from real ones.
    fn fake_loss(&self, pass: &Pass<'_>) -> Result<Loss> {
        let d = Draws { seed: pass.seed, phase: 0 };
        let mut labels = self.labels(pass, d);
        let images = match &self.config.adversarial {
            None => None,
            Some(a) => {
                let real = real(pass, self.shape(), if a.images == 0 { usize::MAX } else { a.images })?;
                let count = real.labels.len();
                // Both kinds share label, noise level and noise, so that nothing else tells them apart.
                if !labels.is_empty() {
                    labels = real.labels;
                }
                Some(tensor(real.x, count, self.shape())?)
            }
        };
        let (input, levels) = self.chain(&pass.nets[0], pass, d, &self.matched(pass), &labels)?;
        let y = self.x0(&pass.nets[0].detached(), &input, &levels, &labels)?.detach();
        let sigma = log_normal(d.seed, &pass.images, d.stream(1), self.config.p_mean, self.config.p_std);
        let eps = tensor(noise(d.seed, &pass.images, self.shape(), d.stream(2)), sigma.len(), self.shape())?;
        let eps = eps.broadcast_mul(&per_image(sigma.iter().copied())?)?;
        let x = (&y + &eps)?;
        let kappas = self.config.guidance.kappas();
        let mut given = labels.clone();
        if let (true, Some(null)) = (kappas != [1.0; 4], self.meta.null_label) {
            let drop = uniform(d.seed, &pass.images, d.stream(3));
            given.iter_mut().zip(drop).filter(|(_, u)| *u < self.config.label_dropout).for_each(|(l, _)| *l = null);
        }
        let f = self.guided(&pass.nets[1], &x, &sigma, &given, kappas[0])?;
        let score = denoising(&f, &y, &sigma, self.sigma_data)?;
        let Some(images) = images else { return Ok(Loss { nets: vec![1], value: score, terms: vec![] }) };
        let drawn = bce(&self.logits(&pass.nets[1], &x, &sigma, &labels)?, false)?;
        let true_ones = bce(&self.logits(&pass.nets[1], &(images + eps)?, &sigma, &labels)?, true)?;
        let mean_lambda = sigma.iter().map(|s| lambda(*s, self.sigma_data)).sum::<f64>() / sigma.len() as f64;
        let told = (drawn + true_ones)?;
        let terms = vec![("discriminator", f64::from(told.to_scalar::<f32>()?))];
        Ok(Loss { nets: vec![1], value: (score + (told * (0.5 * mean_lambda))?)?, terms })
    }

    /// The discriminator's logits `[n, 1, h, w]`: mean over the channels of the fake score's encoder.
    fn logits(&self, fake: &Network, x: &Tensor, sigma: &[f64], labels: &[u32]) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().context("`method.adversarial`: found no encoder")?;
        Ok(edm_raw(&fake.with_exec(encoder.clone())?, self.sigma_data, x, sigma, labels)?.mean_keepdim(1)?)
    }

    /// The generator moves to where teacher and fake score agree: the loss of each pixel, omega, and the noisy image.
    fn generator_terms(&self, pass: &Pass<'_>) -> Result<Terms> {
        let d = Draws { seed: pass.seed, phase: 1 };
        let labels = self.labels(pass, d);
        let (input, levels) = self.chain(&pass.nets[0], pass, d, &self.matched(pass), &labels)?;
        let x_g = self.x0(&pass.nets[0], &input, &levels, &labels)?;
        let times = uniform(d.seed, &pass.images, d.stream(1));
        let sigma: Vec<f64> = times.iter().map(|u| self.schedule.at_uniform(u * self.config.t_max)).collect();
        let eps = tensor(noise(d.seed, &pass.images, self.shape(), d.stream(2)), sigma.len(), self.shape())?;
        let x = (&x_g + eps.broadcast_mul(&per_image(sigma.iter().copied())?)?)?;
        let [_, k2, k3, k4] = self.config.guidance.kappas();
        let teacher = self.guided(&self.teacher, &x, &sigma, &labels, k4)?;
        let fake = pass.nets[1].detached();
        let in_delta = self.guided(&fake, &x, &sigma, &labels, k2)?;
        let outside = if k2 == k3 { in_delta.clone() } else { self.guided(&fake, &x, &sigma, &labels, k3)? };
        let answers = Answers { teacher, in_delta, outside };
        let answers = if self.config.detached { answers.detach() } else { answers };
        let (per_pixel, omega) = (identity(&x_g, &answers, self.config.alpha)?, weight(&x_g, &answers.teacher)?);
        Ok(Terms { per_pixel, omega, x, sigma, labels })
    }

    fn generator_loss(&self, pass: &Pass<'_>) -> Result<Loss> {
        let t = self.generator_terms(pass)?;
        let n = t.sigma.len() as f64;
        let identity = (t.per_pixel.broadcast_mul(&t.omega)?.sum_all()? * (100.0 / n))?;
        let Some(a) = self.config.adversarial.as_ref().filter(|a| pass.first >= a.begin) else {
            return Ok(Loss { nets: vec![0], value: identity, terms: vec![] });
        };
        let fooled = bce(&self.logits(&pass.nets[1].detached(), &t.x, &t.sigma, &t.labels)?.clamp(-10.0, 10.0)?, true)?;
        let pixels = self.shape().iter().product::<usize>() as f64;
        let omega = f64::from(t.omega.mean_all()?.to_scalar::<f32>()?);
        let terms = vec![("fooled", f64::from(fooled.to_scalar::<f32>()?))];
        Ok(Loss { nets: vec![0], value: ((identity * 0.5)? + (fooled * (0.5 * a.weight * omega * pixels))?)?, terms })
    }

    fn labels(&self, pass: &Pass<'_>, d: Draws) -> Vec<u32> {
        let table = if self.generator.graph().classes == 0 { 0 } else { self.meta.classes.len() };
        classes(d.seed, pass.images.clone(), d.stream(0), table)
    }

    fn shape(&self) -> [usize; 3] {
        self.generator.graph().input_shape()
    }
}

/// The weights of a student of this teacher.
fn student(file: &Path, teacher: &Bundle) -> Result<Vec<f32>> {
    let bundle = crate::train::read_bundle(file).context("`method.start`")?;
    let of = bundle.meta.training.teacher_sha256.as_deref();
    if of != Some(&teacher.sha256) || bundle.graphs != teacher.graphs {
        bail!(
            "`method.start`: found `{}`, a student of {}, expected one of the teacher {} and of its network",
            bundle.meta.name,
            of.unwrap_or("none"),
            teacher.sha256
        );
    }
    Ok(bundle.thetas[0].clone())
}

/// The parts of the generator's loss.
struct Terms {
    per_pixel: Tensor,
    omega: Tensor,
    x: Tensor,
    sigma: Vec<f64>,
    labels: Vec<u32>,
}

impl Method for Sid {
    fn networks(&self, _seed: u64) -> Result<Vec<NetSpec>> {
        let begin = self.student.as_ref().unwrap_or(&self.start);
        let net = |name, exec: &Arc<Exec>, theta: &[f32], averaged| NetSpec { name, exec: exec.clone(), theta: theta.to_vec(), averaged };
        Ok(vec![net("generator", &self.generator, begin, true), net("fake_score", &self.fake, &self.start, false)])
    }

    fn phases(&self) -> usize {
        2
    }

    fn active(&self, phase: usize, images_seen: u64) -> bool {
        phase == 0 || self.config.adversarial.as_ref().is_none_or(|a| images_seen >= a.freeze)
    }

    fn needs_data(&self) -> bool {
        self.config.adversarial.is_some()
    }

    fn loss(&self, phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        // The fake score first: it starts as the teacher, and there the generator's gradient is exactly zero.
        if phase == 0 { self.fake_loss(pass) } else { self.generator_loss(pass) }
    }

    fn meta(&self, _data: Option<&dyn Dataset>) -> Result<Meta> {
        Ok(self.meta.clone())
    }
}
