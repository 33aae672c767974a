//! The worker: owns bundles and the interpreter, answers [`ToWorker`] with [`FromWorker`].
//!
//! Bundles are opened concurrently; setting up an interpreter and drawing wait in one queue, in the order asked. A job is drawn in
//! slices, and between slices waiting messages are handled, so that pictures appear as they come and a job can be stopped.

mod download;
mod draw;
mod engine;
mod model;
mod path;

use crate::protocol::{Choice, EngineInfo, FromWorker, Source, ToWorker, pack, unpack};
use crate::timer;
use engine::Engine;
use js_sys::Uint8Array;
use model::Model;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent};

/// The worker's memory.
pub struct Worker {
    scope: DedicatedWorkerGlobalScope,
    models: RefCell<HashMap<String, Model>>,
    queue: RefCell<VecDeque<ToWorker>>,
    busy: Cell<bool>,
    /// Jobs up to this number are to be dropped.
    cancelled: Cell<u32>,
    choice: Cell<Choice>,
}

/// Answers the page's messages from now on.
pub fn serve() {
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let hook = scope.clone();
    std::panic::set_hook(Box::new(move |info| {
        post_to(&hook, &FromWorker::Fatal { message: format!("The engine broke off: {info}") }, None);
    }));
    let worker = Rc::new(Worker {
        scope: scope.clone(),
        models: RefCell::default(),
        queue: RefCell::default(),
        busy: Cell::new(false),
        cancelled: Cell::new(0),
        choice: Cell::new(Choice::Auto),
    });
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| match unpack(&event.data()) {
        Ok((message, data)) => worker.clone().receive(message, data),
        Err(message) => worker.post(&FromWorker::Fatal { message }, None),
    });
    scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    on_message.forget();
    post_to(&scope, &FromWorker::Serving, None);
}

/// Posts a message and hands over the array's buffer.
fn post_to(scope: &DedicatedWorkerGlobalScope, message: &FromWorker, data: Option<&js_sys::Float32Array>) {
    let Ok(packed) = pack(message, data.map(AsRef::as_ref)) else { return };
    // Posting plain data to the page fails only when the page is gone.
    let _ = match data {
        Some(array) => scope.post_message_with_transfer(&packed, &js_sys::Array::of1(&array.buffer())),
        None => scope.post_message(&packed),
    };
}

impl Worker {
    fn post(&self, message: &FromWorker, data: Option<&js_sys::Float32Array>) {
        post_to(&self.scope, message, data);
    }

    fn receive(self: Rc<Self>, message: ToWorker, data: JsValue) {
        match message {
            ToWorker::Open { key, source } => spawn_local(self.open(key, source, data)),
            ToWorker::Cancel { upto } => self.cancelled.set(self.cancelled.get().max(upto)),
            message => {
                self.queue.borrow_mut().push_back(message);
                if !self.busy.replace(true) {
                    spawn_local(self.work());
                }
            }
        }
    }

    async fn open(self: Rc<Self>, key: String, source: Source, data: JsValue) {
        let bytes = match &source {
            Source::Url { url, bytes, .. } => {
                let progress = |received, total| self.post(&FromWorker::Progress { key: key.clone(), received, total }, None);
                download::download(&self.scope, url, *bytes, progress).await
            }
            Source::Buffer => Ok(Uint8Array::new(&data).to_vec()),
        };
        let expected = if let Source::Url { sha256, .. } = source { sha256 } else { None };
        let answer = match bytes.and_then(|b| Model::read(&b, expected.as_deref())) {
            Ok(model) => {
                let info = Box::new(model.info());
                self.models.borrow_mut().insert(key.clone(), model);
                FromWorker::Opened { key, info }
            }
            Err(message) => FromWorker::OpenFailed { key, message },
        };
        self.post(&answer, None);
    }

    /// Works through the queue until it is empty.
    async fn work(self: Rc<Self>) {
        thread_local!(static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) });
        // Taken out while in use: no borrow is held while waiting.
        let mut engine = ENGINE.with(RefCell::take).unwrap_or(Engine::Cpu);
        loop {
            // Lets later messages in first: a job may have been cancelled already.
            timer::sleep(0).await;
            let Some(message) = self.queue.borrow_mut().pop_front() else { break };
            match message {
                ToWorker::Setup { choice } => {
                    self.choice.set(choice);
                    let (chosen, info) = Engine::choose(choice).await;
                    engine = chosen;
                    self.forget_plans();
                    self.post(&FromWorker::Engine(info), None);
                }
                ToWorker::Draw(job) => {
                    if engine.failed() {
                        let (chosen, info) = Engine::choose(self.choice.get()).await;
                        engine = chosen;
                        self.forget_plans();
                        self.post(&FromWorker::Engine(info), None);
                    }
                    let lost = self.draw(&engine, &job).await;
                    if let Some(reason) = lost {
                        engine = Engine::Cpu;
                        self.forget_plans();
                        let note = format!("WebGPU failed ({reason}), so the CPU goes on.");
                        self.post(&FromWorker::Engine(EngineInfo { note, ..Engine::cpu_info() }), None);
                        self.draw(&engine, &job).await;
                    }
                }
                ToWorker::Open { .. } | ToWorker::Cancel { .. } => {}
            }
        }
        ENGINE.with(|e| e.replace(Some(engine)));
        self.busy.set(false);
    }

    fn forget_plans(&self) {
        for model in self.models.borrow_mut().values_mut() {
            model.forget_plan();
        }
    }
}
