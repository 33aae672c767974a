//! Denoising score matching: the teacher that everything else is distilled from.
//!
//! Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364).
//! Preconditioning and weights are theirs (Table 1): `D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4)`, and with the
//! weight `lambda = 1 / c_out^2` the loss is a unit-weight regression of F (Eq. 8).
//!
//! Deviations: no augmentation; sigma_data is the data's own standard deviation; labels are dropped with probability
//! `label_dropout` for classifier-free guidance (Ho and Salimans 2022).

use super::{Loss, Method, NetSpec, Pass, class_names, log_normal, noise, per_image, real, tensor, uniform};
use crate::data::Dataset;
use anyhow::{Result, bail};
use limbeck_shared::bundle::{GuidanceRange, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Dropout, Exec, Precision};
use limbeck_shared::denoiser::{Parameterization, edm_adapter};
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::program::{Guidance, Sampler};
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Settings of the teacher's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Standard deviation of the data.
    pub sigma_data: f64,
    /// Mean of ln(sigma) in training.
    #[serde(default = "p_mean")]
    pub p_mean: f64,
    /// Standard deviation of ln(sigma) in training.
    #[serde(default = "p_std")]
    pub p_std: f64,
    /// Probability that a label is replaced by the null label (the last row of the class table); 0: the table has none.
    #[serde(default)]
    pub label_dropout: f64,
    /// Noise levels at which guidance holds when the model draws; none: all. Training does not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_levels: Option<[f64; 2]>,
}

fn p_mean() -> f64 {
    -1.2
}
fn p_std() -> f64 {
    1.2
}

/// EDM's noise levels for sampling.
pub const SCHEDULE: Schedule = Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 };

/// The method.
pub struct Teacher {
    config: TeacherConfig,
    network: NetworkConfig,
    exec: Arc<Exec>,
    name: String,
}

impl Teacher {
    /// Plans the network.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(config: &TeacherConfig, network: &NetworkConfig, name: &str, precision: Precision) -> Result<Teacher> {
        if config.sigma_data.is_nan() || config.sigma_data <= 0.0 {
            bail!("`method.sigma_data`: found {}, expected a positive number", config.sigma_data);
        }
        if !(0.0..1.0).contains(&config.label_dropout) {
            bail!("`method.label_dropout`: found {}, expected a probability below 1", config.label_dropout);
        }
        if let Some(levels) = config.guidance_levels
            && !(Guidance { weight: 1.0, levels: Some(levels) }).is_sound()
        {
            bail!("`method.guidance_levels`: found {levels:?}, expected two noise levels that rise from 0 or more");
        }
        let graph = network.build_training()?;
        if config.label_dropout > 0.0 && graph.classes < 2 {
            bail!(
                "`method.label_dropout`: found {} for {} classes, expected 0 for an unconditional network",
                config.label_dropout,
                graph.classes
            );
        }
        Ok(Teacher {
            config: config.clone(),
            network: network.clone(),
            exec: Arc::new(Exec::with_precision(graph, precision)?),
            name: name.to_string(),
        })
    }

    fn null_label(&self) -> Option<u32> {
        (self.config.label_dropout > 0.0).then(|| self.exec.graph().classes as u32 - 1)
    }
}

impl Method for Teacher {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        Ok(vec![NetSpec { name: "teacher", exec: self.exec.clone(), theta: self.exec.graph().init(seed), averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let graph = self.exec.graph();
        let shape = graph.input_shape();
        let real = real(pass, shape, usize::MAX)?;
        let (x0, n) = (real.x, real.labels.len());
        let mut labels = vec![];
        if graph.classes > 0 {
            let drop = uniform(pass.seed, &pass.images, Stream::Label);
            let null = |u: f64| self.null_label().filter(|_| u < self.config.label_dropout);
            labels = real.labels.into_iter().zip(drop).map(|(label, u)| null(u).unwrap_or(label)).collect();
        }
        let sigma = log_normal(pass.seed, &pass.images, Stream::Time, self.config.p_mean, self.config.p_std);
        let eps = tensor(noise(pass.seed, &pass.images, shape, Stream::Noise), n, shape)?;
        let x0 = tensor(x0, n, shape)?;
        let x = (&x0 + eps.broadcast_mul(&per_image(sigma.iter().copied())?)?)?;

        // F's target, Eq. 8: (x0 - c_skip x) / c_out.
        let adapters: Vec<_> = sigma.iter().map(|&s| edm_adapter(1.0, s, self.config.sigma_data)).collect();
        let input = x.broadcast_mul(&per_image(adapters.iter().map(|a| a.c_in))?)?;
        let skipped = x.broadcast_mul(&per_image(adapters.iter().map(|a| a.c_skip))?)?;
        let target = (x0 - skipped)?.broadcast_mul(&per_image(adapters.iter().map(|a| 1.0 / a.c_out))?)?;
        let times: Vec<f32> = sigma.iter().map(|s| (s.ln() / 4.0) as f32).collect();
        let images: Vec<u64> = pass.images.clone().collect();
        let f = pass.nets[0].forward_dropping(&input, &times, &labels, Dropout { seed: pass.seed, images: &images })?;
        let value = (f - target)?.sqr()?.mean_all()?;
        Ok(Loss { nets: vec![0], value, terms: vec![] })
    }

    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta> {
        let [channels, height, width] = self.exec.graph().input_shape();
        let null_label = self.null_label();
        Ok(Meta {
            version: VERSION,
            name: self.name.clone(),
            networks: vec![self.network.clone()],
            parameterization: Parameterization::Edm { sigma_data: self.config.sigma_data },
            schedule: SCHEDULE,
            init_time: None,
            second_time: false,
            guidance_input: false,
            samplers: [(Sampler::Heun, 18), (Sampler::FlowEuler, 25), (Sampler::Euler, 25)]
                .into_iter()
                .map(|(sampler, default_steps)| SamplerSpec { sampler, steps: vec![], default_steps })
                .collect(),
            classes: class_names(data, self.exec.graph().classes, null_label.is_some())?,
            null_label,
            guidance: null_label.map(|_| GuidanceRange { min: 0.0, max: 4.0, default: 1.0, levels: self.config.guidance_levels }),
            image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
            training: TrainingRecord::new("edm", &self.name),
            licence: "MIT".into(),
            router: None,
            golden: None,
        })
    }
}
