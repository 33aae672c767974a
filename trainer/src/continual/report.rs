//! What a model draws of the classes that it has been taught so far.

use crate::data::{self, DataSpec, Split};
use crate::judge::{Judge, Measured};
use crate::log::grid;
use crate::sample::{self, Request};
use anyhow::Result;
use limbeck_shared::bundle::Bundle;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Seed of evaluations and pictures.
const SEED: u64 = 0;
/// Images of each class in a picture.
const ROWS: usize = 3;

/// One task, done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its number, from 1.
    pub task: usize,
    /// Names of the classes it brought.
    pub classes: Vec<String>,
    /// Training images of this task.
    pub images: u64,
    /// Seconds of one training step, everything that it draws included.
    pub seconds_a_step: f64,
    /// As `limbeck eval`, against the images of all classes so far; none if nothing was to be measured.
    pub evaluation: Option<serde_json::Value>,
    /// Of a classifier that learned from this sequence's replay: which part of the test images of all classes so far it names rightly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier_accuracy: Option<f64>,
}

impl TaskReport {
    /// Writes it as JSON.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        crate::log::write_whole(file, serde_json::to_string_pretty(self)?.as_bytes())
    }
}

/// How models are measured.
pub struct Measure<'a> {
    /// The classifier.
    pub features: &'a Path,
    /// Images to draw; 0: nothing is measured.
    pub count: usize,
}

impl Measure<'_> {
    /// Measures a model against the images of the classes `seen`, and writes a picture: a column for each class in the order in
    /// which they were learned, with the first images that the classifier names so; a class that is not drawn stays dark.
    ///
    /// # Errors
    /// If the classifier or the images cannot be opened, or do not fit the model.
    pub fn task(&self, bundle: &Bundle, data: &DataSpec, seen: &[u32], picture: &Path) -> Result<Option<Measured>> {
        let shape = bundle.meta.image.shape();
        if self.count == 0 {
            let images = sample::draw(bundle, &Request::plain(ROWS * 10, SEED), |_| {})?;
            grid::save(picture, &images, shape, grid::Layout { columns: 10, upscale: 2 })?;
            return Ok(None);
        }
        let known = DataSpec::Classes { classes: seen.to_vec(), of: Box::new(data.clone()) };
        let points = shape[1] * shape[2] == 1;
        let judge = match points {
            true => Judge::points(data::open(&known, Split::Train)?, Some(data::open(&known, Split::Test)?))?,
            false => Judge::open(self.features, &known)?,
        };
        let (measured, images) = judge.model_and_images(bundle, &Request::plain(self.count, SEED))?;
        let chosen = if points { images } else { columns(&images, &judge.named(&images)?, seen, shape.iter().product()) };
        grid::save(picture, &chosen, shape, grid::Layout { columns: seen.len(), upscale: 2 })?;
        Ok(Some(measured))
    }
}

/// The first [`ROWS`] images of each class, row by row.
fn columns(images: &[f32], named: &[u32], seen: &[u32], len: usize) -> Vec<f32> {
    let mut out = vec![-1.0; ROWS * seen.len() * len];
    for (column, class) in seen.iter().enumerate() {
        let of_class = named.iter().enumerate().filter(|(_, c)| *c == class).take(ROWS);
        for (row, (k, _)) in of_class.enumerate() {
            let at = (row * seen.len() + column) * len;
            out[at..at + len].copy_from_slice(&images[k * len..(k + 1) * len]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_classes_in_their_order() {
        let images = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let out = columns(&images, &[2, 0, 2, 2, 2, 7], &[7, 2, 1], 1);
        assert_eq!(out, [0.6, 0.1, -1.0, -1.0, 0.3, -1.0, -1.0, 0.4, -1.0]);
    }
}
