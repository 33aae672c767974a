//! Writing bundles: f16 weights, and one drawn image by which every interpreter can check itself.

use crate::config::Arithmetic;
use crate::sample::{self, Device, Labels, Request};
use anyhow::{Context, Result};
use limbeck_shared::bundle::{self, Bundle, Golden, Meta};
use std::path::Path;

/// Seed of the golden image.
const GOLDEN_SEED: u64 = 1;

/// Writes a bundle. The golden image is drawn with the weights as they are in the file, rounded to f16.
///
/// # Errors
/// If a weight does not fit f16, or the file cannot be written.
pub fn write(mut meta: Meta, thetas: &[Vec<f32>], out: &Path) -> Result<()> {
    meta.golden = None;
    let bytes = bundle::write(&meta, thetas)?;
    if !meta.is_classifier() {
        let rounded = bundle::read(&bytes)?;
        meta.golden = Some(golden(&rounded)?);
    }
    let bytes = bundle::write(&meta, thetas)?;
    crate::log::write_whole(out, &bytes).with_context(|| format!("`{}` cannot be written", out.display()))
}

/// Adds evaluation figures to a bundle's record, in place.
///
/// # Errors
/// If the file is no bundle or cannot be written.
pub fn add_evaluation(path: &Path, figures: impl IntoIterator<Item = (String, serde_json::Value)>) -> Result<()> {
    let mut bundle = crate::train::read_bundle(path)?;
    bundle.meta.training.evaluation.extend(figures);
    let bytes = bundle::write(&bundle.meta, &bundle.thetas)?;
    crate::log::write_whole(path, &bytes)
}

fn golden(bundle: &Bundle) -> Result<Golden> {
    let (sampler, steps, guidance) = bundle.meta.resolve(None, None, None)?;
    let label = (!bundle.meta.classes.is_empty()).then_some(0);
    let request = Request {
        count: 1,
        seed: GOLDEN_SEED,
        labels: label.map_or(Labels::Each, Labels::One),
        sampler: Some(sampler),
        steps: Some(steps),
        guidance: Some(guidance),
        device: Device::Cpu,
        precision: Arithmetic::F32,
    };
    let pixels = sample::draw(bundle, &request, |_| {})?;
    Ok(Golden { seed: GOLDEN_SEED, label, sampler, steps, guidance: guidance.weight, pixels })
}
