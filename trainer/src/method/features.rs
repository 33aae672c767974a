//! The classifier in whose features images are compared (`fd`). Trained here, so that figures compare across machines.
//!
//! Cross-entropy on real images with small random shifts. Nothing about it is tuned to any generator.
//!
//! With [`Earlier`], a classifier learns the classes of task n from their images and keeps the earlier ones without theirs, as the
//! side experiment of Masip et al. (arXiv 2311.14028): the model after the last task draws images x~, and the classifier p' after it
//! names them,
//!
//!   L = 1/n CE(label, p(x)) + (1 - 1/n) T^2 CE(p'(x~; T), p(x~; T)),  p(.; T) = softmax(logits / T),  T = 2
//!
//! which tells how much of the earlier classes a generator has kept. The published code has p and p' in each other's places in the
//! second term; here the earlier classifier is the target.

use super::continual::replay::Replay;
use super::{Loss, Method, NetSpec, Pass, Real, classes, real, tensor};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Context, Result, bail};
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, softmax};
use limbeck_shared::bundle::{Bundle, ImageSpec, Meta, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::Network;
use limbeck_shared::rng::{self, Stream};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// T: by what logits are divided where a classifier learns another's answer.
const TEMPERATURE: f64 = 2.0;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesConfig {
    /// Random shifts of the training images, in pixels.
    pub shift: usize,
    /// What stands for the images of earlier tasks; `teacher` is the classifier that knows them. (Without, a `teacher` is only where
    /// training begins.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
}

/// Images of earlier tasks that are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Which task this is, n; from 2.
    pub task: usize,
    /// The bundle that draws.
    pub generator: PathBuf,
    /// Steps in which it does; none: its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Images that it draws; each comes again and again.
    pub pool: u64,
}

/// The method.
pub struct Features {
    network: NetworkConfig,
    exec: Arc<Exec>,
    shift: usize,
    name: String,
    /// Weights that it starts from; none: as its graph says.
    start: Option<Vec<f32>>,
    earlier: Option<Known>,
}

/// What knows the earlier tasks.
struct Known {
    weights: [f64; 2],
    pool: u64,
    generator: Replay,
    classes: usize,
    /// The classifier after the last task.
    answers: Network,
}

/// Refuses a classifier that cannot be gone on with.
fn same_network(teacher: &Bundle, network: &NetworkConfig) -> Result<()> {
    if teacher.meta.networks != [network.clone()] {
        bail!("`teacher`: found another network, expected a classifier of this configuration");
    }
    Ok(())
}

impl Features {
    /// Plans the network.
    ///
    /// # Errors
    /// If the network is no classifier, or the earlier tasks' generator or classifier does not fit it.
    pub fn new(
        config: &FeaturesConfig,
        network: &NetworkConfig,
        teacher: Option<&Bundle>,
        name: &str,
        precision: Precision,
    ) -> Result<Features> {
        if !matches!(network, NetworkConfig::Classifier(_)) {
            bail!("`network._class_name`: found a generator, expected Classifier");
        }
        let exec = Arc::new(Exec::with_precision(network.build()?, precision)?);
        let mut start = None;
        let earlier = match (&config.earlier, teacher) {
            (None, None) => None,
            (None, Some(teacher)) => {
                same_network(teacher, network)?;
                start = Some(teacher.thetas[0].clone());
                None
            }
            (Some(_), None) => bail!("`teacher`: found none, expected the classifier of the task before (--teacher FILE)"),
            (Some(earlier), Some(teacher)) => {
                start = Some(teacher.thetas[0].clone());
                Some(Known::new(earlier, teacher, network, &exec, precision)?)
            }
        };
        Ok(Features { network: network.clone(), exec, shift: config.shift, name: name.to_string(), start, earlier })
    }

    /// Images `[n, c, h, w]`, each shifted at random; `axis` is the first of two streams.
    fn augmented(&self, pass: &Pass<'_>, images: &[f32], axis: u32) -> Result<Tensor> {
        let shape = self.exec.graph().input_shape();
        let len = shape.iter().product::<usize>();
        let mut x = vec![0f32; images.len()];
        let span = 2 * self.shift as u32 + 1;
        for (i, k) in pass.images.clone().enumerate() {
            let move_by = |axis| rng::below(pass.seed, Stream::Other(axis), k, span) as isize - self.shift as isize;
            let at = i * len..(i + 1) * len;
            shifted(&images[at.clone()], shape, move_by(axis), move_by(axis + 1), &mut x[at]);
        }
        let n = x.len() / len;
        tensor(x, n, shape)
    }
}

impl Known {
    fn new(config: &Earlier, teacher: &Bundle, network: &NetworkConfig, exec: &Arc<Exec>, precision: Precision) -> Result<Known> {
        same_network(teacher, network)?;
        for (key, found, least) in [("task", config.task as u64, 2), ("pool", config.pool, 1)] {
            if found < least {
                bail!("`method.earlier.{key}`: found {found}, expected {least} or more");
            }
        }
        let generator = crate::train::read_bundle(&config.generator).context("`method.earlier.generator`")?;
        if generator.meta.image.shape() != exec.graph().input_shape() {
            let (found, expected) = (generator.meta.image.shape(), exec.graph().input_shape());
            bail!("`method.earlier.generator`: found images {found:?}, expected {expected:?}");
        }
        let current = 1.0 / config.task as f64;
        Ok(Known {
            weights: [current, 1.0 - current],
            pool: config.pool,
            generator: Replay::new(&generator, config.steps, false, precision)?,
            classes: generator.meta.classes.len(),
            answers: Network::frozen(exec.clone(), &teacher.thetas[0], device())?,
        })
    }
}

/// `-sum p' log p` of both classifiers' logits `[n, classes]` at the temperature, times its square, mean over images.
fn soft_cross_entropy(answer: &Tensor, target: &Tensor) -> Result<Tensor> {
    let target = softmax(&(target / TEMPERATURE)?, D::Minus1)?.detach();
    let of_each = (target * log_softmax(&(answer / TEMPERATURE)?, D::Minus1)?)?.sum(D::Minus1)?;
    Ok((of_each.mean_all()? * -(TEMPERATURE * TEMPERATURE))?)
}

/// Moves an image by whole pixels; what comes in is black (-1).
fn shifted(image: &[f32], [c, h, w]: [usize; 3], dy: isize, dx: isize, out: &mut [f32]) {
    for ch in 0..c {
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = (y as isize - dy, x as isize - dx);
                let inside = (0..h as isize).contains(&sy) && (0..w as isize).contains(&sx);
                out[(ch * h + y) * w + x] = if inside { image[(ch * h + sy as usize) * w + sx as usize] } else { -1.0 };
            }
        }
    }
}

impl Method for Features {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        let theta = self.start.clone().unwrap_or_else(|| self.exec.graph().init(seed));
        Ok(vec![NetSpec { name: "features", exec: self.exec.clone(), theta, averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let shape = self.exec.graph().input_shape();
        let Real { x, labels } = real(pass, shape, usize::MAX)?;
        let (n, mut x) = (labels.len(), self.augmented(pass, &x, 0)?);
        let drawn = match &self.earlier {
            None => None,
            Some(e) => {
                let numbers: Vec<u64> = pass.images.clone().map(|k| k % e.pool).collect();
                let told = classes(pass.seed, numbers.iter().copied(), Stream::Other(4), e.classes);
                let images = e.generator.images(pass.seed, &numbers, &told, true)?;
                Some((e, self.augmented(pass, &images.flatten_all()?.to_vec1()?, 2)?))
            }
        };
        if let Some((_, drawn)) = &drawn {
            x = Tensor::cat(&[&x, drawn], 0)?;
        }
        let answers = pass.nets[0].forward(&x, &[], &[])?.flatten_from(1)?;
        let logits = answers.narrow(0, 0, n)?;
        let right = logits.argmax(D::Minus1)?.to_vec1::<u32>()?.iter().zip(&labels).filter(|(a, b)| a == b).count();
        let mut value = candle_nn::loss::cross_entropy(&logits, &Tensor::from_vec(labels, n, device())?)?;
        let mut terms = vec![("accuracy", right as f64 / n as f64)];
        if let Some((e, drawn)) = &drawn {
            let target = e.answers.forward(drawn, &[], &[])?.flatten_from(1)?;
            let soft = soft_cross_entropy(&answers.narrow(0, n, n)?, &target)?;
            terms.push(("drawn", f64::from(soft.to_scalar::<f32>()?)));
            value = ((value * e.weights[0])? + (soft * e.weights[1])?)?;
        }
        Ok(Loss { nets: vec![0], value, terms })
    }

    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta> {
        let [channels, height, width] = self.exec.graph().input_shape();
        Ok(Meta {
            version: VERSION,
            name: self.name.clone(),
            networks: vec![self.network.clone()],
            parameterization: Parameterization::X0,
            schedule: super::teacher::SCHEDULE,
            init_time: None,
            second_time: false,
            guidance_input: false,
            samplers: vec![],
            classes: super::class_names(data, self.exec.graph().output_shape()[0], false)?,
            null_label: None,
            guidance: None,
            image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
            training: TrainingRecord::new("classifier", &self.name),
            licence: "MIT".into(),
            router: None,
            golden: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_answers_in_closed_form() {
        let of = |v: &[f32]| Tensor::from_slice(v, (2, 2), device()).unwrap();
        // Two logits 2 ln a and 0 at T = 2 are a/(1+a) and 1/(1+a).
        let (a, b) = (3f64, 0.5f64);
        let answer = of(&[2.0 * b.ln() as f32, 0.0, 0.0, 0.0]);
        let target = of(&[2.0 * a.ln() as f32, 0.0, 0.0, 0.0]);
        let first = -(a / (1.0 + a) * (b / (1.0 + b)).ln() + 1.0 / (1.0 + a) * (1.0 / (1.0 + b)).ln());
        let expected = 4.0 * (first + 2f64.ln()) / 2.0;
        let found = f64::from(soft_cross_entropy(&answer, &target).unwrap().to_scalar::<f32>().unwrap());
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}
