//! `limbeck continual`: one run of [`crate::method::continual`] after another, each task's bundle the next one's teacher.
//!
//! In the run directory: `task-N/`, an ordinary run that resumes bit for bit; `task-N.safetensors`, its bundle; `task-N.json`, its
//! figures over all classes seen so far; `task-N.png`. A task whose bundle and figures are there is done, wherever they came from:
//! sequences of one seed and one beginning share their first task, and a copy of its three files saves training it again.

mod classify;
pub mod further;
mod report;
mod split;

use crate::config::{self, MethodConfig, RunConfig};
use crate::data::{self, DataSpec, Split};
use crate::method::boot::BootConfig;
use crate::method::continual::{Arm, ContinualConfig};
use crate::train::{self, Outcome};
use anyhow::{Context, Result, bail};
use clap::Args;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::rng::{self, Stream};
pub use report::{Measure, TaskReport};
pub use split::split;
use std::path::{Path, PathBuf};

/// Stream of the tasks' seeds.
const SEEDS: Stream = Stream::Other(31_000);

/// Arguments of `limbeck continual`.
#[derive(Debug, Args)]
pub struct Command {
    /// Name of a preset, or a TOML file; `fashion-continual` unless given, `continual` with --from
    preset: Option<String>,
    /// Bundle to go on with, instead of a sequence of tasks
    #[arg(long, requires = "data")]
    from: Option<PathBuf>,
    /// Folder of the images: of all tasks, or the new ones with --from
    #[arg(long)]
    data: Option<PathBuf>,
    /// How many tasks to do; all unless given
    #[arg(long, conflicts_with = "from")]
    tasks: Option<usize>,
    /// Run directory; runs/NAME unless given
    #[arg(long)]
    run: Option<PathBuf>,
    /// Bundle to write with --from; model.safetensors in the run directory unless given
    #[arg(long, requires = "from")]
    out: Option<PathBuf>,
    /// Override a key, such as method.arm=replay
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The classifier in whose features images are compared
    #[arg(long, default_value = "models/fashion-features.safetensors")]
    features: PathBuf,
    /// Images to draw for each evaluation; 0: nothing is measured
    #[arg(long, default_value_t = 5_000)]
    count: usize,
    /// After the sequence, train a classifier on this many images of each task and the replay of the model before, and report its
    /// accuracy (side experiment of the paper)
    #[arg(long, value_name = "IMAGES", conflicts_with = "from")]
    classify: Option<u64>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs the command; the result is JSON for stdout, none if a signal stopped it.
///
/// # Errors
/// Names the file or key that does not fit.
pub fn run(c: &Command) -> Result<Option<String>> {
    crate::device::choose(&c.device)?;
    train::handle_signals()?;
    if let Some(from) = &c.from {
        let further = further::run(c, from)?;
        return further.map(|f| Ok(serde_json::to_string_pretty(&f)?)).transpose();
    }
    let mut config = config::resolve(c.preset.as_deref().unwrap_or("fashion-continual"), &c.set)?;
    if let Some(dir) = &c.data {
        config.data = Some(match config.data.take() {
            Some(spec) => spec.with_dir(dir),
            None => DataSpec::detect(dir)?,
        });
    }
    let run = c.run.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let sequence = Sequence::new(config)?;
    if c.classify.is_some() {
        sequence.classifiable()?;
    }
    let reports = sequence.run(&run, c.tasks.unwrap_or(usize::MAX), &Measure { features: &c.features, count: c.count })?;
    let reports = match (reports, c.classify) {
        (Some(reports), Some(images)) => sequence.classify(&run, images, reports)?,
        (reports, _) => reports,
    };
    reports.map(|r| Ok(serde_json::to_string_pretty(&r)?)).transpose()
}

/// A sequence of tasks.
pub struct Sequence {
    base: RunConfig,
    method: ContinualConfig,
    data: DataSpec,
    /// Names of all classes.
    names: Vec<String>,
    /// The classes of each task.
    parts: Vec<Vec<u32>>,
}

impl Sequence {
    /// Splits the classes of the configuration's data into its tasks.
    ///
    /// # Errors
    /// Names the key that does not fit.
    pub fn new(base: RunConfig) -> Result<Sequence> {
        let MethodConfig::Continual(method) = base.method.clone() else { bail!("`method.kind`: found another, expected continual") };
        let data = base.data.clone().context("`data`: found none, expected images with classes")?;
        let names = data::open(&data, Split::Train)?.classes().to_vec();
        if !(1..=names.len()).contains(&method.tasks) {
            bail!("`method.tasks`: found {}, expected 1 to {}, the number of classes", method.tasks, names.len());
        }
        if method.one_step.is_some() && method.replay.is_some() {
            bail!("`method.replay`: found a bundle beside `method.one_step`, expected one of them");
        }
        let parts = split(names.len(), method.tasks, base.seed);
        Ok(Sequence { base, method, data, names, parts })
    }

    /// Key of the random numbers of one run: images of every run are counted from 0, and with one seed they would meet the same noise.
    fn seed(&self, run: usize) -> u64 {
        u64::from(rng::bits(self.base.seed, SEEDS, run as u64, 0)[0])
    }

    /// The real images of task `n`: of its classes, or with the arm `joint` of all so far.
    fn images(&self, n: usize) -> DataSpec {
        let classes = if self.method.arm == Arm::Joint { self.parts[..n].concat() } else { self.parts[n - 1].clone() };
        DataSpec::Classes { classes, of: Box::new(self.data.clone()) }
    }

    /// The run that task `n` is; `previous` is the bundle of the task before, `replay` one that draws for it.
    fn task(&self, n: usize, previous: Option<&Path>, replay: Option<PathBuf>) -> RunConfig {
        let method = match n {
            // The same for all arms.
            1 => {
                let drawn = ContinualConfig { one_step: None, replay: None, pool: None, ..self.method.clone() };
                ContinualConfig { arm: Arm::FineTune, lambda: None, teacher_steps: 10, ..drawn }
            }
            _ => ContinualConfig { task: n, one_step: None, replay: replay.or(self.method.replay.clone()), ..self.method.clone() },
        };
        RunConfig {
            method: MethodConfig::Continual(method),
            seed: self.seed(n),
            teacher: previous.map(Path::to_path_buf),
            network: self.base.network.clone().filter(|_| n == 1),
            data: Some(self.images(n)),
            ..self.base.clone()
        }
    }

    /// The one-step student that draws the replay of task `n`, if the configuration asks for one.
    fn student(&self, n: usize, dir: &Path, previous: &Path) -> Result<Option<Option<PathBuf>>> {
        // Whether anything is drawn depends on the task: the first has nothing to draw.
        let draws = ContinualConfig { task: n, ..self.method.clone() }.draws();
        let Some(one_step) = self.method.one_step.as_ref().filter(|_| draws) else { return Ok(Some(None)) };
        let clip = if self.method.clip { 1.0 } else { 0.0 };
        let method = BootConfig { delta: one_step.delta, solver: Default::default(), boundary: 0.0, guidance: None, clip };
        let config = RunConfig {
            name: format!("{}-student", self.base.name),
            method: MethodConfig::Boot(method),
            seed: self.seed(1_000 + n),
            images: one_step.images,
            teacher: Some(previous.to_path_buf()),
            network: None,
            data: None,
            ..self.base.clone()
        };
        let out = dir.join(format!("student-{n}.safetensors"));
        Ok(trained(config, &dir.join(format!("student-{n}")), &out)?.map(|_| Some(out)))
    }

    /// Does the first `tasks` tasks, each from where it was left. `None` if a signal stopped it.
    ///
    /// # Errors
    /// Names the file or key that does not fit; a run directory of another configuration is refused.
    pub fn run(&self, dir: &Path, tasks: usize, measure: &Measure<'_>) -> Result<Option<Vec<TaskReport>>> {
        std::fs::create_dir_all(dir).with_context(|| format!("`{}` cannot be made", dir.display()))?;
        train::same_config(&self.base, dir)?;
        let file = |n: usize, ending: &str| dir.join(format!("task-{n}.{ending}"));
        let mut reports: Vec<TaskReport> = vec![];
        for n in 1..=self.parts.len().min(tasks) {
            let (model, figures) = (file(n, "safetensors"), file(n, "json"));
            let names: Vec<String> = self.parts[n - 1].iter().map(|&c| self.names[c as usize].clone()).collect();
            if model.exists() && figures.exists() {
                let text = std::fs::read_to_string(&figures).with_context(|| format!("`{}` cannot be read", figures.display()))?;
                reports.push(serde_json::from_str(&text).with_context(|| format!("`{}`", figures.display()))?);
                continue;
            }
            eprintln!("task {n} of {}: {}", self.parts.len(), names.join(", "));
            let previous = (n > 1).then(|| file(n - 1, "safetensors"));
            let replay = match &previous {
                None => None,
                Some(previous) => match self.student(n, dir, previous)? {
                    Some(replay) => replay,
                    None => return Ok(None),
                },
            };
            let config = self.task(n, previous.as_deref(), replay);
            let steps = config.images.div_ceil(config.batch as u64);
            let Some(bundle) = trained(config, &dir.join(format!("task-{n}")), &model)? else { return Ok(None) };
            let evaluation = measure.task(&bundle, &self.data, &self.parts[..n].concat(), &file(n, "png"))?;
            let report = TaskReport {
                task: n,
                classes: names,
                images: bundle.meta.training.images_seen,
                seconds_a_step: bundle.meta.training.seconds / steps as f64,
                evaluation: evaluation.map(serde_json::to_value).transpose()?,
                classifier_accuracy: None,
            };
            report.save(&figures)?;
            reports.push(report);
        }
        Ok(Some(reports))
    }
}

/// Trains a run to its end and exports it; `None` if a signal stopped it.
fn trained(config: RunConfig, dir: &Path, out: &Path) -> Result<Option<Bundle>> {
    let setup = train::Setup::new(config)?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    if train::train(&setup, dir, &command)? == Outcome::Stopped {
        return Ok(None);
    }
    train::export_run(&setup, dir, out, &command)?;
    train::read_bundle(out).map(Some)
}
