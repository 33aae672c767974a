//! `window.limbeck`: what tests and the curious read. `side` is 0 for the main model (the student), 1 to 3 for
//! those beside it; in Path, the row.

use super::run::{Run, Stage};
use super::want::Place;
use super::{APP, App};
use js_sys::{Float32Array, Function, Object, Reflect};
use limbeck_shared::link::View;
use wasm_bindgen::prelude::*;
use web_sys::Window;

/// A function of the probe: takes a side, or nothing.
type Read = fn(JsValue) -> JsValue;

fn with_app<T>(read: impl FnOnce(&App) -> Option<T>) -> Option<T> {
    APP.with(|app| app.try_borrow().ok().and_then(|a| a.as_ref().and_then(read)))
}

fn json(value: serde_json::Value) -> JsValue {
    js_sys::JSON::parse(&value.to_string()).unwrap_or(JsValue::NULL)
}

/// The run of the k-th place of the view: a side in Draw and Compare, a row of Path, the one of Travel.
fn run_of<'a>(app: &'a App, k: &JsValue) -> Option<&'a Run> {
    let k = k.as_f64().unwrap_or(0.0) as usize;
    app.run(match app.link.view {
        View::Path => Place::Path(k),
        View::Travel => Place::Travel,
        _ => Place::Grid(k),
    })
}

/// `pixels(side)`: f32 `[N, C, H, W]` in [-1, 1] of the last draw, as far as it has come; null before the first. Of a path, the
/// image, then a state and an estimate of the image for each noise level.
fn pixels(side: JsValue) -> JsValue {
    let array = with_app(|app| {
        let run = run_of(app, &side)?;
        let size: usize = run.info.shape.iter().product();
        Some(Float32Array::from(&run.pixels[..run.drawn * size]))
    });
    array.map_or(JsValue::NULL, Into::into)
}

/// `draw(side)`: shape, labels, calls, noise levels of a path, milliseconds and stage of the last draw.
fn draw(side: JsValue) -> JsValue {
    let value = with_app(|app| {
        let run = run_of(app, &side)?;
        let [c, h, w] = run.info.shape;
        Some(serde_json::json!({
            "model": run.info.name, "sha256": run.info.sha256, "shape": [run.drawn, c, h, w], "labels": run.job.labels,
            "seed": run.job.seed.to_string(), "steps": run.job.steps, "guidance": run.job.guidance, "calls": run.calls, "ms": run.ms, "levels": run.levels,
            "done": run.stage == Stage::Done,
        }))
    });
    value.map_or(JsValue::NULL, json)
}

/// `engine()`: backend (`webgpu` or `cpu`), adapter, software, note; null while it is being chosen.
fn engine(_: JsValue) -> JsValue {
    with_app(|app| serde_json::to_value(app.engine_info.as_ref()?).ok()).map_or(JsValue::NULL, json)
}

/// `backend()`: `webgpu` or `cpu`; null while it is being chosen.
fn backend(_: JsValue) -> JsValue {
    with_app(|app| app.engine_info.as_ref().map(|e| e.backend.clone())).map_or(JsValue::NULL, |k| JsValue::from_str(&k))
}

/// `link()`: the fragment that shows what is shown.
fn link(_: JsValue) -> JsValue {
    with_app(|app| Some(app.fragment())).map_or(JsValue::NULL, |f| JsValue::from_str(&f))
}

/// `jobs()`: how many jobs the worker was given since the page began.
fn jobs(_: JsValue) -> JsValue {
    with_app(|app| Some(app.jobs)).map_or(JsValue::NULL, |n| JsValue::from_f64(n.into()))
}

/// `bench()`: the configurations of the Bench view, and what was found of those that were measured.
fn bench(_: JsValue) -> JsValue {
    with_app(|app| Some(serde_json::Value::Array(app.bench.facts()))).map_or(JsValue::NULL, json)
}

/// `call(k)`: of the k-th of them, a single network call, the images that the network was given and then its answers; else null.
fn call(k: JsValue) -> JsValue {
    let data = with_app(|app| app.bench.data(k.as_f64()? as usize));
    data.map_or(JsValue::NULL, Into::into)
}

/// Puts the functions in place.
pub fn install(window: &Window) {
    let probe = Object::new();
    let functions: [(&str, Read); 8] = [
        ("pixels", pixels),
        ("draw", draw),
        ("engine", engine),
        ("backend", backend),
        ("link", link),
        ("jobs", jobs),
        ("bench", bench),
        ("call", call),
    ];
    for (name, function) in functions {
        let closure = Closure::<dyn FnMut(JsValue) -> JsValue>::new(function);
        let function: &Function = closure.as_ref().unchecked_ref();
        // Setting a property of a plain object cannot fail.
        let _ = Reflect::set(&probe, &name.into(), function);
        closure.forget();
    }
    let _ = Reflect::set(window, &"limbeck".into(), &probe);
}
