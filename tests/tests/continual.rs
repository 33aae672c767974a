//! `limbeck continual`: a sequence that was stopped in a task is the undisturbed one, and a bundle goes on with new images alone.

use limbeck_shared::bundle::{self, Bundle};
use limbeck_tests::{Ended, Kind, Npy, command, run, succeed, write_model};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Folders of grey images, one a class, `edge` pixels wide: each class has its own brightness.
fn images(folder: &Path, edge: u32, classes: &[&str]) {
    for (c, name) in classes.iter().enumerate() {
        let class = folder.join(name);
        std::fs::create_dir_all(&class).unwrap();
        for k in 0..12u8 {
            let pixel = |x: u32, y: u32| image::Luma([(40 * c as u8 + k).wrapping_add((x * y) as u8)]);
            image::GrayImage::from_fn(edge, edge, pixel).save(class.join(format!("{k:02}.png"))).unwrap();
        }
    }
}

/// Two tasks on a small network, nothing measured.
const SEQUENCE: &str = r#"continual fashion-continual --count 0 --set method.tasks=2 --set images=3000 --set batch=16
    --set method.teacher_steps=3 --set method.steps=3 --set network.sample_size=8 --set network.block_out_channels=[8,8] --set log.stats=160
    --set network.norm_num_groups=4 --set network.attention_head_dim=8 --set optimizer.warmup=100 --set log.state=500 --set log.grid_steps=2
    --set data={kind="folder",dir="images"}"#;

fn sequence<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    SEQUENCE.split_whitespace().chain(["--run", name]).chain(more.iter().copied()).collect()
}

fn read(path: &Path) -> Bundle {
    bundle::read(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_sequence_stopped_in_its_second_task_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    images(&folder.join("images"), 8, &["a", "b", "c", "d"]);
    let whole: Value = serde_json::from_str(&succeed(folder, &sequence("whole", &[])).stdout).unwrap();
    let of = |task: usize| whole[task]["classes"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_string());
    let mut learned: Vec<String> = of(0).chain(of(1)).collect();
    learned.sort();
    assert_eq!(learned, ["a", "b", "c", "d"]);
    assert_eq!((whole[1]["images"].as_u64(), whole[1]["evaluation"].is_null()), (Some(3000), true));

    let args = sequence("disturbed", &[]);
    let mut child = command(folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (limit, inside) = (Instant::now() + Duration::from_secs(300), folder.join("disturbed/task-2/stats.jsonl"));
    while std::fs::read_to_string(&inside).unwrap_or_default().lines().count() < 3 {
        assert!(Instant::now() < limit && child.try_wait().unwrap().is_none(), "the second task was not met");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert!(ended.code == Some(0) && ended.stdout.is_empty() && ended.stderr.contains("the same command resumes"), "{}", ended.stderr);
    assert!(!folder.join("disturbed/task-2.safetensors").exists());
    succeed(folder, &args);
    for task in ["task-1", "task-2"] {
        let of = |run: &str| read(&folder.join(run).join(format!("{task}.safetensors")));
        let (a, b) = (of("whole"), of("disturbed"));
        assert_eq!((a.thetas, a.meta.golden), (b.thetas, b.meta.golden), "{task}");
        assert!(folder.join("disturbed").join(format!("{task}.png")).exists());
    }

    // Another arm of the same seed has the same first task, so its three files stand for it.
    for file in ["task-1.safetensors", "task-1.json", "task-1.png"] {
        std::fs::create_dir_all(folder.join("lwf")).unwrap();
        std::fs::copy(folder.join("whole").join(file), folder.join("lwf").join(file)).unwrap();
    }
    let ended = succeed(folder, &sequence("lwf", &["--set", "method.arm=lwf"]));
    assert!(!ended.stderr.contains("task 1 of 2") && ended.stderr.contains("task 2 of 2"), "{}", ended.stderr);
    assert_ne!(read(&folder.join("lwf/task-2.safetensors")).thetas, read(&folder.join("whole/task-2.safetensors")).thetas);
    let refused = run(folder, &sequence("lwf", &["--set", "method.arm=gaussian"]));
    assert!(refused.code == Some(1) && refused.stderr.contains("lwf/config.toml"), "{}", refused.stderr);
}

#[test]
fn a_classifier_learns_from_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    images(&folder.join("images"), 8, &["a", "b", "c", "d"]);
    let args = sequence("classified", &["--set", "images=200", "--classify", "6000"]);
    let refused = run(folder, &args);
    assert!(refused.code == Some(1) && refused.stderr.contains("found no test split") && !folder.join("classified").exists());
    std::fs::remove_dir_all(folder.join("images")).unwrap();
    for part in ["train", "test"] {
        images(&folder.join("images").join(part), 8, &["a", "b", "c", "d"]);
    }
    let reports: Value = serde_json::from_str(&succeed(folder, &args).stdout).unwrap();
    let accuracy = |task: usize| reports[task]["classifier_accuracy"].as_f64().unwrap();
    // Of the first two classes, which differ in brightness, nothing else is known; of all four the first two come from poor replay.
    assert!(accuracy(0) > 0.9 && (0.0..=1.0).contains(&accuracy(1)), "{reports}");
    let (first, second) =
        (read(&folder.join("classified/classifier-1.safetensors")), read(&folder.join("classified/classifier-2.safetensors")));
    assert_eq!(second.meta.training.images_seen, 6000);
    assert_ne!(first.thetas, second.thetas);
    let config = std::fs::read_to_string(folder.join("classified/classifier-2/config.toml")).unwrap();
    for line in
        ["teacher = \"classified/classifier-1.safetensors\"", "generator = \"classified/task-1.safetensors\"", "task = 2", "steps = 3"]
    {
        assert!(config.contains(line), "{line}: {config}");
    }
    // What is done is not done again, and the figures are kept.
    let again = succeed(folder, &args);
    assert!(!again.stderr.contains("classifier of task"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).unwrap(), reports);
}

#[test]
fn a_one_step_student_draws_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    images(&folder.join("images"), 8, &["a", "b"]);
    let edm = [
        "--set",
        "method.beginning={kind=\"edm\",sigma_data=0.7}",
        "--set",
        "method.one_step={images=200,delta=0.25}",
        "--set",
        "images=300",
    ];
    succeed(folder, &sequence("one", &edm));
    let (student, task) = (read(&folder.join("one/student-2.safetensors")), read(&folder.join("one/task-2.safetensors")));
    let first = read(&folder.join("one/task-1.safetensors")).sha256;
    assert_eq!(student.meta.training.method, "boot");
    assert_eq!((student.meta.training.teacher_sha256, task.meta.training.teacher_sha256), (Some(first.clone()), Some(first)));
    let config = std::fs::read_to_string(folder.join("one/task-2/config.toml")).unwrap();
    assert!(config.contains("replay = \"one/student-2.safetensors\""), "{config}");
}

#[test]
fn a_conditional_bundle_goes_on_with_new_images_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_model(Kind::Teacher, folder, "old");
    let old = std::fs::read(folder.join("old.safetensors")).unwrap();
    // Nothing but the new images is there; one of the two classes is known already.
    images(&folder.join("new"), 8, &["owl", "two"]);
    let args = "continual --from old.safetensors --data new --run r --out new.safetensors --count 0 --set images=320 --set batch=32 \
                --set method.teacher_steps=2 --set optimizer.warmup=10";
    let report: Value = serde_json::from_str(&succeed(folder, &args.split_whitespace().collect::<Vec<_>>()).stdout).unwrap();
    assert_eq!(report["new_classes"], serde_json::json!(["owl"]));
    for loss in ["old_images_before", "old_images_after", "new_images_after"] {
        assert!(report[loss].as_f64().unwrap() > 0.0, "{report}");
    }
    assert_eq!(std::fs::read(folder.join("old.safetensors")).unwrap(), old);
    let bundle = read(&folder.join("new.safetensors"));
    assert_eq!((bundle.meta.classes.join(" "), bundle.meta.null_label), ("zero one two owl".into(), Some(4)));
    assert_eq!(bundle.meta.training.method, "continual");
    succeed(folder, &["sample", "--model", "new.safetensors", "--count", "2", "--label", "3", "--guidance", "2", "--out", "owls.npy"]);
    assert!(Npy::read(&folder.join("owls.npy")).values.iter().all(|v| v.is_finite()));

    let refused = |args: &str| run(folder, &args.split_whitespace().collect::<Vec<_>>());
    images(&folder.join("large"), 9, &["x"]);
    let ended = refused("continual --from old.safetensors --data large --run s");
    assert!(ended.code == Some(1) && ended.stderr.contains("found images of [1, 9, 9]"), "{}", ended.stderr);
    assert_eq!(refused("continual --from old.safetensors").code, Some(2));
}
