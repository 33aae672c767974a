//! Drawing through wgpu.

#[cfg(feature = "wgpu")]
pub use with_wgpu::draw;

#[cfg(feature = "wgpu")]
mod with_wgpu {
    use anyhow::Result;
    use limbeck_shared::bundle::Bundle;
    use limbeck_shared::denoiser::Lowered;
    use limbeck_shared::gpu::{Engine, Options, block_on};

    /// Images in one submission: the plan's memory grows with it, and progress is told between submissions.
    const SLICE: usize = 16;

    /// Draws one image for each label, and says on stderr which adapter does.
    ///
    /// # Errors
    /// If there is no adapter, the engine cannot run the network, or the adapter computes wrong values.
    pub fn draw(
        bundle: &Bundle,
        lowered: &Lowered,
        seed: u64,
        labels: &[u32],
        null: u32,
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<f32>> {
        let engine = block_on(Engine::new(Options::default()))?;
        let info = engine.info();
        eprintln!("drawing on {} ({}{})", info.name, info.backend, if info.is_fallback { ", a software adapter" } else { "" });
        let model = engine.load(&bundle.graphs, &bundle.thetas)?;
        let batch = model.largest_batch(lowered, SLICE.min(labels.len()))?;
        let mut plan = model.plan(lowered, batch)?;
        // A wrong picture is worse than none.
        block_on(model.verify(&bundle.thetas, if info.is_fallback { 1 } else { batch }))?;
        let values = bundle.meta.image.values();
        let mut out = Vec::with_capacity(labels.len() * values);
        for (i, part) in labels.chunks(batch).enumerate() {
            // The last submission is filled up with images that are dropped again.
            let mut filled = part.to_vec();
            filled.resize(batch, part[0]);
            let images = block_on(plan.sample(seed, (i * batch) as u64, &filled, null))?;
            out.extend_from_slice(&images[..part.len() * values]);
            progress(i * batch + part.len());
        }
        Ok(out)
    }
}

/// Without the `wgpu` feature there is no such device.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wgpu"))]
pub fn draw(
    _: &limbeck_shared::bundle::Bundle,
    _: &limbeck_shared::denoiser::Lowered,
    _: u64,
    _: &[u32],
    _: u32,
    _: impl FnMut(usize),
) -> anyhow::Result<Vec<f32>> {
    anyhow::bail!("`--device wgpu`: this build has no wgpu; build with `--features wgpu`")
}
