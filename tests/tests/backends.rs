//! The interpreters against each other and against what bundles remember, through whole samplers and the command line.

use limbeck::config::Arithmetic;
use limbeck::sample::{self, Device, Labels, Request};
use limbeck::train::read_bundle;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::program::Sampler;
use limbeck_tests::{Kind, Npy, largest_difference, model, repository, succeed, write_model};
use std::path::PathBuf;

/// What a page's pixels may differ by from the CPU's.
const TOLERANCE: f32 = 2e-3;

/// The shipped models that draw.
fn shipped() -> Vec<(PathBuf, Bundle)> {
    let folder = repository().join("models");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).map(|f| f.unwrap().path());
    let bundles = files.filter(|f| f.extension().is_some_and(|e| e == "safetensors")).map(|f| {
        let bundle = read_bundle(&f).unwrap();
        (f, bundle)
    });
    bundles.filter(|(_, b)| !b.meta.is_classifier()).collect()
}

fn request(count: usize, device: Device) -> Request {
    Request { count, seed: 11, labels: Labels::Each, sampler: None, steps: None, guidance: None, device, precision: Arithmetic::F32 }
}

fn by(bundle: &Bundle, device: Device, r: &Request) -> Vec<f32> {
    sample::draw(bundle, &Request { device, ..r.clone() }, |_| {}).unwrap()
}

#[test]
fn small_models_draw_alike_on_the_gpu() {
    for (kind, steps) in [(Kind::Teacher, 3), (Kind::Student, 1), (Kind::Points, 4)] {
        let bundle = model(kind, "small");
        let guidance = (kind == Kind::Teacher).then_some(2.0);
        // More than one submission, and a last one that is not full.
        let r = Request { steps: Some(steps), guidance: guidance.map(Into::into), ..request(19, Device::Cpu) };
        let (cpu, gpu) = (by(&bundle, Device::Cpu, &r), by(&bundle, Device::Wgpu, &r));
        let scale = cpu.iter().fold(1f32, |m, v| m.max(v.abs()));
        let error = largest_difference(&cpu, &gpu) / scale;
        println!("{kind:?}: {error:.1e} of {scale:.2}");
        assert!(error < 1e-4, "{kind:?}: {error}");
    }
}

#[test]
fn the_command_line_draws_on_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    write_model(Kind::Student, folder.path(), "student");
    let draw = |device: &str, out: &str| {
        let args = ["sample", "--model", "student.safetensors", "--count", "5", "--seed", "2", "--device", device, "--out", out];
        let ended = succeed(folder.path(), &args);
        (Npy::read(&folder.path().join(out)), ended.stderr)
    };
    let ((cpu, _), (gpu, said)) = (draw("cpu", "cpu.npy"), draw("wgpu", "gpu.npy"));
    assert_eq!(gpu.shape, [5, 1, 12, 12]);
    assert!(largest_difference(&cpu.values, &gpu.values) < TOLERANCE);
    assert!(said.contains("drawing on "), "{said}");
}

/// Each shipped model draws the image it remembers, on every native interpreter.
#[test]
fn shipped_models_draw_their_golden_image() {
    let shipped = shipped();
    let names: Vec<_> = shipped.iter().map(|s| s.1.meta.name.as_str()).collect();
    assert!(names.contains(&"fashion-boot") && names.contains(&"fashion-teacher"), "models/ holds {names:?}");
    for (path, bundle) in &shipped {
        let golden = bundle.meta.golden.as_ref().unwrap_or_else(|| panic!("{}: no golden image", path.display()));
        let r = Request {
            seed: golden.seed,
            labels: golden.label.map_or(Labels::Each, Labels::One),
            sampler: Some(golden.sampler),
            steps: Some(golden.steps),
            guidance: Some(golden.guidance.into()),
            ..request(1, Device::Cpu)
        };
        let error = largest_difference(&by(bundle, Device::Cpu, &r), &golden.pixels);
        println!("{}: CPU {error:.1e}", path.display());
        assert!(error < 1e-4, "{}: {error}", path.display());
        // A software adapter takes seconds for a call: the GPU draws it where that is few calls.
        if bundle.draw_program(r.sampler, r.steps, r.guidance).unwrap().evals() <= 4 {
            let error = largest_difference(&by(bundle, Device::Wgpu, &r), &golden.pixels);
            println!("{}: GPU {error:.1e}", path.display());
            assert!(error < TOLERANCE, "{}: {error}", path.display());
        }
    }
}

/// The shipped student's whole program, several classes at once; and its teacher's in two steps.
#[test]
fn shipped_models_draw_alike_on_the_gpu() {
    let shipped = shipped();
    let find = |name: &str| {
        let found = shipped.iter().find(|s| s.1.meta.name == name);
        &found.unwrap_or_else(|| panic!("models/ lacks {name}.safetensors")).1
    };
    let two_steps = Request { sampler: Some(Sampler::FlowEuler), steps: Some(2), ..request(2, Device::Cpu) };
    for (name, r) in [("fashion-boot", request(3, Device::Cpu)), ("fashion-teacher", two_steps)] {
        let error = largest_difference(&by(find(name), Device::Cpu, &r), &by(find(name), Device::Wgpu, &r));
        println!("{name}: {error:.1e}");
        assert!(error < TOLERANCE, "{name}: {error}");
    }
}
