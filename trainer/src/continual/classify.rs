//! `limbeck continual --classify`: how much of the earlier classes a classifier keeps that never sees their images again, only what
//! the sequence's models draw (Masip et al., arXiv 2311.14028, side experiment).
//!
//! In the run directory: `classifier-N/`, an ordinary run of [`crate::method::features`]; `classifier-N.safetensors`, its bundle. The
//! accuracy goes into `task-N.json`. Deviations: the network of the preset `features-fashion` with its shifts, instead of four
//! convolutions with dropout; the drawn images of a task come [`REUSED`] times.

use super::{Sequence, TaskReport, trained};
use crate::config::{self, EmaConfig, MethodConfig, RunConfig};
use crate::data::{self, DataSpec, Split};
use crate::judge;
use crate::method::continual::{Arm, ContinualConfig};
use crate::method::features::{Earlier, FeaturesConfig};
use anyhow::{Context, Result, bail};
use limbeck_shared::graph::NetworkConfig;
use std::path::Path;

/// How often a drawn image is learned from.
const REUSED: u64 = 12;

impl Sequence {
    /// Shape of the images that classifiers are tested on.
    ///
    /// # Errors
    /// If there are none, or they are points or not square.
    pub(super) fn classifiable(&self) -> Result<[usize; 3]> {
        let shape @ [_, height, width] = data::open(&self.data, Split::Test).context("`--classify`")?.shape();
        if height * width == 1 || height != width {
            bail!("`--classify`: found data {height} by {width}, expected square images");
        }
        Ok(shape)
    }

    /// A classifier after each task that `reports` has, from where it was left. The first task's is trained on its images; later
    /// ones go on with the images of their task and replay, or, with the arm `joint`, with the images of all tasks so far. `None` if
    /// a signal stopped it.
    ///
    /// # Errors
    /// If the data are points, or a file cannot be read or written.
    pub(super) fn classify(&self, dir: &Path, images: u64, mut reports: Vec<TaskReport>) -> Result<Option<Vec<TaskReport>>> {
        let [channels, edge, _] = self.classifiable()?;
        for n in 1..=reports.len() {
            let (out, figures) = (dir.join(format!("classifier-{n}.safetensors")), dir.join(format!("task-{n}.json")));
            if reports[n - 1].classifier_accuracy.is_some() && out.exists() {
                continue;
            }
            eprintln!("classifier of task {n} of {}", self.parts.len());
            let config = self.classifier(n, dir, images, [channels, edge])?;
            let Some(bundle) = trained(config, &dir.join(format!("classifier-{n}")), &out)? else { return Ok(None) };
            let seen = DataSpec::Classes { classes: self.parts[..n].concat(), of: Box::new(self.data.clone()) };
            let test = data::open(&seen, Split::Test)?;
            reports[n - 1].classifier_accuracy =
                Some(judge::accuracy(&bundle, test.as_ref()).with_context(|| format!("`{}`", out.display()))?);
            reports[n - 1].save(&figures)?;
        }
        Ok(Some(reports))
    }

    /// The run that the classifier of task `n` is.
    fn classifier(&self, n: usize, dir: &Path, images: u64, [channels, edge]: [usize; 2]) -> Result<RunConfig> {
        let preset = config::resolve("features-fashion", &[])?;
        let MethodConfig::Features(method) = preset.method else { bail!("`method.kind`: found another, expected features") };
        let mut network = preset.network.clone();
        if let Some(NetworkConfig::Classifier(c)) = &mut network {
            (c.in_channels, c.sample_size, c.classes) = (channels, edge, self.names.len());
        }
        // As the sequence drew its own replay, where it did.
        let draws = ContinualConfig { task: n, ..self.method.clone() }.draws();
        let (generator, steps) = match self.method.one_step {
            Some(_) if draws => (format!("student-{n}.safetensors"), None),
            _ => (format!("task-{}.safetensors", n - 1), draws.then_some(self.method.teacher_steps)),
        };
        let earlier = (n > 1 && self.method.arm != Arm::Joint).then(|| Earlier {
            task: n,
            generator: dir.join(generator),
            steps,
            pool: (images / REUSED).max(1),
        });
        let teacher = (n > 1).then(|| dir.join(format!("classifier-{}.safetensors", n - 1)));
        Ok(RunConfig {
            name: format!("{}-classifier", self.base.name),
            method: MethodConfig::Features(FeaturesConfig { earlier, ..method }),
            seed: self.seed(2_000 + n),
            images,
            batch: 64,
            precision: self.base.precision,
            teacher,
            network,
            data: Some(self.images(n)),
            optimizer: config::OptimizerConfig { warmup: images / 20, ..preset.optimizer },
            ema: EmaConfig { half_life: (images / 8).max(1), ..preset.ema },
            ..preset
        })
    }
}
