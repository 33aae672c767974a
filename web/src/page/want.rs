//! What the view lacks, and asking the worker for it: one job at a time, so that the newest wish is the next one drawn.

use super::App;
use super::path::Row;
use super::run::{Run, Show, Stage, guidance, labels, way};
use super::travel;
use crate::protocol::{Job, ModelInfo, ToWorker, Way};
use limbeck_shared::link::View;
use std::rc::Rc;

/// What takes less is drawn again and again while a control moves, milliseconds.
const LIVE: f64 = 500.0;

/// Where pictures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A side's grid, in Draw and Compare.
    Grid(usize),
    /// A row of Path.
    Path(usize),
    /// The frames of Travel.
    Travel,
}

impl App {
    /// The places that the view shows, in the order in which they are drawn.
    pub fn places(&self) -> Vec<Place> {
        match self.link.view {
            View::Draw => vec![Place::Grid(0)],
            View::Compare => self.shown().into_iter().map(Place::Grid).collect(),
            // Students first: they are quick.
            View::Path => (0..self.rows().len()).rev().map(Place::Path).collect(),
            View::Travel => vec![Place::Travel],
            View::Model | View::Bench => vec![],
        }
    }

    /// The run of a place.
    pub fn run(&self, place: Place) -> Option<&Run> {
        self.shows.get(&place)?.run.as_ref()
    }

    /// Forgets all runs, so that they are drawn anew; pictures stay until then.
    pub fn forget(&mut self) {
        self.shows.values_mut().for_each(|s| s.run = None);
    }

    /// The guidance weight that is wanted: the link's, else the main model's own, so that a comparison has one weight.
    fn guidance(&self) -> Option<f64> {
        let own = || self.info(0).and_then(|i| i.guidance).map(|g| g.default);
        self.link.guidance.or_else(own)
    }

    /// The job that a place's pictures need, if its model is open.
    pub fn job(&self, place: Place) -> Option<(Job, Rc<ModelInfo>)> {
        // Not before it is known who draws: a first visit asks for fewer images of a CPU.
        self.engine_info.as_ref()?;
        let chosen = |side: usize| {
            let info = self.info(side)?;
            Some((side, way(&info, &self.link.models[side])?))
        };
        let (side, way): (usize, Way) = match place {
            Place::Grid(side) => chosen(side)?,
            Place::Path(row) => self.rows().get(row).map(|&Row { side, way }| (side, way))?,
            Place::Travel => chosen(0)?,
        };
        let info = self.info(side)?;
        let count = self.link.count as usize;
        let image = self.link.image.unwrap_or(0);
        let grid = Job {
            number: 0,
            key: self.sides[side].key.clone()?,
            sampler: way.sampler,
            steps: way.steps,
            guidance: guidance(&info, self.guidance()),
            seed: self.link.seed,
            labels: vec![],
            count,
            first: 0,
            path: false,
            to: None,
            blend: None,
        };
        let label = labels(&info, self.link.class, image as usize + 1)[image as usize];
        let job = match place {
            Place::Grid(_) => Job { labels: labels(&info, self.link.class, count), ..grid },
            Place::Path(_) => Job { labels: vec![label], count: 1, first: image.into(), path: true, ..grid },
            Place::Travel => {
                let ends = travel::classes(&info, label, self.link.class2);
                let blend = Some(ends).filter(|[from, to]| from != to);
                Job { labels: travel::labels(ends), count: travel::FRAMES, first: image.into(), to: Some(self.seed2()), blend, ..grid }
            }
        };
        Some((job, info))
    }

    /// Something is being drawn.
    pub fn drawing(&self) -> bool {
        self.flying.is_some()
    }

    /// Stops drawing; what has come stays.
    pub fn stop(&mut self) {
        self.post(ToWorker::Cancel { upto: self.jobs }, None);
        self.flying = None;
        self.bench.stop();
        // The places still to come are not asked for either.
        self.stopped = true;
        for run in self.shows.values_mut().filter_map(|s| s.run.as_mut()).filter(|r| r.active()) {
            run.cancel();
        }
        self.say("Stopped.");
        self.paint();
    }

    /// A place draws quickly enough to follow a control that moves: as long as its last images took.
    fn quick(&self, place: Place) -> bool {
        let took = self.shows.get(&place).and_then(|s| s.took);
        let count = if let Place::Grid(_) = place { self.link.count as f64 } else { 1.0 };
        took.is_some_and(|ms| ms * count < LIVE)
    }

    /// Something on show can follow a moving control.
    pub fn fast(&self) -> bool {
        self.places().into_iter().any(|p| self.quick(p))
    }

    /// Asks for the next pictures that the view lacks, or stops what it no longer needs. The worker never has more than one job:
    /// what is wished for while it draws is asked for when it has answered.
    pub fn redraw(&mut self) {
        let places = self.places();
        match self.flying {
            Some(number) => {
                let drawn = places.iter().any(|&p| self.run(p).is_some_and(|r| r.job.number == number) && !self.lacks(p));
                let needed = drawn || (self.link.view == View::Bench && self.measures(number));
                if !needed {
                    self.post(ToWorker::Cancel { upto: number }, None);
                }
            }
            None if self.stopped => {}
            None if self.link.view == View::Bench => self.measure_next(),
            None => {
                if let Some(&place) = places.iter().find(|&&p| self.lacks(p) && (!self.live || self.quick(p))) {
                    self.ask(place);
                }
            }
        }
        self.paint();
    }

    /// A place's run, if any, is not what its model should draw now.
    pub fn lacks(&self, place: Place) -> bool {
        let Some((job, _)) = self.job(place) else { return false };
        !self.run(place).is_some_and(|r| r.is_for(&job))
    }

    fn ask(&mut self, place: Place) {
        let Some((mut job, info)) = self.job(place) else { return };
        if !self.shows.contains_key(&place) {
            match Show::new(&self.ui.document) {
                Ok(show) => drop(self.shows.insert(place, show)),
                Err(e) => return self.problem(&format!("The pictures cannot be shown: {e}."), None),
            }
        }
        self.jobs += 1;
        job.number = self.jobs;
        self.flying = Some(job.number);
        self.post(ToWorker::Draw(job.clone()), None);
        if let Some(show) = self.shows.get_mut(&place) {
            show.run = Some(Run::new(job, info));
        }
    }

    /// Lets a run take in what the worker said of it, if it is still of interest. `end`: it says no more.
    pub fn with_run(&mut self, number: u32, end: bool, change: impl FnOnce(&mut Run)) {
        let over = end && self.flying == Some(number);
        if over {
            self.flying = None;
        }
        let show = self.shows.values_mut().find(|s| s.run.as_ref().is_some_and(|r| r.job.number == number));
        let mut words = None;
        if let Some(Show { run: Some(run), picture, took }) = show {
            change(run);
            let fresh = std::mem::take(&mut run.fresh);
            if !fresh.is_empty() {
                picture.take(run, fresh);
            }
            if run.stage == Stage::Done {
                let images = if run.levels.is_empty() && run.job.to.is_none() { run.job.count } else { 1 };
                *took = Some(run.ms / images as f64);
                words = Some(format!("{} in {}.", super::ui::plural(run.job.count, "image"), super::ui::duration(run.ms)));
            }
        }
        if over {
            self.redraw();
        } else {
            self.paint();
        }
        if let (Some(words), false) = (words, self.drawing()) {
            self.say(&words);
        }
    }
}
