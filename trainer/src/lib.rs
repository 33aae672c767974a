//! limbeck's trainer: distills diffusion models into one-step and few-step students.
//!
//! `config` says what a run is, `train` runs it, `method` holds one file a method, `eval` measures, `export` writes the one
//! file that the page opens.

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod continual;
pub mod data;
pub mod device;
pub mod eval;
pub mod export;
mod gpu;
pub mod info;
pub mod judge;
pub mod log;
pub mod method;
pub mod optim;
pub mod prune;
pub mod publish;
pub mod resident;
pub mod sample;
pub mod step;
pub mod train;

/// Keeps freed memory mapped: a training step frees and takes the same large buffers again and again, and returning them to
/// the system costs a page fault for every 4 KiB.
pub fn keep_memory_mapped() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets allocator parameters.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
