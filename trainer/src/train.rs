//! The one training loop: iterations ([`crate::step`]), logs, states, resume, signals.
//!
//! It knows nothing about methods; a method knows nothing about it. Time is images seen. Everything random is keyed by the
//! image's number, so a run that was stopped and resumed computes what an undisturbed run computes, bit for bit.

use crate::checkpoint::{self, NetState, State, Sums};
use crate::config::{LogConfig, RunConfig};
use crate::data::{self, Dataset, Split};
use crate::export;
use crate::log::{grid, progress::Progress, stats::StatsWriter, tfevents::EventWriter};
use crate::method::{self, Method, NetSpec};
use crate::optim::{Adam, RowNorms};
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::{self, Bundle};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How a call of [`train`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All images seen.
    Finished,
    /// Stopped by a signal; the state is saved.
    Stopped,
}

/// Signals received so far; the first asks the loop to stop after the current step, the second ends the process.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler for SIGINT and SIGTERM.
///
/// # Errors
/// If the system refuses.
pub fn handle_signals() -> Result<()> {
    ctrlc::set_handler(|| {
        if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
            eprintln!("stopped at once; the last saved state is kept");
            std::process::exit(1);
        }
        eprintln!("stopping after this step (again to stop at once)");
    })
    .context("signals cannot be handled")
}

/// Whether a signal has asked to stop.
pub(crate) fn stopping() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// Everything a run needs besides its state.
pub struct Setup {
    pub(crate) config: RunConfig,
    pub(crate) method: Box<dyn Method>,
    pub(crate) specs: Vec<NetSpec>,
    /// Of each network, if their weights are normalised.
    pub(crate) rows: Vec<RowNorms>,
    pub(crate) data: Option<Box<dyn Dataset>>,
}

impl Setup {
    /// Opens what the configuration names: the teacher, and the data if the method reads any.
    ///
    /// # Errors
    /// Names the file or key that does not fit.
    pub fn new(config: RunConfig) -> Result<Setup> {
        let teacher = config.teacher.as_deref().map(read_bundle).transpose()?;
        let method = method::build(&config, teacher.as_ref())?;
        let data = match (&config.data, method.needs_data()) {
            (Some(spec), true) => Some(data::open(spec, Split::Train)?),
            (None, true) => bail!("`data`: found none, expected the images to train on"),
            (_, false) => None,
        };
        let specs = method.networks(config.seed)?;
        // What cannot be drawn at the end is refused now.
        let meta = method.meta(data.as_deref())?;
        if draws_grids(&meta) {
            meta.draw_program(None, grid_steps(&meta, &config.log), None).context("`log.grid_steps`")?;
        }
        let rows = match config.optimizer.weight_norm {
            true => specs.iter().map(|s| RowNorms::new(s.exec.graph(), &s.theta)).collect(),
            false => vec![],
        };
        Ok(Setup { config, method, specs, rows, data })
    }

    /// The resolved configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// What the exported bundle will say.
    ///
    /// # Errors
    /// As [`Method::meta`].
    pub fn meta(&self) -> Result<bundle::Meta> {
        self.method.meta(self.data.as_deref())
    }

    /// The networks, as they start.
    pub fn networks(&self) -> &[NetSpec] {
        &self.specs
    }

    /// The state a fresh run starts from.
    pub fn fresh(&self) -> State {
        let nets = self.specs.iter().map(|s| NetState {
            name: s.name.to_string(),
            theta: s.theta.clone(),
            ema: if s.averaged { s.theta.clone() } else { vec![] },
            adam: Adam::new(s.theta.len()),
        });
        State { images_seen: 0, seconds: 0.0, skipped: 0, nets: nets.collect(), sums: Sums::default() }
    }

    /// The state of a run directory: its newest, or a fresh one.
    ///
    /// # Errors
    /// If a state is there but cannot be read.
    pub fn load(&self, run: &Path) -> Result<State> {
        let names: Vec<_> = self.specs.iter().map(|s| (s.name, s.theta.len(), s.averaged)).collect();
        Ok(checkpoint::load(run, &names)?.unwrap_or_else(|| self.fresh()))
    }
}

/// Reads a bundle, naming the file in errors.
///
/// # Errors
/// If the file cannot be read or is no bundle.
pub fn read_bundle(path: &Path) -> Result<Bundle> {
    let bytes = std::fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    bundle::read(&bytes).with_context(|| format!("`{}`", path.display()))
}

/// Trains until all images are seen or a signal comes; resumes from the newest state of the run directory.
///
/// # Errors
/// Names the file or key that does not fit; a run directory of another configuration is refused.
pub fn train(setup: &Setup, run: &Path, command: &str) -> Result<Outcome> {
    std::fs::create_dir_all(run).with_context(|| format!("`{}` cannot be made", run.display()))?;
    same_config(setup.config(), run)?;
    let c = setup.config();
    let mut state = setup.load(run)?;
    if state.images_seen >= c.images {
        eprintln!("`{}` has seen all {} images: nothing to do", run.display(), c.images);
        return Ok(Outcome::Finished);
    }
    let mut log = Log::open(run, state.images_seen)?;
    log.line(&format!("{command}\n{} images seen of {}", state.images_seen, c.images))?;
    let mut bar = Progress::new(c.images, state.images_seen);
    let mut clock = Instant::now();
    let mut resident = setup.resident(&state)?;
    while state.images_seen < c.images {
        let before = state.images_seen;
        let report = match &mut resident {
            None => setup.step(&mut state)?,
            Some(resident) => setup.step_resident(&mut state, resident)?,
        };
        state.sums.add(&report);
        let now = state.images_seen;
        let done = now >= c.images;
        let due = |every: u64| done || before / every != now / every;
        let stop = stopping();
        let snapshot = c.log.snapshot > 0 && due(c.log.snapshot);
        if let Some(resident) = resident.as_ref().filter(|_| stop || snapshot || due(c.log.grid) || due(c.log.state)) {
            resident.read_into(&mut state)?;
        }
        bar.update(now, &report);
        state.seconds += clock.elapsed().as_secs_f64();
        clock = Instant::now();
        if due(c.log.stats) {
            let means = state.sums.take_means();
            log.stats(&state, &means, c)?;
        }
        if due(c.log.grid) {
            log.grid(setup, &state, run)?;
            clock = Instant::now();
        }
        if snapshot {
            export_state(setup, &state, &run.join(format!("model-{now:08}.safetensors")), command)?;
            clock = Instant::now();
        }
        if stop || due(c.log.state) {
            checkpoint::save(run, &state)?;
        }
        if stop && !done {
            bar.note(&format!("stopped at {now} images; the same command resumes"));
            log.line(&format!("stopped at {now} images"))?;
            return Ok(Outcome::Stopped);
        }
    }
    bar.finish();
    if state.skipped > 0 {
        eprintln!("{} steps were left out because their gradient was not finite", state.skipped);
    }
    log.line(&format!("finished: {} images in {:.1} s, {} steps skipped", state.images_seen, state.seconds, state.skipped))?;
    Ok(Outcome::Finished)
}

/// Whether a method's model draws images; points and classifiers have no grid.
fn draws_grids(meta: &bundle::Meta) -> bool {
    !meta.samplers.is_empty() && meta.image.height > 1
}

/// Steps of the grids; none, which is the sampler's own number, for a student that has not so many.
fn grid_steps(meta: &bundle::Meta, log: &LogConfig) -> Option<usize> {
    let takes = &meta.samplers[0].steps;
    (takes.is_empty() || takes.contains(&log.grid_steps)).then_some(log.grid_steps)
}

/// Saves the resolved configuration, or checks that the directory's is the same.
pub(crate) fn same_config(config: &RunConfig, run: &Path) -> Result<()> {
    let path = run.join("config.toml");
    let text = toml::to_string(config)?;
    if !path.exists() {
        return crate::log::write_whole(&path, text.as_bytes());
    }
    let found = std::fs::read_to_string(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    // A key that came later stands at its default there.
    let found = match toml::from_str::<RunConfig>(&found) {
        Ok(found) => toml::to_string(&found)?,
        Err(_) => found,
    };
    if found != text {
        let differs = found.lines().zip(text.lines()).find(|(a, b)| a != b);
        let (a, b) = differs.unwrap_or(("a shorter or longer file", "the other"));
        bail!("`{}` is of another run: found `{a}`, expected `{b}`; use another --run or remove the directory", path.display());
    }
    Ok(())
}

/// The run directory's logs.
struct Log {
    text: std::fs::File,
    stats: StatsWriter,
    events: EventWriter,
}

impl Log {
    fn open(run: &Path, images_seen: u64) -> Result<Log> {
        let path = run.join("log.txt");
        let text = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("`{}` cannot be written", path.display()))?;
        Ok(Log { text, stats: StatsWriter::open(&run.join("stats.jsonl"), images_seen)?, events: EventWriter::create(run, images_seen)? })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        use std::io::Write;
        writeln!(self.text, "{line}").context("`log.txt` cannot be written")
    }

    fn stats(&mut self, state: &State, means: &[(String, f64)], c: &RunConfig) -> Result<()> {
        let mut fields = serde_json::Map::new();
        for (name, v) in means {
            fields.insert(name.clone(), (*v).into());
        }
        fields.insert("lr".into(), c.optimizer.rate(state.images_seen, c.images).into());
        fields.insert("seconds".into(), state.seconds.into());
        fields.insert("skipped".into(), state.skipped.into());
        let scalars: Vec<_> = means.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
        self.events.scalars(state.images_seen, &scalars)?;
        self.stats.write(state.images_seen, &fields)
    }

    /// A grid of fixed seeds with the averaged weights.
    fn grid(&mut self, setup: &Setup, state: &State, run: &Path) -> Result<()> {
        let meta = setup.meta()?;
        if !draws_grids(&meta) {
            return Ok(());
        }
        let count = setup.config.log.grid_images;
        let program = meta.draw_program(None, grid_steps(&meta, &setup.config.log), None)?;
        let labels = crate::sample::labels(&meta, crate::sample::Labels::Each, count);
        let nets = setup.method.drawn(&setup.specs[0].exec, &state.nets[0].ema);
        let nets = nets.into_iter().map(|(exec, theta)| limbeck_shared::cpu::Net::with_exec(exec, theta)).collect::<Result<Vec<_>, _>>()?;
        let nets: Vec<&dyn limbeck_shared::denoiser::Net> = nets.iter().map(|n| n as _).collect();
        let lowered = limbeck_shared::denoiser::lower(&program, &meta.spec())?;
        let images = limbeck_shared::program::run(&lowered, &nets, 0, 0, &labels, meta.null_label.unwrap_or(0))?;
        let picture = grid::draw(&images, meta.image.shape(), grid::Layout { columns: 10, ..Default::default() })?;
        let png = grid::png(&picture)?;
        crate::log::write_whole(&run.join(format!("grid-{:08}.png", state.images_seen)), &png)?;
        self.events.image(state.images_seen, "grid", grid::summary(&picture, &png))
    }
}

/// Writes the averaged weights of a run as a bundle.
///
/// # Errors
/// If the run has no state, or the bundle cannot be written.
pub fn export_run(setup: &Setup, run: &Path, out: &Path, command: &str) -> Result<()> {
    let state = setup.load(run)?;
    if state.images_seen == 0 {
        bail!("`{}`: found no training state, expected a run that has begun", run.display());
    }
    export_state(setup, &state, out, command)
}

fn export_state(setup: &Setup, state: &State, out: &Path, command: &str) -> Result<()> {
    let mut meta = setup.meta()?;
    meta.training.images_seen = state.images_seen;
    meta.training.seconds = state.seconds;
    meta.training.command = command.to_string();
    let (_, thetas): (Vec<_>, Vec<_>) = setup.method.drawn(&setup.specs[0].exec, &state.nets[0].ema).into_iter().unzip();
    export::write(meta, &thetas, out)
}
