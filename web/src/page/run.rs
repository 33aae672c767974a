//! A job and what came of it.

use super::canvas::Picture;
use crate::protocol::{Job, ModelInfo, Way};
use js_sys::Float32Array;
use limbeck_shared::link::{Choice, Class};
use limbeck_shared::program;
use std::rc::Rc;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::Document;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Sent to the worker.
    Waiting,
    /// The worker is at it.
    Drawing,
    /// All images are here.
    Done,
    /// The visitor or a newer job stopped it.
    Cancelled,
    /// The worker could not do it.
    Failed,
}

/// A job and what came of it.
pub struct Run {
    pub job: Job,
    pub info: Rc<ModelInfo>,
    /// f32 `[count, C, H, W]` in [-1, 1]; as many images as have come are valid. Of a path: the image, then a state and an estimate
    /// for each of the levels.
    pub pixels: Vec<f32>,
    /// Images that have come.
    pub drawn: usize,
    /// Noise levels of a path's states, noisiest first.
    pub levels: Vec<f64>,
    /// Network calls an image.
    pub calls: usize,
    /// Time computed, milliseconds.
    pub ms: f64,
    pub stage: Stage,
    /// Images that have come since they were last taken over to the canvas.
    pub fresh: std::ops::Range<usize>,
}

impl Run {
    /// Nothing has come yet.
    pub fn new(job: Job, info: Rc<ModelInfo>) -> Run {
        Run { job, info, pixels: vec![], drawn: 0, levels: vec![], calls: 0, ms: 0.0, stage: Stage::Waiting, fresh: 0..0 }
    }
    /// Images in all, those on the way of a path included.
    pub fn frames(&self) -> usize {
        self.job.count + 2 * self.levels.len()
    }
    /// This is the job, whatever its number, and it was not given up.
    pub fn is_for(&self, job: &Job) -> bool {
        self.stage != Stage::Cancelled && Job { number: self.job.number, ..job.clone() } == self.job
    }
    /// Still under way.
    pub fn active(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Drawing)
    }
    /// The worker begins, from the first image (again, if another engine takes over).
    pub fn start(&mut self, calls: usize, levels: Vec<f64>) {
        (self.calls, self.drawn, self.ms, self.levels) = (calls, 0, 0.0, levels);
        self.pixels = vec![0.0; self.frames() * self.info.shape.iter().product::<usize>()];
        if self.active() {
            self.stage = Stage::Drawing;
        }
    }
    /// Images from `first` on have come.
    pub fn take(&mut self, first: usize, ms: f64, data: &JsValue) {
        let Some(array) = data.dyn_ref::<Float32Array>() else { return };
        let size = self.info.shape.iter().product::<usize>();
        let from = first * size;
        let to = from + array.length() as usize;
        if let Some(target) = self.pixels.get_mut(from..to) {
            array.copy_to(target);
            self.drawn = to / size;
            self.fresh = first..self.drawn;
        }
        self.ms = ms;
    }
    /// All images have come.
    pub fn finish(&mut self, ms: f64) {
        (self.ms, self.stage) = (ms, Stage::Done);
    }
    /// The worker stopped.
    pub fn cancel(&mut self) {
        self.stage = Stage::Cancelled;
    }
    /// The worker could not.
    pub fn fail(&mut self) {
        self.stage = Stage::Failed;
    }
    /// Images a second so far.
    pub fn rate(&self) -> Option<f64> {
        let images = self.drawn.min(self.job.count);
        (images > 0 && self.ms > 0.0).then(|| images as f64 / self.ms * 1e3)
    }
}

/// What one place of the page shows.
pub struct Show {
    pub run: Option<Run>,
    /// What its canvas shows: the run's images, or the former run's until the first of the new ones has come.
    pub picture: Picture,
    /// Milliseconds that the last finished run took: of a grid for each image, else in all.
    pub took: Option<f64>,
}

impl Show {
    /// Nothing yet.
    ///
    /// # Errors
    /// If the browser gives no canvas.
    pub fn new(document: &Document) -> Result<Show, String> {
        Ok(Show { run: None, picture: Picture::new(document)?, took: None })
    }
}

/// How a model draws as the link asks; none if it cannot.
pub fn asked(info: &ModelInfo, choice: &Choice) -> Option<Way> {
    let default = info.ways.iter().find(|w| w.default).or(info.ways.first())?;
    let sampler = choice.sampler.unwrap_or(default.sampler);
    let steps = match choice.steps {
        Some(steps) => steps,
        None if sampler == default.sampler => default.steps,
        None => info.ways.iter().find(|w| w.sampler == sampler)?.steps,
    };
    let listed = || info.ways.iter().filter(|w| choice.sampler.is_none_or(|s| s == w.sampler)).find(|w| w.steps == steps);
    let exact = info.ways.iter().find(|w| (w.sampler, w.steps) == (sampler, steps));
    if let Some(way) = exact.or_else(listed) {
        return Some(*way);
    }
    let open = info.ways.iter().any(|w| w.sampler == sampler && w.open);
    let program = open.then(|| program::build(sampler, &info.spec, steps, 1.0).ok())??;
    Some(Way { sampler, steps, calls: program.evals(), default: false, open })
}

/// How a model draws: as the link asks, as far as the model can.
pub fn way(info: &ModelInfo, choice: &Choice) -> Option<Way> {
    asked(info, choice).or_else(|| asked(info, &Choice::default()))
}

/// The guidance weight: as the link asks, within what the model offers; 1 for a model without.
pub fn guidance(info: &ModelInfo, wanted: Option<f64>) -> f64 {
    info.guidance.map_or(1.0, |g| wanted.unwrap_or(g.default).clamp(g.min, g.max))
}

/// One label an image.
pub fn labels(info: &ModelInfo, class: Class, count: usize) -> Vec<u32> {
    let classes = info.classes.len().max(1) as u32;
    let label = |k: usize| match class {
        Class::Each => k as u32 % classes,
        Class::Index(index) => index.min(classes - 1),
    };
    (0..count).map(label).collect()
}
