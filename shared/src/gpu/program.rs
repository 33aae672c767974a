//! A whole sampler program on the device.

use super::layout::{map_quads, pack, unpack};
use super::memory::{label_quads, labels_at};
use super::model::GpuModel;
use super::prepare::prepare;
use super::record::Recording;
use crate::denoiser::Lowered;
use crate::error::{Error, Result};
use crate::graph::Shape;
use crate::program::{Label, NoiseSource};
use crate::rng::{self, Stream};

/// A program ready to run, again and again, for one number of images.
pub struct GpuPlan {
    recording: Recording,
    batch: usize,
    shape: Shape,
    /// Results of a run: the images, and what is kept besides.
    results: usize,
    /// Streams of the program's noise, in order.
    streams: Vec<u32>,
    /// Labels that the networks know; 0: they ask for none.
    classes: [usize; 2],
    /// What a run uploads: labels, null labels, noise.
    upload: Vec<f32>,
    packed: Vec<f32>,
}

impl GpuPlan {
    pub(super) fn new(model: &GpuModel, lowered: &Lowered, batch: usize) -> Result<GpuPlan> {
        let p = prepare(model, lowered, batch)?;
        let results = p.results.0.len();
        let recording = Recording::new(model, &p.dispatches, p.total, p.results, &p.contents)?;
        let mut upload = p.contents;
        upload.truncate(p.upload);
        Ok(GpuPlan { recording, batch, shape: p.shape, results, streams: p.streams, classes: p.classes, upload, packed: vec![] })
    }

    /// Images of one run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Shape of one image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Streams of the noise that [`GpuPlan::run`] takes, in order.
    pub fn streams(&self) -> &[u32] {
        &self.streams
    }

    /// Dispatches of one run.
    pub fn dispatches(&self) -> usize {
        self.recording.dispatches()
    }

    /// Bytes of its activations on the device.
    pub fn bytes(&self) -> u64 {
        self.recording.bytes()
    }

    /// Draws images: `noise[k]` holds standard normals `[batch, c, h, w]` for the program's k-th noise, `labels` one label for each
    /// image (may be empty for unconditional networks), `null_label` what [`Label::Null`] stands for. The result is
    /// `[batch, c, h, w]`, and as much again for each kept register.
    ///
    /// # Errors
    /// [`Error::Call`] if an argument does not fit; [`Error::Gpu`] if the device fails.
    pub async fn run(&mut self, noise: &[impl AsRef<[f32]>], labels: &[u32], null_label: u32) -> Result<Vec<f32>> {
        let len = self.batch * self.shape.iter().product::<usize>();
        if noise.len() != self.streams.len() {
            return Err(Error::call("noise", noise.len(), format!("{} tensors, one for each noise of the program", self.streams.len())));
        }
        if let Some(bad) = noise.iter().find(|n| n.as_ref().len() != len) {
            return Err(Error::call("noise", format!("{} values", bad.as_ref().len()), len));
        }
        // Labels lie as given, null (one after the other, for calls on both), and null again where a vec4 begins.
        write_labels(labels, self.batch, self.classes[0], &mut self.upload)?;
        if self.classes[1] > 0 {
            let null = vec![null_label; self.batch];
            write_labels(&null, self.batch, self.classes[1], &mut self.upload[self.batch..])?;
            let alone = 4 * labels_at(self.batch, Label::Null, 1) as usize;
            write_labels(&null, self.batch, self.classes[1], &mut self.upload[alone..])?;
        }
        let size = 4 * self.batch * map_quads(self.shape);
        for (source, to) in noise.iter().zip(self.upload[4 * label_quads(self.batch)..].chunks_exact_mut(size)) {
            pack(source.as_ref(), self.shape, to);
        }
        let (shape, results) = (self.shape, self.results);
        let read = |floats: &[f32]| {
            let mut out = vec![0f32; len * results];
            for (from, to) in floats.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
                unpack(from, shape, to);
            }
            out
        };
        self.recording.run(&self.upload, read).await
    }

    /// Draws image `first_index`, `first_index + 1`, ... of a seed: the images that [`crate::program::run`] draws, up to rounding.
    ///
    /// # Errors
    /// As [`GpuPlan::run`].
    pub async fn sample(&mut self, seed: u64, first_index: u64, labels: &[u32], null_label: u32) -> Result<Vec<f32>> {
        let mut noise = |stream, k: usize, image: &mut [f32]| {
            rng::normals(seed, Stream::Sample(stream), first_index.wrapping_add(k as u64), image);
        };
        self.sample_from(&mut noise, labels, null_label).await
    }

    /// As [`GpuPlan::sample`], with noise from anywhere.
    ///
    /// # Errors
    /// As [`GpuPlan::run`].
    pub async fn sample_from(&mut self, noise: &mut NoiseSource<'_>, labels: &[u32], null_label: u32) -> Result<Vec<f32>> {
        let pixels = self.shape.iter().product::<usize>();
        let len = self.batch * pixels;
        let mut buffer = std::mem::take(&mut self.packed);
        buffer.resize(len * self.streams.len(), 0.0);
        for (stream, out) in self.streams.iter().zip(buffer.chunks_exact_mut(len)) {
            out.chunks_exact_mut(pixels).enumerate().for_each(|(k, image)| noise(*stream, k, image));
        }
        let noise: Vec<&[f32]> = buffer.chunks_exact(len).collect();
        let result = self.run(&noise, labels, null_label).await;
        self.packed = buffer;
        result
    }
}

/// Writes labels as floats: exact below 2^24, and no bit pattern that a device would flush.
pub(super) fn write_labels(labels: &[u32], batch: usize, classes: usize, to: &mut [f32]) -> Result<()> {
    if classes == 0 && labels.is_empty() {
        return Ok(());
    }
    if labels.len() != batch {
        return Err(Error::call("labels", labels.len(), format!("{batch}, one for each image")));
    }
    if classes > 0
        && let Some(bad) = labels.iter().find(|l| **l as usize >= classes)
    {
        return Err(Error::call("label", bad, format!("below {classes}")));
    }
    to.iter_mut().zip(labels).for_each(|(to, label)| *to = *label as f32);
    Ok(())
}
