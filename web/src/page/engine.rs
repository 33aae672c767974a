//! The worker as the page sees it.

use super::{Msg, dispatch};
use crate::protocol::{FromWorker, ToWorker, pack, unpack};
use crate::timer;
use js_sys::{Array, ArrayBuffer, Object, Reflect};
use wasm_bindgen::prelude::*;
use web_sys::{Event, MessageEvent, Worker, WorkerOptions, WorkerType};

/// A running worker.
pub struct Engine {
    glue: String,
    script: String,
    worker: Worker,
    /// What waits until the worker listens.
    waiting: Option<Vec<(ToWorker, Option<ArrayBuffer>)>>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_error: Closure<dyn FnMut(Event)>,
}

impl Engine {
    /// Starts a worker from `script`, which will load the bindings at `glue`.
    ///
    /// # Errors
    /// If the browser refuses.
    pub fn start(glue: String, script: String) -> Result<Engine, String> {
        let options = WorkerOptions::new();
        options.set_type(WorkerType::Module);
        let worker = Worker::new_with_options(&script, &options).map_err(|e| timer::text_of(&e))?;
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(|event: MessageEvent| match unpack(&event.data()) {
            Ok((message, data)) => dispatch(Msg::Worker(message, data)),
            Err(message) => dispatch(Msg::Worker(FromWorker::Fatal { message }, JsValue::UNDEFINED)),
        });
        let on_error = Closure::<dyn FnMut(Event)>::new(|event: Event| {
            // Where the script could not be loaded at all, the event has no message.
            let text = Reflect::get(&event, &"message".into()).ok().and_then(|m| m.as_string()).filter(|m| !m.is_empty());
            let text = text.unwrap_or_else(|| "its script could not be loaded".into());
            dispatch(Msg::Worker(FromWorker::Fatal { message: format!("The engine broke off: {text}") }, JsValue::UNDEFINED));
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Ok(Engine { glue, script, worker, waiting: Some(vec![]), _on_message: on_message, _on_error: on_error })
    }

    /// The name of the bindings' file, which changes with the program.
    pub fn build(&self) -> &str {
        self.glue.rsplit('/').next().unwrap_or_default()
    }

    /// Stops it and starts another one.
    ///
    /// # Errors
    /// If the browser refuses.
    pub fn restart(&self) -> Result<Engine, String> {
        self.worker.terminate();
        Engine::start(self.glue.clone(), self.script.clone())
    }

    /// The worker's script listens: hands it the compiled module, then what has been waiting.
    ///
    /// # Errors
    /// If a message cannot be posted.
    pub fn up(&mut self) -> Result<(), String> {
        let start = Object::new();
        let set = |key: &str, value: &JsValue| Reflect::set(&start, &key.into(), value);
        let posted = set("glue", &JsValue::from_str(&self.glue))
            .and_then(|_| set("module", &wasm_bindgen::module()))
            .and_then(|_| self.worker.post_message(&start));
        posted.map_err(|e| timer::text_of(&e))
    }

    /// The worker's Rust listens too.
    pub fn serving(&mut self) -> Result<(), String> {
        for (message, data) in self.waiting.take().unwrap_or_default() {
            self.post(message, data)?;
        }
        Ok(())
    }

    /// Posts a message, now or as soon as the worker listens. The buffer changes hands.
    ///
    /// # Errors
    /// If the browser refuses.
    pub fn post(&mut self, message: ToWorker, data: Option<ArrayBuffer>) -> Result<(), String> {
        if let Some(waiting) = &mut self.waiting {
            waiting.push((message, data));
            return Ok(());
        }
        let packed = pack(&message, data.as_ref().map(AsRef::as_ref));
        let posted = packed.and_then(|p| match &data {
            Some(buffer) => self.worker.post_message_with_transfer(&p, &Array::of1(buffer)),
            None => self.worker.post_message(&p),
        });
        posted.map_err(|e| timer::text_of(&e))
    }
}
