//! A list of dispatches with everything they need on the device.

use super::engine::{Engine, PARAM_BYTES, Tally};
use super::kernels::Kernel;
use super::model::GpuModel;
use super::sync::oneshot;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// A dispatch with addresses filled in.
pub struct Resolved {
    pub kernel: Kernel,
    /// Which network's weights.
    pub net: usize,
    pub words: Vec<u32>,
    pub groups: [u32; 3],
    pub macs: u64,
}

struct Command {
    pipeline: usize,
    net: usize,
    offset: u32,
    groups: [u32; 3],
    /// A submit ends after this dispatch.
    cut: bool,
}

/// The arena, the parameters and the dispatches.
pub struct Recording {
    engine: Engine,
    arena: wgpu::Buffer,
    staging: wgpu::Buffer,
    bind_groups: Vec<wgpu::BindGroup>,
    pipelines: Vec<wgpu::ComputePipeline>,
    commands: Vec<Command>,
    #[cfg(test)]
    kernels: Vec<Kernel>,
    /// Where each result begins in the arena, and the length of one, in bytes.
    results: (Vec<u64>, u64),
    /// A read-back was begun whose future may have been dropped.
    mapping: bool,
}

impl Recording {
    /// Makes everything. `arena` and `results` (where each begins, length of one) count vec4s; `contents` are the arena's first
    /// floats.
    pub fn new(model: &GpuModel, dispatches: &[Resolved], arena: u64, results: (Vec<u64>, u64), contents: &[f32]) -> Result<Recording> {
        use wgpu::BufferUsages as Usage;
        let engine = model.engine.clone();
        let arena =
            engine.buffer("activations", 16 * arena, Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC, bytemuck::cast_slice(contents))?;
        let results: (Vec<u64>, u64) = (results.0.iter().map(|at| 16 * at).collect(), 16 * results.1);
        let all = results.1 * results.0.len() as u64;
        engine.fits("results", all)?;
        let staging = engine.buffer("results", all, Usage::MAP_READ | Usage::COPY_DST, &[])?;

        // Dispatches with the same parameters (every evaluation of a sampler repeats most of them) share one slot.
        let mut slots: HashMap<&[u32], u32> = HashMap::new();
        let mut params: Vec<u32> = Vec::new();
        let mut kernels: Vec<Kernel> = Vec::new();
        let mut commands = Vec::with_capacity(dispatches.len());
        let mut macs = 0u64;
        for d in dispatches {
            let slot = *slots.entry(&d.words).or_insert_with(|| {
                let slot = (params.len() * 4) as u32;
                params.extend_from_slice(&d.words);
                params.resize(params.len().next_multiple_of(PARAM_BYTES as usize / 4), 0);
                slot
            });
            let pipeline = kernels.iter().position(|k| *k == d.kernel).unwrap_or_else(|| {
                kernels.push(d.kernel);
                kernels.len() - 1
            });
            macs += d.macs;
            let cut = macs >= engine.0.options.macs_per_submit;
            if cut {
                macs = 0;
            }
            commands.push(Command { pipeline, net: d.net, offset: slot, groups: d.groups, cut });
        }
        let bytes: &[u8] = bytemuck::cast_slice(&params);
        let uniforms = engine.buffer("parameters", (bytes.len() as u64).max(PARAM_BYTES), Usage::UNIFORM | Usage::COPY_DST, bytes)?;
        let bind_groups = model.nets.iter().map(|net| {
            Tally::add(&engine.0.tally.bind_groups, 1);
            let size = std::num::NonZeroU64::new(PARAM_BYTES);
            let uniform = wgpu::BufferBinding { buffer: &uniforms, offset: 0, size };
            engine.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &engine.0.layout,
                entries: &[
                    wgpu::BindGroupEntry { binding: 0, resource: arena.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 1, resource: net.weights.as_entire_binding() },
                    wgpu::BindGroupEntry { binding: 2, resource: wgpu::BindingResource::Buffer(uniform) },
                ],
            })
        });
        let bind_groups = bind_groups.collect();
        let pipelines = kernels.iter().map(|k| engine.pipeline(*k)).collect();
        engine.check()?;
        Ok(Recording {
            engine,
            arena,
            staging,
            bind_groups,
            pipelines,
            commands,
            #[cfg(test)]
            kernels,
            results,
            mapping: false,
        })
    }

    /// How many dispatches one run makes.
    pub fn dispatches(&self) -> usize {
        self.commands.len()
    }

    /// Bytes of the arena.
    pub fn bytes(&self) -> u64 {
        self.arena.size()
    }

    /// Writes `contents` to the beginning of the arena, runs every dispatch, and hands the results' floats, one
    /// after another, to `read`.
    pub async fn run<T>(&mut self, contents: &[f32], read: impl FnOnce(&[f32]) -> T) -> Result<T> {
        self.engine.check()?;
        if self.mapping {
            self.staging.unmap();
            self.mapping = false;
        }
        let inner = &self.engine.0;
        inner.queue.write_buffer(&self.arena, 0, bytemuck::cast_slice(contents));
        let mut rest = self.commands.as_slice();
        while !rest.is_empty() {
            let n = rest.iter().position(|c| c.cut).map_or(rest.len(), |i| i + 1);
            let (now, later) = rest.split_at(n);
            rest = later;
            let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.encode(&mut encoder, now);
            if rest.is_empty() {
                for (i, at) in self.results.0.iter().enumerate() {
                    encoder.copy_buffer_to_buffer(&self.arena, *at, &self.staging, i as u64 * self.results.1, self.results.1);
                }
            }
            inner.queue.submit([encoder.finish()]);
            Tally::add(&inner.tally.submits, 1);
        }

        let all = self.results.1 * self.results.0.len() as u64;
        let (sender, receiver) = oneshot();
        self.mapping = true;
        self.staging.map_async(wgpu::MapMode::Read, 0..all, move |r| sender.send(r));
        // On the web the event loop completes the mapping.
        #[cfg(not(target_arch = "wasm32"))]
        inner.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| Error::Gpu(e.to_string()))?;
        let mapped = receiver.await;
        self.engine.check()?;
        mapped.map_err(|e| Error::Gpu(e.to_string()))?;
        Tally::add(&self.engine.0.tally.readbacks, 1);
        let view = self.staging.get_mapped_range(0..all).map_err(|e| Error::Gpu(e.to_string()))?;
        let value = match bytemuck::try_cast_slice(&view) {
            Ok(floats) => read(floats),
            // A mapping that is not aligned for floats has to be copied once.
            Err(_) => read(&bytemuck::pod_collect_to_vec::<u8, f32>(&view)),
        };
        drop(view);
        self.staging.unmap();
        self.mapping = false;
        Ok(value)
    }

    /// Milliseconds of each dispatch, alone in its submit, the best of `rounds`; on what the arena holds.
    #[cfg(test)]
    pub fn profile(&self, rounds: usize) -> Vec<(Kernel, [u32; 3], f64)> {
        let inner = &self.engine.0;
        let once = |c: &Command| {
            let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            self.encode(&mut encoder, std::slice::from_ref(c));
            let begin = std::time::Instant::now();
            inner.queue.submit([encoder.finish()]);
            inner.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            begin.elapsed().as_secs_f64() * 1e3
        };
        let best = |c: &Command| (0..rounds).map(|_| once(c)).fold(f64::INFINITY, f64::min);
        self.commands.iter().map(|c| (self.kernels[c.pipeline], c.groups, best(c))).collect()
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, commands: &[Command]) {
        let tally = &self.engine.0.tally;
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let mut bound = usize::MAX;
        for c in commands {
            if bound != c.pipeline {
                pass.set_pipeline(&self.pipelines[c.pipeline]);
                bound = c.pipeline;
            }
            pass.set_bind_group(0, &self.bind_groups[c.net], &[c.offset]);
            pass.dispatch_workgroups(c.groups[0], c.groups[1], c.groups[2]);
        }
        Tally::add(&tally.passes, 1);
        Tally::add(&tally.dispatches, commands.len() as u64);
    }
}
