//! How good are these images: Frechet distance and class histogram on the features of a small classifier.
//!
//! The classifier is ours ([`Features`]), so distances compare among runs of this program and are not on
//! the scale of Inception's FID. Every report carries the distance of the test images as the floor.

pub mod cache;
pub mod frechet;
pub mod histogram;
pub mod nearest;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::data::Dataset;
use crate::log::{grid, npy};
pub use frechet::Moments;
pub use histogram::ClassHistogram;

/// A network that turns images into feature vectors and names their class.
pub trait Features {
    /// Length of a feature vector.
    fn dim(&self) -> usize;

    /// Features of `n` images, `[n, C, H, W]` in [-1, 1], into `feats` `[n, dim]`, and the most likely class
    /// of each into `class` `[n]`.
    ///
    /// # Errors
    /// If the images do not fit the network.
    fn features(&self, images: &[f32], n: usize, feats: &mut [f32], class: &mut [u32]) -> Result<()>;

    /// The most likely class of each of `n` images.
    ///
    /// # Errors
    /// As [`Features::features`].
    fn named(&self, images: &[f32], n: usize) -> Result<Vec<u32>> {
        let (mut feats, mut class) = (vec![0f32; n * self.dim()], vec![0; n]);
        self.features(images, n, &mut feats, &mut class)?;
        Ok(class)
    }
}

/// What the evaluation keeps of a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Mean and covariance of the features.
    pub moments: Moments,
    /// Images the classifier puts in each class.
    pub classes: Vec<u64>,
}

/// Called after each batch with (which set, its images done, its images in all).
pub type OnProgress<'a> = dyn Fn(&str, usize, usize) + 'a;

/// What to evaluate, and against what.
pub struct Request<'a> {
    /// The feature network.
    pub features: &'a dyn Features,
    /// What identifies the network and its weights (its bundle's SHA-256): part of the cache's key.
    pub features_id: &'a str,
    /// Names of the network's classes.
    pub classes: &'a [String],
    /// The training set: the reference.
    pub train: &'a dyn Dataset,
    /// The test set, for the floor.
    pub test: Option<&'a dyn Dataset>,
    /// Where statistics of the two sets are kept between calls.
    pub cache: Option<&'a Path>,
    /// The images, `[n, C, H, W]` in [-1, 1] with the training set's shape.
    pub images: &'a [f32],
    /// The label that was asked for, for each image.
    pub labels: Option<&'a [u32]>,
    /// Wall time of drawing the images, where known.
    pub sampling_seconds: Option<f64>,
    /// Images in one call of the network.
    pub batch: usize,
    /// Told of the progress through each set.
    pub on_progress: Option<&'a OnProgress<'a>>,
}

/// The result, as `limbeck eval` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Frechet distance of the images from the training set.
    pub fd: f64,
    /// The same for the test set: what real images get. A fair floor if their number is like `count`.
    pub fd_floor: Option<f64>,
    /// Images in each class, by the classifier's word.
    pub class_histogram: ClassHistogram,
    /// Entropy of the class histogram in nats; ln(number of classes) at most.
    pub entropy: f64,
    /// Average distance of the class histogram from the training set's: half the sum of |p - q|.
    pub class_distance: f64,
    /// Kullback-Leibler divergence of the class histogram from the training set's, in nats.
    pub class_kld: f64,
    /// Total variance of the features over the training set's: 1 as varied as the data, 0 all alike.
    pub spread: f64,
    /// Share of images whose class is the label that was asked for.
    pub accuracy: Option<f64>,
    /// Number of images.
    pub count: usize,
    /// Wall time of drawing the images.
    pub sampling_seconds: Option<f64>,
    /// Wall time of this evaluation.
    pub seconds: f64,
}

/// Evaluates images against a training set.
///
/// The images are first rounded to bytes, as saving them would and as the data are: a network must not be
/// told apart by what no picture shows.
///
/// # Errors
/// Fewer than two images, a length that does not fit the training set's shape, numbers that are not finite,
/// labels of another number, a class without a name, or the network's own errors.
pub fn report(request: &Request<'_>) -> Result<Report> {
    let began = Instant::now();
    let shape = request.train.shape();
    let size: usize = shape.iter().product();
    if request.images.is_empty() || !request.images.len().is_multiple_of(size) {
        bail!("images: found {} numbers, expected images of shape {shape:?}", request.images.len());
    }
    let count = request.images.len() / size;
    if count < 2 {
        bail!("images: found {count}, expected at least 2 for a covariance");
    }
    if let Some(at) = request.images.iter().position(|v| !v.is_finite()) {
        bail!("image {}: found {}, expected finite numbers", at / size, request.images[at]);
    }
    if let Some(labels) = request.labels.filter(|l| l.len() != count) {
        bail!("labels: found {}, expected one for each of {count} images", labels.len());
    }

    let mut predicted = Vec::with_capacity(count);
    let images = stats_of(
        request,
        "images",
        count,
        |i, out| {
            for (o, &v) in out.iter_mut().zip(&request.images[i * size..]) {
                *o = f32::from(grid::byte(v)) / 127.5 - 1.0;
            }
        },
        |class| predicted.extend_from_slice(class),
    )?;
    let train = dataset_stats(request, "training set", request.train)?;
    let fd_floor = match request.test {
        Some(test) if test.shape() != shape => {
            bail!("test set: found shape {:?}, expected {shape:?}", test.shape())
        }
        Some(test) => {
            let test = dataset_stats(request, "test set", test)?;
            Some(frechet::distance(&test.moments, &train.moments)?)
        }
        None => None,
    };
    let accuracy = request.labels.map(|labels| {
        let right = labels.iter().zip(&predicted).filter(|(a, b)| a == b).count();
        right as f64 / count as f64
    });
    let histogram = ClassHistogram::new(request.classes, &images.classes)?;
    let reference = ClassHistogram::new(request.classes, &train.classes)?;
    let variance = train.moments.total_variance();
    if variance <= 0.0 {
        bail!("training set: found features without any variance, expected some");
    }
    Ok(Report {
        fd: frechet::distance(&images.moments, &train.moments)?,
        fd_floor,
        entropy: histogram.entropy(),
        class_distance: histogram.distance(&reference),
        class_kld: reference.divergence(&histogram),
        class_histogram: histogram,
        spread: images.moments.total_variance() / variance,
        accuracy,
        count,
        sampling_seconds: request.sampling_seconds,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Statistics of a data set, from the cache if it has them.
///
/// # Errors
/// As [`report`]. A cache that cannot be read or written only costs time.
fn dataset_stats(request: &Request<'_>, name: &str, set: &dyn Dataset) -> Result<Stats> {
    let compute = || stats_of(request, name, set.len(), |i, out| set.image(i, out), |_| ());
    match request.cache {
        Some(dir) => {
            let sizes = (request.features.dim(), request.classes.len());
            cache::stats(dir, &cache::key(request.features_id, set), sizes, compute)
        }
        None => compute(),
    }
    .with_context(|| format!("cannot evaluate the {name}"))
}

/// Sends `count` images through the network in batches.
fn stats_of(
    request: &Request<'_>,
    name: &str,
    count: usize,
    fill: impl Fn(usize, &mut [f32]),
    mut on_classes: impl FnMut(&[u32]),
) -> Result<Stats> {
    let size: usize = request.train.shape().iter().product();
    let dim = request.features.dim();
    let batch = request.batch.clamp(1, count.max(1));
    let mut stats = Stats { moments: Moments::new(dim), classes: vec![0; request.classes.len()] };
    let (mut images, mut feats, mut class) = (vec![0.0; batch * size], vec![0.0; batch * dim], vec![0; batch]);
    for first in (0..count).step_by(batch) {
        let n = batch.min(count - first);
        for (k, out) in images[..n * size].chunks_exact_mut(size).enumerate() {
            fill(first + k, out);
        }
        let (feats, class) = (&mut feats[..n * dim], &mut class[..n]);
        request.features.features(&images[..n * size], n, feats, class)?;
        stats.moments.push(feats)?;
        for &c in class.iter() {
            let Some(slot) = stats.classes.get_mut(c as usize) else {
                bail!("feature network: found class {c}, expected less than {}", request.classes.len());
            };
            *slot += 1;
        }
        on_classes(class);
        if let Some(f) = request.on_progress {
            f(name, first + n, count);
        }
    }
    Ok(stats)
}

/// Images of a `.npy` file (`limbeck eval --samples FILE.npy`), f32 `[n, C, H, W]` in [-1, 1], for `shape` =
/// [C, H, W].
///
/// # Errors
/// Another shape, or numbers clearly on another scale (such as 0 to 255, or all in 0 to 1).
pub fn read_samples(path: &Path, shape: [usize; 3]) -> Result<Vec<f32>> {
    let (found, data) = npy::read(path)?;
    let [c, h, w] = shape;
    if found.len() != 4 || found[1..] != shape {
        bail!("{}: found shape {found:?}, expected [n, {c}, {h}, {w}]", path.display());
    }
    let (low, high) = data.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    // Samples overshoot a little; a wrong scale is far off.
    if !data.is_empty() && (low < -8.0 || high > 8.0 || low >= 0.0) {
        bail!("{}: found values in [{low}, {high}], expected [-1, 1]", path.display());
    }
    Ok(data)
}

#[cfg(test)]
mod tests;
