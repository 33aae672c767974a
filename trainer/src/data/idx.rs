//! IDX files (the MNIST family's format), plain or gzip, and Fashion-MNIST made of them.
//!
//! An IDX file of bytes is: magic `0 0 8 rank`, `rank` big-endian u32 sizes, then the bytes, last size
//! fastest. Images are `[n, rows, columns]` with rows as stored; labels are `[n]`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use super::{InMemory, Split};

/// The classes of Fashion-MNIST in label order.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Type code of unsigned bytes in an IDX magic number.
const UNSIGNED_BYTE: u8 = 8;

fn names(split: Split) -> [&'static str; 2] {
    match split {
        Split::Train => ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
        Split::Test => ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
    }
}

/// The file `name`, or `name.gz`, in `dir`; the plain one is preferred.
fn locate(dir: &Path, name: &str) -> Option<PathBuf> {
    [dir.join(name), dir.join(format!("{name}.gz"))].into_iter().find(|p| p.is_file())
}

/// Whether a folder has the image file of either split.
pub fn present(dir: &Path) -> bool {
    [Split::Train, Split::Test].iter().any(|&s| locate(dir, names(s)[0]).is_some())
}

/// Reads one IDX file of bytes: sizes and contents. `.gz` is unpacked on the way.
///
/// Memory grows only with what the file really holds, whatever its header claims.
///
/// # Errors
/// A wrong magic number, a damaged gzip stream, fewer or more bytes than the header says.
pub fn read(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
    let file = BufReader::with_capacity(1 << 16, file);
    let packed = path.extension().is_some_and(|e| e == "gz");
    if packed { decode(MultiGzDecoder::new(file), rank) } else { decode(file, rank) }
        .with_context(|| format!("{}: not a sound IDX file", path.display()))
}

fn decode(mut from: impl Read, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut head = Vec::new();
    let expected_head = 4 + 4 * rank;
    from.by_ref().take(expected_head as u64).read_to_end(&mut head).context("cannot read the header")?;
    if let Some(magic) = head.first_chunk::<4>() {
        let expected = [0, 0, UNSIGNED_BYTE, rank as u8];
        if *magic != expected {
            let hex = |m: [u8; 4]| format!("{:#010x}", u32::from_be_bytes(m));
            bail!("magic number: found {}, expected {}", hex(*magic), hex(expected));
        }
    }
    if head.len() < expected_head {
        bail!("header: found {} bytes, expected {expected_head}", head.len());
    }
    let sizes: Vec<usize> = head[4..].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]) as usize).collect();
    let Some(expected) = sizes.iter().try_fold(1usize, |a, &b| a.checked_mul(b)) else {
        bail!("sizes: found {sizes:?}, expected a product that fits in memory");
    };
    let mut bytes = Vec::new();
    // One byte more than expected tells a file that is too long from one that ends in time.
    let limit = (expected as u64).saturating_add(1);
    from.take(limit).read_to_end(&mut bytes).context("cannot read the contents")?;
    if bytes.len() > expected {
        bail!("contents: found more than {expected} bytes, expected {expected} for sizes {sizes:?}");
    }
    if bytes.len() < expected {
        bail!("contents: found {} bytes, expected {expected} for sizes {sizes:?} (truncated?)", bytes.len());
    }
    Ok((sizes, bytes))
}

/// Fashion-MNIST from its IDX files in `dir`.
///
/// # Errors
/// A missing or damaged file, images and labels of different number, images that are not 28x28, or a
/// label above 9.
pub fn fashion_mnist(dir: &Path, split: Split) -> Result<InMemory> {
    let [images, labels] = names(split);
    let find = |name: &str| {
        locate(dir, name).with_context(|| format!("{}: found neither {name} nor {name}.gz, expected one of them", dir.display()))
    };
    let (images, labels) = (find(images)?, find(labels)?);
    let (sizes, pixels) = read(&images, 3)?;
    let (_, label_bytes) = read(&labels, 1)?;
    if sizes[1..] != [28, 28] {
        bail!("{}: found images of {}x{}, expected 28x28", images.display(), sizes[1], sizes[2]);
    }
    if sizes[0] != label_bytes.len() {
        bail!(
            "{}: found {} labels, expected {}, the number of images in {}",
            labels.display(),
            label_bytes.len(),
            sizes[0],
            images.display()
        );
    }
    let label_values = label_bytes.into_iter().map(u32::from).collect();
    let classes = FASHION_CLASSES.map(String::from).to_vec();
    InMemory::new([1, sizes[1], sizes[2]], pixels, label_values, classes)
        .with_context(|| format!("{} with {}", images.display(), labels.display()))
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, fetch};
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, sizes.len() as u8];
        sizes.iter().for_each(|s| out.extend(s.to_be_bytes()));
        out.extend(bytes);
        out
    }
    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut e = GzEncoder::new(Vec::new(), Compression::default());
        e.write_all(bytes).unwrap();
        e.finish().unwrap()
    }
    fn pixels(n: usize) -> Vec<u8> {
        (0..n * 784).map(|i| (i * 31 % 256) as u8).collect()
    }
    /// A folder with a good training split of three images, some files replaced.
    fn folder(replace: &[(&str, Option<Vec<u8>>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        put("train-images-idx3-ubyte", &idx(&[3, 28, 28], &pixels(3)));
        put("train-labels-idx1-ubyte.gz", &gz(&idx(&[3], &[7, 0, 9])));
        for (name, bytes) in replace {
            match bytes {
                Some(b) => put(name, b),
                None => std::fs::remove_file(dir.path().join(name)).unwrap(),
            }
        }
        dir
    }

    #[test]
    fn reads_plain_and_gzip() {
        let dir = folder(&[]);
        let set = fashion_mnist(dir.path(), Split::Train).unwrap();
        assert_eq!((set.len(), set.shape(), set.classes().len()), (3, [1, 28, 28], 10));
        assert_eq!([set.label(0), set.label(1), set.label(2)], [7, 0, 9]);
        let mut out = vec![0.0; 784];
        set.image(2, &mut out);
        let expected: Vec<f32> = pixels(3)[1568..].iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
        assert_eq!(out, expected);
        let packed = folder(&[("train-images-idx3-ubyte", None), ("train-images-idx3-ubyte.gz", Some(gz(&idx(&[3, 28, 28], &pixels(3)))))]);
        assert_eq!(fashion_mnist(packed.path(), Split::Train).unwrap(), set);
    }

    #[test]
    fn damage_is_named() {
        let images = "train-images-idx3-ubyte";
        let labels = "train-labels-idx1-ubyte.gz";
        let good = idx(&[3, 28, 28], &pixels(3));
        let good_gz = gz(&idx(&[3], &[1, 2, 3]));
        let cut = |v: &[u8], n: usize| v[..v.len() - n].to_vec();
        let cases: Vec<(&str, Option<Vec<u8>>, &str)> = vec![
            (images, None, "found neither train-images-idx3-ubyte nor"),
            (images, Some(idx(&[3], &[1, 2, 3])), "found 0x00000801, expected 0x00000803"),
            (images, Some(vec![0x1f, 0x8b, 8, 0, 0]), "found 0x1f8b0800, expected 0x00000803"),
            (images, Some(good[..10].to_vec()), "header: found 10 bytes, expected 16"),
            (images, Some(vec![]), "header: found 0 bytes, expected 16"),
            (images, Some(cut(&good, 5)), "found 2347 bytes, expected 2352"),
            (images, Some([good.clone(), vec![0]].concat()), "found more than 2352 bytes"),
            (images, Some(idx(&[u32::MAX, u32::MAX, u32::MAX], &[1])), "expected a product that fits"),
            (images, Some(idx(&[u32::MAX, 28, 28], &[1])), "found 1 bytes, expected 3367254359280"),
            (images, Some(idx(&[3, 14, 56], &pixels(3))), "found images of 14x56, expected 28x28"),
            (labels, Some(cut(&good_gz, 9)), "cannot read the"),
            (labels, Some(b"not gzip at all".to_vec()), "cannot read the header"),
            (labels, Some(gz(&idx(&[2], &[1, 2]))), "found 2 labels, expected 3"),
            (labels, Some(gz(&idx(&[3], &[1, 10, 2]))), "label 1: found 10, expected less than 10"),
        ];
        for (name, bytes, expect) in cases {
            let dir = folder(&[(name, bytes)]);
            let e = format!("{:#}", fashion_mnist(dir.path(), Split::Train).unwrap_err());
            assert!(e.contains(expect), "{e}\n  lacks {expect}");
            assert!(e.contains(name.trim_end_matches(".gz")), "{e}\n  does not name {name}");
        }
        let empty = folder(&[(images, Some(idx(&[0, 28, 28], &[]))), (labels, Some(gz(&idx(&[0], &[]))))]);
        let e = format!("{:#}", fashion_mnist(empty.path(), Split::Train).unwrap_err());
        assert!(e.contains("found no images"), "{e}");
    }

    /// Published figures of the real set: 6,000 (1,000) images a class, mean 0.2860, deviation 0.3530.
    #[test]
    fn real_fashion_mnist() {
        let dir = fetch::find(fetch::FASHION_MNIST).expect("this test needs the real Fashion-MNIST");
        for (split, n, first) in [(Split::Train, 60_000, [9, 0, 0]), (Split::Test, 10_000, [9, 2, 1])] {
            let set = fashion_mnist(&dir, split).unwrap();
            assert_eq!(set.len(), n);
            assert_eq!([set.label(0), set.label(1), set.label(2)], first);
            let mut counts = [0; 10];
            (0..n).for_each(|i| counts[set.label(i) as usize] += 1);
            assert_eq!(counts, [n / 10; 10]);
            let mut image = vec![0.0; 784];
            let (mut sum, mut squares) = (0.0, 0.0);
            for i in 0..n {
                set.image(i, &mut image);
                for &v in &image {
                    let unit = (f64::from(v) + 1.0) / 2.0;
                    sum += unit;
                    squares += unit * unit;
                }
            }
            let count = (n * 784) as f64;
            let mean = sum / count;
            let deviation = (squares / count - mean * mean).sqrt();
            assert!((mean - 0.286).abs() < 1e-3, "{mean}");
            assert!((deviation - 0.353).abs() < 1e-3, "{deviation}");
        }
    }
}
