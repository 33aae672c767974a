//! Timestep-adaptive training with pruned copies (TDC): the second of its two stages.
//!
//! Li, Su, Han, You, Huang, Xu (arXiv 2312.13307). A trained denoiser is copied for each of N contiguous groups of noise levels, each
//! copy is pruned, and is fine-tuned on its own levels alone, `t ~ Uniform(T_i)`. Here T is the schedule's uniform time, in which
//! samplers step, and every T_i reaches over its ends by `overlap`, since a sampler's second-order stage may. The loss is the unit
//! regression of the raw output F, whatever the base's parameterisation: the eps loss of the paper for eps networks, EDM's (Karras et
//! al. 2022, eq. 8) for EDM networks. `limbeck prune` searches the widths and writes the configuration.
//!
//! Deviations: as shipped, groups learn the base's answers ([`Target::Base`]) instead of the data's. All groups are trained in one
//! run, image k in group k mod N, so that they can share weights: with `order` every block's units stand in one order, a group takes
//! the first of them, and kernels are stored once; norms, biases and time projections are each group's own. Without `order` nothing
//! is shared and each copy is fine-tuned for itself, as in the paper (but for one clipped norm).

mod config;
mod join;
#[cfg(test)]
mod tests;

pub(crate) use config::label_dropout;
pub use config::{GroupConfig, MAX_GROUPS, Target, TdcConfig};

use super::{Loss, Method, NetSpec, Pass, noise, real, tensor, uniform};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Result, bail};
use candle_core::Tensor;
use config::check;
use join::join;
use limbeck_shared::bundle::{Bundle, Meta, TrainingRecord};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::{ModelSpec, adapter, time_inputs};
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::graph::prune::{self, Pruned, select};
use limbeck_shared::nn::Network;
use limbeck_shared::nn::part::Part as Gather;
use limbeck_shared::program::{Router, Sampler};
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::Schedule;
use std::sync::Arc;

const TERMS: [&str; MAX_GROUPS] = ["group1", "group2", "group3", "group4", "group5", "group6", "group7", "group8"];

/// The uniform times at which a network of this schedule can be asked: without pure data and pure noise, where most
/// parameterisations have no answer.
pub fn span(schedule: &Schedule) -> [f64; 2] {
    match schedule {
        Schedule::Edm { .. } => [0.0, 1.0],
        Schedule::DdpmLinear { steps, .. } => [1.0 / f64::from(*steps), 1.0],
        Schedule::DdpmZeroSnr { steps, .. } => [1.0 / f64::from(*steps), 1.0 - 1.0 / f64::from(*steps)],
        Schedule::Cosine | Schedule::Flow { .. } => [1e-3, 1.0 - 1e-3],
    }
}

/// Noisy images with what the network should answer.
pub struct Questions {
    input: Tensor,
    target: Tensor,
    times: Vec<f32>,
    labels: Vec<u32>,
}

impl Questions {
    /// Noises images `x0 [n, c, h, w]` with `eps` to the schedule's times `t`, one for each. `labels` is empty for networks without.
    ///
    /// # Errors
    /// If a time has no answer.
    pub fn new(spec: &ModelSpec, shape: [usize; 3], x0: &[f32], eps: &[f32], t: &[f64], labels: Vec<u32>) -> Result<Questions> {
        let len = shape.iter().product();
        let (mut input, mut target, mut times) = (vec![], vec![], vec![]);
        for ((x0, eps), &t) in x0.chunks_exact(len).zip(eps.chunks_exact(len)).zip(t) {
            let (alpha, sigma, a) = (spec.schedule.alpha(t), spec.schedule.sigma(t), adapter(spec, t, None)?);
            let noisy = x0.iter().zip(eps).map(|(&x0, &eps)| (f64::from(x0), alpha * f64::from(x0) + sigma * f64::from(eps)));
            for (x0, x) in noisy {
                input.push((a.c_in * x) as f32);
                target.push(((x0 - a.c_skip * x) / a.c_out) as f32);
            }
            times.extend(time_inputs(spec, t, None, None)?);
        }
        Ok(Questions { input: tensor(input, t.len(), shape)?, target: tensor(target, t.len(), shape)?, times, labels })
    }

    /// The same questions, to be answered as `net` does.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn answered_by(self, net: &Network) -> Result<Questions> {
        Ok(Questions { target: self.ask(net)?.detach(), ..self })
    }

    /// What a network answers.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn ask(&self, net: &Network) -> Result<Tensor> {
        Ok(net.forward(&self.input, &self.times, &self.labels)?)
    }

    /// Mean square error of a network's raw answers.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn loss(&self, net: &Network) -> Result<Tensor> {
        Ok((self.ask(net)? - &self.target)?.sqr()?.mean_all()?)
    }
}

/// A group's network: part of the parameters that are trained.
struct Part {
    range: [f64; 2],
    config: NetworkConfig,
    exec: Arc<Exec>,
    index: Vec<usize>,
    gather: Gather,
}

/// The method.
pub struct Tdc {
    config: TdcConfig,
    base: Meta,
    base_sha256: String,
    /// The base, if its answers are the target.
    answers: Option<Network>,
    name: String,
    /// In the order of the file, the widest first.
    parts: Vec<Part>,
    /// The part of each group.
    nets: Vec<usize>,
    exec: Arc<Exec>,
    start: Vec<f32>,
    /// The uniform times of a student's steps ([`steps`]).
    steps: Vec<f64>,
}

/// The uniform times at which a student of a few re-noised steps is asked, the noisiest first; none for a diffusion model.
pub fn steps(base: &Meta) -> Vec<f64> {
    let sampler = base.samplers.iter().find(|s| s.sampler == Sampler::Renoise);
    let (Some(init), Some(sampler)) = (base.init_time, sampler) else { return vec![] };
    base.schedule.renoised(init, sampler.default_steps).into_iter().map(|t| base.schedule.uniform_of(t)).collect()
}

impl Tdc {
    /// Prunes the base for every group.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(config: &TdcConfig, base: &Bundle, name: &str, seed: u64, precision: Precision) -> Result<Tdc> {
        check_base(base)?;
        check(config)?;
        let steps = steps(&base.meta);
        if !steps.is_empty() && config.target == Target::Data {
            bail!("`method.target`: found data for `{}`, a student of {} steps, expected base: its answers", base.meta.name, steps.len());
        }
        let network = &base.meta.networks[0];
        let weights = if config.scratch { base.graphs[0].init(seed) } else { base.thetas[0].clone() };
        let pruned = config.groups.iter().map(|g| prune::prune(network, &g.kept)).collect::<limbeck_shared::Result<Vec<_>>>()?;
        let mut widest: Vec<usize> = (0..pruned.len()).collect();
        // A stable sort: among equals the cleanest first, which is the paper's largest.
        widest.reverse();
        widest.sort_by_key(|&g| std::cmp::Reverse(pruned[g].graph.macs()));
        let nets = (0..pruned.len()).map(|g| widest.iter().position(|&w| w == g).unwrap_or(0)).collect();
        let in_file: Vec<&Pruned> = widest.iter().map(|&g| &pruned[g]).collect();
        let (graph, start, lists) = join(&in_file, &weights, config.order.is_some())?;
        let parts = in_file.iter().zip(lists).zip(&widest).map(|((p, index), &g)| {
            let gather = Gather::new(&index, start.len(), device())?;
            let exec = Arc::new(Exec::with_precision(p.graph.clone(), precision)?);
            Ok(Part { range: config.groups[g].range, config: p.config.clone(), exec, index, gather })
        });
        let frozen = || {
            let exec = Arc::new(Exec::with_precision(base.graphs[0].clone(), precision)?);
            Network::frozen(exec, &base.thetas[0], device())
        };
        let answers = (config.target == Target::Base).then(frozen).transpose()?;
        Ok(Tdc {
            config: config.clone(),
            base: base.meta.clone(),
            base_sha256: base.sha256.clone(),
            answers,
            name: name.into(),
            parts: parts.collect::<Result<_>>()?,
            nets,
            exec: Arc::new(Exec::with_precision(graph, precision)?),
            start,
            steps,
        })
    }

    /// The training time of a group at `u` in [0, 1): uniform over its range and the overlap, or over its steps of a student.
    fn time(&self, range: [f64; 2], u: f64) -> f64 {
        let inside: Vec<f64> = self.steps.iter().copied().filter(|&s| range[0] <= s && s < range[1]).collect();
        if !inside.is_empty() {
            return self.base.schedule.at_uniform(inside[((u * inside.len() as f64) as usize).min(inside.len() - 1)]);
        }
        let [low, high] = span(&self.base.schedule);
        let [a, b] = [(range[0] - self.config.overlap).max(low), (range[1] + self.config.overlap).min(high)];
        self.base.schedule.at_uniform(a + u * (b - a))
    }
}

/// A base is one trained diffusion model: no student of two times, no classifier, not routed itself.
///
/// # Errors
/// Says what it is instead.
pub fn check_base(base: &Bundle) -> Result<()> {
    let meta = &base.meta;
    if meta.is_classifier() || meta.second_time || meta.guidance_input || base.graphs.len() != 1 {
        bail!("`{}`: found a classifier, a student or a routed model, expected one diffusion model", meta.name);
    }
    Ok(())
}

impl Method for Tdc {
    fn networks(&self, _seed: u64) -> Result<Vec<NetSpec>> {
        Ok(vec![NetSpec { name: "groups", exec: self.exec.clone(), theta: self.start.clone(), averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let (shape, n) = (self.base.image.shape(), self.parts.len());
        let len = self.base.image.values();
        let real = real(pass, shape, usize::MAX)?;
        let eps = noise(pass.seed, &pass.images, shape, Stream::Noise);
        let u = uniform(pass.seed, &pass.images, Stream::Time);
        let drop = uniform(pass.seed, &pass.images, Stream::Label);
        let label = |i: usize| self.base.null_label.filter(|_| drop[i] < self.config.label_dropout).unwrap_or(real.labels[i]);
        let pick = |from: &[f32], rows: &[usize]| rows.iter().flat_map(|i| from[i * len..(i + 1) * len].to_vec()).collect::<Vec<_>>();
        let (mut value, mut terms) = (Tensor::zeros((), candle_core::DType::F32, device())?, vec![]);
        for (group, &net) in self.nets.iter().enumerate() {
            let part = &self.parts[net];
            let rows: Vec<usize> = (0..u.len()).filter(|&i| (pass.images.start + i as u64) % n as u64 == group as u64).collect();
            if rows.is_empty() {
                continue;
            }
            let t: Vec<f64> = rows.iter().map(|&i| self.time(part.range, u[i])).collect();
            let mut x0 = pick(&real.x, &rows);
            if self.steps.first().is_some_and(|&first| part.range[0] <= first && first < part.range[1]) {
                // A student's first step is asked about noise alone.
                let first = self.base.schedule.at_uniform(self.steps[0]);
                x0.chunks_exact_mut(len).zip(&t).filter(|(_, t)| **t == first).for_each(|(x0, _)| x0.fill(0.0));
            }
            let labels = if part.exec.graph().classes > 0 { rows.iter().map(|&i| label(i)).collect() } else { vec![] };
            let mut questions = Questions::new(&self.base.spec(), shape, &x0, &pick(&eps, &rows), &t, labels)?;
            if let Some(base) = &self.answers {
                questions = questions.answered_by(base)?;
            }
            let loss = questions.loss(&pass.nets[0].part(part.exec.clone(), &part.gather)?)?;
            terms.push((TERMS[group], f64::from(loss.to_scalar::<f32>()?)));
            value = (value + (loss * (rows.len() as f64 / u.len() as f64))?)?;
        }
        Ok(Loss { nets: vec![0], value, terms })
    }

    fn meta(&self, _data: Option<&dyn Dataset>) -> Result<Meta> {
        let schedule = &self.base.schedule;
        let edge = |g: &GroupConfig| schedule.noise_ratio(schedule.at_uniform(g.range[0])).ln();
        let edges = self.config.groups[..self.nets.len() - 1].iter().map(edge).collect();
        let mut training = TrainingRecord::new("tdc", &self.name);
        training.teacher_sha256 = Some(self.base_sha256.clone());
        Ok(Meta {
            name: self.name.clone(),
            networks: self.parts.iter().map(|p| p.config.clone()).collect(),
            router: Some(Router { edges, nets: self.nets.clone() }),
            training,
            golden: None,
            ..self.base.clone()
        })
    }

    fn drawn(&self, _exec: &Arc<Exec>, theta: &[f32]) -> Vec<(Arc<Exec>, Vec<f32>)> {
        self.parts.iter().map(|p| (p.exec.clone(), select(theta, &p.index))).collect()
    }
}
