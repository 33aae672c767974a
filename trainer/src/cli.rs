//! The command line. Results go to stdout, progress and messages to stderr; exit code 0, 1 (failed), 2 (wrong usage).

mod run;

use crate::sample::{Device, Labels};
use crate::{bench, config, continual};
use clap::{Args, Parser, Subcommand};
use limbeck_shared::program::{Guidance, Sampler};
pub use run::run;
use std::path::PathBuf;

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
