//! Data sets: images with labels behind one trait.
//!
//! Image sets are kept as `u8` in memory and handed out as f32 in [-1, 1]; the 2-D toys are drawn on
//! demand from `shared::rng`, keyed by index, so their size is notional.

pub mod cifar;
pub mod fetch;
pub mod folder;
pub mod idx;
pub mod subset;
pub mod toy;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

pub use toy::Toy;

/// A finite, indexable set of images (or 2-D points) with labels.
pub trait Dataset: Send + Sync {
    /// How many images there are; never zero.
    fn len(&self) -> usize;

    /// Whether there are none. A data set that opened is never empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of one image, [channels, height, width].
    fn shape(&self) -> [usize; 3];

    /// Class names by label; empty when the set has no classes.
    fn classes(&self) -> &[String];

    /// Writes image `i`, channel-major, into `out`, whose length is the product of [`Dataset::shape`].
    /// Pixels lie in [-1, 1]; 2-D toys may leave that range.
    ///
    /// # Panics
    /// If `i >= len()` or `out` has another length: both are mistakes of the caller.
    fn image(&self, i: usize, out: &mut [f32]);

    /// Label of image `i`, an index into [`Dataset::classes`]; 0 when there are no classes.
    ///
    /// # Panics
    /// If `i >= len()`.
    fn label(&self, i: usize) -> u32;
}

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The images to learn from.
    Train,
    /// The images held out.
    Test,
}

impl Split {
    /// "train" or "test".
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// Which data set, as the `[data]` table of a run's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSpec {
    /// Fashion-MNIST, four IDX files, plain or `.gz`. `[1,28,28]`, 10 classes.
    FashionMnist {
        /// Folder of the files; without it the places of [`fetch::find`] are searched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dir: Option<PathBuf>,
    },
    /// CIFAR-10, binary version. `[3,32,32]`, 10 classes.
    Cifar10 {
        /// Folder of the files; without it the places of [`fetch::find`] are searched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dir: Option<PathBuf>,
    },
    /// A folder of PNG files, flat or with one sub-folder a class; see [`folder`].
    Folder {
        /// The folder.
        dir: PathBuf,
    },
    /// Some classes of another data set.
    Classes {
        /// Their labels in the whole set.
        classes: Vec<u32>,
        /// The whole set.
        of: Box<DataSpec>,
    },
    /// A 2-D distribution with a closed form. `[2,1,1]`.
    Toy {
        /// Which distribution.
        toy: Toy,
        /// Notional number of points.
        #[serde(default = "toy_count")]
        count: usize,
        /// Seed of the points.
        #[serde(default)]
        seed: u64,
    },
}

fn toy_count() -> usize {
    100_000
}

impl DataSpec {
    /// The data set that lies in a folder, told by its file names: IDX files of Fashion-MNIST, binary
    /// batches of CIFAR-10, else a folder of PNG files.
    ///
    /// # Errors
    /// If `dir` is not a folder.
    pub fn detect(dir: &Path) -> Result<DataSpec> {
        if !dir.is_dir() {
            let found = if dir.exists() { "a file" } else { "nothing" };
            bail!("{}: found {found}, expected a folder with a data set", dir.display());
        }
        let dir = dir.to_path_buf();
        Ok(if idx::present(&dir) {
            DataSpec::FashionMnist { dir: Some(dir) }
        } else if cifar::folder_of(&dir).is_some() {
            DataSpec::Cifar10 { dir: Some(dir) }
        } else {
            DataSpec::Folder { dir }
        })
    }

    /// The same data set read from another folder (`--data DIR`). Toys stay as they are: they have none.
    pub fn with_dir(self, dir: &Path) -> DataSpec {
        let dir = dir.to_path_buf();
        match self {
            DataSpec::FashionMnist { .. } => DataSpec::FashionMnist { dir: Some(dir) },
            DataSpec::Cifar10 { .. } => DataSpec::Cifar10 { dir: Some(dir) },
            DataSpec::Folder { .. } => DataSpec::Folder { dir },
            DataSpec::Classes { classes, of } => DataSpec::Classes { classes, of: Box::new(of.with_dir(&dir)) },
            toy @ DataSpec::Toy { .. } => toy,
        }
    }
}

/// Calls of [`open`] so far.
static OPENED: AtomicUsize = AtomicUsize::new(0);

/// How many times this process has opened a data set: what a data-free method must leave at 0.
pub fn opened() -> usize {
    OPENED.load(Ordering::SeqCst)
}

/// Opens one split of a data set and reads it into memory.
///
/// # Errors
/// Missing or damaged files; each error names the file, what was found and what was expected.
pub fn open(spec: &DataSpec, split: Split) -> Result<Box<dyn Dataset>> {
    OPENED.fetch_add(1, Ordering::SeqCst);
    let place = |name: &str, dir: &Option<PathBuf>| match dir {
        Some(dir) => Ok(dir.clone()),
        None => fetch::find(name),
    };
    Ok(match spec {
        DataSpec::FashionMnist { dir } => {
            let dir = place(fetch::FASHION_MNIST, dir)?;
            Box::new(idx::fashion_mnist(&dir, split).context("cannot open Fashion-MNIST")?)
        }
        DataSpec::Cifar10 { dir } => {
            let dir = place(fetch::CIFAR_10, dir)?;
            Box::new(cifar::open(&dir, split).context("cannot open CIFAR-10")?)
        }
        DataSpec::Folder { dir } => Box::new(folder::open(dir, split).context("cannot open a folder of images")?),
        DataSpec::Classes { classes, of } => Box::new(subset::Subset::new(open(of, split)?, classes)?),
        DataSpec::Toy { toy, count, seed } => Box::new(toy::Points::new(toy.clone(), *count, *seed, split)?),
    })
}

/// Images of one shape held as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct InMemory {
    shape: [usize; 3],
    pixels: Vec<u8>,
    labels: Vec<u32>,
    classes: Vec<String>,
}

impl InMemory {
    /// From channel-major pixels `[n, C, H, W]` and labels `[n]` (indices into `classes`, or all 0
    /// without classes).
    ///
    /// # Errors
    /// If there are no images, the lengths do not fit, or a label has no class.
    pub fn new(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>, classes: Vec<String>) -> Result<InMemory> {
        let n = labels.len();
        if n == 0 {
            bail!("found no images, expected at least one");
        }
        let expected = shape.iter().try_fold(n, |a, &b| a.checked_mul(b));
        if expected != Some(pixels.len()) || pixels.is_empty() {
            bail!("found {} pixels, expected {n} images of shape {shape:?}", pixels.len());
        }
        let bound = classes.len().max(1) as u32;
        if let Some(i) = labels.iter().position(|&l| l >= bound) {
            bail!("label {i}: found {}, expected less than {bound}", labels[i]);
        }
        Ok(InMemory { shape, pixels, labels, classes })
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn shape(&self) -> [usize; 3] {
        self.shape
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn image(&self, i: usize, out: &mut [f32]) {
        let size: usize = self.shape.iter().product();
        assert_eq!(out.len(), size, "image buffer: shape {:?}", self.shape);
        for (o, &v) in out.iter_mut().zip(&self.pixels[i * size..(i + 1) * size]) {
            *o = f32::from(v) / 127.5 - 1.0;
        }
    }
    fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_span_minus_one_to_one() {
        let set = InMemory::new([1, 1, 3], vec![0, 255, 51], vec![0], vec![]).unwrap();
        let mut out = [9.0; 3];
        set.image(0, &mut out);
        assert_eq!(out, [-1.0, 1.0, 51.0 / 127.5 - 1.0]);
        assert_eq!((set.len(), set.is_empty(), set.label(0)), (1, false, 0));
    }

    #[test]
    fn contradictory_parts_are_refused() {
        let names = vec!["a".to_string()];
        for (pixels, labels, expect) in [
            (vec![], vec![], "no images"),
            (vec![0; 5], vec![0, 0], "found 5 pixels, expected 2 images of shape [1, 1, 3]"),
            (vec![0; 6], vec![0, 1], "label 1: found 1, expected less than 1"),
        ] {
            let e = InMemory::new([1, 1, 3], pixels, labels, names.clone()).unwrap_err();
            assert!(e.to_string().contains(expect), "{e}");
        }
    }

    #[test]
    fn spec_reads_from_toml_and_refuses_unknown_keys() {
        let read = |s: &str| toml::from_str::<DataSpec>(s);
        assert_eq!(read("kind = 'fashion-mnist'").unwrap(), DataSpec::FashionMnist { dir: None });
        assert_eq!(read("kind = 'cifar10'\ndir = '/d'").unwrap(), DataSpec::Cifar10 { dir: Some("/d".into()) });
        let toy = read("kind = 'toy'\ntoy = { shape = 'checkerboard' }").unwrap();
        assert_eq!(toy, DataSpec::Toy { toy: Toy::Checkerboard {}, count: 100_000, seed: 0 });
        let text = toml::to_string(&toy).unwrap();
        assert_eq!(read(&text).unwrap(), toy);
        assert!(read("kind = 'folder'").unwrap_err().to_string().contains("dir"));
        assert!(read("kind = 'fashion-mnist'\nfolder = 'x'").unwrap_err().to_string().contains("folder"));
        assert!(read("kind = 'toy'\ntoy = { shape = 'checkerboard', std = 1.0 }").is_err());
        assert!(read("kind = 'mnist'").unwrap_err().to_string().contains("fashion-mnist"));
    }

    #[test]
    fn folders_are_told_by_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let d = dir.path();
        assert_eq!(DataSpec::detect(d).unwrap(), DataSpec::Folder { dir: d.into() });
        std::fs::write(d.join("data_batch_1.bin"), b"").unwrap();
        assert_eq!(DataSpec::detect(d).unwrap(), DataSpec::Cifar10 { dir: Some(d.into()) });
        std::fs::write(d.join("t10k-images-idx3-ubyte.gz"), b"").unwrap();
        assert_eq!(DataSpec::detect(d).unwrap(), DataSpec::FashionMnist { dir: Some(d.into()) });
        let e = DataSpec::detect(&d.join("absent")).unwrap_err().to_string();
        assert!(e.contains("absent: found nothing, expected a folder"), "{e}");
        let moved = DataSpec::FashionMnist { dir: None }.with_dir(d);
        assert_eq!(moved, DataSpec::FashionMnist { dir: Some(d.into()) });
    }
}
