//! Flow maps by self-distillation: one network that jumps between any two times, with or without a teacher.
//!
//! Boffi, Albergo, Vanden-Eijnden, "How to build a consistency model: Learning flow maps via self-distillation"
//! (arXiv 2505.18825). Linear interpolant `I_t = (1 - t) x0 + t x1` from noise `x0 ~ N(0, sigma_data^2)` to data x1; the network
//! gives the velocity `v_{s,t}(x) = sigma_data F(x / sigma_data; s, t)` of `X_{s,t}(x) = x + (t - s) v_{s,t}(x)`.
//!
//! Of a batch of M, `floor(eta M)` images train the diagonal, `|v_{t,t}(I_t) - (x1 - x0)|^2` with t uniform (flow matching), the
//! others one of the conditions in [`residual`] at s < t uniform on the triangle, at `x = I_s`. With a teacher its velocity
//! takes the place of the field's own diagonal in LSD and ESD, and of the sample's on the diagonal; a teacher trained as an EDM
//! denoiser is asked at the noise level that has the same signal-to-noise ratio.
//!
//! Deviations: means over pixels, not sums, which the optimiser does not see; the network reads (s, t), not (s, t - s).

pub mod residual;
#[cfg(test)]
mod residual_tests;

use super::{EdmTeacher, Loss, Method, NetSpec, Pass, class_names, edm_teacher, edm_x0, noise, per_image, real, tensor, uniform};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Result, bail};
use candle_core::{D, Tensor};
use limbeck_shared::bundle::{Bundle, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::Network;
use limbeck_shared::nn::dual::Dual;
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::Schedule;
use residual::{Condition, Field, Point, Stop, Velocity, residual};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Settings of a flow map's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowMapConfig {
    /// The condition off the diagonal.
    pub condition: Condition,
    /// What gradients do not flow through.
    #[serde(default)]
    pub stop: Stop,
    /// Standard deviation of the data, and of the noise.
    pub sigma_data: f64,
    /// Part of the batch on the diagonal.
    #[serde(default = "eta")]
    pub eta: f64,
    /// The largest t - s, rising to 1 over this many images; 0: 1 from the start.
    #[serde(default)]
    pub widen: u64,
}

fn eta() -> f64 {
    0.75
}

/// A frozen teacher.
struct Teacher {
    net: Network,
    sigma_data: f64,
    sigma_max: f64,
}

/// The method.
pub struct FlowMap {
    config: FlowMapConfig,
    network: NetworkConfig,
    exec: Arc<Exec>,
    teacher: Option<Teacher>,
    teacher_sha256: Option<String>,
    name: String,
}

impl FlowMap {
    /// Plans the network.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(
        config: &FlowMapConfig,
        network: &NetworkConfig,
        teacher: Option<&Bundle>,
        name: &str,
        precision: Precision,
    ) -> Result<FlowMap> {
        if !(config.sigma_data > 0.0 && config.sigma_data.is_finite()) {
            bail!("`method.sigma_data`: found {}, expected a positive number", config.sigma_data);
        }
        if !(0.0..=1.0).contains(&config.eta) {
            bail!("`method.eta`: found {}, expected a part from 0 to 1", config.eta);
        }
        let graph = network.build()?;
        if graph.times != 2 || graph.input_shape() != graph.output_shape() {
            bail!("`network`: found {} time inputs, expected an image network with limbeck_second_time and no guidance input", graph.times);
        }
        if teacher.is_some() && matches!(config.condition, Condition::MeanFlow) {
            bail!("`method.condition`: found mean_flow with a teacher, expected lsd, esd, psd_u or psd_m");
        }
        let frozen = teacher.map(|t| frozen(t, &graph, precision)).transpose()?;
        Ok(FlowMap {
            config: config.clone(),
            network: network.clone(),
            exec: Arc::new(Exec::with_precision(graph, precision)?),
            teacher: frozen,
            teacher_sha256: teacher.map(|t| t.sha256.clone()),
            name: name.to_string(),
        })
    }

    /// Places of a pass's images on the diagonal, and of the others.
    fn split(&self, pass: &Pass<'_>) -> (Vec<u32>, Vec<u32>) {
        let before = |i: u64| (i as f64 * self.config.eta).floor();
        let places = 0..(pass.images.end - pass.images.start) as u32;
        places.partition(|&i| {
            let i = pass.images.start - pass.first + u64::from(i);
            before(i + 1) > before(i)
        })
    }

    /// The widest gap between two times at this image.
    fn widest(&self, image: u64) -> f64 {
        if self.config.widen == 0 { 1.0 } else { (image as f64 / self.config.widen as f64).clamp(0.01, 1.0) }
    }
}

fn frozen(bundle: &Bundle, student: &limbeck_shared::graph::Graph, precision: Precision) -> Result<Teacher> {
    let EdmTeacher { sigma_data, sigma_max, .. } = edm_teacher(bundle)?;
    let graph = &bundle.graphs[0];
    if graph.input_shape() != student.input_shape() || (graph.classes == 0) != (student.classes == 0) {
        let (found, expected) = (student.input_shape(), graph.input_shape());
        bail!(
            "`network`: found images of {found:?} with {} classes, expected the teacher's {expected:?} with {}",
            student.classes,
            graph.classes
        );
    }
    let exec = Arc::new(Exec::with_precision(graph.clone(), precision)?);
    Ok(Teacher { net: Network::frozen(exec, &bundle.thetas[0], device())?, sigma_data, sigma_max })
}

impl Teacher {
    /// `b_t(x) = (x0 - x) / (1 - t)` at the noise level of the same ratio, `sigma = (1 - t) base / t`, up to its largest. The
    /// input's scale `sigma / ((1 - t) base)` stays finite at t = 0.
    fn velocity(&self, base: f64, t: &[f64], x: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let t: Vec<f64> = t.iter().map(|t| t.min(1.0 - 1e-3)).collect();
        let sigma: Vec<f64> = t.iter().map(|&t| ((1.0 - t) * base / t.max(1e-9)).min(self.sigma_max)).collect();
        let scale = per_image(sigma.iter().zip(&t).map(|(sigma, t)| sigma / ((1.0 - t) * base)))?;
        let x0 = edm_x0(&self.net, self.sigma_data, &x.broadcast_mul(&scale)?, &sigma, labels)?;
        Ok((x0 - x)?.broadcast_mul(&per_image(t.iter().map(|t| 1.0 / (1.0 - t)))?)?)
    }
}

/// The network as a two-time field, for the images of one label list.
struct NetField<'a> {
    net: &'a Network,
    sigma_data: f64,
    labels: &'a [u32],
}

impl NetField<'_> {
    fn call(&self, net: &Network, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        let y = net.forward(&(x / self.sigma_data)?, &pairs(s, t), self.labels)?;
        Ok((y * self.sigma_data)?)
    }
}

/// Both times of every image, as the network reads them.
fn pairs(s: &[f64], t: &[f64]) -> Vec<f32> {
    s.iter().zip(t).flat_map(|(s, t)| [*s as f32, *t as f32]).collect()
}

impl Field for NetField<'_> {
    fn at(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        self.call(self.net, s, t, x)
    }

    fn constant(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        self.call(&self.net.detached(), s, t, &x.detach())
    }

    fn dual(&self, s: &[f64], t: &[f64], x: &Dual, rates: [f32; 2]) -> Result<Dual> {
        let y = self.net.dual(&x.scale(1.0 / self.sigma_data)?, &pairs(s, t), &rates.repeat(s.len()), self.labels)?;
        Ok(y.scale(self.sigma_data)?)
    }
}

/// Sum over images of the mean square of a pixel.
fn squares(r: &Tensor) -> Result<Tensor> {
    Ok(r.sqr()?.flatten_from(1)?.mean(D::Minus1)?.sum_all()?)
}

impl Method for FlowMap {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        Ok(vec![NetSpec { name: "flow_map", exec: self.exec.clone(), theta: self.exec.graph().init(seed), averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let (shape, sigma_data) = (self.exec.graph().input_shape(), self.config.sigma_data);
        let real = real(pass, shape, usize::MAX)?;
        let n = real.labels.len();
        let labels = if self.exec.graph().classes > 0 { real.labels } else { vec![] };
        let x1 = tensor(real.x, n, shape)?;
        let x0 = (tensor(noise(pass.seed, &pass.images, shape, Stream::Noise), n, shape)? * sigma_data)?;
        let (a, b) = (uniform(pass.seed, &pass.images, Stream::Time), uniform(pass.seed, &pass.images, Stream::Other(20)));
        let gamma = match self.config.condition {
            Condition::PsdU => uniform(pass.seed, &pass.images, Stream::Other(21)),
            _ => vec![0.5; n],
        };
        let (diagonal, off) = self.split(pass);
        let pick = |v: &[f64], at: &[u32]| at.iter().map(|&i| v[i as usize]).collect::<Vec<f64>>();
        let between = |at: &[u32], t: &[f64]| -> Result<(Tensor, Tensor)> {
            let index = Tensor::new(at, device())?;
            let (x0, x1) = (x0.index_select(&index, 0)?, x1.index_select(&index, 0)?);
            let velocity = (x1 - &x0)?;
            Ok(((x0 + velocity.broadcast_mul(&per_image(t.iter().copied())?)?)?, velocity))
        };
        let own = |at: &[u32]| if labels.is_empty() { vec![] } else { at.iter().map(|&i| labels[i as usize]).collect::<Vec<u32>>() };
        let (mut sum, mut terms): (Option<Tensor>, Vec<(&'static str, f64)>) = (None, vec![]);
        let mut add = |name, part: Tensor, count: usize| -> Result<()> {
            terms.push((name, f64::from(part.to_scalar::<f32>()?) / count as f64));
            sum = Some(match sum.take() {
                None => part,
                Some(sum) => (sum + part)?,
            });
            Ok(())
        };
        if !diagonal.is_empty() {
            let (t, labels) = (pick(&a, &diagonal), own(&diagonal));
            let (x, velocity) = between(&diagonal, &t)?;
            let field = NetField { net: &pass.nets[0], sigma_data, labels: &labels };
            let target = match &self.teacher {
                None => velocity,
                Some(teacher) => teacher.velocity(sigma_data, &t, &x, &labels)?.detach(),
            };
            add("diagonal", squares(&(field.at(&t, &t, &x)? - target)?)?, diagonal.len())?;
        }
        if !off.is_empty() {
            let (a, b, labels) = (pick(&a, &off), pick(&b, &off), own(&off));
            let t: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect();
            let gap = off.iter().map(|&i| self.widest(pass.images.start + u64::from(i)));
            let s: Vec<f64> = a.iter().zip(&b).zip(&t).zip(gap).map(|(((a, b), t), gap)| a.min(*b).max(t - gap)).collect();
            let (x, velocity) = between(&off, &s)?;
            let field = NetField { net: &pass.nets[0], sigma_data, labels: &labels };
            let b = |t: &[f64], x: &Tensor| match &self.teacher {
                Some(teacher) => teacher.velocity(sigma_data, t, x, &labels),
                None => bail!("there is no teacher"),
            };
            let teacher = self.teacher.as_ref().map(|_| &b as Velocity<'_>);
            let point = Point { s: &s, t: &t, gamma: &pick(&gamma, &off), x: &x, velocity: &velocity };
            let r = residual(self.config.condition, self.config.stop, &field, teacher, &point)?;
            add("off_diagonal", squares(&r)?, off.len())?;
        }
        let Some(sum) = sum else { bail!("`batch`: found no image, expected at least one") };
        Ok(Loss { net: 0, value: (sum / n as f64)?, terms })
    }

    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta> {
        let [channels, height, width] = self.exec.graph().input_shape();
        Ok(Meta {
            version: VERSION,
            name: self.name.clone(),
            networks: vec![self.network.clone()],
            parameterization: Parameterization::FlowMap { sigma_data: self.config.sigma_data },
            schedule: Schedule::Flow { base_std: self.config.sigma_data },
            init_time: None,
            second_time: true,
            guidance_input: false,
            samplers: vec![SamplerSpec { sampler: Sampler::FlowMap, steps: vec![1, 2, 4, 8, 16], default_steps: 4 }],
            classes: class_names(data, self.exec.graph().classes, false)?,
            null_label: None,
            guidance: None,
            image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
            training: TrainingRecord {
                method: "flow_map".into(),
                preset: self.name.clone(),
                teacher_sha256: self.teacher_sha256.clone(),
                images_seen: 0,
                seconds: 0.0,
                command: String::new(),
                evaluation: Default::default(),
            },
            licence: "MIT".into(),
            golden: None,
        })
    }
}
