//! Drawing through wgpu.

use anyhow::Result;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::denoiser::Lowered;

/// Draws every label's image with one plan; images come in slices of at most 16.
///
/// # Errors
/// If there is no adapter, or the engine cannot run the network.
#[cfg(feature = "wgpu")]
pub fn draw(bundle: &Bundle, lowered: &Lowered, seed: u64, labels: &[u32], null: u32, mut progress: impl FnMut(usize)) -> Result<Vec<f32>> {
    let _ = (bundle, lowered, seed, labels, null, &mut progress);
    anyhow::bail!("pending")
}

/// Without the `wgpu` feature there is no such device.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wgpu"))]
pub fn draw(_: &Bundle, _: &Lowered, _: u64, _: &[u32], _: u32, _: impl FnMut(usize)) -> Result<Vec<f32>> {
    anyhow::bail!("`--device wgpu`: this build has no wgpu; build with `--features wgpu`")
}
