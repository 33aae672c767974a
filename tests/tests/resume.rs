//! A run that was stopped or killed and started again is the run that was never disturbed, bit for bit.

use limbeck_tests::{Ended, Kind, command, succeed, write_model};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run's configuration: its first arguments, and where it ends.
struct Run {
    args: &'static str,
    images: u64,
    /// Arrays of the state: theta, average (empty where none is kept), m and v of each network.
    arrays: usize,
}

/// BOOT on a U-Net. States and lines of statistics fall on different images, so that a resumed run has to know unfinished means.
const BOOT: Run = Run {
    args: "train fashion-boot --teacher teacher.safetensors --set batch=16 --set images=4000 --set log.stats=230 --set log.state=630 \
           --set log.grid=1700 --set log.grid_images=3 --set optimizer.warmup=1000 --set method.guidance=[1.0,3.0] --set method.boundary=0.5",
    images: 4_000,
    arrays: 4,
};

/// A teacher on points: the order of real data, and a last batch that is not full.
const TEACHER: Run = Run {
    args: "train toy-teacher --set batch=96 --set micro_batch=40 --set images=60010 --set network.hidden=32 --set log.stats=1900 \
           --set log.state=7000 --set optimizer.warmup=1000",
    images: 60_010,
    arrays: 4,
};

/// A flow map whose losses a second network weighs, with what else its optimiser keeps.
const FLOW_MAP: Run = Run {
    args: "train toy-flow-map --set batch=96 --set images=20010 --set network.hidden=32 --set method.condition=psd_u \
           --set method.weight=true --set method.averaged_targets=true --set optimizer.kind=radam \
           --set optimizer.weight_norm=true --set optimizer.decay=sqrt --set optimizer.hold=5000 --set optimizer.warmup=1000 \
           --set log.stats=1900 --set log.state=7000",
    images: 20_010,
    arrays: 8,
};

/// How a run is disturbed.
#[derive(Clone, Copy, Debug)]
enum Signal {
    Term,
    Kill,
}

fn with_run<'a>(run: &Run, name: &'a str) -> Vec<&'a str> {
    run.args.split_whitespace().chain(["--run", name]).collect()
}

/// The images seen that the last whole line of a run's statistics tells of.
fn seen(run: &Path) -> u64 {
    let text = std::fs::read_to_string(run.join("stats.jsonl")).unwrap_or_default();
    let last = text.rsplit_once('\n').and_then(|t| t.0.lines().last()).unwrap_or("{}");
    serde_json::from_str::<serde_json::Value>(last).unwrap()["images_seen"].as_u64().unwrap_or(0)
}

/// Starts the command, waits until it has seen some images, and sends the signal.
fn disturb(folder: &Path, args: &[&str], run: &Path, at: u64, signal: Signal) -> Ended {
    let mut child = command(folder, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(300);
    while seen(run) < at {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the run ended before {at} images: {status}: {:?}", Ended::from(child.wait_with_output().unwrap()));
        }
        assert!(Instant::now() < limit, "after 300 s the run has seen {} images of {at}", seen(run));
        std::thread::sleep(Duration::from_millis(2));
    }
    match signal {
        Signal::Kill => child.kill().unwrap(),
        Signal::Term => {
            let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
        }
    }
    child.wait_with_output().unwrap().into()
}

/// Tensors by name, and the numbers beside them.
type Saved = (Vec<(String, Vec<u8>)>, Vec<(String, String)>);

/// All of a state but the wall time.
fn state(run: &Path) -> Saved {
    let bytes = std::fs::read(run.join("state.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.tensors().into_iter().map(|(name, t)| (name, t.data().to_vec())).collect();
    tensors.sort();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut numbers: Vec<_> = header.metadata().clone().unwrap().into_iter().filter(|(k, _)| k != "seconds").collect();
    numbers.sort();
    (tensors, numbers)
}

fn images_seen(run: &Path) -> u64 {
    state(run).1.into_iter().find(|n| n.0 == "images_seen").unwrap().1.parse().unwrap()
}

/// The lines of `stats.jsonl` without the wall time.
fn statistics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("stats.jsonl")).unwrap();
    let line = |l: &str| {
        let mut v: serde_json::Value = serde_json::from_str(l).unwrap();
        v.as_object_mut().unwrap().remove("seconds").expect("a line tells its time");
        v
    };
    text.lines().map(line).collect()
}

fn grids(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(run).unwrap().map(|f| f.unwrap().path());
    let mut grids: Vec<_> = files.filter(|f| f.extension().is_some_and(|e| e == "png")).collect();
    grids.sort();
    grids.into_iter().map(|f| (f.file_name().unwrap().into(), std::fs::read(&f).unwrap())).collect()
}

/// Disturbs a run at these parts of its way, lets it end, and compares it with one that was left alone.
fn check(run: &Run, disturbances: &[(f64, Signal)]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_model(Kind::Teacher, folder, "teacher");
    succeed(folder, &with_run(run, "whole"));
    let (whole, disturbed) = (folder.join("whole"), folder.join("disturbed"));
    assert_eq!(images_seen(&whole), run.images);

    let args = with_run(run, "disturbed");
    for &(part, signal) in disturbances {
        let at = (part * run.images as f64) as u64;
        let ended = disturb(folder, &args, &disturbed, at, signal);
        match signal {
            Signal::Kill => assert_eq!(ended.code, None, "killed at {at} images, but it ended by itself: {}", ended.stderr),
            Signal::Term => {
                assert_eq!(ended.code, Some(0), "{}", ended.stderr);
                assert!(ended.stderr.contains("the same command resumes"), "{}", ended.stderr);
                // What a polite stop saves is the step it stopped at.
                assert!(images_seen(&disturbed) >= at && images_seen(&disturbed) < run.images, "{}", images_seen(&disturbed));
            }
        }
    }
    succeed(folder, &args);
    let ((tensors, numbers), (expected_tensors, expected_numbers)) = (state(&disturbed), state(&whole));
    assert_eq!(numbers, expected_numbers);
    assert_eq!(tensors.len(), run.arrays, "{:?}", tensors.iter().map(|t| &t.0).collect::<Vec<_>>());
    for ((name, found), (expected_name, expected)) in tensors.iter().zip(&expected_tensors) {
        assert_eq!(name, expected_name);
        assert!(found == expected, "`{name}` differs after {disturbances:?}");
    }
    assert_eq!(statistics(&disturbed), statistics(&whole));
    assert_eq!(grids(&disturbed), grids(&whole));

    // A run that has ended stays as it is, and exports the same weights.
    let before = std::fs::read(disturbed.join("state.safetensors")).unwrap();
    let again = succeed(folder, &args);
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    assert_eq!(std::fs::read(disturbed.join("state.safetensors")).unwrap(), before);
    let exported = |name: &str| {
        let out = format!("{name}.safetensors");
        succeed(folder, &["export", "--run", name, "--out", &out]);
        let bundle = limbeck_shared::bundle::read(&std::fs::read(folder.join(&out)).unwrap()).unwrap();
        (bundle.thetas, bundle.meta.golden)
    };
    assert_eq!(exported("disturbed"), exported("whole"));
}

#[test]
fn a_stopped_boot_run_goes_on() {
    check(&BOOT, &[(0.2, Signal::Term), (0.5, Signal::Term)]);
}

#[test]
fn a_killed_boot_run_goes_on() {
    check(&BOOT, &[(0.1, Signal::Kill), (0.45, Signal::Kill), (0.75, Signal::Kill)]);
}

#[test]
fn a_disturbed_teacher_run_goes_on() {
    check(&TEACHER, &[(0.3, Signal::Term), (0.6, Signal::Kill)]);
}

#[test]
fn a_disturbed_flow_map_run_goes_on() {
    check(&FLOW_MAP, &[(0.3, Signal::Kill), (0.6, Signal::Term)]);
}

#[test]
fn a_run_directory_of_another_configuration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = |seed: &'static str| {
        vec!["train", "toy-teacher", "--run", "r", "--set", "images=200", "--set", "batch=100", "--set", "network.hidden=8", "--set", seed]
    };
    succeed(folder, &args("seed=1"));
    let before = std::fs::read(folder.join("r/state.safetensors")).unwrap();
    let ended = limbeck_tests::run(folder, &args("seed=2"));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("r/config.toml") && ended.stderr.contains("seed = 1") && ended.stderr.contains("seed = 2"),
        "{}",
        ended.stderr
    );
    assert_eq!(std::fs::read(folder.join("r/state.safetensors")).unwrap(), before);
    // A configuration that an earlier version saved lacks the keys that came since; they stand at their defaults.
    let saved = std::fs::read_to_string(folder.join("r/config.toml")).unwrap();
    let older: String = saved.lines().filter(|l| !l.starts_with("snapshot")).map(|l| format!("{l}\n")).collect();
    assert_ne!(older, saved);
    std::fs::write(folder.join("r/config.toml"), older).unwrap();
    assert!(succeed(folder, &args("seed=1")).stderr.contains("nothing to do"));
}
