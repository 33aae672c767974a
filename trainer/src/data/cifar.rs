//! CIFAR-10, binary version: records of one label byte and 3072 pixel bytes.
//!
//! The pixels of a record are three planes (red, green, blue) of 32 rows of 32 bytes, rows from the top:
//! exactly `[3, 32, 32]`, with no transposition.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{InMemory, Split};

/// The classes of CIFAR-10 in label order.
pub const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const PIXELS: usize = 3 * 32 * 32;
const RECORD: usize = 1 + PIXELS;

fn names(split: Split) -> &'static [&'static str] {
    match split {
        Split::Train => &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
        Split::Test => &["test_batch.bin"],
    }
}

/// The folder that holds the batches: `dir` or `dir/cifar-10-batches-bin`, which the archive makes.
pub fn folder_of(dir: &Path) -> Option<PathBuf> {
    [dir.to_path_buf(), dir.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|d| [Split::Train, Split::Test].iter().any(|&s| d.join(names(s)[0]).is_file()))
}

/// CIFAR-10 from its binary batches: all five for training, one for the test.
///
/// # Errors
/// A missing file, a length that is no multiple of 3073 bytes, or a label above 9.
pub fn open(dir: &Path, split: Split) -> Result<InMemory> {
    let Some(folder) = folder_of(dir) else {
        bail!(
            "{}: found no CIFAR-10 batches, expected {} (the binary version, not the Python one)",
            dir.display(),
            names(split).join(", ")
        );
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for name in names(split) {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        if bytes.is_empty() || bytes.len() % RECORD != 0 {
            bail!("{}: found {} bytes, expected a multiple of {RECORD} (label and 3x32x32 pixels)", path.display(), bytes.len());
        }
        for (i, record) in bytes.chunks_exact(RECORD).enumerate() {
            if usize::from(record[0]) >= CLASSES.len() {
                bail!("{}: record {i}: found label {}, expected 0 to 9", path.display(), record[0]);
            }
            labels.push(u32::from(record[0]));
            pixels.extend_from_slice(&record[1..]);
        }
    }
    InMemory::new([3, 32, 32], pixels, labels, CLASSES.map(String::from).to_vec()).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Dataset;
    use super::*;

    /// A record whose pixel at (channel, row, column) is known and differs from its transpose.
    fn record(label: u8) -> Vec<u8> {
        let pixel = |c: usize, y: usize, x: usize| (c * 80 + y * 2 + usize::from(x > 20)) as u8;
        let mut out = vec![label];
        for c in 0..3 {
            for y in 0..32 {
                out.extend((0..32).map(|x| pixel(c, y, x)));
            }
        }
        out
    }
    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn rows_are_rows() {
        let dir = folder(&[("test_batch.bin", [record(3), record(9)].concat())]);
        let set = open(dir.path(), Split::Test).unwrap();
        assert_eq!((set.len(), set.shape()), (2, [3, 32, 32]));
        assert_eq!((set.label(0), set.label(1)), (3, 9));
        assert_eq!(set.classes()[9], "truck");
        let mut out = vec![0.0; PIXELS];
        set.image(1, &mut out);
        for (c, y, x) in [(0, 0, 31), (1, 7, 3), (2, 30, 21), (2, 3, 30), (2, 30, 3)] {
            let stored = (c * 80 + y * 2 + usize::from(x > 20)) as f32;
            assert_eq!(out[c * 1024 + y * 32 + x], stored / 127.5 - 1.0, "({c}, {y}, {x})");
        }
    }

    #[test]
    fn training_joins_five_batches_in_order() {
        let files: Vec<(String, Vec<u8>)> = (1..=5u8).map(|k| (format!("data_batch_{k}.bin"), record(k))).collect();
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&inner).unwrap();
        files.iter().for_each(|(n, b)| std::fs::write(inner.join(n), b).unwrap());
        let set = open(outer.path(), Split::Train).unwrap();
        assert_eq!((0..5).map(|i| set.label(i)).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);

        std::fs::remove_file(inner.join("data_batch_4.bin")).unwrap();
        let e = format!("{:#}", open(outer.path(), Split::Train).unwrap_err());
        assert!(e.contains("data_batch_4.bin: cannot read"), "{e}");
    }

    #[test]
    fn damage_is_named() {
        let mut long = record(1);
        long.push(0);
        for (bytes, expect) in [
            (record(1)[..3000].to_vec(), "test_batch.bin: found 3000 bytes, expected a multiple of 3073"),
            (long, "found 3074 bytes"),
            (vec![], "found 0 bytes"),
            ([record(1), record(10)].concat(), "record 1: found label 10, expected 0 to 9"),
        ] {
            let dir = folder(&[("test_batch.bin", bytes)]);
            let e = format!("{:#}", open(dir.path(), Split::Test).unwrap_err());
            assert!(e.contains(expect), "{e}");
        }
        let none = folder(&[("data_batch_1", vec![1])]);
        let e = format!("{:#}", open(none.path(), Split::Test).unwrap_err());
        assert!(e.contains("found no CIFAR-10 batches, expected test_batch.bin"), "{e}");
    }
}
