//! Generative distillation: a diffusion model learns new classes and keeps the old ones without their images.
//!
//! Masip, Rodriguez, Tuytelaars, van de Ven, "Continual Learning of Diffusion Models with Generative Distillation" (arXiv
//! 2311.14028). A run of this method is one task, number n. The previous task's model is frozen: it is the teacher, and it draws
//! images of everything it knows. The student starts as its copy and descends, with x_t of new images and x~_t' of drawn ones,
//!
//!   L = 1/n |eps - eps_theta(x_t, t)|^2 + (1 - 1/n) lambda |target - eps_theta(x~_t', t')|^2
//!
//! where the target is the noise that was added (generative replay) or the teacher's own answer `eps_theta'(x~_t', t')`
//! (generative distillation). Replay in few steps loses contrast, and a student that denoises it loses more with every task; a
//! student that answers what the teacher answers does not, however poor the replay (`tests::drift`). The other arms
//! ([`Arm`]) differ in where the second half of the batch comes from. Means are taken over each half, and the student is asked once
//! on both.
//!
//! Task-free, as the paper: neither network is told a task or a class, unless the teacher is class-conditional: then replay has the
//! labels it was asked for, and new classes get new rows of the table, which begin as the null label's (or the table's mean).
//!
//! Deviations: the teacher, the beginning of a task, is the average of the weights and not the last ones, rounded as its bundle
//! is; times of a sampler whose steps do not divide the schedule's lie between the discrete ones instead of being rounded; partial
//! generation stops at one of the sampler's own times, and draws to the end. Losses are in the terms of the network, so that
//! bundles of other parameterisations can be continued; the paper's is eps.

mod config;
mod denoising;
mod labels;
pub(super) mod replay;
#[cfg(test)]
mod tests;

pub use config::{Arm, Beginning, ContinualConfig, OneStep};
pub(crate) use denoising::{Noised, times};

use super::{Loss, Method, NetSpec, Pass, Real, classes, real, tensor, uniform};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use denoising::{data_std, normals};
use limbeck_shared::bundle::{Bundle, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::ModelSpec;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::Network;
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::Stream;
use replay::Replay;
use std::sync::Arc;

/// First of the streams that the second half of the batch draws from: times, noise, classes, dropped labels, states; latents from
/// 100 on.
const REPLAY: u32 = 30_000;

/// Part of the labels that is replaced by the null label, for teachers that have one.
const LABEL_DROPOUT: f64 = 0.1;

/// The method.
pub struct Continual {
    config: ContinualConfig,
    meta: Meta,
    spec: ModelSpec,
    exec: Arc<Exec>,
    /// Weights of the previous task; none: a first task's network starts as its graph says.
    start: Option<Vec<f32>>,
    previous: Option<Previous>,
}

/// The previous task's model.
struct Previous {
    teacher: Network,
    /// None for arms that have nothing drawn.
    replay: Option<Replay>,
    /// How many classes it knows, and its null label.
    classes: usize,
    null: Option<u32>,
}

impl Continual {
    /// Prepares a task: the first from a network's configuration, a later one from the previous task's bundle.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(
        config: &ContinualConfig,
        network: Option<&NetworkConfig>,
        teacher: Option<&Bundle>,
        name: &str,
        precision: Precision,
    ) -> Result<Continual> {
        config.check()?;
        let (mut meta, start) = match (teacher, config.task) {
            (None, 1) => (first(config, network.context("`network`: found none, expected the network of the first task")?)?, None),
            (None, n) => bail!("`teacher`: found none, expected the model after task {} (--teacher FILE)", n - 1),
            (Some(_), 1) if !matches!(config.arm, Arm::FineTune | Arm::Joint) => {
                bail!("`method.task`: found 1 with a teacher, expected a later task")
            }
            (Some(teacher), _) => {
                let (meta, theta) = labels::with_classes(teacher, &config.classes)?;
                (meta, Some(theta))
            }
        };
        meta.name = name.to_string();
        meta.training = TrainingRecord { teacher_sha256: teacher.map(|t| t.sha256.clone()), ..TrainingRecord::new("continual", name) };
        meta.golden = None;
        let spec = meta.spec();
        if spec.second_time || spec.guidance_input || spec.parameterization.is_flow_map() || meta.networks.len() != 1 {
            bail!("`teacher`: found a student or a routed model, expected one diffusion model");
        }
        let exec = Arc::new(Exec::with_precision(meta.networks[0].build()?, precision)?);
        let previous = teacher.map(|t| Previous::new(config, t, precision)).transpose()?;
        Ok(Continual { config: config.clone(), meta, spec, exec, start, previous })
    }

    /// New images at their times, and what the student should answer.
    fn current(&self, pass: &Pass<'_>) -> Result<(Noised, Tensor)> {
        let shape = self.exec.graph().input_shape();
        let Real { x, labels } = real(pass, shape, usize::MAX)?;
        let x0 = tensor(x, labels.len(), shape)?;
        let labels = match (self.exec.graph().classes, pass.data) {
            (0, _) | (_, None) => vec![],
            (_, Some(data)) => {
                let labels = labels::of_images(&labels, data, &self.meta.classes, &self.config.classes)?;
                self.dropped(labels, pass, Stream::Label, self.meta.null_label)
            }
        };
        let eps = normals(pass.seed, &pass.images, shape, Stream::Noise)?;
        Noised::new(&self.spec, &x0, &eps, times(&self.spec, pass.seed, &pass.images, Stream::Time), labels)
    }

    /// The second half of the batch and its target; none if all weight is on the new images.
    fn replayed(&self, pass: &Pass<'_>, current: &Noised) -> Result<Option<(Noised, Tensor)>> {
        let Some(previous) = self.previous.as_ref().filter(|_| self.config.weights()[1] > 0.0) else { return Ok(None) };
        let shape = self.exec.graph().input_shape();
        let numbers: Vec<u64> = pass.images.clone().map(|k| self.config.pool.map_or(k, |pool| k % pool)).collect();
        let drawn = classes(pass.seed, numbers.iter().copied(), Stream::Other(REPLAY + 2), previous.classes);
        let told = self.dropped(drawn.clone(), pass, Stream::Other(REPLAY + 3), self.meta.null_label);
        let replay = || previous.replay.as_ref().context("`method.arm`: found no generator for replay");
        let images = || replay()?.images(pass.seed, &numbers, &drawn, self.config.pool.is_some());
        let t = times(&self.spec, pass.seed, &pass.images, Stream::Other(REPLAY));
        let eps = normals(pass.seed, &pass.images, shape, Stream::Other(REPLAY + 1))?;
        let noised = match self.config.arm {
            Arm::FineTune | Arm::Joint => return Ok(None),
            Arm::Replay => return Noised::new(&self.spec, &images()?, &eps, t, told).map(Some),
            Arm::Distillation => Noised::new(&self.spec, &images()?, &eps, t, told)?.0,
            Arm::Partial => Noised { labels: told, ..replay()?.states(pass.seed, &numbers, &drawn)? },
            Arm::Gaussian => {
                // As wide as x_t of data is; 1 where the schedule preserves variance.
                let (s, data) = (&self.spec.schedule, data_std(&self.spec));
                let width = t.iter().map(|&t| (s.alpha(t) * data).hypot(s.sigma(t)));
                Noised { x: eps.broadcast_mul(&super::per_image(width)?)?, t, labels: told }
            }
            Arm::Lwf => current.clone(),
        };
        let mut asked = noised.clone();
        // The teacher knows the old classes alone, and its null label lies where the first new class may.
        if let Some(null) = previous.null {
            let known = previous.classes as u32;
            asked.labels.iter_mut().filter(|l| **l >= known).for_each(|l| *l = null);
        }
        let target = asked.asked(&previous.teacher, &self.spec)?.detach();
        Ok(Some((noised, target)))
    }

    fn dropped(&self, mut labels: Vec<u32>, pass: &Pass<'_>, stream: Stream, null: Option<u32>) -> Vec<u32> {
        if let Some(null) = null {
            let drop = uniform(pass.seed, &pass.images, stream);
            labels.iter_mut().zip(drop).filter(|(_, u)| *u < LABEL_DROPOUT).for_each(|(l, _)| *l = null);
        }
        labels
    }
}

impl Previous {
    fn new(config: &ContinualConfig, teacher: &Bundle, precision: Precision) -> Result<Previous> {
        let student = config.replay.as_deref().filter(|_| config.draws()).map(crate::train::read_bundle).transpose()?;
        if let Some(s) = &student
            && (s.meta.image.shape() != teacher.meta.image.shape() || s.meta.classes != teacher.meta.classes)
        {
            bail!("`method.replay`: found a model of other images or classes than the teacher's, expected one that draws the same");
        }
        let steps = student.is_none().then_some(config.teacher_steps);
        let states = config.arm == Arm::Partial;
        if states && student.is_some() {
            bail!("`method.replay`: found a student with partial generation, expected the teacher's own states");
        }
        let replay = config.draws().then(|| Replay::new(student.as_ref().unwrap_or(teacher), steps, states, precision)).transpose()?;
        let exec = Arc::new(Exec::with_precision(teacher.graphs[0].clone(), precision)?);
        Ok(Previous {
            teacher: Network::frozen(exec, &teacher.thetas[0], device())?,
            replay,
            classes: teacher.meta.classes.len(),
            null: teacher.meta.null_label,
        })
    }
}

/// Squared error, mean over all pixels of all images.
fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a - b)?.sqr()?.mean_all()?)
}

impl Method for Continual {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        let theta = self.start.clone().unwrap_or_else(|| self.exec.graph().init(seed));
        Ok(vec![NetSpec { name: "student", exec: self.exec.clone(), theta, averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let ([of_current, of_replay], net) = (self.config.weights(), &pass.nets[0]);
        let (current, target) = self.current(pass)?;
        let Some((replayed, replay_target)) = self.replayed(pass, &current)? else {
            let value = (mse(&current.asked(net, &self.spec)?, &target)? * of_current)?;
            return Ok(Loss { nets: vec![0], value, terms: vec![] });
        };
        let n = current.t.len();
        let [answer, replay_answer] = match self.config.arm {
            // Both halves are the same images.
            Arm::Lwf => {
                let answer = current.asked(net, &self.spec)?;
                [answer.clone(), answer]
            }
            _ => {
                let both = current.and(&replayed)?.asked(net, &self.spec)?;
                [both.narrow(0, 0, n)?, both.narrow(0, n, n)?]
            }
        };
        let (new, old) = (mse(&answer, &target)?, mse(&replay_answer, &replay_target)?);
        let terms = vec![("current", f64::from(new.to_scalar::<f32>()?)), ("replay", f64::from(old.to_scalar::<f32>()?))];
        Ok(Loss { nets: vec![0], value: ((new * of_current)? + (old * of_replay)?)?, terms })
    }

    fn meta(&self, _data: Option<&dyn Dataset>) -> Result<Meta> {
        Ok(self.meta.clone())
    }
}

/// What the bundle of a first task says.
fn first(config: &ContinualConfig, network: &NetworkConfig) -> Result<Meta> {
    let graph = network.build()?;
    if graph.classes > 0 {
        bail!("`network.num_class_embeds`: found {}, expected none: a sequence is learned without labels", graph.classes);
    }
    let (parameterization, schedule) = config.beginning.parts();
    let sampler = if config.clip { Sampler::DdimClipped } else { Sampler::Ddim };
    let [channels, height, width] = graph.input_shape();
    Ok(Meta {
        version: VERSION,
        name: String::new(),
        networks: vec![network.clone()],
        parameterization,
        schedule,
        init_time: None,
        second_time: false,
        guidance_input: false,
        samplers: vec![SamplerSpec { sampler, steps: vec![], default_steps: config.steps }],
        classes: vec![],
        null_label: None,
        guidance: None,
        image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
        training: TrainingRecord::new("continual", ""),
        licence: "MIT".into(),
        router: None,
        golden: None,
    })
}
