//! Networks on the device.

use super::engine::Engine;
use super::forward::ForwardPlan;
use super::fuse::{Fusion, fuse};
use super::prepare::{MAX_BATCH, prepare};
use super::program::GpuPlan;
use super::weights::{self, Place};
use crate::denoiser::Lowered;
use crate::error::{Error, Result};
use crate::graph::{Graph, Op};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The networks of a model, uploaded. Clones share them.
#[derive(Clone)]
pub struct GpuModel {
    pub(super) engine: Engine,
    pub(super) nets: Arc<[Net]>,
    /// Kernels compiled when the device was last compared with the CPU; `u64::MAX`: never.
    pub(super) verified: Arc<AtomicU64>,
}

pub(super) struct Net {
    pub graph: Graph,
    pub fusion: Fusion,
    pub places: Vec<Place>,
    pub weights: wgpu::Buffer,
    /// For each node: stored Fourier frequencies.
    pub frequencies: Vec<Vec<f32>>,
}

impl Engine {
    /// Uploads networks: `thetas[k]` holds the parameters of `graphs[k]`.
    ///
    /// # Errors
    /// [`Error::Call`] if the lengths do not agree; [`Error::Gpu`] if a network is larger than a device must allow (128 MiB), holds
    /// a parameter beyond half precision, or the device failed.
    pub fn load(&self, graphs: &[Graph], thetas: &[Vec<f32>]) -> Result<GpuModel> {
        if graphs.len() != thetas.len() || graphs.is_empty() {
            return Err(Error::call(
                "networks",
                format!("{} graphs, {} thetas", graphs.len(), thetas.len()),
                "as many of one as of the other, at least one",
            ));
        }
        let mut nets = Vec::with_capacity(graphs.len());
        for (graph, theta) in graphs.iter().zip(thetas) {
            let fusion = fuse(graph);
            let packed = weights::pack(graph, theta, &fusion, self.0.options.storage)?;
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            let weights = self.buffer("weights", packed.bytes.len() as u64, usage, &packed.bytes)?;
            let frequencies = graph.nodes.iter().map(|node| match (&node.op, node.params.first()) {
                (Op::TimeEmbed { .. }, Some(&p)) => theta[graph.params[p].range()].to_vec(),
                _ => vec![],
            });
            let frequencies = frequencies.collect();
            nets.push(Net { graph: graph.clone(), fusion, places: packed.places, weights, frequencies });
        }
        self.check()?;
        Ok(GpuModel { engine: self.clone(), nets: nets.into(), verified: Arc::new(AtomicU64::new(u64::MAX)) })
    }
}

impl GpuModel {
    /// The engine that holds the networks.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Prepares a lowered program for `batch` images: memory, bind groups, pipelines and the list of dispatches.
    ///
    /// # Errors
    /// [`Error::Call`] if the program does not fit the networks; [`Error::Gpu`] if `batch` images need more memory than a device
    /// must allow (then plan fewer and run more often) or the device failed.
    pub fn plan(&self, lowered: &Lowered, batch: usize) -> Result<GpuPlan> {
        GpuPlan::new(self, lowered, batch)
    }

    /// The largest number of images, at most `at_most`, for which [`GpuModel::plan`] finds memory. Makes nothing on the device.
    ///
    /// # Errors
    /// As [`GpuModel::plan`] for one image.
    pub fn largest_batch(&self, lowered: &Lowered, at_most: usize) -> Result<usize> {
        let fits = |batch| prepare(self, lowered, batch);
        fits(1)?;
        let (mut low, mut high) = (1, at_most.clamp(1, MAX_BATCH) + 1);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if fits(middle).is_ok() { low = middle } else { high = middle }
        }
        Ok(low)
    }

    /// Prepares single calls of network `net` for `batch` images, each with its own times.
    ///
    /// # Errors
    /// As [`GpuModel::plan`].
    pub fn forward_plan(&self, net: usize, batch: usize) -> Result<ForwardPlan> {
        ForwardPlan::new(self, net, batch)
    }

    pub(super) fn net(&self, net: usize) -> Result<&Net> {
        self.nets.get(net).ok_or_else(|| Error::call("network", net, format!("one of {}", self.nets.len())))
    }
}
