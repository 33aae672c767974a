//! What the tests on points share: training a preset, and drawing from what came of it.

use limbeck::sample::{self, Device, Labels, Request};
use limbeck::{config, train};
use limbeck_shared::bundle::Bundle;
use limbeck_shared::program::Sampler;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Seed of all draws.
pub const SEED: u64 = 3;

/// Trains a preset with these keys changed and exports it as `NAME.safetensors` in the folder: its path, and how long the training
/// took in seconds.
pub fn trained(folder: &Path, name: &str, preset: &str, overrides: &[&str]) -> (PathBuf, f64) {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    let setup = train::Setup::new(config::resolve(preset, &overrides).unwrap()).unwrap();
    let (run, out) = (folder.join(name), folder.join(format!("{name}.safetensors")));
    let start = Instant::now();
    assert_eq!(train::train(&setup, &run, "test").unwrap(), train::Outcome::Finished);
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {} images in {seconds:.1} s", setup.config().images);
    train::export_run(&setup, &run, &out, "test").unwrap();
    (out, seconds)
}

/// Points of [`SEED`], `[n][2]`.
pub fn draw(model: &Bundle, n: usize, sampler: Sampler, steps: usize) -> Vec<[f64; 2]> {
    let request = Request {
        count: n,
        seed: SEED,
        labels: Labels::Each,
        sampler: Some(sampler),
        steps: Some(steps),
        guidance: None,
        device: Device::Cpu,
        precision: config::Arithmetic::F32,
    };
    let values = sample::draw(model, &request, |_| {}).unwrap();
    values.chunks_exact(2).map(|p| [p[0].into(), p[1].into()]).collect()
}
