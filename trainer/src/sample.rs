//! Drawing from a bundle on the CPU or on wgpu.

use crate::config::Arithmetic;
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::{Bundle, Meta};
use limbeck_shared::cpu::{self, Exec, Precision};
use limbeck_shared::denoiser::{self, Net};
use limbeck_shared::graph::Graph;
use limbeck_shared::program::{self, Guidance, Sampler};
use std::sync::Arc;

/// Which classes are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Image k has class k mod classes.
    Each,
    /// All of one class.
    One(u32),
}

impl std::str::FromStr for Labels {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Labels> {
        if s == "each" {
            return Ok(Labels::Each);
        }
        s.parse().map(Labels::One).with_context(|| format!("`--label`: found {s}, expected a class number or `each`"))
    }
}

/// Labels of images `0..count`; an unconditional model gets zeros, which it ignores.
pub fn labels(meta: &Meta, which: Labels, count: usize) -> Vec<u32> {
    let classes = meta.classes.len().max(1) as u32;
    (0..count as u32).map(|k| if let Labels::One(l) = which { l } else { k % classes }).collect()
}

/// Where the network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Device {
    /// This processor.
    Cpu,
    /// A GPU through wgpu (Vulkan).
    Wgpu,
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of images.
    pub count: usize,
    /// Seed; image k of a seed is the same at any count.
    pub seed: u64,
    /// Classes.
    pub labels: Labels,
    /// Sampler; the bundle's first if none.
    pub sampler: Option<Sampler>,
    /// Steps; the sampler's default if none.
    pub steps: Option<usize>,
    /// Guidance; the bundle's default if none.
    pub guidance: Option<Guidance>,
    /// Device.
    pub device: Device,
    /// How convolutions multiply on the CPU; a GPU computes in f32.
    pub precision: Arithmetic,
}

impl Request {
    /// `count` images of each class in turn, by the bundle's defaults, on the CPU in f32.
    pub fn plain(count: usize, seed: u64) -> Request {
        Request {
            count,
            seed,
            labels: Labels::Each,
            sampler: None,
            steps: None,
            guidance: None,
            device: Device::Cpu,
            precision: Arithmetic::F32,
        }
    }
}

/// A bundle's networks on the CPU.
///
/// # Errors
/// If one cannot be planned.
pub fn nets(bundle: &Bundle, precision: Precision) -> Result<Vec<cpu::Net>> {
    let net = |(graph, theta): (&Graph, &Vec<f32>)| {
        Ok(cpu::Net::with_exec(Arc::new(Exec::with_precision(graph.clone(), precision)?), theta.clone())?)
    };
    bundle.graphs.iter().zip(&bundle.thetas).map(net).collect()
}

/// Images in a pass on the CPU: enough for every thread, few enough to stay small.
const SLICE: usize = 64;

/// Draws `[count, c, h, w]`. `progress` is told the number of images done.
///
/// # Errors
/// If the bundle cannot do what is asked, or the device is not there.
pub fn draw(bundle: &Bundle, r: &Request, mut progress: impl FnMut(usize)) -> Result<Vec<f32>> {
    let meta = &bundle.meta;
    if meta.is_classifier() {
        bail!("`--model`: found a classifier, expected a model that draws");
    }
    if let (Labels::One(l), classes) = (r.labels, meta.classes.len())
        && l as usize >= classes
    {
        bail!(
            "`--label`: found {l}, expected {}",
            if classes == 0 { "none for a model without classes".into() } else { format!("0 to {}", classes - 1) }
        );
    }
    let program = meta.draw_program(r.sampler, r.steps, r.guidance)?;
    let lowered = denoiser::lower(&program, &meta.spec())?;
    let labels = labels(meta, r.labels, r.count);
    let null = meta.null_label.unwrap_or(0);
    let mut out = Vec::with_capacity(r.count * meta.image.values());
    match r.device {
        Device::Cpu => {
            let nets = nets(bundle, r.precision.resolve())?;
            let nets: Vec<&dyn Net> = nets.iter().map(|n| n as &dyn Net).collect();
            for (i, part) in labels.chunks(SLICE).enumerate() {
                out.extend(program::run(&lowered, &nets, r.seed, (i * SLICE) as u64, part, null)?);
                progress(i * SLICE + part.len());
            }
        }
        Device::Wgpu => out = crate::gpu::draw(bundle, &lowered, r.seed, &labels, null, progress)?,
    }
    Ok(out)
}
