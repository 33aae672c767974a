//! From a lowered program to dispatches and memory, before anything is made on the device.

use super::dispatch::spread;
use super::kernels::Kernel;
use super::layout::map_quads;
use super::memory::{Memory, label_quads, labels_at, upload_times};
use super::model::GpuModel;
use super::plan::{Buf, Dispatch, NetPlan, Word, plan};
use super::record::Resolved;
use super::steps::{Action, Steps, Value, steps};
use crate::denoiser::Lowered;
use crate::error::{Error, Result};
use crate::graph::Shape;
use crate::program::Label;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Most images of one plan: workgroups count them along one dimension.
pub(super) const MAX_BATCH: usize = 4096;

/// Images up to which calls for two labels become one: from about here on a device is full without it.
const PAIR_IMAGES: usize = 8;

/// All that a plan needs to know.
pub(super) struct Prepared {
    /// Of one image.
    pub shape: Shape,
    /// Streams of the program's noise.
    pub streams: Vec<u32>,
    /// Labels the networks know, given and null; 0: none are asked for.
    pub classes: [usize; 2],
    /// In order.
    pub dispatches: Vec<Resolved>,
    /// The arena, in vec4s.
    pub total: u64,
    /// Where each result lies at the end, and how long one is, in vec4s.
    pub results: (Vec<u64>, u64),
    /// The arena's beginning: what runs upload, then what planning uploads.
    pub contents: Vec<f32>,
    /// Floats of `contents` that runs upload.
    pub upload: usize,
}

/// Plans a program for `batch` images.
pub(super) fn prepare(model: &GpuModel, lowered: &Lowered, batch: usize) -> Result<Prepared> {
    if batch == 0 || batch > MAX_BATCH {
        return Err(Error::call("batch", batch, format!("1 to {MAX_BATCH} images")));
    }
    match build(model, &steps(lowered, batch <= PAIR_IMAGES)?, batch) {
        // Twice the images need twice the memory.
        Err(Error::Gpu(_)) if batch <= PAIR_IMAGES => build(model, &steps(lowered, false)?, batch),
        other => other,
    }
}

fn build(model: &GpuModel, steps: &Steps, batch: usize) -> Result<Prepared> {
    let shape = model.nets[0].graph.input_shape();
    let size = batch.saturating_mul(map_quads(shape));
    model.engine.fits("noise", 16 * batch as u64 * (map_quads(shape) as u64) * (1 + steps.streams.len() as u64))?;
    check(model, steps, shape)?;

    // The arena: what a run uploads, what planning uploads, then values and the networks' memory.
    let noise_at = |k: usize| label_quads(batch) + k * size;
    let upload = noise_at(steps.streams.len());
    let mut contents = vec![0f32; 4 * upload];
    let mut nets: HashMap<(usize, usize), NetPlan> = HashMap::new();
    let mut calls: HashMap<(usize, Vec<u32>), Vec<u32>> = HashMap::new();
    let mut classes = [0; 2];
    for action in &steps.actions {
        let Action::Net { net, times, outs, .. } = action else { continue };
        let loaded = model.net(*net)?;
        for (_, label) in outs {
            let known = &mut classes[usize::from(*label == Label::Null)];
            *known = match (*known, loaded.graph.classes) {
                (0, n) | (n, 0) => n,
                (a, b) => a.min(b),
            };
        }
        let plan = match nets.entry((*net, outs.len())) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(plan(loaded, model.engine.occupancy(), outs.len() * batch, false)?),
        };
        calls.entry((*net, bits(times))).or_insert_with(|| upload_times(loaded, &plan.features, times, &mut contents));
    }

    let base = (contents.len() / 4) as u32;
    let scratch = nets.values().map(|n| n.scratch).max().unwrap_or(0);
    let memory = Memory::new(steps, size as u32, scratch)?;
    let total = u64::from(base) + u64::from(memory.total);
    model.engine.fits("activations", 16 * total)?;
    let address = |v: Value| match steps.noise[v] {
        Some(k) => noise_at(k) as u32,
        None => base + memory.values[v],
    };

    let mut dispatches: Vec<Resolved> = vec![];
    for (action, twice) in steps.actions.iter().zip(&memory.twice) {
        match action {
            Action::Noise(_) => {}
            Action::Combine { dst, terms } => {
                let (dst, terms): (u32, Vec<(f32, u32)>) = (address(*dst), terms.iter().map(|t| (t.0, address(t.1))).collect());
                dispatches.push(combine(dst, size, &terms[..terms.len().min(6)]));
                // More terms than the kernel takes: the sum so far is one of the next ones.
                for more in terms.get(6..).unwrap_or(&[]).chunks(5) {
                    let next: Vec<(f32, u32)> = std::iter::once((1.0, dst)).chain(more.iter().copied()).collect();
                    dispatches.push(combine(dst, size, &next));
                }
            }
            Action::Clip { dst, src, limit } => {
                let mut clip = combine(address(*dst), size, &[(1.0, address(*src))]);
                clip.words[3] = limit.to_bits();
                dispatches.push(clip);
            }
            Action::Net { net, times, src, outs } => {
                let input = match twice {
                    Some(at) => {
                        let copies = (0..outs.len()).map(|k| combine(base + at + (k * size) as u32, size, &[(1.0, address(*src))]));
                        dispatches.extend(copies);
                        base + at
                    }
                    None => address(*src),
                };
                let (plan, at) = (&nets[&(*net, outs.len())], &calls[&(*net, bits(times))]);
                let place = |buf| match buf {
                    Buf::Scratch(k) => base + memory.scratch + plan.offsets[k],
                    Buf::Input => input,
                    Buf::Output => address(outs[0].0),
                    Buf::Times => at[0],
                    Buf::Features(k) => at[1 + k],
                    Buf::Labels => labels_at(batch, outs[0].1, outs.len()),
                };
                dispatches.extend(plan.dispatches.iter().map(|d| resolve(d, *net, place)));
            }
        }
    }
    let results = (steps.outputs.iter().map(|&v| u64::from(address(v))).collect(), size as u64);
    let streams = steps.streams.clone();
    Ok(Prepared { shape, streams, classes, dispatches, total, results, contents, upload: 4 * upload })
}

/// Words for a network's dispatch once its memory is known.
pub(super) fn resolve(d: &Dispatch, net: usize, at: impl Fn(Buf) -> u32) -> Resolved {
    let words = d.words.iter().map(|w| match *w {
        Word::U(u) => u,
        Word::F(f) => f.to_bits(),
        Word::At(buf, col) => at(buf) + col,
    });
    Resolved { kernel: d.kernel, net, words: words.collect(), groups: d.groups, macs: d.macs }
}

fn bits(times: &[f32]) -> Vec<u32> {
    times.iter().map(|t| t.to_bits()).collect()
}

/// A combination of at most six values.
fn combine(dst: u32, length: usize, terms: &[(f32, u32)]) -> Resolved {
    let mut words = vec![0u32; 20];
    (words[0], words[1], words[2]) = (length as u32, terms.len() as u32, dst);
    for (i, (factor, at)) in terms.iter().enumerate() {
        (words[4 + i], words[12 + i]) = (*at, factor.to_bits());
    }
    let groups = spread(length).map(|g| g as u32);
    Resolved { kernel: Kernel::Combine, net: 0, words, groups, macs: 0 }
}

fn check(model: &GpuModel, steps: &Steps, shape: Shape) -> Result<()> {
    for action in &steps.actions {
        let Action::Net { net, times, .. } = action else { continue };
        let graph = &model.net(*net)?.graph;
        if graph.input_shape() != shape || graph.output_shape() != shape {
            let found = format!("{:?} to {:?} in network {net}", graph.input_shape(), graph.output_shape());
            return Err(Error::call("image shape", found, format!("{shape:?} as the first network's")));
        }
        if times.len() != graph.times {
            return Err(Error::call("times", times.len(), format!("{} for network {net}", graph.times)));
        }
    }
    Ok(())
}
