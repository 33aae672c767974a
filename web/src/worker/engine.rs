//! Which interpreter runs, and why.

use crate::protocol::{Choice, EngineInfo};
use js_sys::{Function, Object, Promise, Reflect};
use limbeck_shared::gpu;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// Multiply-accumulates after which pictures are shown and messages handled: about a quarter of a second each. A GPU takes more
/// at once, since small batches leave it idle.
const CPU_SLICE: u64 = 700_000_000;
const SOFTWARE_SLICE: u64 = 300_000_000;
const GPU_SLICE: u64 = 25_000_000_000;

/// An interpreter.
pub enum Engine {
    /// The CPU interpreter, in this worker's thread.
    Cpu,
    /// A WebGPU device.
    Gpu {
        /// The device.
        engine: gpu::Engine,
        /// What the browser calls it.
        name: String,
        /// It computes on the CPU, slowly.
        software: bool,
    },
}

impl Engine {
    /// Follows the visitor's wish as far as the browser allows, and says what came of it.
    ///
    /// The rule of [`Choice::Auto`]: a GPU's adapter, which then races the CPU on each model, else the CPU. A software adapter is not
    /// worth the race: it runs the same arithmetic on the same CPU, behind a translation that was made for graphics, and loses to the
    /// interpreter by an order of magnitude.
    pub async fn choose(choice: Choice) -> (Engine, EngineInfo) {
        if choice == Choice::Cpu {
            return (Engine::Cpu, Engine::cpu_info());
        }
        let on_cpu = |note: String| (Engine::Cpu, EngineInfo { note, ..Engine::cpu_info() });
        let told = describe().await;
        // wgpu does not see what some browsers say.
        let occupancy = told.as_ref().filter(|t| t.1).map(|_| gpu::Occupancy::Narrow);
        let engine = match gpu::Engine::new(gpu::Options { occupancy, ..gpu::Options::default() }).await {
            Ok(engine) => engine,
            Err(error) => {
                let reason = match (navigator_gpu(), &told) {
                    (None, _) => "This browser offers no WebGPU here (old browser, or a page not from https)".to_owned(),
                    (_, None) => "This browser found no adapter for WebGPU".to_owned(),
                    // What one API after the other said; the first is the browser's.
                    _ => format!("WebGPU could not be started ({})", error.to_string().split(';').next().unwrap_or_default()),
                };
                return on_cpu(format!("{reason}, so the CPU computes."));
            }
        };
        let adapter = engine.info();
        let (told, fallback) = told.unwrap_or_default();
        let known = [adapter.name.trim().to_owned(), told].into_iter().find(|n| !n.is_empty());
        let name = known.unwrap_or_else(|| "a GPU that the browser does not name".into());
        let software = adapter.is_fallback || fallback;
        if software && choice == Choice::Auto {
            return on_cpu(format!("WebGPU here is only a software adapter ({name}), so the CPU computes: it is faster."));
        }
        let note = if software { "This adapter computes on the CPU, slowly.".to_owned() } else { String::new() };
        let engine = Engine::Gpu { engine, name, software };
        let info = engine.info(note);
        (engine, info)
    }

    /// What the page is told of this engine.
    pub fn info(&self, note: String) -> EngineInfo {
        match self {
            Engine::Cpu => EngineInfo { note, ..Engine::cpu_info() },
            Engine::Gpu { name, software, .. } => {
                EngineInfo { backend: "webgpu".into(), adapter: name.clone(), software: *software, gpu: Some(name.clone()), note }
            }
        }
    }

    /// The CPU, after WebGPU failed.
    pub fn instead(reason: &str) -> (Engine, EngineInfo) {
        let note = format!("WebGPU failed ({}), so the CPU goes on.", reason.trim_end_matches('.'));
        (Engine::Cpu, EngineInfo { note, ..Engine::cpu_info() })
    }

    /// What the CPU interpreter calls itself.
    pub fn cpu_info() -> EngineInfo {
        let adapter = "WebAssembly with SIMD, one thread".into();
        EngineInfo { backend: "cpu".into(), adapter, software: true, gpu: None, note: String::new() }
    }

    /// The device is lost or broken, and another one must be opened.
    pub fn failed(&self) -> bool {
        matches!(self, Engine::Gpu { engine, .. } if engine.check().is_err())
    }

    /// Images to draw at once, when one costs `macs` and `count` are wanted: as even slices as possible.
    pub fn slice(&self, macs: u64, count: usize) -> usize {
        let budget = match self {
            Engine::Cpu => CPU_SLICE,
            Engine::Gpu { software: true, .. } => SOFTWARE_SLICE,
            Engine::Gpu { .. } => GPU_SLICE,
        };
        let count = count.max(1);
        let most = ((budget / macs.max(1)) as usize).clamp(1, count);
        count.div_ceil(count.div_ceil(most))
    }
}

/// What the browser says of the adapter, as `description` or else `vendor architecture`, and whether it is a software one: wgpu
/// passes on only the description, which most browsers leave empty.
async fn describe() -> Option<(String, bool)> {
    let gpu = navigator_gpu()?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let wish = Object::new();
    Reflect::set(&wish, &"powerPreference".into(), &"high-performance".into()).ok()?;
    let promise: Promise = request.call1(&gpu, &wish).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok()?;
    let info = get(&adapter, "info")?;
    let word = |key: &str| get(&info, key).and_then(|v| v.as_string()).unwrap_or_default();
    let parts = [word("vendor"), word("architecture")].join(" ");
    let name = [word("description"), parts.trim().to_owned()].into_iter().find(|n| !n.is_empty()).unwrap_or_default();
    // Older browsers have the flag on the adapter.
    let fallback = [&info, &adapter].iter().any(|o| get(o, "isFallbackAdapter").is_some_and(|f| f.is_truthy()));
    let software = fallback || ["swiftshader", "llvmpipe"].iter().any(|s| name.to_lowercase().contains(s));
    Some((name, software))
}

fn navigator_gpu() -> Option<JsValue> {
    get(&get(&js_sys::global(), "navigator")?, "gpu")
}

/// A property that is there.
fn get(of: &JsValue, key: &str) -> Option<JsValue> {
    Reflect::get(of, &key.into()).ok().filter(|v| !v.is_undefined() && !v.is_null())
}
