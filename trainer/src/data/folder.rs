//! A folder of PNG files: one sub-folder a class, or flat without classes.
//!
//! With sub-folders `train` and `test` each split is its own folder; otherwise everything is the
//! training split and there is no test split. All images have one size and one colour type (8-bit grey or
//! RGB). Classes and files are taken in byte order of their names, so indices are the same everywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use image::{DynamicImage, ImageFormat};
use rayon::prelude::*;

use super::{InMemory, Split};

/// What lies in one folder, sorted by name; hidden entries are left out.
#[derive(Default)]
struct Listing {
    folders: Vec<PathBuf>,
    images: Vec<PathBuf>,
    others: usize,
}

fn list(dir: &Path) -> Result<Listing> {
    let mut out = Listing::default();
    let unreadable = || format!("{}: cannot list the folder", dir.display());
    for entry in std::fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let png = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        match (path.is_dir(), png) {
            (true, _) => out.folders.push(path),
            (false, true) => out.images.push(path),
            (false, false) => out.others += 1,
        }
    }
    out.folders.sort();
    out.images.sort();
    Ok(out)
}

/// The images of one split of `dir`.
///
/// # Errors
/// No PNG files, files of different size or colour type, a file that does not decode, images beside class
/// folders, or no test split.
pub fn open(dir: &Path, split: Split) -> Result<InMemory> {
    let [train, test] = [Split::Train, Split::Test].map(|s| dir.join(s.name()));
    let (root, reference) = match (train.is_dir() && test.is_dir(), split) {
        (true, Split::Train) => (train.as_path(), train.as_path()),
        (true, Split::Test) => (test.as_path(), train.as_path()),
        (false, Split::Train) => (dir, dir),
        (false, Split::Test) => bail!("{}: found no test split, expected the sub-folders `train` and `test`", dir.display()),
    };
    // The training split numbers the classes, so a label means the same in both splits.
    let classes: Vec<String> = list(reference)?.folders.iter().map(|f| name_of(f)).collect();
    let listing = list(root)?;
    let mut files: Vec<(PathBuf, u32)> = Vec::new();
    for folder in &listing.folders {
        let inner = list(folder)?;
        if inner.images.is_empty() {
            bail!("{}: found no PNG files, expected some in every class folder", folder.display());
        }
        let Some(label) = classes.iter().position(|c| *c == name_of(folder)) else {
            bail!("{}: found a class that {} lacks", folder.display(), reference.display());
        };
        files.extend(inner.images.into_iter().map(|p| (p, label as u32)));
    }
    if let (Some(image), Some(folder)) = (listing.images.first(), listing.folders.first()) {
        bail!("{}: found images ({}) beside sub-folders ({}), expected either", root.display(), name_of(image), name_of(folder));
    }
    files.extend(listing.images.into_iter().map(|p| (p, 0)));
    let Some((first, _)) = files.first() else {
        bail!("{}: found {} files and no PNG, expected PNG files", root.display(), listing.others);
    };

    let (shape, _) = decode(first)?;
    let size: usize = shape.iter().product();
    let total = size.checked_mul(files.len()).context("the images do not fit in memory")?;
    let mut pixels = vec![0u8; total];
    pixels.par_chunks_mut(size).zip(&files).try_for_each(|(out, (path, _))| {
        let (found, bytes) = decode(path)?;
        if found != shape {
            bail!("{}: found {}, expected {} as in {}", path.display(), words(found), words(shape), name_of(first));
        }
        out.copy_from_slice(&bytes);
        Ok(())
    })?;
    let labels = files.iter().map(|(_, label)| *label).collect();
    InMemory::new(shape, pixels, labels, classes).with_context(|| root.display().to_string())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn words([c, h, w]: [usize; 3]) -> String {
    format!("{w}x{h} pixels in {}", if c == 1 { "grey" } else { "RGB" })
}

/// Shape and channel-major pixels of one PNG file.
fn decode(path: &Path) -> Result<([usize; 3], Vec<u8>)> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let image = image::load_from_memory_with_format(&bytes, ImageFormat::Png)
        .with_context(|| format!("{}: not a sound PNG file", path.display()))?;
    let (w, h) = (image.width() as usize, image.height() as usize);
    match image {
        DynamicImage::ImageLuma8(grey) => Ok(([1, h, w], grey.into_raw())),
        DynamicImage::ImageRgb8(rgb) => {
            let raw = rgb.into_raw();
            let planes = (0..3).flat_map(|c| raw.iter().skip(c).step_by(3).copied()).collect();
            Ok(([3, h, w], planes))
        }
        other => {
            bail!("{}: found colour type {:?}, expected 8-bit grey or RGB", path.display(), other.color())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage, RgbaImage};

    fn grey(dir: &Path, name: &str, w: u32, h: u32, base: u8) {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        let image = GrayImage::from_fn(w, h, |x, y| Luma([base + (y * w + x) as u8]));
        image.save(dir.join(name)).unwrap();
    }
    fn message(dir: &Path, split: Split) -> String {
        format!("{:#}", open(dir, split).unwrap_err())
    }

    #[test]
    fn class_folders_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        for (name, base) in [("dog/2.png", 40), ("dog/10.PNG", 30), ("cat/a.png", 10)] {
            grey(d, name, 3, 2, base);
        }
        std::fs::write(d.join(".hidden"), b"x").unwrap();
        std::fs::write(d.join("notes.txt"), b"x").unwrap();
        let set = open(d, Split::Train).unwrap();
        assert_eq!((set.len(), set.shape()), (3, [1, 2, 3]));
        assert_eq!(set.classes(), ["cat", "dog"]);
        let mut out = [0.0; 6];
        for (i, label, base) in [(0, 0, 10.0), (1, 1, 30.0), (2, 1, 40.0)] {
            set.image(i, &mut out);
            assert_eq!(set.label(i), label);
            assert_eq!(out[5], (base + 5.0) / 127.5 - 1.0);
        }
        assert!(message(d, Split::Test).contains("found no test split"), "{}", message(d, Split::Test));
    }

    #[test]
    fn flat_rgb_becomes_planes() {
        let dir = tempfile::tempdir().unwrap();
        RgbImage::from_fn(2, 3, |x, y| Rgb([x as u8, 100 + y as u8, 200])).save(dir.path().join("a.png")).unwrap();
        let set = open(dir.path(), Split::Train).unwrap();
        assert_eq!(set.shape(), [3, 3, 2]);
        assert!(set.classes().is_empty());
        let mut out = [0.0; 18];
        set.image(0, &mut out);
        let expected = [0, 1, 0, 1, 0, 1, 100, 100, 101, 101, 102, 102, 200, 200, 200, 200, 200, 200];
        assert_eq!(out, expected.map(|v: u8| f32::from(v) / 127.5 - 1.0));
    }

    #[test]
    fn splits_are_folders() {
        let dir = tempfile::tempdir().unwrap();
        grey(dir.path(), "train/x/1.png", 2, 2, 1);
        grey(dir.path(), "train/y/1.png", 2, 2, 2);
        grey(dir.path(), "test/y/1.png", 2, 2, 3);
        assert_eq!(open(dir.path(), Split::Train).unwrap().classes(), ["x", "y"]);
        let test = open(dir.path(), Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0), test.classes()), (1, 1, &["x".into(), "y".into()][..]));
        grey(dir.path(), "test/z/1.png", 2, 2, 3);
        let e = message(dir.path(), Split::Test);
        assert!(e.contains("z: found a class that"), "{e}");
    }

    #[test]
    fn misfits_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        assert!(message(d, Split::Train).contains("found 0 files and no PNG"));
        assert!(message(&d.join("absent"), Split::Train).contains("absent: cannot list"));

        grey(d, "a.png", 4, 3, 0);
        grey(d, "b.png", 3, 4, 0);
        let e = message(d, Split::Train);
        assert!(e.contains("b.png: found 3x4 pixels in grey, expected 4x3 pixels in grey as in a.png"), "{e}");

        RgbImage::new(4, 3).save(d.join("b.png")).unwrap();
        let e = message(d, Split::Train);
        assert!(e.contains("b.png: found 4x3 pixels in RGB"), "{e}");

        RgbaImage::new(4, 3).save(d.join("b.png")).unwrap();
        let e = message(d, Split::Train);
        assert!(e.contains("b.png: found colour type Rgba8, expected 8-bit grey or RGB"), "{e}");

        let whole = std::fs::read(d.join("a.png")).unwrap();
        std::fs::write(d.join("b.png"), &whole[..whole.len() / 2]).unwrap();
        let e = message(d, Split::Train);
        assert!(e.contains("b.png: not a sound PNG file"), "{e}");

        std::fs::remove_file(d.join("b.png")).unwrap();
        std::fs::create_dir(d.join("c")).unwrap();
        let e = message(d, Split::Train);
        assert!(e.contains("c: found no PNG files"), "{e}");
        grey(d, "c/x.png", 4, 3, 0);
        let e = message(d, Split::Train);
        assert!(e.contains("found images (a.png) beside sub-folders (c)"), "{e}");
    }
}
