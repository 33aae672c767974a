//! The command line: what it writes, where, and how it says what is wrong.

use limbeck::config::Arithmetic;
use limbeck::sample::{self, Device, Labels, Request};
use limbeck_tests::{Ended, Kind, Npy, largest_difference, model, run, succeed, write_model};
use std::path::Path;

/// Asserts that a command fails with this code, and that its message names each of these.
fn fails(folder: &Path, args: &[&str], code: i32, names: &[&str]) {
    let ended = run(folder, args);
    assert_eq!(ended.code, Some(code), "limbeck {}:\n{ended:?}", args.join(" "));
    assert!(ended.stdout.is_empty(), "a failed command printed a result: {}", ended.stdout);
    for name in names {
        assert!(ended.stderr.contains(name), "limbeck {}: no `{name}` in\n{}", args.join(" "), ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn each_label_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Teacher, dir, "teacher");
    let draw = |label: &str, count: &str, out: &str| {
        let ended =
            succeed(dir, &["sample", "--model", "teacher.safetensors", "--seed", "5", "--label", label, "--count", count, "--out", out]);
        assert!(ended.stdout.is_empty() && ended.stderr.contains(out), "{ended:?}");
        Npy::read(&dir.join(out))
    };
    let each = draw("each", "8", "each.npy");
    assert_eq!(each.shape, [8, 1, 8, 8]);
    assert!(each.values.iter().all(|v| (-1.0..=1.0).contains(v)));
    let singles: Vec<Npy> = (0..3).map(|l| draw(&l.to_string(), "8", &format!("{l}.npy"))).collect();
    for k in 0..8 {
        // Image k has label k mod 3; the other labels draw something else from the same noise.
        assert_eq!(each.image(k), singles[k % 3].image(k), "image {k}");
        assert_ne!(each.image(k), singles[(k + 1) % 3].image(k), "image {k}");
    }
    // The default is `each`, and an image does not depend on how many are drawn.
    succeed(dir, &["sample", "--model", "teacher.safetensors", "--seed", "5", "--count", "3", "--out", "three.npy"]);
    assert!(largest_difference(&Npy::read(&dir.join("three.npy")).values, &each.values[..3 * 64]) < 1e-5);
    // Ten classes: k mod 10.
    let mut ten = model(Kind::Teacher, "ten").meta;
    ten.classes = (0..10).map(|i| i.to_string()).collect();
    let labels = sample::labels(&ten, Labels::Each, 23);
    assert!(labels.iter().enumerate().all(|(k, &l)| l == k as u32 % 10));
    assert_eq!(sample::labels(&ten, Labels::One(7), 3), [7; 3]);
}

#[test]
fn samples_are_what_the_library_draws() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Teacher, dir, "teacher");
    let bundle = model(Kind::Teacher, "teacher");
    let mut request = Request {
        count: 5,
        seed: 3,
        labels: Labels::Each,
        sampler: None,
        steps: None,
        guidance: Some(2.5.into()),
        device: Device::Cpu,
        precision: Arithmetic::F32,
    };
    let mut clipped = 0;
    for (sampler, steps) in [("heun", 4), ("flow_euler", 6)] {
        (request.sampler, request.steps) = (Some(sampler.parse().unwrap()), Some(steps));
        let expected = sample::draw(&bundle, &request, |_| {}).unwrap();
        let steps = steps.to_string();
        let args = ["sample", "--model", "teacher.safetensors", "--count", "5", "--seed", "3", "--guidance", "2.5"];
        succeed(dir, &[&args[..], &["--sampler", sampler, "--steps", &steps, "--out", "x.npy"]].concat());
        let expected_in_range: Vec<f32> = expected.iter().map(|v| v.clamp(-1.0, 1.0)).collect();
        assert!(largest_difference(&Npy::read(&dir.join("x.npy")).values, &expected_in_range) < 1e-5, "{sampler}");
        clipped += expected.iter().filter(|v| v.abs() > 1.0).count();
    }
    assert!(clipped > 0, "a random network leaves the range, else clipping is not seen");
    // Points have no range.
    write_model(Kind::Points, dir, "points");
    succeed(dir, &["sample", "--model", "points.safetensors", "--count", "50", "--out", "p.npy"]);
    let points = Npy::read(&dir.join("p.npy"));
    assert_eq!(points.shape, [50, 2, 1, 1]);
    assert!(points.values.iter().any(|v| v.abs() > 1.0) && points.values.iter().all(|v| v.is_finite()));
}

#[test]
fn a_grid_is_a_png() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Student, dir, "student");
    let size = |upscale: &str, count: &str| {
        succeed(dir, &["sample", "--model", "student.safetensors", "--count", count, "--upscale", upscale, "--out", "g.png"]);
        let bytes = std::fs::read(dir.join("g.png")).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    // Ten columns; rows as needed; more pixels for a larger scale.
    let ([w1, h1], [w3, h3], [w2, h2]) = (size("1", "10"), size("1", "30"), size("2", "10"));
    assert!(w1 >= 120 && (12..40).contains(&h1), "{w1} {h1}");
    assert!(w3 == w1 && h3 >= 36 && h3 < 3 * h1 + 3, "{w3} {h3}");
    assert_eq!([w2 - w1, h2 - h1], [120, 12]);
}

#[test]
fn wrong_usage_is_2_and_failure_1() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Teacher, dir, "teacher");
    write_model(Kind::Student, dir, "student");
    write_model(Kind::Points, dir, "points");
    let sample = |model: &'static str, more: &[&'static str]| -> Vec<&'static str> {
        [&["sample", "--model", model, "--count", "2", "--out", "x.npy"][..], more].concat()
    };
    fails(dir, &[], 2, &["Usage"]);
    fails(dir, &["distill"], 2, &["distill"]);
    fails(dir, &["sample", "--model", "teacher.safetensors"], 2, &["--out"]);
    fails(dir, &["sample", "--out", "x.npy"], 2, &["--model"]);
    fails(dir, &sample("teacher.safetensors", &["--label", "seven"]), 2, &["--label", "seven", "each"]);
    fails(dir, &sample("teacher.safetensors", &["--sampler", "magic"]), 2, &["magic", "heun"]);
    fails(dir, &sample("teacher.safetensors", &["--device", "abacus"]), 2, &["abacus", "cpu"]);
    fails(dir, &["train", "toy-boot", "--sett", "x=1"], 2, &["--sett"]);
    fails(dir, &["eval"], 2, &["--model"]);

    fails(dir, &sample("absent.safetensors", &[]), 1, &["absent.safetensors"]);
    fails(dir, &sample("teacher.safetensors", &["--label", "3"]), 1, &["--label", "found 3", "0 to 2"]);
    fails(dir, &sample("points.safetensors", &["--label", "0"]), 1, &["--label", "without classes"]);
    fails(dir, &sample("student.safetensors", &["--steps", "2"]), 1, &["steps", "2", "1"]);
    fails(dir, &sample("student.safetensors", &["--sampler", "heun"]), 1, &["heun", "one_step"]);
    fails(dir, &sample("teacher.safetensors", &["--steps", "0"]), 1, &["steps", "0"]);
    fails(dir, &sample("teacher.safetensors", &["--steps", "1001"]), 1, &["steps", "1001", "1000"]);
    fails(dir, &sample("teacher.safetensors", &["--guidance", "9"]), 1, &["guidance", "9", "4"]);
    fails(dir, &sample("points.safetensors", &["--guidance", "2"]), 1, &["guidance", "2"]);
    fails(dir, &["sample", "--model", "teacher.safetensors", "--out", "x.jpg"], 1, &["--out", "x.jpg", ".npy"]);
    fails(dir, &["sample", "--model", "teacher.safetensors", "--count", "1", "--out", "no/such/x.npy"], 1, &["no/such/x.npy"]);
    fails(dir, &["sample", "--model", "teacher.safetensors", "--count", "0", "--out", "x.png"], 1, &["x.png", "found 0"]);
    fails(dir, &["eval", "--model", "teacher.safetensors", "--features", "none.safetensors"], 1, &["none.safetensors"]);
    fails(dir, &["eval", "--model", "teacher.safetensors", "--features", "points.safetensors"], 1, &["points.safetensors", "classifier"]);
    fails(dir, &["info", "absent.safetensors"], 1, &["absent.safetensors"]);
    fails(dir, &["export", "--run", "nowhere", "--out", "x.safetensors"], 1, &["nowhere"]);
    fails(dir, &["data", "fetch", "emnist"], 1, &["emnist", "fashion-mnist"]);
    assert!(!dir.join("x.npy").exists() && !dir.join("x.png").exists(), "a failed command leaves no file");
}

#[test]
fn a_training_that_cannot_begin_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Student, dir, "student");
    let teacher = write_model(Kind::Teacher, dir, "teacher");
    std::fs::write(dir.join("broken.toml"), "name = \"x\"\nbatch = [").unwrap();
    std::fs::write(dir.join("part.toml"), "name = \"x\"\nbatch = 4\nimages = 8\n").unwrap();
    let train = |preset: &'static str, more: &[&'static str]| -> Vec<&'static str> { [&["train", preset][..], more].concat() };
    fails(dir, &train("fashion-bot", &[]), 1, &["fashion-bot", "fashion-boot", "toy-teacher"]);
    fails(dir, &train("broken.toml", &[]), 1, &["broken.toml", "TOML"]);
    fails(dir, &train("part.toml", &[]), 1, &["part.toml", "method"]);
    fails(dir, &train("fashion-boot", &[]), 1, &["models/fashion-teacher.safetensors"]);
    fails(dir, &train("fashion-boot", &["--teacher", "student.safetensors"]), 1, &["teacher", "student"]);
    fails(dir, &train("toy-boot", &["--set", "optimizer.rate=1"]), 1, &["rate", "lr"]);
    fails(dir, &train("toy-boot", &["--set", "method.solver=rk4"]), 1, &["rk4", "heun"]);
    fails(dir, &train("toy-boot", &["--set", "batch"]), 1, &["--set batch", "key=value"]);
    fails(dir, &train("toy-teacher", &["--set", "batch=0"]), 1, &["batch", "found 0"]);
    fails(dir, &train("toy-teacher", &["--set", "method.label_dropout=0.1"]), 1, &["label_dropout", "0.1"]);
    fails(dir, &train("toy-teacher", &["--set", "network.dim=3", "--set", "images=10"]), 1, &["[2, 1, 1]", "[3, 1, 1]"]);
    fails(dir, &train("toy-teacher", &["--set", "network.num_class_embeds=3"]), 1, &["num_class_embeds", "found 3", "8"]);
    fails(dir, &train("fashion-teacher", &["--data", "absent"]), 1, &["absent"]);
    let boot = train("fashion-boot", &["--teacher", "teacher.safetensors"]);
    for (key, names) in [
        ("method.delta=0", ["method.delta", "found 0"]),
        ("method.guidance=[3.0,1.0]", ["method.guidance", "[3, 1]"]),
        ("method.boundary=-1.0", ["method.boundary", "-1"]),
    ] {
        fails(dir, &[&boot[..], &["--set", key]].concat(), 1, &names);
    }
    // Every kind of damage to a bundle is an error with the file's name; none is a crash.
    let good = std::fs::read(&teacher).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let nan = {
        let mut bytes = good.clone();
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&0x7e00u16.to_le_bytes());
        bytes
    };
    for (what, bytes) in [
        ("empty", vec![]),
        ("short", good[..good.len() / 2].to_vec()),
        ("long", [&good[..], b"xx"].concat()),
        ("length", flipped(7)),
        ("header", flipped(9)),
        ("NaN", nan),
    ] {
        std::fs::write(dir.join("damaged.safetensors"), &bytes).unwrap();
        for args in [
            &["info", "damaged.safetensors"][..],
            &["sample", "--model", "damaged.safetensors", "--out", "x.npy"],
            &["train", "fashion-boot", "--teacher", "damaged.safetensors"],
        ] {
            println!("{what}");
            fails(dir, args, 1, &["damaged.safetensors"]);
        }
    }
    // A run that did not begin leaves no directory behind.
    assert!(!dir.join("runs/fashion-boot").exists());
}

#[test]
fn a_dry_run_prints_and_trains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Teacher, dir, "teacher");
    let args = ["train", "fashion-boot", "--teacher", "teacher.safetensors", "--set", "optimizer.lr=1e-5", "--dry-run"];
    let Ended { stdout, .. } = succeed(dir, &args);
    assert!(!dir.join("runs").exists());
    let config = limbeck::config::resolve("fashion-boot", &["optimizer.lr=1e-5".into(), "teacher=teacher.safetensors".into()]).unwrap();
    // What is printed is a configuration: saved as a file, it is the same run.
    std::fs::write(dir.join("again.toml"), &stdout).unwrap();
    assert_eq!(limbeck::config::resolve(dir.join("again.toml").to_str().unwrap(), &[]).unwrap(), config);
    let setup_line = stdout.lines().find(|l| l.starts_with("# student: ")).expect("the network");
    let params = model(Kind::Teacher, "teacher").graphs[0].param_count();
    let told: usize = setup_line["# student: ".len()..].split(' ').next().unwrap().parse().unwrap();
    assert!(told > params, "{setup_line}: the student has an input more than its teacher's {params}");
    assert!(setup_line.contains("MACs"), "{setup_line}");
    // Every preset that needs no file can be looked at anywhere.
    succeed(dir, &["train", "toy-teacher", "--dry-run"]);
}

#[test]
fn info_describes_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Teacher, dir, "teacher");
    let bundle = model(Kind::Teacher, "teacher");
    let text = succeed(dir, &["info", "teacher.safetensors"]).stdout;
    let params = format!("{} parameters", bundle.graphs[0].param_count());
    for part in [
        "teacher (edm)",
        &bundle.sha256,
        "8x8",
        "zero, one, two",
        &params,
        "heun: any number of steps, 3 by default",
        "guidance  0 to 4",
        "MIT",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&succeed(dir, &["info", "--json", "teacher.safetensors"]).stdout).unwrap();
    assert_eq!(json, serde_json::to_value(&bundle.meta).unwrap());
}

#[test]
fn results_go_to_stdout_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_model(Kind::Student, dir, "student");
    let bench = succeed(dir, &["bench", "sample", "--model", "student.safetensors", "--count", "2", "--repeat", "1"]).stdout;
    assert_eq!(bench.lines().count(), 1);
    let line: serde_json::Value = serde_json::from_str(&bench).unwrap();
    assert!(line["ms"].as_f64().unwrap() > 0.0 && line["images"] == 2, "{line}");
    let help = succeed(dir, &["--help"]).stdout;
    for word in ["train", "sample", "eval", "export", "info", "bench", "data"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(succeed(dir, &["--version"]).stdout.starts_with("limbeck "));
}

/// `micro_batch` bounds memory: passes of 5 or 16 images make the same steps as passes of all 48, but for rounding.
#[test]
fn passes_change_rounding_only() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = write_model(Kind::Teacher, folder.path(), "teacher");
    let after = |micro_batch: usize| {
        let overrides = [
            format!("teacher={}", teacher.display()),
            format!("micro_batch={micro_batch}"),
            "batch=48".into(),
            "images=480".into(),
            // In bf16 a difference in the last bit of a sum can tip a rounding, and is then no longer one of f32.
            "precision=f32".into(),
            "optimizer.warmup=0".into(),
        ];
        let setup = limbeck::train::Setup::new(limbeck::config::resolve("fashion-boot", &overrides).unwrap()).unwrap();
        let mut state = setup.fresh();
        let start = state.nets[0].theta.clone();
        let losses: Vec<f64> = (0..4).map(|_| setup.step(&mut state).unwrap()[0].1).collect();
        (losses, state.nets.remove(0).theta, start)
    };
    let (losses, whole, start) = after(0);
    let moved = largest_difference(&whole, &start);
    for micro_batch in [5, 16] {
        let (l, theta, _) = after(micro_batch);
        assert!(l.iter().zip(&losses).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{l:?} {losses:?}");
        // Adam divides by the gradient's size, so rounding of a gradient near 0 is seen in full: the bound is on the average.
        let mean = whole.iter().zip(&theta).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / whole.len() as f64;
        println!("passes of {micro_batch}: weights {mean:e} apart on average, moved by up to {moved:e}");
        assert!(mean < 0.01 * f64::from(moved), "{mean} {moved}");
    }
}
