//! Where a run's tensors live: the CPU, or one CUDA card. Chosen once a process, before the first tensor.

use anyhow::{Context, Result, bail};
use candle_core::Device;
use std::sync::OnceLock;

static DEVICE: OnceLock<Device> = OnceLock::new();

/// Takes `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// If the name is none of these, this build has no CUDA, or the card cannot be opened.
pub fn choose(name: &str) -> Result<()> {
    let device = open(name)?;
    if !DEVICE.get_or_init(|| device.clone()).same_device(&device) {
        bail!("--device {name}: found another device in use, expected one a process");
    }
    Ok(())
}

fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let card = match name.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
        None => None,
    };
    let Some(card) = card else {
        bail!("--device {name}: expected `cpu`, `cuda` or `cuda:N`");
    };
    if !cfg!(feature = "cuda") {
        bail!("--device {name}: this build has no CUDA; build with --features cuda,cudnn");
    }
    let device = Device::new_cuda(card).with_context(|| format!("--device {name}: the card cannot be opened"))?;
    one_stream(&device)?;
    Ok(device)
}

/// Everything runs on one stream, whose order is order enough: two events for every tensor would cost more than most kernels.
#[cfg(feature = "cuda")]
fn one_stream(device: &Device) -> Result<()> {
    // SAFETY: no second stream is ever made.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn one_stream(_: &Device) -> Result<()> {
    Ok(())
}

/// The device; the CPU unless another was chosen.
pub fn device() -> &'static Device {
    DEVICE.get_or_init(|| Device::Cpu)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names() {
        assert!(super::open("cpu").unwrap().is_cpu());
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda1", ""] {
            let e = super::open(wrong).unwrap_err().to_string();
            assert!(e.contains("expected `cpu`"), "{wrong}: {e}");
        }
        if !cfg!(feature = "cuda") {
            assert!(super::open("cuda:1").unwrap_err().to_string().contains("--features cuda"));
        }
    }
}
