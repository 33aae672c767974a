//! BOOT end to end on points: a trained teacher, a trained student, and the solver that the student has to become.

mod toy;

use limbeck::train;
use limbeck_shared::program::Sampler;
use std::path::{Path, PathBuf};
use toy::draw;

/// Trains a preset under its own name.
fn trained(folder: &Path, preset: &str, overrides: &[&str]) -> PathBuf {
    toy::trained(folder, preset, preset, overrides).0
}

/// Mean and standard deviation of one coordinate.
fn moments(points: &[[f64; 2]], axis: usize) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = points.iter().map(|p| p[axis]).sum::<f64>() / n;
    (mean, (points.iter().map(|p| (p[axis] - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Mean squared distance of points and their partners.
fn distance<'a>(a: impl IntoIterator<Item = &'a [f64; 2]>, b: impl IntoIterator<Item = &'a [f64; 2]>) -> f64 {
    let squares: Vec<f64> = a.into_iter().zip(b).map(|(a, b)| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).collect();
    squares.iter().sum::<f64>() / squares.len() as f64
}

/// Standard deviation that `steps` Euler steps of BOOT's teacher reach on N(mean, std^2), from the closed form: x0 is linear in
/// x_t, so the signal's deviation from the mean is.
fn euler_std(std: f64, base: f64, steps: usize) -> f64 {
    (0..steps).fold(0.0, |y, i| {
        let (t, s) = (i as f64 / steps as f64, (i + 1) as f64 / steps as f64);
        let f = t * std * std / (t * t * std * std + (1.0 - t).powi(2) * base * base) * (t * y + (1.0 - t) * base);
        let gain = (s - t) / (s * (1.0 - t));
        gain * f + (1.0 - gain) * y
    })
}

const N: usize = 8192;

/// A student with delta = 1/10 has the deviation of ten Euler steps, which is not that of the data.
#[test]
fn on_a_gaussian_the_student_is_ten_euler_steps() {
    let folder = tempfile::tempdir().unwrap();
    let (std, sigma_data) = (0.5, 0.7);
    let small = ["batch=512", "optimizer.warmup=10000", "network.hidden=32", "network.layers=2"];
    let gaussian = "data.toy={ shape = \"gaussian\", mean = [0.6, -0.3], std = 0.5 }";
    let teacher = trained(folder.path(), "toy-teacher", &[&small[..], &["images=800000", gaussian]].concat());
    let named = format!("teacher={}", teacher.display());
    let student = ["batch=512", "optimizer.warmup=10000", "images=1000000", "method.delta=0.1", &named];
    let student = train::read_bundle(&trained(folder.path(), "toy-boot", &student)).unwrap();
    let teacher = train::read_bundle(&teacher).unwrap();

    let (one, ten) = (draw(&student, N, Sampler::OneStep, 1), draw(&teacher, N, Sampler::FlowEuler, 10));
    let many = draw(&teacher, N, Sampler::FlowEuler, 200);
    let expected = euler_std(std, sigma_data, 10);
    println!("closed form: ten steps {expected:.4}, exact {std}");
    for axis in 0..2 {
        let [(mean_1, std_1), (mean_10, std_10), (_, std_200)] = [&one, &ten, &many].map(|p| moments(p, axis));
        println!("axis {axis}: student {mean_1:.4} {std_1:.4}, ten steps {mean_10:.4} {std_10:.4}, 200 steps {std_200:.4}");
        assert!((std_1 / std_10 - 1.0).abs() < 0.02, "deviation of the student {std_1}, of ten steps {std_10}");
        assert!((mean_1 - mean_10).abs() < 0.02 * std, "mean of the student {mean_1}, of ten steps {mean_10}");
        // The same noise gives the same point, not only the same distribution.
        assert!((std_10 / expected - 1.0).abs() < 0.04, "the teacher is not this Gaussian's: {std_10}, expected {expected}");
        assert!(std_1 < 0.95 * std && std_200 > 0.97 * std, "the bias of ten steps: {std_1}, {std_200}");
    }
    let (miss, spread) = (distance(&one, &ten), distance(&ten[1..], &ten[..N - 1]));
    println!("same noise {miss:.2e}, other noise {spread:.2e}");
    assert!(miss < 0.01 * spread, "{miss} {spread}");
}

/// On eight modes the student draws from each noise what its teacher draws from it.
#[test]
fn on_a_mixture_the_same_noise_gives_the_same_point() {
    let folder = tempfile::tempdir().unwrap();
    let small = ["batch=512", "optimizer.warmup=20000", "network.hidden=64", "network.layers=2"];
    let teacher = trained(folder.path(), "toy-teacher", &[&small[..], &["images=600000"]].concat());
    let named = format!("teacher={}", teacher.display());
    let student = ["batch=512", "optimizer.warmup=20000", "images=800000", "method.delta=0.0625", &named];
    let student = train::read_bundle(&trained(folder.path(), "toy-boot", &student)).unwrap();
    let teacher = train::read_bundle(&teacher).unwrap();

    let (one, ddim) = (draw(&student, N, Sampler::OneStep, 1), draw(&teacher, N, Sampler::FlowEuler, 16));
    let (miss, spread) = (distance(&one, &ddim), distance(&ddim[1..], &ddim[..N - 1]));
    // A fresh student is the teacher's first answer, near the mean of all modes.
    let mean = draw(&teacher, N, Sampler::FlowEuler, 1);
    let untrained = distance(&mean, &ddim);
    println!("same noise {miss:.4}, other noise {spread:.4}, before the training {untrained:.4}");
    assert!(miss < 0.15 * spread, "{miss} {spread}");
    assert!(miss < 0.3 * untrained, "{miss} {untrained}");
    // All modes, alike.
    let mut modes = [0usize; 8];
    for p in &one {
        modes[((p[1].atan2(p[0]) / std::f64::consts::TAU * 8.0).round() as i64).rem_euclid(8) as usize] += 1;
    }
    println!("{modes:?}");
    assert!(modes.iter().all(|&m| m > N / 16), "{modes:?}");
}
