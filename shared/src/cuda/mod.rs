//! Networks on a CUDA card: convolutions by cuDNN, matrix products by cuBLAS, the rest by the kernels of `kernels.cu`.
//!
//! A network is one operation on the card as it is on the CPU ([`crate::nn::Network`]): [`Engine::forward`] keeps what
//! [`Engine::backward`] needs, gradients are added where they belong, and candle sees one node. Maps are f32 `[n, c, h, w]`.
//! [`Precision::F32`] and two-part bf16 multiply in f32, one-part bf16 in TF32, whose mantissa is three bits longer than bf16's.

mod backward;
mod conv;
mod forward;
mod gemm;

use crate::cpu::Precision;
use crate::graph::Graph;
use candle_core::cuda_backend::cudarc::cublas::CudaBlas;
use candle_core::cuda_backend::cudarc::cudnn::Cudnn;
use candle_core::cuda_backend::cudarc::driver::{
    self, CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, DevicePtr, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc;
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{CudaStorage, Error, Layout, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub use backward::Gradients;
pub use forward::{Asked, Tape};

const THREADS: u32 = 256;

/// What a card needs to run networks; one a thread and card, since cuDNN's handle stays in its thread.
pub struct Engine {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    functions: RefCell<HashMap<&'static str, Rc<CudaFunction>>>,
    cudnn: Arc<Cudnn>,
    blas: Arc<CudaBlas>,
    convolutions: RefCell<HashMap<conv::Key, Rc<conv::Convolution>>>,
    /// cuDNN's scratch memory, as large as the largest asked for so far.
    scratch: RefCell<Option<CudaSlice<u8>>>,
}

thread_local! {
    static ENGINES: RefCell<HashMap<DeviceId, Rc<Engine>>> = RefCell::default();
}

/// A network's parameters on the card.
#[derive(Clone, Copy)]
pub struct Theta<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// As many as the graph has.
    pub values: &'a CudaView<'a, f32>,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
enum Arg {
    /// An address on the card, 0 for none.
    At(u64),
    Count(u32),
    Number(f32),
    Flag(bool),
}

impl Engine {
    /// This thread's engine for a card.
    ///
    /// # Errors
    /// If the kernels cannot be compiled, or the card's libraries refuse.
    pub fn of(device: &CudaDevice) -> Result<Rc<Engine>> {
        if let Some(engine) = ENGINES.with_borrow(|engines| engines.get(&device.id()).cloned()) {
            return Ok(engine);
        }
        let stream = device.cuda_stream();
        keep_memory(&stream)?;
        let options = nvrtc::CompileOptions { arch: None, options: vec![architecture(&stream)?], ..Default::default() };
        let ptx = nvrtc::compile_ptx_with_opts(include_str!("kernels.cu"), options).map_err(Error::wrap)?;
        let engine = Rc::new(Engine {
            module: stream.context().load_module(ptx).map_err(Error::wrap)?,
            cudnn: Cudnn::new(stream.clone()).map_err(Error::wrap)?,
            stream,
            functions: RefCell::default(),
            blas: device.cublas_handle(),
            convolutions: RefCell::default(),
            scratch: RefCell::default(),
        });
        ENGINES.with_borrow_mut(|engines| engines.insert(device.id(), engine.clone()));
        Ok(engine)
    }

    /// The values of a contiguous tensor on this card.
    ///
    /// # Errors
    /// If it is not contiguous or not f32.
    pub fn values<'a>(&self, storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, f32>> {
        let (start, end) = layout.contiguous_offsets().ok_or_else(|| Error::msg("a contiguous tensor was expected"))?;
        Ok(storage.as_cuda_slice::<f32>()?.slice(start..end))
    }

    /// Values of their own.
    ///
    /// # Errors
    /// If the card has no memory left.
    pub fn copy_of(&self, values: &CudaView<'_, f32>) -> Result<CudaSlice<f32>> {
        self.stream.clone_dtod(values).map_err(Error::wrap)
    }

    /// Memory for `len` values, not written yet.
    fn memory(&self, len: usize) -> Result<CudaSlice<f32>> {
        // SAFETY: every reader runs after a kernel on the same stream has written all of it.
        unsafe { self.stream.alloc(len) }.map_err(Error::wrap)
    }

    fn zeros(&self, len: usize) -> Result<CudaSlice<f32>> {
        self.stream.alloc_zeros(len).map_err(Error::wrap)
    }

    fn at(&self, slice: &CudaSlice<f32>) -> Arg {
        Arg::At(slice.device_ptr(&self.stream).0)
    }

    /// Runs a kernel with this many blocks of `THREADS` threads.
    fn blocks(&self, name: &'static str, blocks: u32, args: &[Arg]) -> Result<()> {
        let known = self.functions.borrow().get(name).cloned();
        let function = match known {
            Some(function) => function,
            None => {
                let function = Rc::new(self.module.load_function(name).map_err(Error::wrap)?);
                self.functions.borrow_mut().insert(name, function.clone());
                function
            }
        };
        let flags: Vec<i32> = args.iter().map(|a| i32::from(matches!(a, Arg::Flag(true)))).collect();
        let mut launch = self.stream.launch_builder(&function);
        for (arg, flag) in args.iter().zip(&flags) {
            match arg {
                Arg::At(v) => launch.arg(v),
                Arg::Count(v) => launch.arg(v),
                Arg::Number(v) => launch.arg(v),
                Arg::Flag(_) => launch.arg(flag),
            };
        }
        let config = driver::LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those that the kernel of this name declares, in its order; sizes are checked where shapes are.
        unsafe { launch.launch(config) }.map_err(Error::wrap)?;
        Ok(())
    }

    /// Runs a kernel with a thread for each of `count` values, which is its argument after `args`, and then `rest`.
    fn each(&self, name: &'static str, count: usize, args: &[Arg], rest: &[Arg]) -> Result<()> {
        let count = self.count(count)?;
        let args = [args, &[Arg::Count(count)], rest].concat();
        self.blocks(name, count.div_ceil(THREADS), &args)
    }

    /// Runs a kernel with a warp for each of `rows` rows.
    fn rows(&self, name: &'static str, rows: usize, args: &[Arg]) -> Result<()> {
        self.blocks(name, self.count(rows * 32)?.div_ceil(THREADS), args)
    }

    /// The kernels count in 32 bits.
    fn count(&self, count: usize) -> Result<u32> {
        if count >= 1 << 31 {
            candle_core::bail!("`batch`: found a map of {count} values, expected fewer than {} on a card: fewer images a pass", 1u32 << 31);
        }
        Ok(count as u32)
    }

    fn add_onto(&self, y: &CudaSlice<f32>, x: &CudaSlice<f32>, len: usize) -> Result<()> {
        self.each("accumulate", len, &[self.at(y), self.at(x)], &[])
    }
}

impl Theta<'_> {
    /// Where a parameter begins.
    fn at(&self, engine: &Engine, param: usize) -> Arg {
        let (base, _) = self.values.device_ptr(&engine.stream);
        Arg::At(base + 4 * self.graph.params[param].offset as u64)
    }

    fn part(&self, param: usize) -> CudaView<'_, f32> {
        self.values.slice(self.graph.params[param].range())
    }
}

fn size(n: usize) -> Arg {
    Arg::Count(n as u32)
}

/// Whether convolutions may multiply in TF32.
fn reduced(precision: Precision) -> bool {
    matches!(precision, Precision::Bf16(crate::cpu::conv::half::Parts::One))
}

/// Freed memory stays with the process: by default the driver takes it back at every synchronisation.
fn keep_memory(stream: &CudaStream) -> Result<()> {
    use driver::sys;
    let context = stream.context();
    let mut pool = std::ptr::null_mut();
    let mut limit = u64::MAX;
    // SAFETY: the device is the context's, and the attribute is the address of 64 bits.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().map_err(Error::wrap)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut limit).cast()).result().map_err(Error::wrap)
    }
}

/// The compiler's option for this card.
fn architecture(stream: &CudaStream) -> Result<String> {
    let (major, minor) = stream.context().compute_capability().map_err(Error::wrap)?;
    Ok(format!("--gpu-architecture=compute_{major}{minor}"))
}
