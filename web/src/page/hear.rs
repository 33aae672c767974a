//! Speaking with the worker, and with the visitor.

use super::run::Run;
use super::ui::{attr, text};
use super::{App, cache};
use crate::protocol::{FromWorker, ToWorker};
use js_sys::ArrayBuffer;
use wasm_bindgen::JsValue;

impl App {
    /// Tells the worker which interpreter is wanted, and forgets what another one drew.
    pub fn set_up(&mut self) {
        self.forget();
        if self.drawing() {
            self.post(ToWorker::Cancel { upto: self.jobs }, None);
        }
        let races = self.recall_races();
        self.post(ToWorker::Setup { choice: self.choice, races }, None);
    }

    pub fn hear(&mut self, message: FromWorker, data: JsValue) {
        match message {
            FromWorker::Up => {
                if let Err(e) = self.engine.up() {
                    self.broken(&e);
                }
            }
            FromWorker::Serving => {
                if let Err(e) = self.engine.serving() {
                    self.broken(&e);
                }
            }
            FromWorker::Engine(info) => {
                let words = if info.backend == "webgpu" { format!("WebGPU, {}", info.adapter) } else { "CPU".to_owned() };
                text(&self.ui.chip, &words);
                attr(&self.ui.chip, "data-kind", &info.backend);
                let title = if info.backend == "webgpu" { "WebGPU" } else { "CPU" };
                text(&self.ui.engine_text, format!("{title}: {}.\n{}", info.adapter, info.note).trim());
                if !info.note.is_empty() {
                    self.say(&info.note.clone());
                }
                self.engine_info = Some(info);
                self.settle();
            }
            FromWorker::Raced(race) => self.keep_race(race),
            FromWorker::Progress { key, received, total } => self.progress(&key, received, total),
            FromWorker::Opened { key, info } => self.opened(key, *info),
            FromWorker::OpenFailed { key, message } => self.open_failed(key, &message),
            FromWorker::Kept { note } => self.cache_event(cache::Event::Changed(note)),
            FromWorker::Started { number, calls, levels } => self.with_run(number, false, |run| run.start(calls, levels)),
            FromWorker::Slice { number, first, ms } => self.with_run(number, false, |run| run.take(first, ms, &data)),
            FromWorker::Done { number, ms } => self.with_run(number, true, |run| run.finish(ms)),
            FromWorker::Measured { number, measurement } => {
                self.measured(number, measurement, &data);
                self.with_run(number, true, |_| ());
            }
            FromWorker::Cancelled { number } => self.with_run(number, true, Run::cancel),
            FromWorker::DrawFailed { number, message } if self.is_trial(number) => {
                self.unmeasured(number, &message);
                self.with_run(number, true, Run::fail);
            }
            FromWorker::DrawFailed { number, message } => {
                self.with_run(number, true, Run::fail);
                self.problem(&format!("The pictures could not be drawn: {message}."), None);
            }
            FromWorker::Fatal { message } => self.broken(&message),
        }
    }

    pub fn post(&mut self, message: ToWorker, data: Option<ArrayBuffer>) {
        if let Err(e) = self.engine.post(message, data) {
            self.broken(&format!("The engine cannot be reached: {e}"));
        }
    }

    /// Says something in the status line, which screen readers read out.
    pub fn say(&self, words: &str) {
        text(&self.ui.status, words);
    }
}
