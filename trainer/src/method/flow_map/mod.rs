//! Flow maps by self-distillation: one network that jumps between any two times, with or without a teacher.
//!
//! Boffi, Albergo, Vanden-Eijnden, "How to build a consistency model: Learning flow maps via self-distillation"
//! (arXiv 2505.18825). Linear interpolant `I_t = (1 - t) x0 + t x1` from noise `x0 ~ N(0, sigma_data^2)` to data x1; the network
//! gives the velocity `v_{s,t}(x) = sigma_data F(x / sigma_data; s, t)` of `X_{s,t}(x) = x + (t - s) v_{s,t}(x)`.
//!
//! Of a batch of M, `floor(eta M)` images train the diagonal, `|v_{t,t}(I_t) - (x1 - x0)|^2` with t uniform (flow matching), the
//! others one of the conditions in [`residual`] at the times of [`times`] and `x = I_s`. With a teacher its velocity takes the
//! place of the field's own diagonal in LSD and ESD, and of the sample's on the diagonal; a teacher of another schedule is asked
//! where it has the same ratio of noise to data. A warm start takes an EDM teacher's weights and its preconditioning, in which
//! they are the diagonal from the first step, and adds the second time through layers that begin at zero. Dropout, where the
//! network's configuration has it, acts on the diagonal alone.
//!
//! Deviations: means over pixels, not sums, which the optimiser does not see; the network reads (s, t), not (s, t - s). With
//! `averaged_targets` what no gradient flows through is asked of the average of the weights; the paper asks the weights.

mod config;
pub mod field;
#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod method_tests;
pub mod residual;
#[cfg(test)]
mod residual_tests;
pub mod times;
pub mod weight;

use super::{EdmTeacher, Loss, Method, NetSpec, Pass, class_names, classes, edm_teacher, extend, noise, per_image, real, tensor};
use super::{uniform, with_second_time};
use crate::data::Dataset;
use crate::device::device;
use crate::train::read_bundle;
use anyhow::{Context, Result, bail};
use candle_core::{D, DType, Tensor};
pub use config::FlowMapConfig;
use field::{NetField, Teacher};
use limbeck_shared::bundle::{Bundle, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Dropout, Exec, Precision};
use limbeck_shared::denoiser::{ModelSpec, Parameterization};
use limbeck_shared::graph::{Graph, NetworkConfig};
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::Schedule;
use residual::{Condition, Point, Velocity, residual};
use std::path::Path;
use std::sync::Arc;
use times::Times;

/// The method.
pub struct FlowMap {
    config: FlowMapConfig,
    network: NetworkConfig,
    exec: Arc<Exec>,
    teacher: Option<Teacher>,
    teacher_sha256: Option<String>,
    /// How the network is asked: what samplers know of the exported model.
    spec: ModelSpec,
    /// What training begins with, where it is not the graph's own start: the teacher's weights, or a flow map's.
    start: Option<Vec<f32>>,
    /// A row of the class table that a warm start took over; nothing asks for it.
    null_label: Option<u32>,
    name: String,
}

impl FlowMap {
    /// Plans the network: `network`, or with a warm start the teacher's with a second time.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(
        config: &FlowMapConfig,
        network: Option<&NetworkConfig>,
        teacher: Option<&Bundle>,
        name: &str,
        precision: Precision,
    ) -> Result<FlowMap> {
        let sigma_data = config.sigma_data;
        config.check(teacher.is_some(), precision)?;
        let (network, graph, start, parameterization) = match teacher {
            Some(bundle) if config.warm_start => {
                let edm = edm_teacher(bundle)?;
                warm_start(config, bundle, &edm, network)?
            }
            None if config.warm_start => bail!("`method.warm_start`: found no teacher, expected the bundle to begin from (--teacher FILE)"),
            _ => {
                let network = network.context("`network`: found none, expected the network to train")?.clone();
                let graph = network.build_training()?;
                (network, graph, None, Parameterization::FlowMap { sigma_data })
            }
        };
        if graph.times != 2 || graph.input_shape() != graph.output_shape() {
            bail!("`network`: found {} time inputs, expected an image network with limbeck_second_time and no guidance input", graph.times);
        }
        let distilled = teacher.filter(|_| config.distill);
        if let Some(bundle) = distilled {
            same_images(&bundle.graphs[0], &graph)?;
        }
        let null_label = teacher.filter(|_| start.is_some()).and_then(|t| t.meta.null_label);
        let start = match &config.start {
            Some(file) => Some(begun(file, &graph, parameterization)?),
            None => start,
        };
        let spec = ModelSpec {
            schedule: Schedule::Flow { base_std: sigma_data },
            parameterization,
            second_time: true,
            guidance_input: false,
            null_label: null_label.is_some(),
            init_time: None,
        };
        Ok(FlowMap {
            config: config.clone(),
            network,
            exec: Arc::new(Exec::with_precision(graph, precision)?),
            teacher: distilled.map(|t| Teacher::new(t, config.guided(), precision)).transpose()?,
            teacher_sha256: teacher.map(|t| t.sha256.clone()),
            spec,
            null_label,
            start,
            name: name.to_string(),
        })
    }

    /// Places of a pass's images on the diagonal, and of the others: of the first M images of an iteration `floor(eta M)` are on it.
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

    /// Rows of the class table that name a class.
    fn named(&self) -> usize {
        self.exec.graph().classes.saturating_sub(usize::from(self.null_label.is_some()))
    }

    /// The numbers of steps that training covers.
    fn sampler(&self) -> SamplerSpec {
        let (steps, default_steps) = match self.config.condition {
            _ if self.config.from_noise => (vec![1], 1),
            Condition::Consistency => (vec![1], 1),
            Condition::Progressive => (vec![self.config.grid as usize], self.config.grid as usize),
            Condition::Shortcut => ((0..=self.config.grid.ilog2()).map(|k| 1 << k).collect(), (self.config.grid as usize).min(4)),
            _ => (vec![1, 2, 4, 8, 16], 4),
        };
        SamplerSpec { sampler: Sampler::FlowMap, steps, default_steps }
    }

    fn field<'a>(&'a self, pass: &'a Pass<'_>, labels: &'a [u32]) -> NetField<'a> {
        NetField { net: &pass.nets[0], average: pass.average, spec: &self.spec, derivative: self.config.derivative, labels }
    }
}

/// The teacher's network with a second time, its weights in it, and its preconditioning.
fn warm_start(
    c: &FlowMapConfig,
    bundle: &Bundle,
    edm: &EdmTeacher,
    network: Option<&NetworkConfig>,
) -> Result<(NetworkConfig, Graph, Option<Vec<f32>>, Parameterization)> {
    if network.is_some() {
        bail!("`network`: found one beside `method.warm_start`, expected none: it is the teacher's");
    }
    if edm.sigma_data != c.sigma_data {
        bail!("`method.sigma_data`: found {}, expected the teacher's {} for a warm start", c.sigma_data, edm.sigma_data);
    }
    let config = with_second_time(&bundle.meta.networks[0], false)?;
    let graph = config.build_training()?;
    let start = extend(&bundle.graphs[0], &bundle.thetas[0], &graph);
    Ok((config, graph, Some(start), Parameterization::EdmFlowMap { sigma_data: c.sigma_data }))
}

/// The weights of a flow map of this network and preconditioning.
fn begun(file: &Path, graph: &Graph, parameterization: Parameterization) -> Result<Vec<f32>> {
    let bundle = read_bundle(file).context("`method.start`")?;
    if bundle.graphs[0].params != graph.params || bundle.meta.parameterization != parameterization {
        bail!(
            "`method.start`: found `{}`, {:?} with {} parameters, expected {parameterization:?} with {} and this run's network",
            bundle.meta.name,
            bundle.meta.parameterization,
            bundle.graphs[0].param_count(),
            graph.param_count()
        );
    }
    Ok(bundle.thetas[0].clone())
}

fn same_images(teacher: &Graph, student: &Graph) -> Result<()> {
    if teacher.input_shape() == student.input_shape() && (teacher.classes == 0) == (student.classes == 0) {
        return Ok(());
    }
    let (found, expected) = (student.input_shape(), teacher.input_shape());
    bail!(
        "`network`: found images of {found:?} with {} classes, expected the teacher's {expected:?} with {}",
        student.classes,
        teacher.classes
    );
}

/// The mean square of a pixel, image by image.
fn squares(r: &Tensor) -> Result<Tensor> {
    Ok(r.sqr()?.flatten_from(1)?.mean(D::Minus1)?)
}

/// Sums of an iteration's losses: what is minimised, and the raw terms for the log.
#[derive(Default)]
struct Total {
    sum: Option<Tensor>,
    terms: Vec<(&'static str, f64)>,
}

impl Total {
    fn add(&mut self, name: &'static str, losses: &Tensor, minimised: &Tensor) -> Result<()> {
        self.terms.push((name, f64::from(losses.mean_all()?.to_scalar::<f32>()?)));
        let part = minimised.sum_all()?;
        self.sum = Some(match self.sum.take() {
            None => part,
            Some(sum) => (sum + part)?,
        });
        Ok(())
    }
}

impl Method for FlowMap {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        let theta = self.start.clone().unwrap_or_else(|| self.exec.graph().init(seed));
        let mut nets = vec![NetSpec { name: "flow_map", exec: self.exec.clone(), theta, averaged: true }];
        if self.config.weight {
            nets.push(weight::network(seed)?);
        }
        Ok(nets)
    }

    fn reads_average(&self) -> bool {
        self.config.averaged_targets
    }

    fn needs_data(&self) -> bool {
        !self.config.from_noise
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let (shape, sigma_data) = (self.exec.graph().input_shape(), self.config.sigma_data);
        let n = (pass.images.end - pass.images.start) as usize;
        let table = self.exec.graph().classes;
        let (x1, labels) = if self.config.from_noise {
            // At s = 0 no data are in x, and no condition without a diagonal reads the sample's velocity.
            (
                Tensor::zeros((n, shape[0], shape[1], shape[2]), DType::F32, device())?,
                classes(pass.seed, pass.images.clone(), Stream::Label, self.named()),
            )
        } else {
            let real = real(pass, shape, usize::MAX)?;
            (tensor(real.x, n, shape)?, if table > 0 { real.labels } else { vec![] })
        };
        let x0 = (tensor(noise(pass.seed, &pass.images, shape, Stream::Noise), n, shape)? * sigma_data)?;
        let [a, b, c] = [Stream::Time, Stream::Other(20), Stream::Other(21)].map(|s| uniform(pass.seed, &pass.images, s));
        let (diagonal, off) = self.split(pass);
        let pick = |v: &[f64], at: &[u32]| at.iter().map(|&i| v[i as usize]).collect::<Vec<f64>>();
        let between = |at: &[u32], t: &[f64]| -> Result<(Tensor, Tensor)> {
            let index = Tensor::new(at, device())?;
            let (x0, x1) = (x0.index_select(&index, 0)?, x1.index_select(&index, 0)?);
            let velocity = (x1 - &x0)?;
            Ok(((x0 + velocity.broadcast_mul(&per_image(t.iter().copied())?)?)?, velocity))
        };
        let own = |at: &[u32]| if labels.is_empty() { vec![] } else { at.iter().map(|&i| labels[i as usize]).collect::<Vec<u32>>() };
        let mut total = Total::default();
        let mut add = |name, s: &[f64], t: &[f64], r: Tensor| {
            let losses = squares(&r)?;
            match pass.nets.get(1) {
                None => total.add(name, &losses, &losses),
                Some(net) => total.add(name, &losses, &weight::weighted(&losses, &weight::weight(net, s, t)?)?),
            }
        };
        if !diagonal.is_empty() {
            let (t, labels) = (pick(&a, &diagonal), own(&diagonal));
            let (x, velocity) = between(&diagonal, &t)?;
            let target = match &self.teacher {
                None => velocity,
                Some(teacher) => teacher.velocity(sigma_data, &t, &t, &x, &labels)?.detach(),
            };
            let numbers: Vec<u64> = diagonal.iter().map(|&i| pass.images.start + u64::from(i)).collect();
            let dropout = Dropout { seed: pass.seed, images: &numbers };
            let r = (self.field(pass, &labels).dropping(&t, &x, dropout)? - target)?;
            add("diagonal", &t, &t, r)?;
        }
        if !off.is_empty() {
            let (abc, labels) = ([pick(&a, &off), pick(&b, &off), pick(&c, &off)], own(&off));
            let widest = |i: usize| self.widest(pass.images.start + u64::from(off[i]));
            let Times { mut s, t, gamma } =
                times::draw(self.config.condition, self.config.grid, self.config.longer, [&abc[0], &abc[1], &abc[2]], widest);
            if self.config.from_noise {
                s.fill(0.0);
            }
            let (x, velocity) = between(&off, &s)?;
            let b = |s: &[f64], t: &[f64], x: &Tensor| match &self.teacher {
                Some(teacher) => teacher.velocity(sigma_data, s, t, x, &labels),
                None => bail!("there is no teacher"),
            };
            let teacher = self.teacher.as_ref().map(|_| &b as Velocity<'_>);
            let step = 1.0 / f64::from(self.config.grid);
            let point = Point { s: &s, t: &t, gamma: &gamma, x: &x, velocity: &velocity, step };
            let r = residual(self.config.condition, self.config.stop, &self.field(pass, &labels), teacher, &point)?;
            add("off_diagonal", &s, &t, r)?;
        }
        let Total { sum: Some(sum), terms } = total else { bail!("`batch`: found no image, expected at least one") };
        let nets = (0..pass.nets.len()).collect();
        Ok(Loss { nets, value: (sum / n as f64)?, terms })
    }

    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta> {
        let [channels, height, width] = self.exec.graph().input_shape();
        Ok(Meta {
            version: VERSION,
            name: self.name.clone(),
            networks: vec![self.network.clone()],
            parameterization: self.spec.parameterization,
            schedule: self.spec.schedule,
            init_time: None,
            second_time: true,
            guidance_input: false,
            samplers: vec![self.sampler()],
            classes: class_names(data, self.exec.graph().classes, self.null_label.is_some())?,
            null_label: self.null_label,
            guidance: None,
            image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
            training: TrainingRecord { teacher_sha256: self.teacher_sha256.clone(), ..TrainingRecord::new("flow_map", &self.name) },
            licence: "MIT".into(),
            router: None,
            golden: None,
        })
    }
}
