//! What limbeck's trainer and page both need.
//!
//! - [`graph`]: a network is data; one definition, several interpreters.
//! - [`program`]: a sampler is data too: `Eval`, `Combine`, `Noise` on registers.
//! - [`schedule`], [`denoiser`]: the one place where noise levels and parameterisations are converted.
//! - [`bundle`]: one file is a model. [`link`]: one fragment is a picture.
//! - [`rng`]: the only source of randomness; the same bits on every machine.
//! - [`cpu`]: the interpreter on the CPU, native and wasm, with analytic gradients.
//! - `nn` (feature `candle`), `gpu` (feature `wgpu`): the interpreters on candle tensors and on WebGPU.

pub mod bundle;
pub mod cpu;
#[cfg(feature = "cudnn")]
pub mod cuda;
pub mod denoiser;
pub mod error;
#[cfg(feature = "wgpu")]
pub mod gpu;
pub mod graph;
pub mod link;
#[cfg(feature = "candle")]
pub mod nn;
pub mod program;
pub mod rng;
pub mod schedule;
pub mod travel;

pub use error::{Error, Result};
