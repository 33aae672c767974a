//! What is measured: a whole draw, or one network call, prepared once and run again and again.

use super::{Engine, Job, Model, Net, path};
use limbeck_shared::denoiser::{Lowered, Step};
use limbeck_shared::program::Label;
use limbeck_shared::{Error, Result, gpu, program};

/// A job that is ready to run on one of the interpreters.
pub struct Prepared {
    lowered: Lowered,
    labels: Vec<u32>,
    null: u32,
    /// The single call, where that is what runs.
    call: Option<Call>,
    runner: Runner,
}

/// One network call on noise.
struct Call {
    net: usize,
    times: Vec<f32>,
    labels: Vec<u32>,
    x: Vec<f32>,
}

enum Runner {
    Cpu,
    Draw(gpu::GpuPlan),
    Call(gpu::ForwardPlan),
}

impl Prepared {
    /// Kernels that a run starts on the GPU.
    pub fn dispatches(&self) -> usize {
        match &self.runner {
            Runner::Cpu => 0,
            Runner::Draw(plan) => plan.dispatches(),
            Runner::Call(plan) => plan.dispatches(),
        }
    }

    /// Multiply-accumulates of a run, by `model`'s networks.
    pub fn macs(&self, model: &Model) -> u64 {
        let images = self.labels.len() as u64;
        images * self.call.as_ref().map_or_else(|| model.cost(&self.lowered), |c| model.bundle.graphs[c.net].macs())
    }

    /// What the single call is given: images and times.
    pub fn given(&self) -> Option<(&[f32], &[f32])> {
        self.call.as_ref().map(|c| (&c.x[..], &c.times[..]))
    }
}

impl Model {
    /// Prepares all images of a job at once, or with `call` the first network call of them.
    ///
    /// # Errors
    /// If the bundle does not support what the job asks for; [`Error::Gpu`] if the device has no memory for it or fails.
    pub fn prepare_trial(&mut self, engine: &Engine, job: &Job, call: bool) -> Result<Prepared> {
        let (lowered, ..) = self.lower(job)?;
        let null = self.bundle.meta.null_label.unwrap_or(0);
        let labels: Vec<u32> = (0..job.count).map(|k| job.labels.get(k).copied().unwrap_or(0)).collect();
        let call = if call { Some(self.first_call(&lowered, job, &labels, null)?) } else { None };
        let runner = match (engine, &call) {
            (Engine::Cpu, _) => {
                self.load_nets()?;
                Runner::Cpu
            }
            (Engine::Gpu { engine, .. }, call) => {
                let model = self.load_gpu(engine)?;
                match call {
                    Some(c) => Runner::Call(model.forward_plan(c.net, job.count)?),
                    None => Runner::Draw(model.plan(&lowered, job.count)?),
                }
            }
        };
        Ok(Prepared { lowered, labels, null, call, runner })
    }

    /// The program's first network call, on noise of the job's seed.
    fn first_call(&self, lowered: &Lowered, job: &Job, labels: &[u32], null: u32) -> Result<Call> {
        let eval = lowered.steps.iter().find_map(|s| if let Step::Net(e) = s { Some(e) } else { None });
        let eval = eval.ok_or_else(|| Error::call("network calls", 0, "at least one"))?;
        let values = self.bundle.meta.image.values();
        let mut x = vec![0.0; job.count * values];
        let mut noise = path::noise(job, 0);
        x.chunks_exact_mut(values).enumerate().for_each(|(k, image)| noise(0, k, image));
        let labels = match eval.label {
            _ if self.bundle.graphs[eval.net].classes == 0 => vec![],
            Label::Given => labels.to_vec(),
            Label::Null => vec![null; labels.len()],
        };
        Ok(Call { net: eval.net, times: eval.times.clone(), labels, x })
    }

    /// One run, from the noise to the answer: the images in the network's own range, or the call's output.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub async fn run_trial(&self, prepared: &mut Prepared, job: &Job) -> Result<Vec<f32>> {
        let Prepared { lowered, labels, null, call, runner } = prepared;
        match (runner, call) {
            (Runner::Call(plan), Some(c)) => plan.forward(&c.x, &c.times.repeat(labels.len()), &c.labels).await,
            (Runner::Draw(plan), _) => plan.sample_from(&mut path::noise(job, 0), labels, *null).await,
            (_, Some(c)) => {
                let mut out = vec![0.0; c.x.len()];
                self.nets[c.net].eval(&c.x, labels.len(), &c.times, &c.labels, &mut out)?;
                Ok(out)
            }
            (_, None) => {
                let nets: Vec<&dyn Net> = self.nets.iter().map(|n| n as &dyn Net).collect();
                program::run_from(lowered, &nets, &mut path::noise(job, 0), labels, *null)
            }
        }
    }
}
