//! A run's configuration: one TOML file, shipped presets, and `--set key=value`. Unknown keys are errors.

mod optimizer;

use crate::data::DataSpec;
use crate::method::boot::BootConfig;
use crate::method::continual::ContinualConfig;
use crate::method::features::FeaturesConfig;
use crate::method::flow_map::FlowMapConfig;
use crate::method::sid::SidConfig;
use crate::method::tdc::TdcConfig;
use crate::method::teacher::TeacherConfig;
use anyhow::{Context, Result, bail};
use limbeck_shared::cpu::conv::half::Parts;
use limbeck_shared::cpu::{Precision, tiles};
use limbeck_shared::graph::NetworkConfig;
pub use optimizer::{Decay, EmaConfig, OptimizerConfig, OptimizerKind};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything a run is determined by. Saved as `config.toml` in the run directory with every default filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The preset's or file's name; the exported model carries it.
    pub name: String,
    /// What is trained and how.
    pub method: MethodConfig,
    /// Key of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Images a step.
    pub batch: usize,
    /// Images a pass: memory only, never results beyond rounding. 0: the whole batch.
    #[serde(default)]
    pub micro_batch: usize,
    /// How the networks' convolutions multiply while training; models are always drawn from and evaluated in f32.
    #[serde(default)]
    pub precision: Arithmetic,
    /// Images seen at the end.
    pub images: u64,
    /// The bundle that is distilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// The network, for methods that do not take the teacher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkConfig>,
    /// The real images, for methods that use them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSpec>,
    /// Adam.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// The averaged weights that are exported.
    #[serde(default)]
    pub ema: EmaConfig,
    /// How often what is written.
    #[serde(default)]
    pub log: LogConfig,
}

/// How convolutions multiply. Sums, and everything that is no convolution, are f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// f32.
    #[default]
    F32,
    /// Operands rounded to bf16: several times faster on processors with a tile unit (AMX), slower on others.
    Bf16,
    /// Operands split into two bf16, three products: within about 1e-5 of `f32`, faster on the same processors.
    Bf16x3,
    /// `bf16` where this processor has a tile unit, else `f32`. The saved configuration says which it was.
    Auto,
}

impl Arithmetic {
    /// What it means on this processor.
    pub fn resolve(self) -> Precision {
        match self {
            Arithmetic::F32 => Precision::F32,
            Arithmetic::Bf16 => Precision::Bf16(Parts::One),
            Arithmetic::Bf16x3 => Precision::Bf16(Parts::Two),
            Arithmetic::Auto if tiles::native() => Precision::Bf16(Parts::One),
            Arithmetic::Auto => Precision::F32,
        }
    }
}

/// The method, by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum MethodConfig {
    /// Denoising score matching (Karras et al. 2022).
    Teacher(TeacherConfig),
    /// Data-free one-step distillation by bootstrapping (Gu et al. 2023).
    Boot(BootConfig),
    /// Score identity distillation in one or a few steps (Zhou et al. 2024, 2025).
    Sid(SidConfig),
    /// Flow maps by self-distillation or from a teacher (Boffi et al. 2025), and MeanFlow.
    FlowMap(FlowMapConfig),
    /// One task of continual learning by generative distillation (Masip et al. 2023).
    Continual(ContinualConfig),
    /// Pruned copies of a trained model, each for a group of noise levels (Li et al. 2023).
    Tdc(TdcConfig),
    /// The classifier in whose features images are compared, and one that learns classes one task after another.
    Features(FeaturesConfig),
}

/// What is written, in images seen between two times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A line in `stats.jsonl` and the event file.
    pub stats: u64,
    /// A grid of fixed seeds.
    pub grid: u64,
    /// A state to resume from.
    pub state: u64,
    /// The averaged weights as a bundle, `model-NUMBER.safetensors`; 0: none.
    pub snapshot: u64,
    /// Images in a grid.
    pub grid_images: usize,
    /// Sampling steps of the grid; a student that has not so many takes its own number.
    pub grid_steps: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { stats: 2_000, grid: 50_000, state: 20_000, snapshot: 0, grid_images: 40, grid_steps: 18 }
    }
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Shipped presets: name and TOML.
        pub const PRESETS: &[(&str, &str)] = &[$(($name, include_str!(concat!("../presets/", $name, ".toml")))),*];
    };
}
presets!(
    "fashion-teacher",
    "fashion-boot",
    "fashion-boot-demo",
    "fashion-sid",
    "fashion-sid-one",
    "fashion-flow-map",
    "fashion-continual",
    "continual",
    "toy-continual",
    "features-fashion",
    "toy-teacher",
    "toy-boot",
    "toy-flow-map"
);

/// Reads a preset by name or a file by path, applies `key=value` overrides, and checks ranges.
///
/// # Errors
/// Names the file or key, what was found, and what was expected.
pub fn resolve(preset_or_file: &str, overrides: &[String]) -> Result<RunConfig> {
    let shipped = PRESETS.iter().find(|p| p.0 == preset_or_file);
    let (origin, text) = match shipped {
        Some((name, text)) => (format!("preset `{name}`"), (*text).to_string()),
        None => {
            let path = Path::new(preset_or_file);
            if !path.exists() {
                let names: Vec<_> = PRESETS.iter().map(|p| p.0).collect();
                bail!("`{preset_or_file}`: neither a file nor a preset; the presets are {}", names.join(", "));
            }
            let text = std::fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
            (format!("`{}`", path.display()), text)
        }
    };
    let mut config: RunConfig = parse(&text, &origin, "a run", overrides)?;
    config.check().with_context(|| origin)?;
    config.precision = match config.precision.resolve() {
        Precision::F32 => Arithmetic::F32,
        Precision::Bf16(Parts::One) => Arithmetic::Bf16,
        Precision::Bf16(Parts::Two) => Arithmetic::Bf16x3,
    };
    Ok(config)
}

/// Settings of one kind, `what`, from TOML that came from `origin`, with `key=value` overrides.
///
/// # Errors
/// Names the origin or the override, what was found, and what was expected.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &str, origin: &str, what: &str, overrides: &[String]) -> Result<T> {
    let mut table: toml::Table = toml::from_str(text).with_context(|| format!("{origin} is no TOML"))?;
    for item in overrides {
        set(&mut table, item)?;
    }
    toml::Value::Table(table).try_into().with_context(|| format!("{origin} does not describe {what}"))
}

/// Applies one `a.b=value`; the value is TOML, or a bare word.
fn set(table: &mut toml::Table, item: &str) -> Result<()> {
    let Some((key, value)) = item.split_once('=') else {
        bail!("--set {item}: found no `=`, expected key=value");
    };
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut at = table;
    for part in path {
        let next = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().with_context(|| format!("--set {item}: `{part}` is a value, expected a table"))?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

impl RunConfig {
    fn check(&self) -> Result<()> {
        let positive = [
            ("batch", self.batch as u64),
            ("images", self.images),
            ("log.stats", self.log.stats),
            ("log.grid", self.log.grid),
            ("log.state", self.log.state),
        ];
        if let Some((key, _)) = positive.iter().find(|p| p.1 == 0) {
            bail!("`{key}`: found 0, expected at least 1");
        }
        if self.batch > 65_536 {
            bail!("`batch`: found {}, expected at most 65536", self.batch);
        }
        if !(self.optimizer.lr > 0.0 && self.optimizer.lr.is_finite()) {
            bail!("`optimizer.lr`: found {}, expected a positive number", self.optimizer.lr);
        }
        if !self.optimizer.betas.iter().all(|b| (0.0..1.0).contains(b)) {
            bail!("`optimizer.betas`: found {:?}, expected two numbers in [0, 1)", self.optimizer.betas);
        }
        Ok(())
    }

    /// Images a pass.
    pub fn pass(&self) -> usize {
        if self.micro_batch == 0 { self.batch } else { self.micro_batch.min(self.batch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_resolve() {
        for (name, _) in PRESETS {
            let config = resolve(name, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            assert_eq!(&config.name, name);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<RunConfig>(&text).unwrap(), config, "{name} survives writing");
        }
    }

    #[test]
    fn overrides_reach_nested_keys_and_unknown_keys_are_named() {
        let c = resolve("fashion-boot", &["optimizer.lr=1e-5".into(), "batch=7".into(), "teacher=other.safetensors".into()]).unwrap();
        assert_eq!((c.optimizer.lr, c.batch), (1e-5, 7));
        assert_eq!(c.teacher.unwrap(), PathBuf::from("other.safetensors"));
        let e = format!("{:#}", resolve("fashion-boot", &["optimizer.rate=1".into()]).unwrap_err());
        assert!(e.contains("rate"), "{e}");
        let e = format!("{:#}", resolve("fashion-boot", &["batch=0".into()]).unwrap_err());
        assert!(e.contains("`batch`: found 0"), "{e}");
        assert!(format!("{:#}", resolve("no-such", &[]).unwrap_err()).contains("fashion-boot"));
    }
}
