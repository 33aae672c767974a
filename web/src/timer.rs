//! Waiting and measuring, on the page and in the worker alike.

use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, ms: i32) -> f64;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: f64);
    type Clock;
    #[wasm_bindgen(thread_local_v2, js_name = performance)]
    static PERFORMANCE: Clock;
    #[wasm_bindgen(method)]
    fn now(this: &Clock) -> f64;
}

/// Milliseconds on a clock that only runs forward.
pub fn now() -> f64 {
    PERFORMANCE.with(Clock::now)
}

/// Lets `ms` milliseconds pass. Zero lets waiting messages be handled.
pub async fn sleep(ms: i32) {
    let promise = Promise::new(&mut |resolve, _| {
        set_timeout(&resolve, ms);
    });
    // A promise that only resolves.
    let _ = JsFuture::from(promise).await;
}

/// A call that is put off anew each time it is asked for.
pub struct Debounce {
    callback: Closure<dyn FnMut()>,
    pending: Option<f64>,
}

impl Debounce {
    /// Will call `f`.
    pub fn new(f: impl FnMut() + 'static) -> Debounce {
        Debounce { callback: Closure::new(f), pending: None }
    }
    /// Calls it after `ms` milliseconds, unless asked again before.
    pub fn arm(&mut self, ms: i32) {
        if let Some(id) = self.pending.take() {
            clear_timeout(id);
        }
        self.pending = Some(set_timeout(self.callback.as_ref().unchecked_ref(), ms));
    }
}

/// A duration for reading.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 99_950.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 599_500.0 => format!("{:.0} s", ms / 1e3),
        ms if ms < 3_600_000.0 => format!("{:.0} min", ms / 6e4),
        ms => format!("{:.1} h", ms / 3.6e6),
    }
}

/// The text of a thrown value.
pub fn text_of(error: &JsValue) -> String {
    Reflect::get(error, &"message".into())
        .ok()
        .and_then(|v| v.as_string())
        .filter(|m| !m.is_empty())
        .or_else(|| error.as_string())
        .unwrap_or_else(|| format!("{error:?}"))
}
