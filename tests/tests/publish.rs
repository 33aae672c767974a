//! `limbeck publish` and `limbeck index`: what they write, what they refuse, and what they leave alone.

use limbeck_tests::{Ended, Kind, model, repository, run, succeed, write_model};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with two models and what passes for a built page.
fn workshop() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_path_buf();
    write_model(Kind::Teacher, &dir, "teacher");
    write_model(Kind::Student, &dir, "student");
    fs::create_dir_all(dir.join("dist/models")).unwrap();
    for (name, text) in [("index.html", "<title>page</title>"), ("sw.js", "//"), ("page.wasm", "\0asm"), ("models/old.safetensors", "x")] {
        fs::write(dir.join("dist").join(name), text).unwrap();
    }
    (folder, dir)
}

fn publish(dir: &Path, more: &[&str]) -> Ended {
    run(dir, &[&["publish", "--page", "dist", "--out", "site", "--models", "teacher.safetensors"], more].concat())
}

/// Every file below a folder, by its path.
fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(dir: &Path, root: &Path, out: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, out);
            } else {
                out.push((path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), fs::read(&path).unwrap()));
            }
        }
    }
    let mut out = vec![];
    walk(dir, dir, &mut out);
    out.sort();
    out
}

fn names(dir: &Path) -> Vec<String> {
    tree(dir).into_iter().map(|f| f.0).collect()
}

fn refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(words), "no `{words}` in\n{}", ended.stderr);
}

#[test]
fn a_whole_site() {
    let (_folder, dir) = workshop();
    let ended = publish(&dir, &["student.safetensors", "--base-url", "https://example.org/sub"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let site = dir.join("site");
    let expected = [
        "index.html",
        "limbeck-site.json",
        "m/student.html",
        "m/student.png",
        "m/teacher.html",
        "m/teacher.png",
        "models/index.json",
        "models/student.safetensors",
        "models/teacher.safetensors",
        "page.wasm",
        "sw.js",
    ];
    assert_eq!(names(&site), expected);
    let index: Value = serde_json::from_slice(&fs::read(site.join("models/index.json")).unwrap()).unwrap();
    assert_eq!(index["version"], 1);
    for (entry, id) in index["models"].as_array().unwrap().iter().zip(["student", "teacher"]) {
        let bytes = fs::read(dir.join(format!("{id}.safetensors"))).unwrap();
        assert_eq!(fs::read(site.join("models").join(entry["file"].as_str().unwrap())).unwrap(), bytes);
        assert_eq!((entry["id"].as_str(), entry["bytes"].as_u64()), (Some(id), Some(bytes.len() as u64)));
        assert_eq!(entry["sha256"], limbeck_shared::bundle::sha256(&bytes));
    }
    let page = fs::read_to_string(site.join("m/student.html")).unwrap();
    for part in [
        "<title>student: ",
        "property=\"og:image\" content=\"https://example.org/sub/m/student.png\"",
        "property=\"og:url\" content=\"https://example.org/sub/m/student.html\"",
        "http-equiv=\"refresh\" content=\"0; url=../#v=1&amp;m=student&amp;h=",
        "<a href=\"../#v=1&amp;m=student&amp;h=",
    ] {
        assert!(page.contains(part), "no `{part}` in\n{page}");
    }
    // Without an address, the tags have none.
    assert_eq!(publish(&dir, &[]).code, Some(0));
    let page = fs::read_to_string(site.join("m/teacher.html")).unwrap();
    assert!(page.contains("content=\"teacher.png\"") && !page.contains("og:url") && !page.contains("example.org"), "{page}");
}

#[test]
fn pictures_are_drawn_by_their_models() {
    let (_folder, dir) = workshop();
    assert_eq!(publish(&dir, &["student.safetensors"]).code, Some(0));
    let read = |id: &str| image::open(dir.join(format!("site/m/{id}.png"))).unwrap().into_rgb8();
    let (teacher, student) = (read("teacher"), read("student"));
    assert_eq!((teacher.dimensions(), student.dimensions()), ((1200, 630), (1200, 630)));
    assert_ne!(teacher, student);
    // The student draws 12 x 12 pixels; its first two images, found in the grid, are those of `limbeck sample`.
    succeed(&dir, &["sample", "--model", "student.safetensors", "--count", "2", "--seed", "0", "--upscale", "1", "--out", "two.png"]);
    let two = image::open(dir.join("two.png")).unwrap().into_rgb8();
    let paper = *student.get_pixel(0, 0);
    let is_paper = |x: u32| (0..630).all(|y| *student.get_pixel(x, y) == paper);
    let left = (0..1200).find(|&x| !is_paper(x)).unwrap();
    let right = (left..1200).find(|&x| is_paper(x)).unwrap();
    let top = (0..630).find(|&y| (0..1200).any(|x| *student.get_pixel(x, y) != paper)).unwrap();
    let scale = (right - left) / 12;
    assert!((right - left).is_multiple_of(12) && scale > 1, "a tile is {} wide", right - left);
    for k in 0..2 {
        for (y, x) in (0..12).flat_map(|y| (0..12).map(move |x| (y, x))) {
            let drawn = student.get_pixel(left + k * (12 * scale + 4) + x * scale, top + y * scale);
            let expected = two.get_pixel(2 + k * 14 + x, 2 + y);
            assert!(drawn.0[0].abs_diff(expected.0[0]) <= 1, "image {k}, pixel {x}, {y}: {drawn:?} for {expected:?}");
        }
    }
}

#[test]
fn an_earlier_site_is_replaced_and_other_files_stay() {
    let (_folder, dir) = workshop();
    assert_eq!(publish(&dir, &["student.safetensors"]).code, Some(0));
    let site = dir.join("site");
    fs::create_dir_all(site.join(".git/refs")).unwrap();
    for (name, text) in [("CNAME", "example.org"), (".git/refs/x", "1"), ("models/mine.txt", "2")] {
        fs::write(site.join(name), text).unwrap();
    }
    fs::write(dir.join("dist/page.wasm"), "\0asm2").unwrap();
    assert_eq!(publish(&dir, &[]).code, Some(0));
    let found = names(&site);
    for name in ["CNAME", ".git/refs/x", "models/mine.txt", "models/teacher.safetensors"] {
        assert!(found.iter().any(|f| f == name), "{name} is gone from {found:?}");
    }
    assert!(!found.iter().any(|f| f.contains("student")), "{found:?}");
    assert_eq!(fs::read(site.join("page.wasm")).unwrap(), b"\0asm2");
    // A file of the owner's that the site would overwrite is not overwritten.
    fs::write(site.join("m/student.png"), "mine").unwrap();
    let before = tree(&site);
    refused(&publish(&dir, &["student.safetensors"]), "m/student.png` is in the way");
    assert_eq!(tree(&site), before);
}

#[test]
fn failures_leave_nothing_behind() {
    let (_folder, dir) = workshop();
    write_model(Kind::Points, &dir, "points");
    fs::write(dir.join("broken.safetensors"), "no bundle").unwrap();
    fs::copy(dir.join("student.safetensors"), dir.join("Not An Id.safetensors")).unwrap();
    fs::create_dir_all(dir.join("bare")).unwrap();
    let before = tree(&dir);
    refused(&publish(&dir, &["broken.safetensors"]), "broken.safetensors");
    refused(&publish(&dir, &["absent.safetensors"]), "absent.safetensors");
    refused(&publish(&dir, &["points.safetensors"]), "expected one that draws images");
    refused(&publish(&dir, &["teacher.safetensors"]), "two bundles named teacher.safetensors");
    refused(&publish(&dir, &["Not An Id.safetensors"]), "expected a-z, 0-9 and - only");
    for url in ["example.org", "ftp://example.org", "https://", "https://example.org/#x", "https://a b/"] {
        refused(&publish(&dir, &["--base-url", url]), "`--base-url`");
    }
    let to = |page: &str, out: &str| run(&dir, &["publish", "--models", "teacher.safetensors", "--page", page, "--out", out]);
    refused(&to("bare", "site"), "`bare` is no built page, index.html is missing");
    refused(&to("dist", "dist"), "found files that publish did not write");
    refused(&to("dist", "broken.safetensors"), "found a file");
    assert_eq!(tree(&dir), before);
    assert!(!fs::read_dir(&dir).unwrap().any(|e| e.unwrap().file_name().to_str().unwrap().starts_with(".limbeck")));
    // A wrong call is a wrong call.
    assert_eq!(run(&dir, &["publish", "--out", "site"]).code, Some(2));
}

#[test]
fn titles_are_kept_and_harmless() {
    let (_folder, dir) = workshop();
    succeed(&dir, &["index", "."]);
    let list = dir.join("index.json");
    let text = fs::read_to_string(&list).unwrap();
    let mut index: Value = serde_json::from_str(&text).unwrap();
    let params = model(Kind::Teacher, "teacher").graphs[0].param_count() as f64 / 1e3;
    assert_eq!(index["models"][1]["line"], format!("EDM, 3 steps, {params:.1} k parameters, 8 x 8 pixels"));
    index["models"][1]["title"] = "A <b>\"bold\"</b> & old teacher".into();
    fs::write(&list, index.to_string()).unwrap();
    succeed(&dir, &["index", "."]);
    let again: Value = serde_json::from_str(&fs::read_to_string(&list).unwrap()).unwrap();
    assert_eq!(again, index);
    assert_eq!(publish(&dir, &[]).code, Some(0));
    let page = fs::read_to_string(dir.join("site/m/teacher.html")).unwrap();
    assert!(page.contains("content=\"A &lt;b&gt;&quot;bold&quot;&lt;/b&gt; &amp; old teacher\"") && !page.contains("<b>"), "{page}");
    // The visitor's own bundles are listed when asked for.
    fs::copy(dir.join("student.safetensors"), dir.join("my-student.safetensors")).unwrap();
    let count = |args: &[&str]| {
        succeed(&dir, args);
        let index: Value = serde_json::from_str(&fs::read_to_string(&list).unwrap()).unwrap();
        index["models"].as_array().unwrap().len()
    };
    assert_eq!((count(&["index", "."]), count(&["index", ".", "--mine"])), (2, 3));
}

#[test]
fn the_repository_holds_the_list_of_its_models() {
    let folder = tempfile::tempdir().unwrap();
    let models = repository().join("models");
    for entry in fs::read_dir(&models).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    succeed(folder.path(), &["index", "."]);
    let read = |dir: &Path| fs::read_to_string(dir.join("index.json")).unwrap();
    assert_eq!(read(folder.path()), read(&models), "run `limbeck index`");
}
