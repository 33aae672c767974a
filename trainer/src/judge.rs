//! `limbeck eval`: our classifier, the real images, and what is to be measured, put together.

use crate::data::{self, DataSpec, Dataset, Split};
use crate::eval::{self, Features, Report, nearest::Nearest};
use crate::log::npy;
use crate::sample::{self, Request};
use crate::train::read_bundle;
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::Bundle;
use limbeck_shared::cpu;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A classifier bundle as a feature network.
struct Classifier {
    net: cpu::Net,
    dim: usize,
    classes: usize,
}

impl Features for Classifier {
    fn dim(&self) -> usize {
        self.dim
    }
    fn features(&self, images: &[f32], n: usize, feats: &mut [f32], class: &mut [u32]) -> Result<()> {
        let mut logits = vec![0f32; n * self.classes];
        self.net.forward_features(images, n, &mut logits, feats)?;
        for (c, row) in class.iter_mut().zip(logits.chunks_exact(self.classes)) {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            *c = best.map_or(0, |b| b.0 as u32);
        }
        Ok(())
    }
}

impl Classifier {
    /// Opens a classifier's bundle; none for other models.
    fn new(bundle: &Bundle) -> Result<Option<Classifier>> {
        let graph = bundle.graphs[0].clone();
        let Some(node) = graph.features else { return Ok(None) };
        let (dim, classes) = (graph.nodes[node].shape.iter().product(), graph.output_shape()[0]);
        Ok(Some(Classifier { dim, classes, net: cpu::Net::new(graph, bundle.thetas[0].clone())? }))
    }
}

/// Which part of the images a classifier names as they are labelled.
///
/// # Errors
/// If the bundle is no classifier, or one of other images.
pub fn accuracy(classifier: &Bundle, data: &dyn Dataset) -> Result<f64> {
    let net = Classifier::new(classifier)?.context("found a model without features, expected a classifier")?;
    let (found, expected) = (data.shape(), classifier.meta.image.shape());
    if found != expected {
        bail!("found images {found:?}, expected {expected:?}, which the classifier was trained on");
    }
    let (len, all, mut right) = (expected.iter().product::<usize>(), (0..data.len()).collect::<Vec<_>>(), 0);
    for part in all.chunks(256) {
        let mut images = vec![0f32; part.len() * len];
        images.chunks_exact_mut(len).zip(part).for_each(|(image, &i)| data.image(i, image));
        let named = net.named(&images, part.len())?;
        right += named.iter().zip(part).filter(|(class, i)| **class == data.label(**i)).count();
    }
    Ok(right as f64 / all.len() as f64)
}

/// The measure: a classifier and the images it compares with.
pub struct Judge {
    features: Box<dyn Features>,
    id: String,
    names: Vec<String>,
    train: Box<dyn Dataset>,
    test: Option<Box<dyn Dataset>>,
    cache: PathBuf,
}

/// One line of a table: how the images were made, and how good they are.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The model's name, or the file's.
    pub model: String,
    /// Sampler, steps and guidance, for models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// Steps of the sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Network calls an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evals: Option<usize>,
    /// Multiply-accumulates an image, over all calls, each of its own network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Guidance weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Noise levels at which it holds; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_levels: Option<[f64; 2]>,
    /// The figures.
    #[serde(flatten)]
    pub report: Report,
}

impl Measured {
    /// Name of this line in a bundle's record.
    pub fn key(&self) -> String {
        match (&self.sampler, self.steps) {
            (Some(s), Some(k)) => format!("{s}-{k}"),
            _ => self.model.clone(),
        }
    }
}

/// Where statistics of data sets are kept.
fn cache() -> PathBuf {
    std::env::var_os("LIMBECK_CACHE").map_or_else(|| Path::new("runs").join("cache"), PathBuf::from)
}

impl Judge {
    /// Opens the classifier and the real images.
    ///
    /// # Errors
    /// Names the file that is missing or does not fit.
    pub fn open(features: &Path, data: &DataSpec) -> Result<Judge> {
        Judge::over(features, data::open(data, Split::Train)?, Some(data::open(data, Split::Test)?))
    }

    /// Opens the classifier; images are compared with `train`, and `test` is the floor, where there is one.
    ///
    /// # Errors
    /// As [`Judge::open`].
    pub fn over(features: &Path, train: Box<dyn Dataset>, test: Option<Box<dyn Dataset>>) -> Result<Judge> {
        let bundle = read_bundle(features)?;
        let Some(features) = Classifier::new(&bundle)? else {
            bail!("`{}`: found a model without features, expected a classifier (limbeck train features-fashion)", features.display());
        };
        Ok(Judge { features: Box::new(features), id: bundle.sha256, names: bundle.meta.classes, train, test, cache: cache() })
    }

    /// For points, which need no classifier: `fd` is the Frechet distance of the points themselves.
    ///
    /// # Errors
    /// If they have no classes.
    pub fn points(train: Box<dyn Dataset>, test: Option<Box<dyn Dataset>>) -> Result<Judge> {
        let features = Box::new(Nearest::new(train.as_ref())?);
        Ok(Judge { features, id: "nearest class mean".into(), names: train.classes().to_vec(), train, test, cache: cache() })
    }

    /// The class that the classifier names each image by, of `[n, C, H, W]` in [-1, 1].
    ///
    /// # Errors
    /// If the images do not fit the classifier.
    pub fn named(&self, images: &[f32]) -> Result<Vec<u32>> {
        let mut named = vec![];
        for part in images.chunks(256 * self.train.shape().iter().product::<usize>()) {
            let n = part.len() / self.train.shape().iter().product::<usize>();
            named.extend(self.features.named(part, n)?);
        }
        Ok(named)
    }

    fn report(&self, images: &[f32], labels: Option<&[u32]>, sampling_seconds: Option<f64>) -> Result<Report> {
        eval::report(&eval::Request {
            features: self.features.as_ref(),
            features_id: &self.id,
            classes: &self.names,
            train: self.train.as_ref(),
            test: self.test.as_deref(),
            cache: Some(&self.cache),
            images,
            labels,
            sampling_seconds,
            batch: 256,
            on_progress: None,
        })
    }

    /// Draws from a model and measures.
    ///
    /// # Errors
    /// If the model cannot draw what is asked.
    pub fn model(&self, bundle: &Bundle, request: &Request) -> Result<Measured> {
        Ok(self.model_and_images(bundle, request)?.0)
    }

    /// As [`Judge::model`]; with the images `[N, C, H, W]` in [-1, 1].
    ///
    /// # Errors
    /// As [`Judge::model`].
    pub fn model_and_images(&self, bundle: &Bundle, request: &Request) -> Result<(Measured, Vec<f32>)> {
        let (sampler, steps, guidance) = bundle.meta.resolve(request.sampler, request.steps, request.guidance)?;
        let program = bundle.draw_program(request.sampler, request.steps, request.guidance)?;
        let start = Instant::now();
        let mut said = Instant::now();
        let mut images = sample::draw(bundle, request, |done| {
            if said.elapsed().as_secs() >= 10 {
                eprintln!("drawing with {sampler}, {steps} steps: {done} of {}", request.count);
                said = Instant::now();
            }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        bundle.meta.image.clamp(&mut images);
        let labels = sample::labels(&bundle.meta, request.labels, request.count);
        let report = self.report(&images, (!bundle.meta.classes.is_empty()).then_some(&labels), Some(seconds))?;
        let measured = Measured {
            model: bundle.meta.name.clone(),
            sampler: Some(sampler.to_string()),
            steps: Some(steps),
            evals: Some(program.evals()),
            macs: Some(program.cost(&bundle.graphs)),
            guidance: Some(guidance.weight),
            guidance_levels: guidance.levels.filter(|_| guidance.weight != 1.0),
            report,
        };
        Ok((measured, images))
    }

    /// Measures a file of images.
    ///
    /// # Errors
    /// If the file is no `.npy` of `[N, C, H, W]` with the data's shape.
    pub fn file(&self, path: &Path) -> Result<Measured> {
        let (shape, images) = npy::read(path)?;
        if shape.len() != 4 || shape[1..] != self.train.shape() {
            bail!("`{}`: found shape {shape:?}, expected [N, {:?}]", path.display(), self.train.shape());
        }
        let report = self.report(&images, None, None).with_context(|| format!("`{}`", path.display()))?;
        Ok(Measured {
            model: path.display().to_string(),
            sampler: None,
            steps: None,
            evals: None,
            macs: None,
            guidance: None,
            guidance_levels: None,
            report,
        })
    }
}
