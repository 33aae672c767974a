//! The device: opening it, its pipelines, its errors.

use super::kernels::Kernel;
use super::sync::lock;
use super::tiles::Occupancy;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How weights lie in GPU memory; activations and sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightStorage {
    /// Half precision, as in bundles.
    #[default]
    F16,
    /// Single precision: for tests that tell rounding of weights from other errors.
    F32,
}

/// How to open a device.
#[derive(Clone, Debug)]
pub struct Options {
    /// How weights are stored.
    pub storage: WeightStorage,
    /// Ask for a software adapter.
    pub fallback: bool,
    /// Multiply-accumulates after which a run is split into another submit, so that no submit approaches the seconds after which
    /// systems reset a device that seems to hang. Programs below it are one submit.
    pub macs_per_submit: u64,
    /// What the adapter wants of a dispatch; none: as it says of itself.
    pub occupancy: Option<Occupancy>,
    /// Largest storage buffer to ask for and to make, bytes; none: what every WebGPU device has.
    pub buffer_limit: Option<u64>,
}

impl Default for Options {
    fn default() -> Options {
        Options { storage: WeightStorage::F16, fallback: false, macs_per_submit: 200_000_000_000, occupancy: None, buffer_limit: None }
    }
}

/// What runs the networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The adapter's name; browsers may leave it empty.
    pub name: String,
    /// The API behind it.
    pub backend: String,
    /// A CPU pretends to be a GPU: correct, and slower than the CPU interpreter.
    pub is_fallback: bool,
}

/// What an engine has made and run since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Buffers made.
    pub buffers: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Dispatches recorded.
    pub dispatches: u64,
    /// Compute passes recorded.
    pub passes: u64,
    /// Submits.
    pub submits: u64,
    /// Read-backs.
    pub readbacks: u64,
}

#[derive(Default)]
pub(super) struct Tally {
    pub pipelines: AtomicU64,
    pub buffers: AtomicU64,
    pub bind_groups: AtomicU64,
    pub dispatches: AtomicU64,
    pub passes: AtomicU64,
    pub submits: AtomicU64,
    pub readbacks: AtomicU64,
}

impl Tally {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// A device with its pipelines. Clones share it.
#[derive(Clone)]
pub struct Engine(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: AdapterInfo,
    pub options: Options,
    pub limits: wgpu::Limits,
    pub layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    pipelines: Mutex<HashMap<Kernel, wgpu::ComputePipeline>>,
    pub tally: Tally,
    /// The first error that no call returned; sticky, since the device's state is then unknown.
    failure: Arc<Mutex<Option<String>>>,
}

/// Bytes of one dispatch's parameters: the alignment of dynamic uniform offsets under the default limits.
pub(super) const PARAM_BYTES: u64 = 256;

impl Engine {
    /// Opens an adapter and a device with WebGPU's default limits and no features.
    ///
    /// # Errors
    /// [`Error::Gpu`] if there is no adapter or it offers less.
    pub async fn new(options: Options) -> Result<Engine> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let request = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            force_fallback_adapter: options.fallback,
            ..Default::default()
        };
        let adapter = instance.request_adapter(&request).await.map_err(|e| Error::Gpu(format!("no adapter: {e}")))?;
        let info = adapter.get_info();
        let mut limits = wgpu::Limits::default();
        if let Some(limit) = options.buffer_limit {
            (limits.max_buffer_size, limits.max_storage_buffer_binding_size) = (limit, limit);
        }
        let device = wgpu::DeviceDescriptor { label: Some("limbeck"), required_limits: limits.clone(), ..Default::default() };
        let (device, queue) =
            adapter.request_device(&device).await.map_err(|e| Error::Gpu(format!("no device on `{}`: {e}", info.name)))?;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let uncaught = failure.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            lock(&uncaught).get_or_insert_with(|| e.to_string());
        }));
        let lost = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the last handle also arrives here; nobody is left to be told.
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&lost).get_or_insert_with(|| format!("the device was lost: {message}"));
            }
        });
        let info =
            AdapterInfo { name: info.name, backend: info.backend.to_string(), is_fallback: info.device_type == wgpu::DeviceType::Cpu };
        Engine::with_device(device, queue, info, options, limits, failure)
    }

    fn with_device(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: AdapterInfo,
        options: Options,
        limits: wgpu::Limits,
        failure: Arc<Mutex<Option<String>>>,
    ) -> Result<Engine> {
        let buffer = |binding, ty, has_dynamic_offset, min| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: std::num::NonZeroU64::new(min) },
            count: None,
        };
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("limbeck"),
            entries: &[
                buffer(0, storage(false), false, 16),
                buffer(1, storage(true), false, 16),
                buffer(2, wgpu::BufferBindingType::Uniform, true, PARAM_BYTES),
            ],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("limbeck"),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let (pipelines, tally) = (Mutex::default(), Tally::default());
        let inner = Inner { device, queue, info, options, limits, layout, pipeline_layout, pipelines, tally, failure };
        let engine = Engine(Arc::new(inner));
        engine.check()?;
        Ok(engine)
    }

    /// What runs the networks.
    pub fn info(&self) -> &AdapterInfo {
        &self.0.info
    }

    /// By which rules dispatches are cut.
    pub fn occupancy(&self) -> Occupancy {
        let own = if self.0.info.is_fallback { Occupancy::Narrow } else { Occupancy::Wide };
        self.0.options.occupancy.unwrap_or(own)
    }

    /// What was made and run so far.
    pub fn counters(&self) -> Counters {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let t = &self.0.tally;
        Counters {
            pipelines: get(&t.pipelines),
            buffers: get(&t.buffers),
            bind_groups: get(&t.bind_groups),
            dispatches: get(&t.dispatches),
            passes: get(&t.passes),
            submits: get(&t.submits),
            readbacks: get(&t.readbacks),
        }
    }

    /// Fails if the device has failed; it then fails for good and another engine must be opened.
    ///
    /// # Errors
    /// [`Error::Gpu`] with the device's message.
    pub fn check(&self) -> Result<()> {
        match &*lock(&self.0.failure) {
            Some(message) => Err(Error::Gpu(message.clone())),
            None => Ok(()),
        }
    }

    /// The pipeline of a kernel, compiled when first asked for.
    pub(super) fn pipeline(&self, kernel: Kernel) -> wgpu::ComputePipeline {
        let inner = &self.0;
        let compile = || {
            Tally::add(&inner.tally.pipelines, 1);
            let source = wgpu::ShaderSource::Wgsl(kernel.source(inner.options.storage).into());
            let module = inner.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(kernel.name()), source });
            inner.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.name()),
                layout: Some(&inner.pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                // The kernels write workgroup memory before they read it.
                compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() },
                cache: None,
            })
        };
        lock(&inner.pipelines).entry(kernel).or_insert_with(compile).clone()
    }

    /// Fails if a storage buffer of `size` bytes exceeds the limits that every WebGPU device has.
    pub(super) fn fits(&self, what: &str, size: u64) -> Result<()> {
        let max = self.0.limits.max_buffer_size.min(self.0.limits.max_storage_buffer_binding_size);
        if size > max {
            return Err(Error::Gpu(format!("{what}: {size} bytes needed, {max} are the most that can be relied on")));
        }
        Ok(())
    }

    /// A buffer of `size` bytes with these first contents.
    ///
    /// # Errors
    /// See [`Engine::fits`].
    pub(super) fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages, contents: &[u8]) -> Result<wgpu::Buffer> {
        self.fits(label, size)?;
        Tally::add(&self.0.tally.buffers, 1);
        let size = size.next_multiple_of(16);
        let buffer = self.0.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false });
        if !contents.is_empty() {
            self.0.queue.write_buffer(&buffer, 0, contents);
        }
        Ok(buffer)
    }
}
