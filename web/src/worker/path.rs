//! What paths and travels add to drawing: states to keep, and noise on the way between two seeds.

use crate::protocol::Job;
use limbeck_shared::denoiser::EDM_SIGMA_MAX;
use limbeck_shared::program::{Keep, ModelSpec, Program, moments};
use limbeck_shared::rng::{Stream, normals};
use limbeck_shared::travel::slerp;

/// Most states of one path.
const MOST: usize = 40;

/// What a path keeps, a state and an answer in turn, and the states' noise levels `sigma / alpha`, at most [`EDM_SIGMA_MAX`]
/// (pure noise has none that is finite). States are scaled to unit variance at pure noise and to the image at the end, so that the
/// eye can follow.
pub fn keep(program: &Program, spec: &ModelSpec) -> (Vec<Keep>, Vec<f64>) {
    let all = moments(program);
    let last = all.len().saturating_sub(1);
    let chosen: Vec<usize> =
        if all.len() <= MOST { (0..all.len()).collect() } else { (0..MOST).map(|k| (k * last + (MOST - 1) / 2) / (MOST - 1)).collect() };
    let mut keep = vec![];
    let mut levels = vec![];
    for k in chosen {
        let m = all[k];
        let (alpha, sigma) = (spec.schedule.alpha(m.t), spec.schedule.sigma(m.t));
        let scale = 1.0 / (alpha * alpha + sigma * sigma).sqrt();
        keep.extend([Keep { scale, ..m.state }, m.answer]);
        levels.push(spec.schedule.noise_ratio(m.t).min(EDM_SIGMA_MAX));
    }
    (keep, levels)
}

/// The noise of a job's images from `first` on: `(stream, k, out)`.
pub fn noise(job: &Job, first: usize) -> impl FnMut(u32, usize, &mut [f32]) {
    let mut ends = [vec![], vec![]];
    move |stream, k, out: &mut [f32]| {
        let stream = Stream::Sample(stream);
        let image = first + k;
        let Some(to) = job.to else {
            return normals(job.seed, stream, job.first.wrapping_add(image as u64), out);
        };
        for (seed, end) in [job.seed, to].into_iter().zip(&mut ends) {
            end.resize(out.len(), 0.0);
            normals(seed, stream, job.first, end);
        }
        // A plan may draw more than is wanted of its last batch.
        let part = image as f64 / job.count.saturating_sub(1).max(1) as f64;
        slerp(&ends[0], &ends[1], part.min(1.0), out);
    }
}
