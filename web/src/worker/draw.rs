//! Draws a job slice by slice.

use super::Worker;
use super::engine::Engine;
use super::model::Model;
use crate::protocol::{FromWorker, Job};
use crate::timer;
use js_sys::Float32Array;
use limbeck_shared::{Error, Result};

impl Worker {
    /// Draws `job` and posts its slices and its end. With `again`, returns the reason if a WebGPU device failed: the job is then not
    /// finished and is to be drawn anew on another engine.
    pub async fn draw(&self, engine: &Engine, job: &Job, again: bool) -> Option<String> {
        let number = job.number;
        // Taken out while in use, as drawing waits in between; a bundle opened meanwhile under the same key stays.
        let taken = self.models.borrow_mut().remove(&job.key);
        let Some(mut model) = taken else {
            self.post(&FromWorker::DrawFailed { number, message: format!("the model `{}` is not open", job.key) }, None);
            return None;
        };
        let result = self.slices(engine, &mut model, job).await;
        self.models.borrow_mut().entry(job.key.clone()).or_insert(model);
        let end = match result {
            Ok(Some(ms)) => FromWorker::Done { number, ms },
            Ok(None) => FromWorker::Cancelled { number },
            Err(Error::Gpu(reason)) if again => return Some(reason),
            Err(error) => FromWorker::DrawFailed { number, message: error.to_string() },
        };
        self.post(&end, None);
        None
    }

    /// The milliseconds computed, or none if the job was cancelled.
    async fn slices(&self, engine: &Engine, model: &mut Model, job: &Job) -> Result<Option<f64>> {
        let cancelled = || self.cancelled.get() >= job.number;
        if cancelled() {
            return Ok(None);
        }
        let (model, job) = model.for_job(job)?;
        let (lowered, calls, levels) = model.lower(&job)?;
        self.post(&FromWorker::Started { number: job.number, calls, levels }, None);
        let slice = engine.slice(model.cost(&lowered), job.count);
        let slice = model.prepare(engine, &lowered, slice).await?;
        let mut ms = 0.0;
        for first in (0..job.count).step_by(slice) {
            if first > 0 {
                timer::sleep(0).await;
            }
            if cancelled() {
                return Ok(None);
            }
            let begin = timer::now();
            let pixels = model.draw(&job, &lowered, first, slice).await?;
            ms += timer::now() - begin;
            let array = Float32Array::from(&pixels[..]);
            self.post(&FromWorker::Slice { number: job.number, first, ms }, Some(&array));
        }
        Ok(Some(ms))
    }
}
