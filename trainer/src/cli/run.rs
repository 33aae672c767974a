//! What each command does.

use super::{Cli, Command, DataCommand, Eval, Prune, Sample, Train};
use crate::sample::{Device, Labels, Request};
use crate::{bench, config, continual, data, export, info, judge, log, prune, publish, sample, train};
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// A line on stdout; that nobody reads on is an error like any other, which `main` takes for the end.
macro_rules! say {
    ($($part:tt)*) => {
        writeln!(std::io::stdout(), $($part)*)?
    };
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
