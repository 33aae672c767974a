//! The golden networks on a browser's WebGPU, for `tests/e2e/golden.test.mjs`, which says how it is built.

#[cfg(target_arch = "wasm32")]
#[path = "../../tests/golden/networks.rs"]
mod networks;

/// `NAME ERROR` for each network, or in words what is wrong; `narrow`: with the kernels for adapters that are a CPU.
#[cfg(target_arch = "wasm32")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub async fn golden(narrow: bool) -> Result<String, String> {
    use limbeck_shared::gpu::{Engine, Occupancy, Options, WeightStorage};
    use networks::{Backend, Golden};
    let mut lines = vec![];
    for (storage, backend) in [(WeightStorage::F32, Backend::Gpu), (WeightStorage::F16, Backend::GpuHalf)] {
        let occupancy = Some(if narrow { Occupancy::Narrow } else { Occupancy::Wide });
        let engine = Engine::new(Options { storage, occupancy, ..Options::default() }).await.map_err(|e| e.to_string())?;
        for g in Golden::all() {
            let model = engine.load(std::slice::from_ref(&g.graph), std::slice::from_ref(&g.theta)).map_err(|e| e.to_string())?;
            let mut plan = model.forward_plan(0, 2).map_err(|e| e.to_string())?;
            let found = plan.forward(&g.x, &g.times, &g.labels).await.map_err(|e| e.to_string())?;
            lines.push(format!("{} {:e}", g.name, g.judge(backend, &found)?));
            // The same question, the same bits.
            if plan.forward(&g.x, &g.times, &g.labels).await.map_err(|e| e.to_string())? != found {
                return Err(format!("{}: another answer when asked again", g.name));
            }
        }
    }
    Ok(lines.join("\n"))
}
