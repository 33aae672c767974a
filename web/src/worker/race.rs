//! The automatic choice: both interpreters call a model's network a few times, and the faster one draws with it from then on. As both
//! answer the same question, a GPU that computes wrongly is found as well.

use super::Worker;
use super::engine::Engine;
use super::model::Model;
use crate::protocol::{Choice, FromWorker, Job, Race};
use crate::timer::{self, duration};
use limbeck_shared::Result;

/// Images of a race's call: between one image, which leaves a GPU idle, and a grid.
const IMAGES: usize = 2;
/// Multiply-accumulates that a race may ask of the CPU, about a quarter of a second. A network too large for it is the GPU's.
const MACS: u64 = 1_500_000_000;
/// Runs that count, the best of them, unless they take longer than this many milliseconds.
const RUNS: usize = 3;
const LONG: f64 = 150.0;
/// Largest difference of the answers, in parts of the largest value. Rounding differs by 1e-5, broken arithmetic by more than this.
const TOLERANCE: f32 = 1e-2;

impl Worker {
    /// The CPU is to draw this job although there is a device, by a race run now or remembered. Tells the page who draws, and why.
    pub async fn prefers_cpu(&self, engine: &Engine, job: &Job) -> bool {
        let Engine::Gpu { name, .. } = engine else { return false };
        if self.choice.get() != Choice::Auto {
            return false;
        }
        let Some(mut model) = self.models.borrow_mut().remove(&job.key) else { return false };
        let found = |races: &[Race]| races.iter().find(|r| r.adapter == *name && r.sha256 == model.sha256()).cloned();
        let known = found(&self.races.borrow());
        let race = match known {
            Some(race) => Some(race),
            // A device that fails does so again while it draws, where that is handled.
            None => race(engine, name, &mut model, job).await.ok().flatten().inspect(|race| {
                self.races.borrow_mut().push(race.clone());
                self.post(&FromWorker::Raced(race.clone()), None);
            }),
        };
        let title = model.name();
        self.models.borrow_mut().entry(job.key.clone()).or_insert(model);
        let cpu = race.as_ref().is_some_and(|r| r.wrong || r.cpu < r.gpu);
        let words = |r: Race| {
            if r.wrong {
                return format!("WebGPU ({name}) answers wrongly for `{title}`, so the CPU computes.");
            }
            let (first, second, loser) = if cpu { (r.cpu, r.gpu, format!("WebGPU ({name})")) } else { (r.gpu, r.cpu, "the CPU".into()) };
            format!("Both were tried on `{title}`: it took {} here, {} on {loser}.", duration(first), duration(second))
        };
        let note = race.map_or(String::new(), words);
        let info = if cpu { Engine::Cpu.info(note) } else { engine.info(note) };
        let info = crate::protocol::EngineInfo { gpu: Some(name.clone()), ..info };
        if self.told.borrow().as_ref() != Some(&info) {
            self.tell(info);
        }
        cpu
    }
}

/// Runs a race; none if the network is too large for the CPU to be in question.
async fn race(engine: &Engine, name: &str, model: &mut Model, job: &Job) -> Result<Option<Race>> {
    let job = Job { count: 1, path: false, to: None, blend: None, ..job.clone() };
    let macs = model.prepare_trial(&Engine::Cpu, &job, true)?.macs(model);
    let count = IMAGES.min((MACS / macs.max(1)) as usize);
    if count == 0 {
        return Ok(None);
    }
    let job = Job { count, ..job };
    let (gpu, found) = best(engine, model, &job).await?;
    let (cpu, expected) = best(&Engine::Cpu, model, &job).await?;
    let wrong = !agree(&found, &expected);
    Ok(Some(Race { adapter: name.to_owned(), sha256: model.sha256(), gpu, cpu, wrong }))
}

/// The values differ by rounding alone; one that is not finite never does.
fn agree(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

/// Milliseconds of the best run, after one that compiles kernels, and that one's answer.
async fn best(engine: &Engine, model: &mut Model, job: &Job) -> Result<(f64, Vec<f32>)> {
    let mut prepared = model.prepare_trial(engine, job, true)?;
    let (mut best, mut sum) = (f64::INFINITY, 0.0);
    let answer = model.run_trial(&mut prepared, job).await?;
    for _ in 0..RUNS {
        let begin = timer::now();
        model.run_trial(&mut prepared, job).await?;
        let ms = timer::now() - begin;
        (best, sum) = (best.min(ms), sum + ms);
        if sum > LONG {
            break;
        }
    }
    Ok((best, answer))
}
