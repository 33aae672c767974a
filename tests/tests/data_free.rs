//! BOOT and SiD read no image: no data set is opened, and none has to be there.

use limbeck::train::Setup;
use limbeck::{config, data};
use limbeck_tests::{Kind, command, write_model};

#[test]
fn distilling_opens_no_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = write_model(Kind::Teacher, folder.path(), "teacher");
    let overrides = |more: &[&str]| -> Vec<String> {
        let teacher = format!("teacher={}", teacher.display());
        ["batch=4", "images=12"].into_iter().chain([teacher.as_str()]).chain(more.iter().copied()).map(String::from).collect()
    };

    // A configuration without data, and one that names a folder that is not there.
    let absent = format!("data={{ kind = \"folder\", dir = \"{}\" }}", folder.path().join("absent").display());
    let runs = [
        ("fashion-boot", vec![]),
        ("fashion-boot", vec![absent.as_str()]),
        ("fashion-boot", vec!["method.boundary=0.5", "method.guidance=[1.0, 3.0]", "method.solver=heun"]),
        ("fashion-sid-one", vec![]),
        ("fashion-sid-one", vec![absent.as_str(), "method.steps=2", "method.matching=per_image", "method.guidance={lsg=2.0}"]),
    ];
    for (preset, more) in runs {
        let setup = Setup::new(config::resolve(preset, &overrides(&more)).unwrap()).unwrap();
        let mut state = setup.fresh();
        let before = state.nets[0].theta.clone();
        for _ in 0..3 {
            let report = setup.step(&mut state).unwrap();
            assert!(report.iter().all(|(_, v)| v.is_finite()), "{report:?}");
        }
        assert_eq!((state.images_seen, state.skipped), (12, 0));
        assert_ne!(state.nets[0].theta, before);
        setup.meta().unwrap();
        assert_eq!(data::opened(), 0, "{preset} {more:?}");
    }

    // The count counts: a teacher's training opens its data set.
    Setup::new(config::resolve("toy-teacher", &[]).unwrap()).unwrap();
    assert_eq!(data::opened(), 1);
}

#[test]
fn a_run_without_any_data_set_finishes() {
    let folder = tempfile::tempdir().unwrap();
    write_model(Kind::Teacher, folder.path(), "teacher");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for preset in ["fashion-boot", "fashion-sid-one"] {
        let args =
            ["train", preset, "--teacher", "teacher.safetensors", "--set", "batch=4", "--set", "images=12", "--set", "log.snapshot=8"];
        let ended = command(folder.path(), &args).env("LIMBECK_DATA", &empty).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let run = folder.path().join("runs").join(preset);
        assert!(run.join("state.safetensors").is_file());
        for images in [8, 12] {
            let snapshot = run.join(format!("model-{images:08}.safetensors"));
            let model = limbeck::train::read_bundle(&snapshot).unwrap();
            assert_eq!(model.meta.training.images_seen, images);
        }
    }
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
}
