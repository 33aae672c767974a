//! Continual learning in the plane: four tasks of two Gaussians each.

use limbeck_tests::{Npy, succeed};
use std::path::Path;

/// Centre of a mode of the mixture.
fn mode(k: usize) -> [f32; 2] {
    let angle = k as f32 * std::f32::consts::FRAC_PI_4;
    [0.75 * angle.cos(), 0.75 * angle.sin()]
}

/// Share of the points nearest to each mode, and of those within three standard deviations of one.
fn shares(points: &Npy) -> ([f32; 8], f32) {
    let (n, mut share, mut near) = (points.shape[0], [0.0; 8], 0.0);
    for k in 0..n {
        let p = points.image(k);
        let distance = |m: usize| (p[0] - mode(m)[0]).hypot(p[1] - mode(m)[1]);
        let nearest = (0..8).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap();
        share[nearest] += 1.0 / n as f32;
        near += if distance(nearest) < 0.3 { 1.0 / n as f32 } else { 0.0 };
    }
    (share, near)
}

/// What a sequence draws after its last task, and the modes of that task.
fn learned(folder: &Path, arm: &str) -> (([f32; 8], f32), Vec<usize>) {
    let sequence = |run: &str, more: &str| {
        let args = format!("continual toy-continual --count 0 --set seed=1 --run {run} {more}");
        succeed(folder, &args.split_whitespace().collect::<Vec<_>>()).stdout
    };
    // All arms begin with one first task.
    sequence("first", "--tasks 1 --set images=60000");
    std::fs::create_dir_all(folder.join(arm)).unwrap();
    for file in ["task-1.safetensors", "task-1.json", "task-1.png"] {
        std::fs::copy(folder.join("first").join(file), folder.join(arm).join(file)).unwrap();
    }
    let set = format!("--set images=30000 --set method.arm={arm} --set method.teacher_steps=2");
    let report: serde_json::Value = serde_json::from_str(&sequence(arm, &set)).unwrap();
    let last = report[3]["classes"].as_array().unwrap().iter();
    let modes = last.map(|c| c.as_str().unwrap().trim_start_matches("mode ").parse().unwrap()).collect();
    let model = format!("{arm}/task-4.safetensors");
    succeed(folder, &["sample", "--model", &model, "--count", "1500", "--out", "points.npy"]);
    (shares(&Npy::read(&folder.join("points.npy"))), modes)
}

#[test]
fn distillation_keeps_what_fine_tuning_forgets_and_replay_spoils() {
    let folder = tempfile::tempdir().unwrap();
    let [(fine, last), (distilled, _), (replayed, _)] = ["fine_tune", "distillation", "replay"].map(|arm| learned(folder.path(), arm));
    println!("fine-tuned {fine:?}\ndistilled {distilled:?}\nreplayed {replayed:?}");
    assert!(last.iter().map(|&m| fine.0[m]).sum::<f32>() > 0.9, "fine-tuning draws the last task's modes alone: {fine:?}");
    assert!(distilled.0.iter().all(|&share| share > 0.04), "distillation draws all eight: {distilled:?}");
    // Two-step replay loses contrast with every task, and the model that denoises it does.
    assert!(distilled.1 > replayed.1 + 0.2, "{distilled:?} {replayed:?}");
}
