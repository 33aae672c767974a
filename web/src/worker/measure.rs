//! Measures: the same run again and again, each from its input to its result in this worker's memory.

use super::Worker;
use super::engine::Engine;
use super::model::Model;
use crate::protocol::{FromWorker, Job, Measurement, Trial};
use crate::timer;
use js_sys::Float32Array;
use limbeck_shared::Result;

/// Enough is measured after so many runs, or after so many milliseconds if there have been [`LEAST`] runs.
const MOST: usize = 40;
const ENOUGH: f64 = 1500.0;
const LEAST: usize = 5;
/// After so many milliseconds, however few the runs.
const TOO_MUCH: f64 = 6000.0;
/// A first run that takes longer is the measurement: what compiling adds to it is little, and nobody waits for a second one.
const ENDLESS: f64 = 20_000.0;

impl Worker {
    /// Measures a trial and posts what it found.
    pub async fn measure(&self, engine: &Engine, trial: &Trial) {
        let number = trial.job.number;
        let taken = self.models.borrow_mut().remove(&trial.job.key);
        let Some(mut model) = taken else {
            let message = format!("the model `{}` is not open", trial.job.key);
            return self.post(&FromWorker::DrawFailed { number, message }, None);
        };
        let engine = if trial.cpu { &Engine::Cpu } else { engine };
        let result = self.runs(engine, &mut model, trial).await;
        self.models.borrow_mut().entry(trial.job.key.clone()).or_insert(model);
        match result {
            Ok(Some((measurement, data))) => {
                let array = (!data.is_empty()).then(|| Float32Array::from(&data[..]));
                self.post(&FromWorker::Measured { number, measurement }, array.as_ref());
            }
            Ok(None) => self.post(&FromWorker::Cancelled { number }, None),
            Err(error) => self.post(&FromWorker::DrawFailed { number, message: error.to_string() }, None),
        }
    }

    /// What a trial found, and of a single call what went in and came out; none if it was cancelled.
    async fn runs(&self, engine: &Engine, model: &mut Model, trial: &Trial) -> Result<Option<(Measurement, Vec<f32>)>> {
        let job = &trial.job;
        let cancelled = || self.cancelled.get() >= job.number;
        if cancelled() {
            return Ok(None);
        }
        let calls = if trial.call { 1 } else { model.lower(job)?.1 };
        let mut prepared = model.prepare_trial(engine, job, trial.call)?;
        // The first run compiles kernels.
        let begin = timer::now();
        let answer = model.run_trial(&mut prepared, job).await?;
        let first = timer::now() - begin;
        let mut ms = if first > ENDLESS { vec![first] } else { vec![] };
        while !enough(&ms) {
            timer::sleep(0).await;
            if cancelled() {
                return Ok(None);
            }
            ms.push(once(model, &mut prepared, job).await?);
        }
        let (macs, dispatches) = (prepared.macs(model), prepared.dispatches());
        let (data, times) = prepared.given().map_or_else(Default::default, |(x, times)| ([x, &answer].concat(), times.to_vec()));
        Ok(Some((Measurement { ms, calls, macs, dispatches, times }, data)))
    }
}

/// Milliseconds of one run.
async fn once(model: &Model, prepared: &mut super::model::Prepared, job: &Job) -> Result<f64> {
    let begin = timer::now();
    model.run_trial(prepared, job).await?;
    Ok(timer::now() - begin)
}

fn enough(ms: &[f64]) -> bool {
    let sum = ms.iter().sum::<f64>();
    ms.len() >= MOST || sum >= TOO_MUCH || (ms.len() >= LEAST && sum >= ENOUGH)
}
