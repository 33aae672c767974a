//! Going on with a bundle that exists: new images in, a bundle out that draws old and new classes, and what the old ones lost.

use super::{Command, trained};
use crate::config::{self, MethodConfig};
use crate::data::{self, DataSpec, Dataset, InMemory, Split};
use crate::judge::Judge;
use crate::log::grid;
use crate::method::continual::{Noised, times};
use crate::method::{noise, tensor};
use crate::sample::{self, Request};
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::Bundle;
use limbeck_shared::cpu::Exec;
use limbeck_shared::nn::Network;
use limbeck_shared::rng::Stream;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Images that losses are measured on.
const PROBES: usize = 512;
/// Seed of what the old model draws for the comparison: another than training's and evaluation's.
const SEED: u64 = 77;

/// What was gained and lost.
#[derive(Clone, Debug, Serialize)]
pub struct Further {
    /// The new bundle.
    pub model: String,
    /// Names of classes that only the new model knows; none for models without classes.
    pub new_classes: Vec<String>,
    /// The old model's training loss on images that it drew itself, from this seed.
    pub old_images_before: f64,
    /// The new model's on the same images, times and noises.
    pub old_images_after: f64,
    /// The new model's on the new images.
    pub new_images_after: f64,
    /// `limbeck eval` of the old and the new model against a set of which 1/n are the new images and the others the old model's; none
    /// if nothing was to be measured.
    pub evaluation: Option<[serde_json::Value; 2]>,
}

/// Runs `limbeck continual --from`.
///
/// # Errors
/// If a file does not fit; `None` if a signal stopped it.
pub(super) fn run(c: &Command, from: &Path) -> Result<Option<Further>> {
    let dir = c.data.as_ref().context("`--data`: found none, expected the folder of the new images")?;
    let mut config = config::resolve(c.preset.as_deref().unwrap_or("continual"), &c.set)?;
    let spec = DataSpec::detect(dir)?;
    let new = data::open(&spec, Split::Train)?;
    let old = crate::train::read_bundle(from)?;
    if new.shape() != old.meta.image.shape() {
        bail!("`--data`: found images of {:?}, expected the model's {:?}", new.shape(), old.meta.image.shape());
    }
    let mut names = new.classes().to_vec();
    if names.is_empty() {
        names.push(dir.file_name().map_or("new".into(), |n| n.to_string_lossy().into_owned()));
    }
    let MethodConfig::Continual(method) = &mut config.method else { bail!("`method.kind`: found another, expected continual") };
    if method.task == 1 {
        // As many shares as the new classes would have among all; one of two where the old ones are not counted.
        method.task = (old.meta.classes.len() as f64 / names.len() as f64).round().max(1.0) as usize + 1;
    }
    let share = 1.0 / method.task as f64;
    method.classes = names;
    config.teacher = Some(from.to_path_buf());
    config.data = Some(spec);
    let run = c.run.clone().unwrap_or_else(|| Path::new("runs").join(&config.name));
    let out = c.out.clone().unwrap_or_else(|| run.join("model.safetensors"));
    let (seed, batch) = (config.seed, config.batch);
    let Some(model) = trained(config, &run, &out)? else { return Ok(None) };

    let count = c.count.max(PROBES);
    let mut drawn = sample::draw(&old, &Request::plain(count, SEED), |_| {})?;
    old.meta.image.clamp(&mut drawn);
    let labels = sample::labels(&old.meta, sample::Labels::Each, PROBES);
    let len = old.meta.image.values();
    let probes = &drawn[..PROBES * len];
    let fresh: Vec<usize> = (0..PROBES).map(|k| k * new.len() / PROBES).collect();
    let (mut fresh_images, mut fresh_labels) = (vec![0f32; PROBES * len], vec![]);
    for (k, (&pick, image)) in fresh.iter().zip(fresh_images.chunks_exact_mut(len)).enumerate() {
        new.image(pick, image);
        let name = new.classes().get(new.label(pick) as usize);
        let known = name.and_then(|n| model.meta.classes.iter().position(|c| c == n)).or(model.meta.classes.len().checked_sub(1));
        fresh_labels.push(known.map_or(k as u32, |k| k as u32));
    }
    let further = Further {
        model: out.display().to_string(),
        new_classes: model.meta.classes[old.meta.classes.len()..].to_vec(),
        old_images_before: loss(&old, probes, &labels, seed, batch)?,
        old_images_after: loss(&model, probes, &labels, seed, batch)?,
        new_images_after: loss(&model, &fresh_images, &fresh_labels, seed, batch)?,
        evaluation: match c.count {
            0 => None,
            _ => {
                let judge = Judge::over(&c.features, Box::new(mixture(&drawn, new.as_ref(), share)?), None)?;
                let value = |b: &Bundle| Ok::<_, anyhow::Error>(serde_json::to_value(judge.model(b, &Request::plain(c.count, 0))?)?);
                Some([value(&old)?, value(&model)?])
            }
        },
    };
    let images = sample::draw(&model, &Request::plain(60, 0), |_| {})?;
    grid::save(&run.join("after.png"), &images, model.meta.image.shape(), grid::Layout { columns: 10, upscale: 2 })?;
    crate::log::write_whole(&run.join("further.json"), serde_json::to_string_pretty(&further)?.as_bytes())?;
    Ok(Some(further))
}

/// The old model's images, and as many new ones that they are `share` of all. As bytes, as pictures are.
fn mixture(drawn: &[f32], new: &dyn Dataset, share: f64) -> Result<InMemory> {
    let len = new.shape().iter().product::<usize>();
    let old = drawn.len() / len;
    let wanted = ((old as f64 * share / (1.0 - share)).round() as usize).max(1);
    let mut image = vec![0f32; len];
    let mut pixels: Vec<u8> = drawn.iter().map(|&v| grid::byte(v)).collect();
    for k in 0..wanted {
        new.image(k * new.len() / wanted % new.len(), &mut image);
        pixels.extend(image.iter().map(|&v| grid::byte(v)));
    }
    InMemory::new(new.shape(), pixels, vec![0; old + wanted], vec![])
}

/// The training loss of a model on images, at times and with noises that only the seed decides.
fn loss(bundle: &Bundle, images: &[f32], labels: &[u32], seed: u64, batch: usize) -> Result<f64> {
    let (spec, shape) = (bundle.meta.spec(), bundle.meta.image.shape());
    let net = Network::frozen(Arc::new(Exec::new(bundle.graphs[0].clone())?), &bundle.thetas[0], crate::device::device())?;
    let len = shape.iter().product::<usize>();
    let mut sum = 0.0;
    for (i, (part, labels)) in images.chunks(batch * len).zip(labels.chunks(batch)).enumerate() {
        let n = part.len() / len;
        let numbers = (i * batch) as u64..(i * batch + n) as u64;
        let eps = tensor(noise(seed, &numbers, shape, Stream::Eval(1)), n, shape)?;
        let t = times(&spec, seed, &numbers, Stream::Eval(2));
        let labels = if bundle.meta.classes.is_empty() { vec![] } else { labels.to_vec() };
        let (noised, target) = Noised::new(&spec, &tensor(part.to_vec(), n, shape)?, &eps, t, labels)?;
        sum += n as f64 * f64::from((noised.asked(&net, &spec)? - target)?.sqr()?.mean_all()?.to_scalar::<f32>()?);
    }
    Ok(sum / labels.len() as f64)
}
