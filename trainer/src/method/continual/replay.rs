//! Images of earlier tasks, drawn by the previous model or by a student of it.

use super::{Noised, REPLAY};
use crate::method::tensor;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::{Bundle, Meta};
use limbeck_shared::cpu::{self, Precision};
use limbeck_shared::denoiser::{Lowered, Net, lower, lower_keeping};
use limbeck_shared::program::{self, Sampler, moments};
use limbeck_shared::rng::{self, Stream};
use std::collections::HashMap;
use std::sync::Mutex;

/// A frozen generator and its sampler.
pub(in crate::method) struct Replay {
    nets: Vec<cpu::Net>,
    lowered: Lowered,
    /// Times of the states that the program keeps besides its images.
    kept: Vec<f64>,
    shape: [usize; 3],
    null: u32,
    /// Images that were drawn and will come again, by their numbers.
    drawn: Mutex<HashMap<u64, Vec<f32>>>,
}

impl Replay {
    /// `steps`: the teacher's N; none: what the bundle draws by default. `states`: the trajectory is kept.
    pub(in crate::method) fn new(bundle: &Bundle, steps: Option<usize>, states: bool, precision: Precision) -> Result<Replay> {
        let meta = &bundle.meta;
        let program = meta.draw_program(steps.and_then(|_| first_order(meta)), steps, None).context("`method.teacher_steps`")?;
        let (mut keeps, mut kept) = (vec![], vec![]);
        if states {
            (keeps, kept) = moments(&program).iter().map(|m| (m.state, m.t)).unzip();
        }
        let lowered = if states { lower_keeping(&program, &meta.spec(), &keeps)? } else { lower(&program, &meta.spec())? };
        let nets = crate::sample::nets(bundle, precision)?;
        Ok(Replay { nets, lowered, kept, shape: meta.image.shape(), null: meta.null_label.unwrap_or(0), drawn: Mutex::default() })
    }

    /// Images and the kept states, each from the noise of its number.
    fn run(&self, seed: u64, numbers: &[u64], labels: &[u32]) -> Result<Vec<f32>> {
        let nets: Vec<&dyn Net> = self.nets.iter().map(|n| n as &dyn Net).collect();
        let mut latent = |stream: u32, k: usize, out: &mut [f32]| rng::normals(seed, Stream::Other(REPLAY + 100 + stream), numbers[k], out);
        // An unconditional generator ignores its labels but counts them.
        let zeros = vec![0; numbers.len()];
        let labels = if labels.is_empty() { &zeros } else { labels };
        Ok(program::run_from(&self.lowered, &nets, &mut latent, labels, self.null)?)
    }

    /// x0 of earlier tasks `[n, c, h, w]`. With `keep`, an image is drawn once and looked up when its number comes again.
    pub(in crate::method) fn images(&self, seed: u64, numbers: &[u64], labels: &[u32], keep: bool) -> Result<Tensor> {
        if !keep {
            return tensor(self.run(seed, numbers, labels)?, numbers.len(), self.shape);
        }
        let mut drawn = self.drawn.lock().map_err(|_| anyhow!("a thread failed while it drew replay"))?;
        let missing: Vec<usize> = (0..numbers.len()).filter(|&i| !drawn.contains_key(&numbers[i])).collect();
        if !missing.is_empty() {
            let (new, told): (Vec<u64>, Vec<u32>) =
                (missing.iter().map(|&i| numbers[i]).collect(), missing.iter().filter_map(|&i| labels.get(i).copied()).collect());
            let images = self.run(seed, &new, &told)?;
            for (number, image) in new.iter().zip(images.chunks_exact(self.shape.iter().product())) {
                drawn.insert(*number, image.to_vec());
            }
        }
        tensor(numbers.iter().flat_map(|n| drawn[n].iter().copied()).collect(), numbers.len(), self.shape)
    }

    /// For each image a state of its own trajectory, at one of the sampler's times, all alike likely.
    pub(super) fn states(&self, seed: u64, numbers: &[u64], labels: &[u32]) -> Result<Noised> {
        let (len, n) = (self.shape.iter().product::<usize>(), numbers.len());
        let all = self.run(seed, numbers, labels)?;
        let (mut x, mut t) = (Vec::with_capacity(n * len), vec![]);
        for (k, &image) in numbers.iter().enumerate() {
            let state = rng::below(seed, Stream::Other(REPLAY + 4), image, self.kept.len() as u32) as usize;
            // The images come first, then all of the first state, and so on.
            let at = ((1 + state) * n + k) * len;
            let Some(values) = all.get(at..at + len) else { bail!("`method.arm`: found a sampler without states, expected some") };
            x.extend_from_slice(values);
            t.push(self.kept[state]);
        }
        Ok(Noised { x: tensor(x, n, self.shape)?, t, labels: labels.to_vec() })
    }
}

/// The sampler of one call a step that a bundle offers first, DDIM before others; none: its first of all.
fn first_order(meta: &Meta) -> Option<Sampler> {
    let one_call = [Sampler::DdimClipped, Sampler::Ddim, Sampler::Euler, Sampler::FlowEuler];
    one_call.into_iter().find(|s| meta.samplers.iter().any(|offered| offered.sampler == *s))
}
