//! An opened bundle, ready for either interpreter.

use super::engine::Engine;
use super::path;
use crate::protocol::{Job, ModelInfo, Way};
use limbeck_shared::bundle::{self, Bundle, MAX_STEPS};
use limbeck_shared::denoiser::{self, Lowered, Net, Step};
use limbeck_shared::program;
use limbeck_shared::travel::blend_classes;
use limbeck_shared::{Error, Result, cpu, gpu};

mod trial;

pub use trial::Prepared;

/// Numbers of steps offered where a bundle leaves them open.
const OPEN_STEPS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// A bundle and what the interpreters made of it.
pub struct Model {
    bundle: Bundle,
    bytes: u64,
    /// The CPU interpreter's networks, once it has been used.
    nets: Vec<cpu::Net>,
    /// The GPU's weights and its last plans, once it has been used.
    gpu: Option<Loaded>,
    /// The same model with the way between two classes in its label tables, once it has been travelled.
    blend: Option<Box<Blend>>,
}

struct Blend {
    classes: [u32; 2],
    frames: usize,
    model: Model,
}

struct Loaded {
    model: gpu::GpuModel,
    /// The last ones, the latest at the end.
    plans: Vec<Planned>,
}

/// Plans kept, for one image and for a grid, and what they may take of a device's memory, bytes.
const PLANS: usize = 3;
const PLANS_BYTES: u64 = 64 << 20;

/// A plan, and what it was asked for: the program and the number of images.
struct Planned {
    lowered: Lowered,
    wanted: usize,
    /// Images that it draws at once.
    slice: usize,
    plan: gpu::GpuPlan,
}

impl Model {
    /// Reads and checks a bundle; `sha256`, where known, is the whole file's.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub fn read(bytes: &[u8], sha256: Option<&str>) -> std::result::Result<Model, String> {
        let read = bundle::read(bytes);
        if let Some(expected) = sha256 {
            // First of all: a file that is not the expected one may be broken in any way.
            let found = read.as_ref().map_or_else(|_| bundle::sha256(bytes), |b| b.sha256.clone());
            if !found.starts_with(&expected.to_ascii_lowercase()) {
                let short = |hash: &str| hash.chars().take(16).collect::<String>();
                return Err(format!(
                    "This is not the expected file: its SHA-256 begins {}, expected {}. It was replaced or damaged on its way.",
                    short(&found),
                    short(expected)
                ));
            }
        }
        let bundle = read.map_err(|e| format!("This file is not a model that the page can draw with: {e}."))?;
        if bundle.meta.is_classifier() {
            return Err(format!("`{}` is a classifier: it recognises images and cannot draw them.", bundle.meta.name));
        }
        if !bundle.meta.image.is_picture() {
            let [channels, height, width] = bundle.meta.image.shape();
            return Err(format!("`{}` draws points, {channels} x {height} x {width}; this page shows images.", bundle.meta.name));
        }
        Ok(Model { bundle, bytes: bytes.len() as u64, nets: vec![], gpu: None, blend: None })
    }

    /// The model's name.
    pub fn name(&self) -> String {
        self.bundle.meta.name.clone()
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> String {
        self.bundle.sha256.clone()
    }

    /// What the page is told.
    pub fn info(&self) -> ModelInfo {
        let meta = &self.bundle.meta;
        let short = |v: serde_json::Result<String>| v.unwrap_or_default();
        ModelInfo {
            name: meta.name.clone(),
            sha256: self.bundle.sha256.clone(),
            bytes: self.bytes,
            shape: meta.image.shape(),
            classes: meta.classes.clone(),
            guidance: meta.guidance.map(Into::into),
            ways: self.ways(),
            spec: meta.spec(),
            params: self.bundle.graphs.iter().map(|g| g.param_count()).collect(),
            macs: self.bundle.graphs.iter().map(|g| g.macs()).collect(),
            method: meta.training.method.clone(),
            preset: meta.training.preset.clone(),
            teacher: meta.training.teacher_sha256.clone(),
            images_seen: meta.training.images_seen,
            seconds: meta.training.seconds,
            command: meta.training.command.clone(),
            evaluation: meta.training.evaluation.iter().map(|(k, v)| (k.clone(), v.to_string())).collect(),
            schedule: short(serde_json::to_string(&meta.schedule)),
            parameterization: short(serde_json::to_string(&meta.parameterization)),
            licence: meta.licence.clone(),
        }
    }

    /// Every sampler with every number of steps on offer, and its price.
    fn ways(&self) -> Vec<Way> {
        let meta = &self.bundle.meta;
        let mut ways = vec![];
        for (i, spec) in meta.samplers.iter().enumerate() {
            let open = spec.steps.is_empty();
            let mut steps = if open { OPEN_STEPS.to_vec() } else { spec.steps.clone() };
            if !steps.contains(&spec.default_steps) {
                steps.push(spec.default_steps);
            }
            steps.sort_unstable();
            steps.dedup();
            for steps in steps.into_iter().filter(|&s| s <= MAX_STEPS) {
                let guidance = if meta.guidance_input { meta.guidance.map_or(1.0, |g| g.default) } else { 1.0 };
                if let Ok(program) = program::build(spec.sampler, &meta.spec(), steps, guidance) {
                    let default = i == 0 && steps == spec.default_steps;
                    ways.push(Way { sampler: spec.sampler, steps, calls: program.evals(), default, open });
                }
            }
        }
        ways
    }

    /// The job's program in raw network calls, how many of them an image takes, and for a path the noise levels of the states
    /// that it keeps.
    ///
    /// # Errors
    /// If the bundle does not support what the job asks for.
    pub fn lower(&self, job: &Job) -> Result<(Lowered, usize, Vec<f64>)> {
        let guidance = self.bundle.meta.guidance.map(|_| job.guidance.into());
        let program = self.bundle.draw_program(Some(job.sampler), Some(job.steps), guidance)?;
        let spec = self.bundle.spec();
        let (keep, levels) = if job.path { path::keep(&program, &spec) } else { Default::default() };
        if job.path && job.count != 1 {
            return Err(Error::call("images on a path", job.count, "1"));
        }
        let lowered = denoiser::lower_keeping(&program, &spec, &keep)?;
        let rows = self.bundle.graphs.iter().map(|g| g.classes).max().unwrap_or(0);
        if let Some(label) = job.labels.iter().find(|&&l| rows > 0 && l as usize >= rows) {
            return Err(Error::call("class", label, format!("0 to {}", rows.saturating_sub(1))));
        }
        Ok((lowered, program.evals(), levels))
    }

    /// The model that draws a job, and the job as it understands it: of a travel between classes, the one that knows the way.
    ///
    /// # Errors
    /// If the model has no such classes.
    pub fn for_job(&mut self, job: &Job) -> Result<(&mut Model, Job)> {
        let Some(classes) = job.blend else { return Ok((self, job.clone())) };
        let frames = job.count;
        let first = self.bundle.graphs.iter().map(|g| g.classes).max().unwrap_or(0);
        let blend = match self.blend.take().filter(|b| b.classes == classes && b.frames == frames) {
            Some(blend) => blend,
            None => {
                let mut bundle = self.bundle.clone();
                for (graph, theta) in bundle.graphs.iter_mut().zip(&mut bundle.thetas).filter(|(g, _)| g.classes > 0) {
                    (*graph, *theta) = blend_classes(graph, theta, classes, frames)?;
                }
                let model = Model { bundle, bytes: self.bytes, nets: vec![], gpu: None, blend: None };
                Box::new(Blend { classes, frames, model })
            }
        };
        let labels = (first..first + frames).map(|l| l as u32).collect();
        Ok((&mut self.blend.insert(blend).model, Job { labels, blend: None, ..job.clone() }))
    }

    /// Multiply-accumulates for one image.
    pub fn cost(&self, lowered: &Lowered) -> u64 {
        let macs = |net: usize| self.bundle.graphs.get(net).map_or(0, |g| g.macs());
        lowered.steps.iter().map(|s| if let Step::Net(e) = s { macs(e.net) } else { 0 }).sum()
    }

    /// Loads weights and compiles kernels where that has not been done, so that drawing is all that is timed. Returns how many
    /// images to draw at once: `wanted`, or fewer where the device has no memory for them.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub async fn prepare(&mut self, engine: &Engine, lowered: &Lowered, wanted: usize) -> Result<usize> {
        let Engine::Gpu { engine, software, .. } = engine else {
            self.gpu = None;
            self.load_nets()?;
            return Ok(wanted);
        };
        let model = self.load_gpu(engine)?;
        let mut loaded = self.gpu.take().unwrap_or(Loaded { model, plans: vec![] });
        if let Some(i) = loaded.plans.iter().position(|p| p.lowered == *lowered && p.wanted == wanted) {
            let kept = loaded.plans.remove(i);
            let slice = kept.slice;
            loaded.plans.push(kept);
            self.gpu = Some(loaded);
            return Ok(slice);
        }
        // Room first: a large plan and another may not fit beside each other.
        while loaded.plans.len() >= PLANS || loaded.plans.iter().map(|p| p.plan.bytes()).sum::<u64>() > PLANS_BYTES {
            loaded.plans.remove(0);
        }
        let mut slice = wanted;
        let plan = loop {
            match loaded.model.plan(lowered, slice) {
                Err(Error::Gpu(_)) if slice > 1 && engine.check().is_ok() => slice = slice.div_ceil(2),
                plan => break plan?,
            }
        };
        // No wrong picture is ever shown.
        loaded.model.verify(&self.bundle.thetas, if *software { 1 } else { slice }).await?;
        loaded.plans.push(Planned { lowered: lowered.clone(), wanted, slice, plan });
        self.gpu = Some(loaded);
        Ok(slice)
    }

    /// Gives the networks to the CPU interpreter, once.
    fn load_nets(&mut self) -> Result<()> {
        if self.nets.is_empty() {
            let pairs = self.bundle.graphs.iter().zip(&self.bundle.thetas);
            self.nets = pairs.map(|(g, t)| cpu::Net::new(g.clone(), t.clone())).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Gives the networks to the device, once.
    fn load_gpu(&mut self, engine: &gpu::Engine) -> Result<gpu::GpuModel> {
        let loaded = match &mut self.gpu {
            Some(loaded) => loaded,
            slot => slot.insert(Loaded { model: engine.load(&self.bundle.graphs, &self.bundle.thetas)?, plans: vec![] }),
        };
        Ok(loaded.model.clone())
    }

    /// Images `first..first + slice` of the job as far as it goes, f32 `[n, C, H, W]` in [-1, 1], and what the program keeps.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub async fn draw(&mut self, job: &Job, lowered: &Lowered, first: usize, slice: usize) -> Result<Vec<f32>> {
        let n = slice.min(job.count - first);
        let null = self.bundle.meta.null_label.unwrap_or(0);
        let mut labels: Vec<u32> = (first..first + n).map(|k| job.labels.get(k).copied().unwrap_or(0)).collect();
        let mut noise = path::noise(job, first);
        let mut pixels = match self.gpu.as_mut().and_then(|loaded| loaded.plans.last_mut()) {
            Some(planned) => {
                // A plan draws whole batches; the last one's surplus is dropped.
                labels.resize(slice, 0);
                planned.plan.sample_from(&mut noise, &labels, null).await?
            }
            None => {
                let nets: Vec<&dyn Net> = self.nets.iter().map(|n| n as &dyn Net).collect();
                program::run_from(lowered, &nets, &mut noise, &labels, null)?
            }
        };
        let image = self.bundle.meta.image;
        // What is kept comes after the images, of which there is one, then: nothing to drop.
        pixels.truncate(n * image.values() * (1 + lowered.kept.len()));
        image.clamp(&mut pixels);
        let [low, high] = image.range;
        if [low, high] != [-1.0, 1.0] {
            let (scale, low) = (2.0 / (high - low), low);
            pixels.iter_mut().for_each(|v| *v = ((f64::from(*v) - low) * scale - 1.0) as f32);
        }
        Ok(pixels)
    }

    /// Forgets what belongs to a device.
    pub fn forget_plan(&mut self) {
        (self.gpu, self.blend) = (None, None);
    }
}
