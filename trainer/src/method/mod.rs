//! The methods: which networks are trained, and the losses. One file a method; none knows about loops, logs or files.

pub mod boot;
pub mod continual;
pub mod features;
pub mod flow_map;
pub(crate) mod guided;
pub mod sid;
pub mod tdc;
pub mod teacher;

use crate::config::{MethodConfig, RunConfig};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::{Bundle, Meta};
use limbeck_shared::cpu::Exec;
use limbeck_shared::denoiser::{Parameterization, edm_adapter};
use limbeck_shared::graph::{Graph, NetworkConfig};
use limbeck_shared::nn::Network;
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;
use std::ops::Range;
use std::sync::Arc;

/// A network the loop trains.
pub struct NetSpec {
    /// Name in logs and states.
    pub name: &'static str,
    /// The network.
    pub exec: Arc<Exec>,
    /// Weights to start from.
    pub theta: Vec<f32>,
    /// Whether an average of its weights is kept. The exported network, the first, is averaged.
    pub averaged: bool,
}

/// What a loss is computed from.
pub struct Pass<'a> {
    /// Key of all random numbers.
    pub seed: u64,
    /// Number of the first image of this iteration, the same for all its passes.
    pub first: u64,
    /// Numbers of the images of this pass, counted over the whole run: image k draws the same numbers in any batch.
    pub images: Range<u64>,
    /// The trained networks, in the order of [`Method::networks`].
    pub nets: &'a [Network],
    /// The first network with the average of its weights, frozen, for methods that asked for it.
    pub average: Option<&'a Network>,
    /// The real images, for methods that asked for them.
    pub data: Option<&'a dyn Dataset>,
}

/// A loss: mean over the images of the pass, and numbers for the log.
pub struct Loss {
    /// The networks it trains.
    pub nets: Vec<usize>,
    /// Scalar.
    pub value: Tensor,
    /// Named parts.
    pub terms: Vec<(&'static str, f64)>,
}

/// A training method.
pub trait Method {
    /// The networks to train.
    ///
    /// # Errors
    /// If a configuration cannot be built.
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>>;

    /// How many updates an iteration makes, one after another, each with its own loss.
    fn phases(&self) -> usize {
        1
    }

    /// Whether an iteration that begins with this many images seen makes this update.
    fn active(&self, _phase: usize, _images_seen: u64) -> bool {
        true
    }

    /// Whether a loss reads the average of the first network's weights.
    fn reads_average(&self) -> bool {
        false
    }

    /// Whether real images are read. Data-free methods never open a data file.
    fn needs_data(&self) -> bool;

    /// The loss of one phase on one pass.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn loss(&self, phase: usize, pass: &Pass<'_>) -> Result<Loss>;

    /// What the exported bundle says; its networks belong to `networks()[0]`.
    ///
    /// # Errors
    /// If the description cannot be made.
    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta>;

    /// The networks of the exported bundle, `networks()[0]` and its weights unless the method trains several as one.
    fn drawn(&self, exec: &Arc<Exec>, theta: &[f32]) -> Vec<(Arc<Exec>, Vec<f32>)> {
        vec![(exec.clone(), theta.to_vec())]
    }
}

/// The method of a configuration. `teacher` is the bundle named there.
///
/// # Errors
/// Names the key that is missing or does not fit.
pub fn build(config: &RunConfig, teacher: Option<&Bundle>) -> Result<Box<dyn Method>> {
    let (name, precision) = (config.name.as_str(), config.precision.resolve());
    let network = || config.network.as_ref().context("`network`: found none, expected the network to train");
    Ok(match &config.method {
        MethodConfig::Teacher(c) => Box::new(teacher::Teacher::new(c, network()?, name, precision)?),
        MethodConfig::Boot(c) => {
            let teacher = teacher.context("`teacher`: found none, expected the bundle to distill (--teacher FILE)")?;
            Box::new(boot::Boot::new(c, teacher, name, precision)?)
        }
        MethodConfig::Sid(c) => {
            let teacher = teacher.context("`teacher`: found none, expected the bundle to distill (--teacher FILE)")?;
            Box::new(sid::Sid::new(c, teacher, name, precision)?)
        }
        MethodConfig::FlowMap(c) => Box::new(flow_map::FlowMap::new(c, config.network.as_ref(), teacher, name, precision)?),
        MethodConfig::Continual(c) => Box::new(continual::Continual::new(c, config.network.as_ref(), teacher, name, precision)?),
        MethodConfig::Tdc(c) => {
            let base = teacher.context("`teacher`: found none, expected the bundle to prune (--teacher FILE)")?;
            Box::new(tdc::Tdc::new(c, base, name, config.seed, precision)?)
        }
        MethodConfig::Features(c) => Box::new(features::Features::new(c, network()?, teacher, name, precision)?),
    })
}

/// A student's configuration: the teacher's with a second time input (and a guidance input).
///
/// # Errors
/// If the teacher is a classifier.
pub(crate) fn with_second_time(teacher: &NetworkConfig, guidance: bool) -> Result<NetworkConfig> {
    let mut config = teacher.clone();
    match &mut config {
        NetworkConfig::Unet(c) => (c.limbeck_second_time, c.limbeck_guidance_input) = (true, guidance),
        NetworkConfig::Mlp(c) => (c.limbeck_second_time, c.limbeck_guidance_input) = (true, guidance),
        NetworkConfig::Classifier(_) => bail!("`teacher`: found a classifier, expected a diffusion model"),
    }
    Ok(config)
}

/// A theta for `to`: parameters of the same name are copied, new ones start as the graph says (their last layer at zero).
pub(crate) fn extend(from: &Graph, theta: &[f32], to: &Graph) -> Vec<f32> {
    let mut out = to.init(0);
    for p in &to.params {
        if let Some(q) = from.param(&p.name) {
            out[p.range()].copy_from_slice(&theta[q.range()]);
        }
    }
    out
}

/// Standard normals `[n, shape]`, image by image.
pub(crate) fn noise(seed: u64, images: &Range<u64>, shape: [usize; 3], stream: Stream) -> Vec<f32> {
    use rayon::prelude::*;
    let len: usize = shape.iter().product();
    let mut out = vec![0f32; (images.end - images.start) as usize * len];
    out.par_chunks_mut(len).enumerate().for_each(|(i, v)| rng::normals(seed, stream, images.start + i as u64, v));
    out
}

/// What a distilled teacher has to be: one EDM network on EDM's schedule.
pub(crate) struct EdmTeacher {
    pub(crate) sigma_data: f64,
    pub(crate) sigma_min: f64,
    pub(crate) sigma_max: f64,
}

/// Checks that a bundle is one, and no student or routed model.
///
/// # Errors
/// Says what it is instead.
pub(crate) fn edm_teacher(teacher: &Bundle) -> Result<EdmTeacher> {
    let meta = &teacher.meta;
    let (Parameterization::Edm { sigma_data }, Schedule::Edm { sigma_min, sigma_max, .. }) = (meta.parameterization, meta.schedule) else {
        bail!("`teacher`: found {:?} on {:?}, expected an EDM model", meta.parameterization, meta.schedule);
    };
    if meta.second_time || meta.guidance_input || teacher.graphs.len() != 1 {
        bail!("`teacher`: found a student or a routed model, expected one diffusion model");
    }
    Ok(EdmTeacher { sigma_data, sigma_min, sigma_max })
}

/// The real images of a pass.
pub(crate) struct Real {
    /// `[n, c, h, w]` flat.
    pub(crate) x: Vec<f32>,
    /// The label of each.
    pub(crate) labels: Vec<u32>,
}

/// Which of `count` real images each of a pass is.
pub(crate) fn picks(pass: &Pass<'_>, count: usize) -> Vec<usize> {
    pass.images.clone().map(|k| rng::below(pass.seed, Stream::Order, k, count as u32) as usize).collect()
}

/// Draws the real images of a pass from the first `limit` of the data.
///
/// # Errors
/// If there are no data, or their shape is not the network's.
pub(crate) fn real(pass: &Pass<'_>, shape: [usize; 3], limit: usize) -> Result<Real> {
    let data = pass.data.context("`data`: found none, expected the images to train on")?;
    if data.shape() != shape {
        bail!("`data`: found images of {:?}, expected the network's {shape:?}", data.shape());
    }
    let len = shape.iter().product::<usize>();
    let picks = picks(pass, data.len().min(limit));
    let mut x = vec![0f32; picks.len() * len];
    x.chunks_exact_mut(len).zip(&picks).for_each(|(x, &pick)| data.image(pick, x));
    let labels = picks.iter().map(|&pick| data.label(pick)).collect();
    Ok(Real { x, labels })
}

/// One uniform in [0, 1) for each image.
pub(crate) fn uniform(seed: u64, images: &Range<u64>, stream: Stream) -> Vec<f64> {
    let mut v = [0f32];
    images
        .clone()
        .map(|k| {
            rng::uniforms(seed, stream, k, &mut v);
            f64::from(v[0])
        })
        .collect()
}

/// What an EDM network answers at noise levels `sigma`, its input scaled by c_in.
pub(crate) fn edm_raw(net: &Network, sigma_data: f64, x: &Tensor, sigma: &[f64], labels: &[u32]) -> Result<Tensor> {
    let c_in = per_image(sigma.iter().map(|&s| edm_adapter(1.0, s, sigma_data).c_in))?;
    let times: Vec<f32> = sigma.iter().map(|s| (s.ln() / 4.0) as f32).collect();
    Ok(net.forward(&x.broadcast_mul(&c_in)?, &times, labels)?)
}

/// An EDM network's x0 at noise levels `sigma` (Karras et al. 2022, eq. 7), one level an image.
pub(crate) fn edm_x0(net: &Network, sigma_data: f64, x: &Tensor, sigma: &[f64], labels: &[u32]) -> Result<Tensor> {
    let adapters: Vec<_> = sigma.iter().map(|&s| edm_adapter(1.0, s, sigma_data)).collect();
    let f = edm_raw(net, sigma_data, x, sigma, labels)?;
    let skipped = x.broadcast_mul(&per_image(adapters.iter().map(|a| a.c_skip))?)?;
    Ok((skipped + f.broadcast_mul(&per_image(adapters.iter().map(|a| a.c_out))?)?)?)
}

/// Noise levels with `ln sigma ~ N(mean, std^2)`, one for each image (Karras et al. 2022, section 5).
pub(crate) fn log_normal(seed: u64, images: &Range<u64>, stream: Stream, mean: f64, std: f64) -> Vec<f64> {
    let one = |k| {
        let mut z = [0f32];
        rng::normals(seed, stream, k, &mut z);
        (mean + std * f64::from(z[0])).exp()
    };
    images.clone().map(one).collect()
}

/// One class for each image, all alike likely; none for a network without a table.
pub(crate) fn classes(seed: u64, images: impl IntoIterator<Item = u64>, stream: Stream, count: usize) -> Vec<u32> {
    if count == 0 { vec![] } else { images.into_iter().map(|k| rng::below(seed, stream, k, count as u32)).collect() }
}

/// `[n, c, h, w]`, or `[n, c]` for points.
pub(crate) fn tensor(values: Vec<f32>, n: usize, [c, h, w]: [usize; 3]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, (n, c, h, w), device())?)
}

/// A factor for each image, to multiply `[n, c, h, w]` with.
pub(crate) fn per_image(values: impl IntoIterator<Item = f64>) -> Result<Tensor> {
    let v: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    let n = v.len();
    Ok(Tensor::from_vec(v, (n, 1, 1, 1), device())?)
}

/// Class names of a label table: the data's, then the null label's row. None for a network without a table, whatever the data.
pub(crate) fn class_names(data: Option<&dyn Dataset>, classes: usize, null: bool) -> Result<Vec<String>> {
    let named = classes - usize::from(null);
    let names: Vec<String> = match data {
        Some(d) if classes > 0 => d.classes().to_vec(),
        _ => (0..named).map(|i| i.to_string()).collect(),
    };
    if names.len() != named {
        bail!(
            "`num_class_embeds`: found {classes}, expected {} (the data set's classes{})",
            names.len() + usize::from(null),
            if null { " and the null label" } else { "" }
        );
    }
    Ok(names)
}
