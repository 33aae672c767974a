//! The interpreter on WebGPU: the browser's on the web, Vulkan in native tests.
//!
//! [`Engine`] opens a device under WebGPU's default limits and without optional features. [`Engine::load`] uploads networks;
//! [`GpuModel::plan`] turns a whole lowered sampler program into one list of dispatches on one statically planned arena, with all
//! buffers, bind groups and pipelines made then; [`GpuPlan::run`] uploads noise and labels, records one encoder with one compute
//! pass, submits once and reads back once. Nothing is created on the device after planning ([`Engine::counters`] says so).
//!
//! [`GpuModel::verify`] compares what a device computes with the CPU interpreter before anyone looks at it.
//!
//! Weights are stored in half precision and everything is computed in f32, in an order that does not depend on timing: two runs
//! on one device agree bit for bit. Another device may round differently.

mod arena;
mod convolve;
mod copy;
mod dispatch;
mod engine;
mod forward;
mod fuse;
mod kernels;
mod layout;
mod memory;
mod model;
mod plan;
mod prepare;
mod probe;
mod program;
mod record;
mod steps;
mod sync;
#[cfg(test)]
mod tests;
mod tiles;
mod weights;

pub use engine::{AdapterInfo, Counters, Engine, Options, WeightStorage};
pub use forward::ForwardPlan;
pub use kernels::Kernel;
pub use model::GpuModel;
pub use program::GpuPlan;
#[cfg(not(target_arch = "wasm32"))]
pub use sync::block_on;
pub use tiles::Occupancy;
