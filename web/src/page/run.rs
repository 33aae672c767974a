//! Drawing: what was asked of the worker for each side, and what came back.

use super::App;
use super::canvas::Picture;
use crate::protocol::{Job, ModelInfo, ToWorker, Way};
use js_sys::Float32Array;
use limbeck_shared::link::{Choice, Class, View};
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
    /// f32 `[count, C, H, W]` in [-1, 1]; as many images as have come are valid.
    pub pixels: Vec<f32>,
    /// Images that have come.
    pub drawn: usize,
    /// Network calls an image.
    pub calls: usize,
    /// Time computed, milliseconds.
    pub ms: f64,
    pub stage: Stage,
    /// Images that have come since they were last taken over to the canvas.
    fresh: std::ops::Range<usize>,
}

impl Run {
    fn new(job: Job, info: Rc<ModelInfo>) -> Run {
        let pixels = vec![0.0; job.count * info.shape.iter().product::<usize>()];
        Run { job, info, pixels, drawn: 0, calls: 0, ms: 0.0, stage: Stage::Waiting, fresh: 0..0 }
    }
    /// Still under way.
    pub fn active(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Drawing)
    }
    /// The worker begins, from the first image (again, if another engine takes over).
    pub fn start(&mut self, calls: usize) {
        (self.calls, self.drawn, self.ms) = (calls, 0, 0.0);
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
        (self.drawn > 0 && self.ms > 0.0).then(|| self.drawn as f64 / self.ms * 1e3)
    }
}

/// One of the two models on show.
pub struct Side {
    /// Which model.
    pub key: Option<String>,
    /// The model is not the one that the link was made with.
    pub refused: bool,
    pub run: Option<Run>,
    /// What its canvas shows: the run's images, or the former run's until the first of the new ones has come.
    pub picture: Picture,
}

impl Side {
    /// A side without a model.
    ///
    /// # Errors
    /// If the browser gives no canvas.
    pub fn new(document: &Document) -> Result<Side, String> {
        Ok(Side { key: None, refused: false, run: None, picture: Picture::new(document)? })
    }
    /// Forgets the run, so that it is drawn anew; the picture stays until then.
    pub fn forget(&mut self) {
        self.run = None;
    }
}

/// How a model draws: as the link asks, as far as the model can.
pub fn way(info: &ModelInfo, choice: &Choice) -> Option<Way> {
    let fits = |w: &&Way| choice.sampler.is_none_or(|s| s == w.sampler) && choice.steps.is_none_or(|s| s == w.steps);
    let unasked = choice.sampler.is_none() && choice.steps.is_none();
    let default = || info.ways.iter().find(|w| w.default).or(info.ways.first());
    if unasked { default().copied() } else { info.ways.iter().find(fits).or_else(default).copied() }
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

impl App {
    /// The guidance weight that is wanted: the link's, else the main model's own, so that a comparison has one weight.
    fn guidance(&self) -> Option<f64> {
        let own = || self.info(0).and_then(|i| i.guidance).map(|g| g.default);
        self.link.guidance.or_else(own)
    }

    /// The job that one side's pictures need, if its model is open.
    fn job(&self, side: usize) -> Option<(Job, Rc<ModelInfo>)> {
        // Not before it is known who draws: a first visit asks for fewer images of a CPU.
        self.engine_info.as_ref()?;
        let info = self.info(side)?;
        let way = way(&info, &self.link.models[side])?;
        let count = self.link.count as usize;
        let job = Job {
            number: 0,
            key: self.sides[side].key.clone()?,
            sampler: way.sampler,
            steps: way.steps,
            guidance: guidance(&info, self.guidance()),
            seed: self.link.seed,
            labels: labels(&info, self.link.class, count),
            count,
        };
        Some((job, info))
    }

    /// Something is being drawn.
    pub fn drawing(&self) -> bool {
        self.sides.iter().any(|s| s.run.as_ref().is_some_and(Run::active))
    }

    /// Stops drawing; what has come stays.
    pub fn stop(&mut self) {
        self.post(ToWorker::Cancel { upto: self.jobs }, None);
        for run in self.sides.iter_mut().filter_map(|s| s.run.as_mut()).filter(|r| r.active()) {
            run.cancel();
        }
        self.say("Stopped.");
        self.paint();
    }

    /// Asks for the pictures that the view lacks, and stops what it no longer needs.
    pub fn redraw(&mut self) {
        let needed: &[usize] = if self.link.view == View::Model { &[] } else { self.shown() };
        let active = |app: &App, side: usize| app.sides[side].run.as_ref().is_some_and(Run::active);
        let stray = (0..2).any(|side| active(self, side) && !needed.contains(&side));
        let stale = needed.iter().any(|&side| self.lacks(side));
        if stray || (stale && self.drawing()) {
            // The worker stops all that is under way; what is still needed is asked for again, in order.
            self.post(ToWorker::Cancel { upto: self.jobs }, None);
            for side in 0..2 {
                if active(self, side) {
                    self.sides[side].run = None;
                }
            }
        }
        for &side in needed {
            if self.lacks(side) {
                self.ask(side);
            }
        }
        self.paint();
    }

    /// A side's run, if any, is not what its model should draw now.
    fn lacks(&self, side: usize) -> bool {
        let Some((job, _)) = self.job(side) else { return false };
        let stands = |run: &Run| run.stage != Stage::Cancelled && Job { number: run.job.number, ..job.clone() } == run.job;
        !self.sides[side].run.as_ref().is_some_and(stands)
    }

    fn ask(&mut self, side: usize) {
        let Some((mut job, info)) = self.job(side) else { return };
        self.jobs += 1;
        job.number = self.jobs;
        self.post(ToWorker::Draw(job.clone()), None);
        self.sides[side].run = Some(Run::new(job, info));
    }

    /// Lets a run take in what the worker said of it, if it is still of interest.
    pub fn with_run(&mut self, number: u32, change: impl FnOnce(&mut Run)) {
        let side = self.sides.iter_mut().find(|s| s.run.as_ref().is_some_and(|r| r.job.number == number));
        let Some(Side { run: Some(run), picture, .. }) = side else { return };
        change(run);
        let fresh = std::mem::take(&mut run.fresh);
        if !fresh.is_empty() {
            picture.take(run, fresh);
        }
        let (done, words) =
            (run.stage == Stage::Done, format!("{} in {}.", super::ui::plural(run.job.count, "image"), super::ui::duration(run.ms)));
        if done && !self.drawing() {
            self.say(&words);
        }
        self.paint();
    }
}
