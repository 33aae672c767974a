//! `limbeck prune` from a bundle to a routed bundle, as one would call it.

use limbeck_tests::{Kind, run, succeed, write_model};
use std::path::Path;

/// Folders of images of 8 x 8 in three classes, for training and for tests: stripes across, stripes along, and squares.
fn images(folder: &Path) {
    for (split, n) in [("train", 16u32), ("test", 8)] {
        for (class, name) in ["across", "along", "squares"].iter().enumerate() {
            let class_folder = folder.join(split).join(name);
            std::fs::create_dir_all(&class_folder).unwrap();
            for k in 0..n {
                let on = |x: u32, y: u32| match class {
                    0 => (y + k) % 4 < 2,
                    1 => (x + k) % 4 < 2,
                    _ => (2..6).contains(&((x + k) % 8)) && (2..6).contains(&y),
                };
                let pixel = |x, y| image::Luma([if on(x, y) { 230 } else { 20u8 }]);
                image::GrayImage::from_fn(8, 8, pixel).save(class_folder.join(format!("{k:02}.png"))).unwrap();
            }
        }
    }
}

const PRUNE: &str = "prune base.safetensors --data images --set floor=0.7 --set rounds=3 --set short=64 --set probe=32 --set images=512 \
                     --set batch=16 --set optimizer.warmup=64 --set log.stats=128 --set log.state=256 --set log.grid=512";

#[test]
fn a_routed_bundle_from_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write_model(Kind::Teacher, at, "base");
    images(&at.join("images"));
    let prune = |more: &str| {
        let args: Vec<&str> = PRUNE.split_whitespace().chain(more.split_whitespace()).collect();
        succeed(at, &args)
    };
    // Before anything is trained: groups, blocks, costs.
    let told = prune("--dry-run").stdout;
    for words in ["mid_block.resnets.0", "up_blocks.0.attentions.1", "group 4", "(0.775)", "importance"] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert!(!at.join("runs").exists());

    prune("--run first --out first.safetensors");
    let info = succeed(at, &["info", "first.safetensors"]).stdout;
    for words in ["group     1: network 3", "group     4: network 0", "routed", "edges: ["] {
        assert!(info.contains(words), "{words} in {info}");
    }
    // The same command draws on what is done; another run computes the same.
    let before = std::fs::read(at.join("first.safetensors")).unwrap();
    assert!(prune("--run first --out first.safetensors").stderr.contains("nothing to do"));
    let weights = |file: &Path| {
        let bundle = limbeck_shared::bundle::read(&std::fs::read(file).unwrap()).unwrap();
        (bundle.thetas, bundle.meta.router, bundle.meta.networks)
    };
    let read = limbeck_shared::bundle::read(&before).unwrap();
    assert_eq!(weights(&at.join("first.safetensors")), (read.thetas, read.meta.router, read.meta.networks));
    prune("--run second --out second.safetensors");
    assert_eq!(weights(&at.join("second.safetensors")), weights(&at.join("first.safetensors")));
    // Other settings on the same directory are refused, and a routed bundle is no base.
    let args: Vec<&str> = PRUNE.split_whitespace().chain(["--run", "first", "--set", "rounds=4"]).collect();
    let refused = run(at, &args);
    assert!(refused.stderr.contains("prune.toml"), "{}", refused.stderr);
    let refused = run(at, &["prune", "first.safetensors", "--data", "images", "--dry-run"]);
    assert!(refused.stderr.contains("expected one diffusion model"), "{}", refused.stderr);
    // It draws, each image with all networks.
    succeed(at, &["sample", "--model", "first.safetensors", "--count", "4", "--out", "four.npy"]);
}
