//! New classes for a class-conditional model.

use crate::data::Dataset;
use crate::method::extend;
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::{Bundle, Meta};
use limbeck_shared::graph::NetworkConfig;

/// The class table of both kinds of network.
const TABLE: &str = "class_embedding.weight";

/// What a bundle says with more classes, and its weights: the rows of new classes begin as the null label's row, or as the mean of
/// all where there is none. Names that it knows already change nothing, nor do any for a model without classes.
///
/// # Errors
/// If its network cannot be built.
pub(super) fn with_classes(teacher: &Bundle, names: &[String]) -> Result<(Meta, Vec<f32>)> {
    let (mut meta, theta) = (teacher.meta.clone(), teacher.thetas[0].clone());
    let known = meta.classes.len();
    let new: Vec<String> = names.iter().filter(|n| !meta.classes.contains(n)).cloned().collect();
    if known == 0 || new.is_empty() {
        return Ok((meta, theta));
    }
    meta.classes.extend(new);
    meta.null_label = meta.null_label.map(|_| meta.classes.len() as u32);
    let rows = meta.classes.len() + usize::from(meta.null_label.is_some());
    match &mut meta.networks[0] {
        NetworkConfig::Unet(c) => c.num_class_embeds = Some(rows),
        NetworkConfig::Mlp(c) => c.num_class_embeds = Some(rows),
        NetworkConfig::Classifier(_) => bail!("`teacher`: found a classifier, expected a diffusion model"),
    }
    let (from, to) = (&teacher.graphs[0], meta.networks[0].build()?);
    let table =
        |g: &limbeck_shared::graph::Graph| g.param(TABLE).map(|p| (p.range(), p.shape[1])).context("the network has no class table");
    let ((old, dim), (wide, _)) = (table(from)?, table(&to)?);
    // All but the table is as it was; the table has other rows and is written by itself.
    let mut out = extend_but(from, &theta, &to);
    let rows_of: Vec<&[f32]> = theta[old].chunks_exact(dim).collect();
    let mean: Vec<f32> = (0..dim).map(|d| rows_of.iter().map(|r| r[d]).sum::<f32>() / rows_of.len() as f32).collect();
    let unknown = if teacher.meta.null_label.is_some() { rows_of[known] } else { &mean };
    for (k, row) in out[wide].chunks_exact_mut(dim).enumerate() {
        row.copy_from_slice(if k < known { rows_of[k] } else { unknown });
    }
    Ok((meta, out))
}

/// As [`extend`], the class table left as the graph begins it.
fn extend_but(from: &limbeck_shared::graph::Graph, theta: &[f32], to: &limbeck_shared::graph::Graph) -> Vec<f32> {
    let mut from = from.clone();
    from.params.retain(|p| p.name != TABLE);
    extend(&from, theta, to)
}

/// The model's label of each image: by the name of its class. Images without classes all have the first of `new`.
///
/// # Errors
/// If a class has no name that the model knows.
pub(super) fn of_images(labels: &[u32], data: &dyn Dataset, known: &[String], new: &[String]) -> Result<Vec<u32>> {
    let names = if data.classes().is_empty() { new } else { data.classes() };
    let place = |label: &u32| {
        let name = names.get(*label as usize).with_context(|| format!("`method.classes`: found no name for label {label}"))?;
        let at = known.iter().position(|k| k == name);
        at.map(|at| at as u32).with_context(|| format!("`method.classes`: found no {name}, expected every class of the images"))
    };
    labels.iter().map(place).collect()
}
