//! Images of earlier tasks, drawn by the previous model or by a student of it.

use super::{Noised, REPLAY};
use crate::method::{Pass, tensor};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::{Bundle, Meta};
use limbeck_shared::cpu::{self, Precision};
use limbeck_shared::denoiser::{Lowered, Net, lower, lower_keeping};
use limbeck_shared::program::{self, Sampler, moments};
use limbeck_shared::rng::{self, Stream};

/// A frozen generator and its sampler.
pub(super) struct Replay {
    nets: Vec<cpu::Net>,
    lowered: Lowered,
    /// Times of the states that the program keeps besides its images.
    kept: Vec<f64>,
    shape: [usize; 3],
    null: u32,
}

impl Replay {
    /// `steps`: the teacher's N; none: what the bundle draws by default. `states`: the trajectory is kept.
    pub(super) fn new(bundle: &Bundle, steps: Option<usize>, states: bool, precision: Precision) -> Result<Replay> {
        let meta = &bundle.meta;
        let program = meta.draw_program(steps.and_then(|_| first_order(meta)), steps, None).context("`method.teacher_steps`")?;
        let (mut keeps, mut kept) = (vec![], vec![]);
        if states {
            (keeps, kept) = moments(&program).iter().map(|m| (m.state, m.t)).unzip();
        }
        let lowered = if states { lower_keeping(&program, &meta.spec(), &keeps)? } else { lower(&program, &meta.spec())? };
        let nets = crate::sample::nets(bundle, precision)?;
        Ok(Replay { nets, lowered, kept, shape: meta.image.shape(), null: meta.null_label.unwrap_or(0) })
    }

    /// Images, and the kept states, for the images of a pass: anew in every iteration.
    fn run(&self, pass: &Pass<'_>, labels: &[u32]) -> Result<Vec<f32>> {
        let nets: Vec<&dyn Net> = self.nets.iter().map(|n| n as &dyn Net).collect();
        let mut latent = |stream: u32, k: usize, out: &mut [f32]| {
            rng::normals(pass.seed, Stream::Other(REPLAY + 100 + stream), pass.images.start + k as u64, out);
        };
        // An unconditional generator ignores its labels but counts them.
        let zeros = vec![0; (pass.images.end - pass.images.start) as usize];
        let labels = if labels.is_empty() { &zeros } else { labels };
        Ok(program::run_from(&self.lowered, &nets, &mut latent, labels, self.null)?)
    }

    /// x0 of earlier tasks `[n, c, h, w]`.
    pub(super) fn images(&self, pass: &Pass<'_>, labels: &[u32]) -> Result<Tensor> {
        let n = (pass.images.end - pass.images.start) as usize;
        tensor(self.run(pass, labels)?, n, self.shape)
    }

    /// For each image a state of its own trajectory, at one of the sampler's times, all alike likely.
    pub(super) fn states(&self, pass: &Pass<'_>, labels: &[u32]) -> Result<Noised> {
        let (len, n) = (self.shape.iter().product::<usize>(), (pass.images.end - pass.images.start) as usize);
        let all = self.run(pass, labels)?;
        let (mut x, mut t) = (Vec::with_capacity(n * len), vec![]);
        for (k, image) in pass.images.clone().enumerate() {
            let state = rng::below(pass.seed, Stream::Other(REPLAY + 4), image, self.kept.len() as u32) as usize;
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
