//! The page: draws with a distilled student on the visitor's own machine.
//!
//! One wasm module runs twice. On the page's main thread [`start`] owns the view (controls, canvases, the link in the address bar);
//! in a module worker [`serve`] owns the engine (weights, WebGPU device or CPU interpreter). They speak in the messages of
//! [`protocol`]: JSON, with pixels and files beside it as transferred arrays. `boot.js` and `worker.js` are the few lines of
//! JavaScript that load the module on either side.
//!
//! The crate is for wasm32 only.

mod cache;
mod page;
mod protocol;
mod timer;
mod worker;

use wasm_bindgen::prelude::*;

/// Starts the page. `glue` is the address of this module's JavaScript bindings and `worker` that of `worker.js`, both for the worker.
#[wasm_bindgen]
pub fn start(glue: String, worker: String) {
    page::start(glue, worker);
}

/// Starts the engine in a worker: from here on it answers the page's messages.
#[wasm_bindgen]
pub fn serve() {
    worker::serve();
}
