//! The command line. Results go to stdout, progress and messages to stderr; exit code 0, 1 (failed), 2 (wrong usage).

use crate::sample::{Device, Labels, Request};
use crate::{bench, config, continual, data, export, info, judge, log, prune, publish, sample, train};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use limbeck_shared::program::{Guidance, Sampler};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A line on stdout; that nobody reads on is an error like any other, which `main` takes for the end.
macro_rules! say {
    ($($part:tt)*) => {
        writeln!(std::io::stdout(), $($part)*)?
    };
}

/// Distills a diffusion model into a student that draws in one or a few steps.
#[derive(Debug, Parser)]
#[command(name = "limbeck", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a preset or a TOML file; the same command on the same run directory resumes
    Train(Train),
    /// Learn classes one task after another, or add new ones to a bundle, without the images of the old; JSON on stdout
    Continual(continual::Command),
    /// Draw images from a bundle
    Sample(Sample),
    /// Measure a bundle or a file of images; JSON on stdout
    Eval(Eval),
    /// Write a run's averaged weights as a bundle
    Export {
        /// Run directory
        #[arg(long)]
        run: PathBuf,
        /// Bundle to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Give each group of noise levels its own pruned copy of a model, fine-tuned there (TDC)
    Prune(Prune),
    /// Say what a bundle is
    Info {
        /// Bundle
        file: PathBuf,
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write a static site: the page, bundles, and a preview of each for links
    Publish {
        /// Bundles; a file's name is the model's name in links
        #[arg(long, required = true, num_args = 1..)]
        models: Vec<PathBuf>,
        /// Folder of the site: new, empty, or an earlier site
        #[arg(long)]
        out: PathBuf,
        /// Where the site will be served, for previews on other sites
        #[arg(long)]
        base_url: Option<String>,
        /// The built page; `dist` unless given
        #[arg(long)]
        page: Option<PathBuf>,
    },
    /// Write index.json, the page's list of the bundles in a folder
    Index {
        /// Folder
        #[arg(default_value = "models")]
        dir: PathBuf,
        /// List bundles named my-* too
        #[arg(long)]
        mine: bool,
    },
    /// Time a training step or sampling; one JSON line on stdout
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Find data sets
    Data {
        #[command(subcommand)]
        what: DataCommand,
    },
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Print where a data set lies, or how to get it
    Fetch {
        /// Name, such as fashion-mnist
        name: String,
    },
}

#[derive(Debug, Args)]
struct Train {
    /// Name of a preset, or a TOML file
    preset: String,
    /// Bundle to distill, instead of the preset's
    #[arg(long)]
    teacher: Option<PathBuf>,
    /// Folder of the training images, instead of the preset's
    #[arg(long)]
    data: Option<PathBuf>,
    /// Run directory; runs/NAME unless given
    #[arg(long)]
    run: Option<PathBuf>,
    /// Override a key, such as optimizer.lr=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print the resolved configuration and the networks, and stop
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Prune {
    /// Bundle of the trained model
    model: PathBuf,
    /// TOML file of settings, instead of the shipped ones
    #[arg(long)]
    config: Option<PathBuf>,
    /// Run directory; runs/NAME unless given; the same command resumes
    #[arg(long)]
    run: Option<PathBuf>,
    /// Bundle to write; routed.safetensors in the run directory unless given
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder of the images, with a test split, instead of the settings'
    #[arg(long)]
    data: Option<PathBuf>,
    /// Override a key, such as floor=0.5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print groups, budgets, and each block's width, cost and importance, and stop
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Sample {
    /// Bundle
    #[arg(long)]
    model: PathBuf,
    /// Number of images
    #[arg(long, default_value_t = 40)]
    count: usize,
    /// Seed; image k of a seed is the same at any count
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Sampler; the bundle's first unless given
    #[arg(long)]
    sampler: Option<Sampler>,
    /// Steps; the sampler's default unless given
    #[arg(long)]
    steps: Option<usize>,
    /// Class number, or `each`: image k has class k mod classes
    #[arg(long, default_value = "each")]
    label: Labels,
    /// Guidance weight, as 1.5, or at noise levels, as 1.5@0.3..3; the bundle's default unless given
    #[arg(long)]
    guidance: Option<Guidance>,
    /// Device
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// How convolutions multiply on the CPU
    #[arg(long, value_enum, default_value = "f32")]
    precision: config::Arithmetic,
    /// Edge of the square that a pixel becomes in a .png
    #[arg(long, default_value_t = 2)]
    upscale: usize,
    /// .png: a grid; .npy: f32 [N,C,H,W] in [-1,1]
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct Eval {
    /// Bundle to draw from
    #[arg(long, required_unless_present = "samples", conflicts_with = "samples")]
    model: Option<PathBuf>,
    /// Images to measure instead: .npy, f32 [N,C,H,W] in [-1,1]
    #[arg(long)]
    samples: Option<PathBuf>,
    /// Folder of the real images; Fashion-MNIST's known places unless given
    #[arg(long)]
    data: Option<PathBuf>,
    /// The classifier in whose features images are compared
    #[arg(long, default_value = "models/fashion-features.safetensors")]
    features: PathBuf,
    /// Number of images to draw
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Seed of the drawing
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Sampler; the bundle's first unless given
    #[arg(long)]
    sampler: Option<Sampler>,
    /// Steps, one or several
    #[arg(long, value_delimiter = ',')]
    steps: Vec<usize>,
    /// Guidance weight, as 1.5, or at noise levels, as 1.5@0.3..3; the bundle's default unless given
    #[arg(long)]
    guidance: Option<Guidance>,
    /// How convolutions multiply; bf16x3 keeps f32's digits and is faster where the processor has a tile unit
    #[arg(long, value_enum, default_value = "f32")]
    precision: config::Arithmetic,
    /// Write the figures into the bundle's record, and how far a routed model's networks are apart at their edges
    #[arg(long)]
    record: bool,
}

/// Runs a command.
///
/// # Errors
/// Whatever the command reports; the message names the file or key.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Train(a) => run_train(a),
        Command::Continual(a) => {
            if let Some(reports) = continual::run(&a)? {
                say!("{reports}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Prune(a) => run_prune(a),
        Command::Sample(a) => run_sample(a),
        Command::Eval(a) => run_eval(a),
        Command::Export { run, out } => {
            let path = run.join("config.toml");
            let config = config::resolve(path.to_str().context("a run directory whose name is Unicode")?, &[])?;
            let setup = train::Setup::new(config)?;
            train::export_run(&setup, &run, &out, &format!("limbeck train {} && limbeck export", setup.config().name))?;
            eprintln!("wrote {}", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Info { file, json } => info::write(&file, json, &mut std::io::stdout()).map(|()| ExitCode::SUCCESS),
        Command::Publish { models, out, base_url, page } => {
            let request = publish::Request { models: &models, out: &out, base_url: base_url.as_deref(), page: page.as_deref() };
            publish::publish(&request, |words| eprintln!("{words}"))?;
            eprintln!("wrote {}: any web server can serve it, from any path", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Index { dir, mine } => {
            let count = publish::index::write(&dir, mine)?;
            eprintln!("wrote {}: {count} models", dir.join("index.json").display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench { what } => {
            say!("{}", bench::run(&what)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Data { what: DataCommand::Fetch { name } } => {
            say!("{}", data::fetch::find(&name)?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_train(a: Train) -> Result<ExitCode> {
    crate::device::choose(&a.device)?;
    let mut config = config::resolve(&a.preset, &a.set)?;
    if let Some(teacher) = a.teacher {
        config.teacher = Some(teacher);
    }
    if let Some(dir) = a.data {
        config.data = Some(match config.data.take() {
            Some(spec) => spec.with_dir(&dir),
            None => data::DataSpec::detect(&dir)?,
        });
    }
    let setup = train::Setup::new(config)?;
    let run = a.run.unwrap_or_else(|| Path::new("runs").join(&setup.config().name));
    if a.dry_run {
        say!("{}", toml::to_string(setup.config())?.trim_end());
        for net in setup.networks() {
            let g = net.exec.graph();
            say!("# {}: {} parameters, {} MACs an image, {} operations", net.name, g.param_count(), g.macs(), g.nodes.len());
        }
        return Ok(ExitCode::SUCCESS);
    }
    train::handle_signals()?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    eprintln!("training {} in {} on {} threads", setup.config().name, run.display(), limbeck_shared::cpu::threads());
    train::train(&setup, &run, &command)?;
    Ok(ExitCode::SUCCESS)
}

/// Test images by which a routed model's neighbours are compared at their edges.
const EDGE_IMAGES: usize = 512;

fn run_prune(a: Prune) -> Result<ExitCode> {
    crate::device::choose(&a.device)?;
    let mut config = prune::config::resolve(a.config.as_deref(), &a.set)?;
    if let Some(dir) = a.data {
        config.data = data::DataSpec::detect(&dir)?;
    }
    if a.dry_run {
        say!("{}", prune::plan(&a.model, &config)?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    train::handle_signals()?;
    let run = a.run.unwrap_or_else(|| Path::new("runs").join(&config.name));
    // The program's own path is no part of what was done.
    let command = std::iter::once("limbeck".into()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ");
    if let Some(out) = prune::run(&prune::Request { model: a.model, config, run, out: a.out, command })? {
        eprintln!("wrote {}", out.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn run_sample(a: Sample) -> Result<ExitCode> {
    let kind = a.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_string();
    if !["png", "npy"].contains(&kind.as_str()) {
        bail!("`--out`: found {}, expected a name ending in .png or .npy", a.out.display());
    }
    let bundle = train::read_bundle(&a.model)?;
    let request = Request {
        count: a.count,
        seed: a.seed,
        labels: a.label,
        sampler: a.sampler,
        steps: a.steps,
        guidance: a.guidance,
        device: a.device,
        precision: a.precision,
    };
    let start = std::time::Instant::now();
    let mut images = sample::draw(&bundle, &request, |_| {})?;
    bundle.meta.image.clamp(&mut images);
    let shape = bundle.meta.image.shape();
    if kind == "png" {
        log::grid::save(&a.out, &images, shape, log::grid::Layout { columns: 10, upscale: a.upscale })?;
    } else {
        log::npy::write(&a.out, &[a.count, shape[0], shape[1], shape[2]], &images)?;
    }
    eprintln!("{} images in {:.2} s: {}", a.count, start.elapsed().as_secs_f64(), a.out.display());
    Ok(ExitCode::SUCCESS)
}

fn run_eval(a: Eval) -> Result<ExitCode> {
    let data = match &a.data {
        Some(dir) => data::DataSpec::detect(dir)?,
        None => data::DataSpec::FashionMnist { dir: None },
    };
    let judge = judge::Judge::open(&a.features, &data)?;
    let reports = match (&a.model, &a.samples) {
        (Some(model), None) => {
            let bundle = train::read_bundle(model)?;
            let steps: Vec<Option<usize>> = if a.steps.is_empty() { vec![None] } else { a.steps.iter().copied().map(Some).collect() };
            let mut reports = vec![];
            for steps in steps {
                let request = Request {
                    count: a.count,
                    seed: a.seed,
                    labels: Labels::Each,
                    sampler: a.sampler,
                    steps,
                    guidance: a.guidance,
                    device: Device::Cpu,
                    precision: a.precision,
                };
                reports.push(judge.model(&bundle, &request)?);
            }
            if a.record {
                let mut figures = reports.iter().map(|r| Ok((r.key(), serde_json::to_value(r)?))).collect::<Result<Vec<_>>>()?;
                if bundle.meta.router.is_some() {
                    let test = data::open(&data, data::Split::Test)?;
                    figures.push(("edges".into(), prune::edges::measure(&bundle, &*test, EDGE_IMAGES, 0)?));
                }
                export::add_evaluation(model, figures)?;
            }
            reports
        }
        (None, Some(file)) => vec![judge.file(file)?],
        _ => bail!("expected --model or --samples"),
    };
    say!("{}", serde_json::to_string_pretty(&reports)?);
    Ok(ExitCode::SUCCESS)
}
