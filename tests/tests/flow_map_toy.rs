//! Flow maps end to end on points: trained networks against the map in closed form.

mod toy;

use limbeck::train;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::{self, Stream};
use std::path::Path;

/// A preset with these keys changed, trained, and how long that took in seconds.
fn trained_as(folder: &Path, name: &str, preset: &str, overrides: &[&str]) -> (Bundle, f64) {
    let (path, seconds) = toy::trained(folder, name, preset, overrides);
    (train::read_bundle(&path).unwrap(), seconds)
}

fn trained(overrides: &[&str]) -> (Bundle, f64) {
    trained_as(tempfile::tempdir().unwrap().path(), "map", "toy-flow-map", overrides)
}

/// Coordinates of points drawn in `steps` steps, each with the noise it came from (of standard deviation 1).
fn drawn(model: &Bundle, steps: usize) -> Vec<[(f64, f64); 2]> {
    drawn_by(model, Sampler::FlowMap, steps)
}

fn drawn_by(model: &Bundle, sampler: Sampler, steps: usize) -> Vec<[(f64, f64); 2]> {
    let mut eps = [0f32; 2];
    let pair = |(k, point): (usize, [f64; 2])| {
        rng::normals(toy::SEED, Stream::Sample(0), k as u64, &mut eps);
        [0, 1].map(|i| (f64::from(eps[i]), point[i]))
    };
    toy::draw(model, 4096, sampler, steps).into_iter().enumerate().map(pair).collect()
}

/// Data N((0.6, -0.3), 0.5^2), noise N(0, 0.7^2): `X_{0,1}(x0) = mean + 0.5 / 0.7 x0` per coordinate, in any number of steps.
/// Two thousand steps of training; how far off one step and eight may be.
fn finds_the_map_of_a_gaussian(condition: &str, settings: &[&str], most: [f64; 2]) {
    let condition_key = format!("method.condition={condition}");
    let common = [
        condition_key.as_str(),
        "optimizer.lr=4e-3",
        "method.sigma_data=0.7",
        "data.toy={ shape = \"gaussian\", mean = [0.6, -0.3], std = 0.5 }",
    ];
    let (model, seconds) = trained(&[&common[..], settings].concat());
    for (steps, most) in [1, 8].into_iter().zip(most) {
        let (mut off, mut size) = (0f64, 0f64);
        for point in drawn(&model, steps) {
            for ((eps, found), mean) in point.into_iter().zip([0.6, -0.3]) {
                off += (found - mean - 0.5 * eps).powi(2);
                size += (0.5 * eps).powi(2);
            }
        }
        let error = (off / size).sqrt();
        println!("{condition}, {steps} steps: {:.2} % off the closed form ({seconds:.1} s)", 100.0 * error);
        assert!(error < most, "{condition}, {steps} steps: {error}");
    }
}

#[test]
fn lsd_finds_the_map_of_a_gaussian() {
    let settings = ["batch=4096", "images=8000000", "optimizer.warmup=40000", "network.hidden=64", "network.layers=2", "method.eta=0.5"];
    finds_the_map_of_a_gaussian("lsd", &settings, [0.025, 0.02]);
}

#[test]
fn esd_finds_the_map_of_a_gaussian() {
    let settings = ["batch=1024", "images=2000000", "optimizer.warmup=10000", "network.hidden=64", "network.layers=2"];
    finds_the_map_of_a_gaussian("esd", &settings, [0.09, 0.03]);
}

/// Its residual is small where the map is still wrong: more of the batch off the diagonal, and a larger network.
#[test]
fn psd_finds_the_map_of_a_gaussian() {
    let settings = ["batch=1024", "images=2000000", "optimizer.warmup=10000", "network.hidden=128", "network.layers=3", "method.eta=0.25"];
    finds_the_map_of_a_gaussian("psd_m", &settings, [0.025, 0.025]);
}

/// The quantile map of noise N(0, 1) to `N(-2, 0.5^2) / 2 + N(2, 0.5^2) / 2`, which in one dimension is the flow map.
fn quantile(x: f64) -> f64 {
    let phi = |z: f64| 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
    let mixture = |y: f64| 0.5 * (phi((y + 2.0) / 0.5) + phi((y - 2.0) / 0.5));
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if mixture(middle) < phi(x) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[test]
fn two_modes_are_told_apart_as_the_quantile_map_does() {
    for (x, y) in [(0.1, 1.296304), (0.25, 1.574550), (0.5, 1.851096), (1.0, 2.237616), (2.0, 2.845072)] {
        assert!((quantile(x) - y).abs() < 1e-6 && (quantile(-x) + y).abs() < 1e-6);
    }
    let (model, seconds) = trained(&[
        "batch=2048",
        "images=2400000",
        "optimizer.warmup=10000",
        "optimizer.lr=4e-3",
        "method.averaged_targets=true",
        "network.hidden=96",
        "network.layers=3",
        "method.sigma_data=1.0",
        "data.toy={ shape = \"corners\" }",
    ]);
    // Away from the jump at 0, which no network follows, and within what noise reaches in a thousand draws.
    let points: Vec<_> = drawn(&model, 1).into_iter().flatten().filter(|(eps, _)| (0.25..2.5).contains(&eps.abs())).collect();
    let off = points.iter().map(|(eps, found)| (found - quantile(*eps)).powi(2)).sum::<f64>() / points.len() as f64;
    println!("{:.3} from the quantile map ({seconds:.1} s)", off.sqrt());
    assert!(off.sqrt() < 0.1, "{}", off.sqrt());
}

/// BOOT is the Lagrangian condition from pure noise with a frozen teacher: both draw from each noise the teacher's own point.
#[test]
fn from_noise_lsd_finds_the_student_that_boot_finds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let corners = "data.toy={ shape = \"corners\", offset = 0.6, std = 0.3 }";
    let small = ["batch=512", "optimizer.warmup=10000", "network.hidden=48", "network.layers=2", "images=800000", corners];
    let (teacher, _) = trained_as(path, "teacher", "toy-teacher", &small);
    let named = format!("teacher={}", path.join("teacher.safetensors").display());
    let short = ["batch=512", "optimizer.warmup=10000", "images=1000000", &named];
    let (boot, _) = trained_as(path, "boot", "toy-boot", &[&short[..], &["method.solver=heun"]].concat());
    let preset = path.join("slice.toml");
    std::fs::write(
        &preset,
        "name = \"slice\"\nbatch = 1\nimages = 1\n[method]\nkind = \"flow-map\"\ncondition = \"lsd\"\nsigma_data = 0.7\neta = 0.0\n\
         warm_start = true\nfrom_noise = true\n[optimizer]\nlr = 1e-3\n",
    )
    .unwrap();
    let (slice, seconds) = trained_as(path, "slice", preset.to_str().unwrap(), &short);
    let exact = drawn_by(&teacher, Sampler::FlowEuler, 200);
    let apart = |a: &[[(f64, f64); 2]], b: &[[(f64, f64); 2]]| {
        let squares = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a.1 - b.1).powi(2));
        (squares.sum::<f64>() / (2 * a.len()) as f64).sqrt()
    };
    let (boot, slice) = (drawn_by(&boot, Sampler::OneStep, 1), drawn(&slice, 1));
    // What other noise gives, and what the start gives: the teacher's one Euler step.
    let (spread, start) = (apart(&exact[1..], &exact[..exact.len() - 1]), apart(&drawn_by(&teacher, Sampler::FlowEuler, 1), &exact));
    let [to_boot, to_exact, boots] = [apart(&slice, &boot), apart(&slice, &exact), apart(&boot, &exact)];
    println!("LSD from BOOT {to_boot:.4}, from the teacher {to_exact:.4}, BOOT from the teacher {boots:.4} ({seconds:.1} s)");
    println!("other noise {spread:.4}, the start {start:.4}");
    assert!(to_boot < 0.1 * spread && to_exact < 0.1 * spread, "{to_boot} {to_exact} {spread}");
    assert!(to_boot < 0.25 * start, "{to_boot} {start}");
}
