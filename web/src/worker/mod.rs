//! The worker: owns bundles and the interpreter, answers [`ToWorker`] with [`FromWorker`].
//!
//! Bundles are opened concurrently; setting up an interpreter and drawing wait in one queue, in the order asked. A job is drawn in
//! slices, and between slices waiting messages are handled, so that pictures appear as they come and a job can be stopped.

mod cache;
mod download;
mod draw;
mod engine;
mod measure;
mod model;
mod path;
mod race;

use crate::protocol::{Choice, EngineInfo, FromWorker, Race, Source, ToWorker, pack, unpack};
use crate::timer;
use download::{Download, File};
use engine::Engine;
use js_sys::Uint8Array;
use model::Model;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{AbortController, DedicatedWorkerGlobalScope, MessageEvent};

/// The worker's memory.
pub struct Worker {
    scope: DedicatedWorkerGlobalScope,
    models: RefCell<HashMap<String, Model>>,
    /// What stops the downloads that are under way.
    downloads: RefCell<HashMap<String, AbortController>>,
    queue: RefCell<VecDeque<ToWorker>>,
    busy: Cell<bool>,
    /// Jobs up to this number are to be dropped.
    cancelled: Cell<u32>,
    choice: Cell<Choice>,
    /// What races found, here and on former visits.
    races: RefCell<Vec<Race>>,
    /// What the page was last told of the engine.
    told: RefCell<Option<EngineInfo>>,
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
        downloads: RefCell::default(),
        queue: RefCell::default(),
        busy: Cell::new(false),
        cancelled: Cell::new(0),
        choice: Cell::new(Choice::Auto),
        races: RefCell::default(),
        told: RefCell::default(),
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
            ToWorker::Abort { key } => {
                if let Some(download) = self.downloads.borrow_mut().remove(&key) {
                    download.abort();
                }
            }
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
        match source {
            Source::Url { url, bytes, sha256 } => self.fetch(key, &url, bytes, sha256.as_deref()).await,
            Source::Buffer => {
                let opened = Model::read(&Uint8Array::new(&data).to_vec(), None);
                self.answer(key, opened);
            }
        }
    }

    fn answer(&self, key: String, opened: Result<Model, String>) {
        let answer = match opened {
            Ok(model) => {
                let info = Box::new(model.info());
                self.models.borrow_mut().insert(key.clone(), model);
                FromWorker::Opened { key, info }
            }
            Err(message) => FromWorker::OpenFailed { key, message },
        };
        self.post(&answer, None);
    }

    /// Opens the bundle of an address: the kept one if it is there and good, else a downloaded one, which is then kept.
    async fn fetch(&self, key: String, url: &str, size: Option<u64>, sha256: Option<&str>) {
        let Ok(stop) = AbortController::new() else {
            return self.answer(key, Err("This browser is too old for this page: it has no AbortController.".into()));
        };
        let signal = stop.signal();
        self.downloads.borrow_mut().insert(key.clone(), stop);
        let download = Download { scope: &self.scope, url, size, checked: sha256.is_some_and(|h| h.len() == 64), signal: &signal };
        let place = crate::cache::key(url, sha256);
        let mut opened = None;
        if let Some(hit) = cache::look(&download, &place).await {
            match Model::read(&hit.bytes, sha256) {
                Ok(model) => opened = Some((Ok(model), None, hit.note)),
                // Damaged, or no longer what is wanted. That it cannot be deleted changes nothing: it will be replaced.
                Err(_) => drop(crate::cache::delete(&place).await),
            }
        }
        if opened.is_none() {
            let progress = |received, total| self.post(&FromWorker::Progress { key: key.clone(), received, total }, None);
            let file: Result<File, String> = download.run(progress).await;
            let model = file.as_ref().map_err(String::clone).and_then(|f| Model::read(&f.bytes, sha256));
            opened = Some((model, file.ok(), String::new()));
        }
        let Some((model, file, mut note)) = opened else { return };
        if signal.aborted() {
            return;
        }
        self.downloads.borrow_mut().remove(&key);
        let name = model.as_ref().ok().map(Model::name);
        self.answer(key, model);
        if let (Some(file), Some(name)) = (file, name) {
            note = cache::keep(&place, &name, url, &file).await;
        }
        self.post(&FromWorker::Kept { note }, None);
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
                ToWorker::Setup { choice, races } => {
                    self.choice.set(choice);
                    self.races.replace(races);
                    let info;
                    (engine, info) = Engine::choose(choice).await;
                    self.forget_plans();
                    self.tell(info);
                }
                ToWorker::Draw(job) => {
                    if engine.failed() {
                        let info;
                        (engine, info) = Engine::choose(self.choice.get()).await;
                        self.forget_plans();
                        self.tell(info);
                    }
                    let fitting = if self.prefers_cpu(&engine, &job).await { &Engine::Cpu } else { &engine };
                    if let Some(reason) = self.draw(fitting, &job, true).await {
                        let info;
                        (engine, info) = self.replace(&reason).await;
                        self.forget_plans();
                        self.tell(info);
                        // A fault that another device has too is the adapter's.
                        let again = matches!(engine, Engine::Gpu { .. });
                        if let Some(reason) = self.draw(&engine, &job, again).await {
                            let info;
                            (engine, info) = Engine::instead(&reason);
                            self.forget_plans();
                            self.tell(info);
                            self.draw(&engine, &job, false).await;
                        }
                    }
                }
                ToWorker::Measure(trial) => self.measure(&engine, &trial).await,
                ToWorker::Open { .. } | ToWorker::Abort { .. } | ToWorker::Cancel { .. } => {}
            }
        }
        ENGINE.with(|e| e.replace(Some(engine)));
        self.busy.set(false);
    }

    /// Tells the page who computes from now on.
    fn tell(&self, info: EngineInfo) {
        self.told.replace(Some(info.clone()));
        self.post(&FromWorker::Engine(info), None);
    }

    /// The engine that goes on after a WebGPU device failed: another device where the visitor asked for WebGPU, else the CPU.
    async fn replace(&self, reason: &str) -> (Engine, EngineInfo) {
        let reason = reason.trim_end_matches('.');
        if self.choice.get() == Choice::Auto {
            return Engine::instead(reason);
        }
        let (engine, info) = Engine::choose(self.choice.get()).await;
        let note = format!("The WebGPU device failed ({reason}) and was opened anew. {}", info.note);
        (engine, EngineInfo { note: note.trim_end().to_owned(), ..info })
    }

    fn forget_plans(&self) {
        for model in self.models.borrow_mut().values_mut() {
            model.forget_plan();
        }
    }
}
