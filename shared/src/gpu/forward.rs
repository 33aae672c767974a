//! Single network calls, for tests and for networks that are not samplers' (classifiers).

use super::layout::{map_quads, pack, quads, time_features, unpack};
use super::model::GpuModel;
use super::plan::{Buf, plan};
use super::prepare::{MAX_BATCH, resolve};
use super::program::write_labels;
use super::record::{Recording, Resolved};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};

/// One network ready for calls on one number of images, each image with its own times.
pub struct ForwardPlan {
    model: GpuModel,
    net: usize,
    batch: usize,
    recording: Recording,
    features: Vec<NodeId>,
    /// Where times, features and the image begin, in vec4s: after the labels.
    at: Vec<u32>,
    upload: Vec<f32>,
}

impl ForwardPlan {
    pub(super) fn new(model: &GpuModel, net: usize, batch: usize) -> Result<ForwardPlan> {
        if batch == 0 || batch > MAX_BATCH {
            return Err(Error::call("batch", batch, format!("1 to {MAX_BATCH} images")));
        }
        let graph = &model.net(net)?.graph;
        let loaded = model.net(net)?;
        let images = map_quads(graph.input_shape()) + map_quads(graph.output_shape());
        model.engine.fits("images", 16 * batch as u64 * images as u64)?;
        let net_plan = plan(loaded, model.engine.occupancy(), batch, true)?;
        let mut next = batch.div_ceil(4);
        let mut place = |size: usize| {
            let at = next as u32;
            next += size;
            at
        };
        let mut at = vec![place(batch * quads(graph.times))];
        at.extend(net_plan.features.iter().map(|&n| place(batch * quads(graph.nodes[n].shape[0]))));
        at.push(place(batch * map_quads(graph.input_shape())));
        let upload = next;
        let output = next as u32;
        let size = batch * map_quads(graph.output_shape());
        let scratch = output + size as u32;
        model.engine.fits("activations", 16 * (u64::from(scratch) + u64::from(net_plan.scratch)))?;
        let address = |buf| match buf {
            Buf::Scratch(k) => scratch + net_plan.offsets[k],
            Buf::Input => at[at.len() - 1],
            Buf::Output => output,
            Buf::Times => at[0],
            Buf::Features(k) => at[1 + k],
            Buf::Labels => 0,
        };
        let dispatches: Vec<Resolved> = net_plan.dispatches.iter().map(|d| resolve(d, net, address)).collect();
        let arena = u64::from(scratch) + u64::from(net_plan.scratch);
        let recording = Recording::new(model, &dispatches, arena, (vec![u64::from(output)], size as u64), &[])?;
        let upload = vec![0f32; 4 * upload];
        Ok(ForwardPlan { model: model.clone(), net, batch, recording, features: net_plan.features, at, upload })
    }

    /// See [`Recording::profile`].
    #[cfg(test)]
    pub fn profile(&self, rounds: usize) -> Vec<(super::kernels::Kernel, [u32; 3], f64)> {
        self.recording.profile(rounds)
    }

    /// Dispatches of one call.
    pub fn dispatches(&self) -> usize {
        self.recording.dispatches()
    }

    /// The network's output `[batch, ...]` for images `x` `[batch, c, h, w]`, `times` `[batch, slots]` and one label for each
    /// image (none for unconditional networks).
    ///
    /// # Errors
    /// [`Error::Call`] if an argument does not fit; [`Error::Gpu`] if the device fails.
    pub async fn forward(&mut self, x: &[f32], times: &[f32], labels: &[u32]) -> Result<Vec<f32>> {
        let net = self.model.net(self.net)?;
        let (graph, batch) = (&net.graph, self.batch);
        let (from, to) = (graph.input_shape(), graph.output_shape());
        let count = |shape: [usize; 3]| batch * shape.iter().product::<usize>();
        if x.len() != count(from) {
            return Err(Error::call("x", format!("{} values", x.len()), count(from)));
        }
        if times.len() != batch * graph.times {
            return Err(Error::call("times", times.len(), format!("{} for each of {batch} images", graph.times)));
        }
        write_labels(labels, batch, graph.classes, &mut self.upload)?;
        let at: Vec<usize> = self.at.iter().map(|a| 4 * *a as usize).collect();
        for image in 0..batch {
            let times = &times[image * graph.times..][..graph.times];
            self.upload[at[0] + 4 * image * quads(graph.times)..][..graph.times].copy_from_slice(times);
            for (&node, &start) in self.features.iter().zip(&at[1..]) {
                let op = &graph.nodes[node].op;
                let Op::TimeEmbed { slot, dim, .. } = op else { continue };
                let to = &mut self.upload[start + 4 * image * quads(*dim)..][..*dim];
                time_features(op, times[*slot], &net.frequencies[node], to);
            }
        }
        pack(x, from, &mut self.upload[at[at.len() - 1]..]);
        let read = |result: &[f32]| {
            let mut out = vec![0f32; count(to)];
            unpack(result, to, &mut out);
            out
        };
        self.recording.run(&self.upload, read).await
    }
}
