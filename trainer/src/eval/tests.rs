//! Tests of the report on a feature "network" whose answers are known.

use super::*;
use crate::data::InMemory;
use std::cell::Cell;

/// Features (mean, first pixel); class 1 if the first pixel is positive. Counts what it is shown.
struct Known {
    seen: Cell<usize>,
}

impl Features for Known {
    fn dim(&self) -> usize {
        2
    }
    fn features(&self, images: &[f32], n: usize, feats: &mut [f32], class: &mut [u32]) -> Result<()> {
        assert_eq!((images.len(), feats.len(), class.len()), (n * 4, n * 2, n));
        self.seen.set(self.seen.get() + n);
        for (k, image) in images.chunks_exact(4).enumerate() {
            feats[2 * k] = image.iter().sum::<f32>() / 4.0;
            feats[2 * k + 1] = image[0];
            class[k] = u32::from(image[0] > 0.0);
        }
        Ok(())
    }
}

fn set(n: usize, salt: usize) -> InMemory {
    let pixels = (0..n * 4).map(|i| ((i * 7919 + salt * 104_729) * 31 % 1009 % 256) as u8).collect();
    InMemory::new([1, 2, 2], pixels, vec![0; n], vec![]).unwrap()
}
fn images(set: &InMemory) -> Vec<f32> {
    let mut out = vec![0.0; set.len() * 4];
    out.chunks_exact_mut(4).enumerate().for_each(|(i, o)| set.image(i, o));
    out
}
fn request<'a>(features: &'a Known, classes: &'a [String], train: &'a InMemory, images: &'a [f32]) -> Request<'a> {
    Request {
        features,
        features_id: "known",
        classes,
        train,
        test: None,
        cache: None,
        images,
        labels: None,
        sampling_seconds: None,
        batch: 7,
        on_progress: None,
    }
}
fn names() -> Vec<String> {
    vec!["dark".into(), "bright".into()]
}

#[test]
fn the_training_set_itself_is_at_distance_zero() {
    let (known, names, train, test) = (Known { seen: Cell::new(0) }, names(), set(100, 0), set(40, 1));
    let own = images(&train);
    let labels: Vec<u32> = own.chunks(4).map(|i| u32::from(i[0] > 0.0)).collect();
    let calls = Cell::new(0);
    let progress = |_: &str, done: usize, of: usize| {
        assert!(done <= of);
        calls.set(calls.get() + 1);
    };
    let r = report(&Request {
        test: Some(&test),
        labels: Some(&labels),
        sampling_seconds: Some(2.5),
        on_progress: Some(&progress),
        ..request(&known, &names, &train, &own)
    })
    .unwrap();
    assert!(r.fd.abs() < 1e-9, "{}", r.fd);
    assert!(r.fd_floor.unwrap() > 1e-4);
    assert_eq!((r.accuracy, r.count, r.class_distance), (Some(1.0), 100, 0.0));
    assert!((r.spread - 1.0).abs() < 1e-12 && r.class_kld.abs() < 1e-9);
    assert_eq!(known.seen.get(), 240);
    assert_eq!(calls.get(), 15 + 15 + 6);
    let json = serde_json::to_value(&r).unwrap();
    let bright = labels.iter().sum::<u32>();
    assert_eq!(json["class_histogram"], serde_json::json!({"dark": 100 - bright, "bright": bright}));
    assert_eq!(json["sampling_seconds"], 2.5);
}

#[test]
fn copies_of_one_image_are_found_out() {
    let (known, names, train) = (Known { seen: Cell::new(0) }, names(), set(200, 0));
    let copies = vec![0.5; 4 * 50];
    let labels: Vec<u32> = (0..50).map(|k| k % 2).collect();
    let r = report(&Request { labels: Some(&labels), ..request(&known, &names, &train, &copies) }).unwrap();
    assert_eq!((r.spread, r.entropy, r.accuracy), (0.0, 0.0, Some(0.5)));
    assert!(r.class_distance > 0.3 && r.class_kld > 1.0, "{r:?}");
    // A point mass at m is at |m - mean|^2 + tr(S) from the training set.
    let stats = {
        let q = request(&known, &names, &train, &copies);
        stats_of(&q, "", 200, |i, o| train.image(i, o), |_| ()).unwrap()
    };
    let m = f64::from(f32::from(grid::byte(0.5)) / 127.5 - 1.0);
    let expected = stats.moments.mean().iter().map(|v| (m - v).powi(2)).sum::<f64>() + stats.moments.total_variance();
    assert!((r.fd - expected).abs() < 1e-6 * expected, "{} {expected}", r.fd);
}

#[test]
fn the_cache_saves_the_network_and_notices_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (known, names, train, test) = (Known { seen: Cell::new(0) }, names(), set(100, 0), set(40, 1));
    let own = images(&set(30, 2));
    let run = |train: &InMemory, id: &str| {
        known.seen.set(0);
        let mut r =
            report(&Request { features_id: id, test: Some(&test), cache: Some(dir.path()), ..request(&known, &names, train, &own) })
                .unwrap();
        r.seconds = 0.0;
        (known.seen.get(), r)
    };
    let (seen, first) = run(&train, "a");
    assert_eq!(seen, 170);
    assert_eq!(run(&train, "a"), (30, first.clone()));
    assert_eq!(run(&train, "b").0, 170);
    assert_eq!(run(&set(100, 9), "a").0, 130);
    // Damaged files are replaced.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::write(entry.unwrap().path(), b"rubbish").unwrap();
    }
    assert_eq!(run(&train, "a"), (170, first.clone()));
    assert_eq!(run(&train, "a"), (30, first));
}

#[test]
fn misfits_are_named() {
    let (known, names, train, wide) = (Known { seen: Cell::new(0) }, names(), set(10, 0), set(10, 1));
    let own = images(&train);
    let fails = |r: &Request<'_>| format!("{:#}", report(r).unwrap_err());
    let base = || request(&known, &names, &train, &own);
    let nan: Vec<f32> = own.iter().enumerate().map(|(i, &v)| if i == 9 { f32::NAN } else { v }).collect();
    let odd = InMemory::new([1, 1, 4], vec![0; 40], vec![0; 10], vec![]).unwrap();
    let flat = InMemory::new([1, 2, 2], vec![9; 40], vec![0; 10], vec![]).unwrap();
    assert_eq!(wide.shape(), train.shape());
    for (r, expect) in [
        (Request { images: &own[..5], ..base() }, "found 5 numbers, expected images of shape [1, 2, 2]"),
        (Request { images: &own[..4], ..base() }, "found 1, expected at least 2"),
        (Request { images: &nan, ..base() }, "image 2: found NaN"),
        (Request { labels: Some(&[1]), ..base() }, "labels: found 1, expected one for each of 10"),
        (Request { test: Some(&odd), ..base() }, "test set: found shape [1, 1, 4]"),
        (Request { classes: &names[..1], ..base() }, "found class 1, expected less than 1"),
        (Request { train: &flat, ..base() }, "features without any variance"),
    ] {
        assert!(fails(&r).contains(expect), "{}\n  lacks {expect}", fails(&r));
    }
}

#[test]
fn foreign_samples_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.npy");
    let read = |shape: &[usize], data: &[f32]| {
        npy::write(&path, shape, data).unwrap();
        read_samples(&path, [1, 2, 1]).map_err(|e| e.to_string())
    };
    assert_eq!(read(&[2, 1, 2, 1], &[-1.0, 1.02, 0.0, 0.5]).unwrap().len(), 4);
    assert!(read(&[2, 2, 1], &[0.0; 4]).unwrap_err().contains("found shape [2, 2, 1], expected [n, 1, 2, 1]"));
    let e = read(&[2, 1, 2, 1], &[0.0, 255.0, 3.0, 4.0]).unwrap_err();
    assert!(e.contains("s.npy: found values in [0, 255], expected [-1, 1]"), "{e}");
    assert!(read(&[1, 1, 2, 1], &[0.0, 1.0]).unwrap_err().contains("found values in [0, 1]"));
}
