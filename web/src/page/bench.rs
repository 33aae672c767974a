//! The Bench view: how fast this device draws with the main model, on each interpreter that it has.

use super::App;
use super::run::{labels, way};
use super::ui::{attr, duration, figure, plural, text};
use super::want::Place;
use crate::protocol::{Choice, EngineInfo, Job, Measurement, ModelInfo, ToWorker, Trial};
use js_sys::Float32Array;
use limbeck_shared::link::Class;
use std::fmt::Write;
use wasm_bindgen::{JsCast, JsValue};

/// Numbers of images: one, and a grid.
const BATCHES: [usize; 2] = [1, 16];

/// What is measured, and what was found.
#[derive(Default)]
pub struct Bench {
    rows: Vec<Row>,
    /// The model and who computes, in words.
    subject: String,
    /// The row that is measured.
    running: Option<usize>,
}

struct Row {
    trial: Trial,
    /// Who computes.
    engine: &'static str,
    found: Option<Result<Measurement, String>>,
    data: Option<Float32Array>,
}

impl Bench {
    /// Leaves what is not measured yet.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// All of it was measured.
    pub fn over(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|r| r.found.is_some())
    }

    /// One image on each engine, in a sentence.
    fn verdict(&self) -> String {
        let whole = |row: &&Row| row.trial.job.count == 1 && !row.trial.call;
        let single = |row: &&Row| row.trial.job.count == 1 && !self.rows.iter().any(|r| !r.trial.call);
        let images = self.rows.iter().filter(|r| whole(r) || single(r));
        let parts: Vec<_> = images.filter_map(|r| Some(format!("{} on {}", duration(median(r.measurement()?)), r.on()))).collect();
        if parts.is_empty() { "How fast does this device draw?".into() } else { format!("An image takes {}.", parts.join(", ")) }
    }

    /// The rows, for tests.
    pub fn facts(&self) -> Vec<serde_json::Value> {
        let fact = |row: &Row| {
            let m = row.measurement();
            serde_json::json!({
                "what": row.what(), "images": row.trial.job.count, "engine": row.engine, "call": row.trial.call,
                "calls": m.map(|m| m.calls), "median": m.map(median), "runs": m.map(|m| m.ms.len()), "macs": m.map(|m| m.macs),
                "dispatches": m.map(|m| m.dispatches), "times": m.map(|m| m.times.clone()), "labels": row.trial.job.labels,
                "error": row.found.as_ref().and_then(|f| f.as_ref().err()),
            })
        };
        self.rows.iter().map(fact).collect()
    }

    /// What went into a measured call and came out of it.
    pub fn data(&self, row: usize) -> Option<Float32Array> {
        self.rows.get(row)?.data.clone()
    }

    /// The table as text, in Markdown, so that it stays one wherever it is pasted.
    fn text(&self, page: &str) -> String {
        let mut out = format!("limbeck on {page}\n{}\n\n", self.subject);
        out.push_str("| what | images | on | median | images/s | GFLOP/s | dispatches |\n|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "| {} |", row.cells().join(" | "));
        }
        out
    }
}

impl Row {
    fn measurement(&self) -> Option<&Measurement> {
        self.found.as_ref()?.as_ref().ok()
    }

    fn on(&self) -> &'static str {
        if self.trial.cpu { "the CPU" } else { "WebGPU" }
    }

    fn what(&self) -> String {
        if self.trial.call { "1 call".into() } else { plural(self.trial.job.steps, "step") }
    }

    fn cells(&self) -> Vec<String> {
        let job = &self.trial.job;
        let head = [self.what(), job.count.to_string(), self.engine.into()];
        let none = || "–".to_owned();
        let rest = match (&self.found, self.measurement()) {
            (Some(Err(_)), _) => ["failed".to_owned(), none(), none(), none()],
            (_, Some(m)) => {
                let ms = median(m);
                let flops = 2.0 * m.macs as f64 / ms * 1e-6;
                let dispatches = if m.dispatches > 0 { m.dispatches.to_string() } else { none() };
                [duration(ms), figure(job.count as f64 / ms * 1e3), figure(flops), dispatches]
            }
            _ => ["…".to_owned(), none(), none(), none()],
        };
        head.into_iter().chain(rest).collect()
    }
}

/// The median of the runs, milliseconds.
fn median(m: &Measurement) -> f64 {
    let mut ms = m.ms.clone();
    ms.sort_by(f64::total_cmp);
    match ms.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => ms[n / 2],
        n => (ms[n / 2 - 1] + ms[n / 2]) / 2.0,
    }
}

impl App {
    /// Measures everything anew.
    pub fn start_bench(&mut self) {
        let (Some((job, info)), Some(engine)) = (self.job(Place::Grid(0)), &self.engine_info) else {
            return self.say("There is no model to measure yet.");
        };
        // Where the choice is the page's, both that there are.
        let all = [("WebGPU", false, engine.gpu.is_some()), ("CPU", true, engine.gpu.is_none() || self.choice == Choice::Auto)];
        let engines: Vec<_> = all.into_iter().filter(|e| e.2).map(|e| (e.0, e.1)).collect();
        self.bench = Bench { subject: subject(&info, engine), ..Bench::default() };
        for (engine, cpu) in engines {
            let steps = way(&info, &self.link.models[0]).is_some_and(|w| w.calls > 1);
            for call in [true, false].into_iter().filter(|call| *call || steps) {
                for count in BATCHES {
                    let labels = labels(&info, Class::Each, count);
                    let trial = Trial { job: Job { count, labels, ..job.clone() }, cpu, call };
                    self.bench.rows.push(Row { trial, engine, found: None, data: None });
                }
            }
        }
        self.stopped = false;
        self.bench.running = Some(0);
        self.redraw();
    }

    /// Asks the worker for the next row.
    pub fn measure_next(&mut self) {
        let Some(next) = self.bench.running.and_then(|_| self.bench.rows.iter().position(|r| r.found.is_none())) else {
            return self.bench.stop();
        };
        self.jobs += 1;
        self.bench.running = Some(next);
        self.bench.rows[next].trial.job.number = self.jobs;
        self.flying = Some(self.jobs);
        self.post(ToWorker::Measure(self.bench.rows[next].trial.clone()), None);
    }

    /// The job is the row that is measured.
    pub fn measures(&self, number: u32) -> bool {
        self.bench.running.and_then(|k| self.bench.rows.get(k)).is_some_and(|r| r.trial.job.number == number)
    }

    /// The job is one of the rows.
    pub fn is_trial(&self, number: u32) -> bool {
        self.bench.rows.iter().any(|r| r.trial.job.number == number)
    }

    /// A row was measured.
    pub fn measured(&mut self, number: u32, measurement: Measurement, data: &JsValue) {
        if let Some(row) = self.bench.rows.iter_mut().find(|r| r.trial.job.number == number) {
            row.found = Some(Ok(measurement));
            row.data = data.dyn_ref::<Float32Array>().cloned();
        }
    }

    /// A row could not be measured; the others still can.
    pub fn unmeasured(&mut self, number: u32, message: &str) {
        if let Some(row) = self.bench.rows.iter_mut().find(|r| r.trial.job.number == number) {
            row.found = Some(Err(message.to_owned()));
            let words = format!("{} with {} could not be measured: {message}.", row.what(), plural(row.trial.job.count, "image"));
            self.problem(&words, None);
        }
    }

    /// Copies the measurements.
    pub fn copy_bench(&mut self) {
        let browser = self.window.navigator().user_agent().unwrap_or_default();
        self.copy_text(self.bench.text(&browser), "Copied: the measurements, as a table in Markdown.");
    }

    /// Paints the Bench view.
    pub fn paint_bench(&self) {
        let ui = &self.ui;
        let words = match (self.info(0), &self.engine_info) {
            _ if !self.bench.rows.is_empty() => self.bench.subject.clone(),
            (Some(info), Some(engine)) => subject(&info, engine),
            _ => "There is no model to measure yet.".into(),
        };
        text(&ui.bench_verdict, &self.bench.verdict());
        text(&ui.bench_line, &words);
        ui.bench_table.set_hidden(self.bench.rows.is_empty());
        ui.bench_copy.set_disabled(self.bench.rows.iter().all(|r| r.found.is_none()));
        text(&ui.bench_start, if self.bench.running.is_some() { "Stop" } else { "Measure" });
        let cells: Vec<_> = self.bench.rows.iter().map(Row::cells).collect();
        let print = format!("{cells:?}");
        // Only what changed is built anew: a selection in the table stays.
        if ui.bench_rows.dataset().get("cells").as_deref() == Some(print.as_str()) {
            return;
        }
        let _ = ui.bench_rows.dataset().set("cells", &print);
        ui.bench_rows.set_text_content(None);
        for (k, cells) in cells.iter().enumerate() {
            let Ok(row) = ui.document.create_element("tr") else { return };
            for (i, value) in cells.iter().enumerate() {
                let Ok(cell) = ui.document.create_element(if i == 0 { "th" } else { "td" }) else { return };
                if i == 0 {
                    attr(&cell, "scope", "row");
                }
                cell.set_text_content(Some(value));
                // Appending a new element to a new element cannot fail.
                let _ = row.append_child(&cell);
            }
            if self.bench.running == Some(k) {
                attr(&row, "aria-current", "true");
            }
            let _ = ui.bench_rows.append_child(&row);
        }
    }
}

/// What is measured, in words.
fn subject(info: &ModelInfo, engine: &EngineInfo) -> String {
    let params = figure(info.params.iter().sum::<usize>() as f64);
    let macs = figure(info.macs.iter().copied().max().unwrap_or(0) as f64);
    let hash: String = info.sha256.chars().take(8).collect();
    let adapter = engine.gpu.as_ref().map_or_else(|| format!("CPU: {}", engine.adapter), |gpu| format!("WebGPU: {gpu}"));
    format!("{} ({hash}): {params} parameters, {macs} multiply-adds a call. {adapter}.", info.name)
}
