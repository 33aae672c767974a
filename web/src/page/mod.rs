//! The view: controls, canvases, the link in the address bar.
//!
//! Everything that happens (a click, a message from the worker, a download) becomes a [`Msg`] and passes through [`dispatch`], one
//! after another; [`App`] is the page's whole state.

mod address;
mod cache;
mod canvas;
mod controls;
mod engine;
mod events;
mod export;
mod facts;
mod models;
mod png;
mod probe;
mod problem;
mod run;
mod shelf;
mod ui;
mod view;

use crate::protocol::{Choice, EngineInfo, FromWorker, ToWorker};
use crate::timer::Debounce;
use engine::Engine;
use js_sys::ArrayBuffer;
use limbeck_shared::link::{Link, View};
use models::Slot;
use problem::{Retry, fail};
use run::Side;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use ui::{Card, Ui, attr, text};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::Window;

/// Something that happened.
pub enum Msg {
    /// The worker says something; its array lies beside it.
    Worker(FromWorker, JsValue),
    /// The list of shipped models is here.
    Shelf(Result<Vec<shelf::Entry>, String>),
    /// The address bar changed.
    Address,
    /// A control has a new value.
    Control(controls::Control),
    /// Generate, or stop.
    Generate,
    /// A seed at random.
    Shuffle,
    /// Another view.
    View(View),
    /// Open the model at the address typed in.
    OpenUrl,
    /// A local file was read.
    OpenFile(String, Result<ArrayBuffer, String>),
    /// Save the pictures.
    Save,
    /// Copy the link.
    Copy,
    /// Say something in the status line.
    Say(String),
    /// Something happened to what is kept for the next visit.
    Cache(cache::Event),
    /// Try again what failed.
    Retry,
    /// Hide the message about what failed.
    Dismiss,
    /// Sizes or colours changed.
    Repaint,
    /// The link can be written to the address bar.
    WriteAddress,
}

/// The page's state.
pub struct App {
    window: Window,
    ui: Ui,
    /// The cards: teacher and student of the Compare view, and the Draw view's.
    cards: [Card; 3],
    engine: Engine,
    engine_info: Option<EngineInfo>,
    shelf: Option<Vec<shelf::Entry>>,
    models: HashMap<String, Slot>,
    link: Link,
    choice: Choice,
    /// The address named no view, so the page chooses one.
    free_view: bool,
    /// The main model and the one beside it.
    sides: [Side; 2],
    /// Number of the newest job.
    jobs: u32,
    /// What went wrong and was not dismissed yet.
    problems: Vec<String>,
    retry: Option<Retry>,
    /// What was said of the models kept for the next visit.
    kept: cache::Notes,
    address: Debounce,
}

thread_local! {
    static APP: RefCell<Option<App>> = const { RefCell::new(None) };
    static QUEUE: RefCell<VecDeque<Msg>> = const { RefCell::new(VecDeque::new()) };
}

/// Handles a message, after those that came before it.
pub fn dispatch(msg: Msg) {
    QUEUE.with(|q| q.borrow_mut().push_back(msg));
    APP.with(|app| {
        // Borrowed already: the call comes from inside a handler, whose loop goes on to this message.
        let Ok(mut app) = app.try_borrow_mut() else { return };
        let Some(app) = app.as_mut() else { return };
        while let Some(msg) = QUEUE.with(|q| q.borrow_mut().pop_front()) {
            app.handle(msg);
        }
    });
}

/// Starts the page.
pub fn start(glue: String, worker: String) {
    std::panic::set_hook(Box::new(|info| {
        let message = format!("The page broke off: {info}\nReload it to go on.");
        if let Some(document) = web_sys::window().and_then(|w| w.document()) {
            fail(&document, &message);
        }
    }));
    let Some(window) = web_sys::window() else { return };
    let Some(document) = window.document() else { return };
    match App::new(window.clone(), &glue, &worker) {
        Ok(app) => APP.with(|a| a.replace(Some(app))),
        Err(message) => return fail(&document, &format!("The page could not start: {message}.")),
    };
    events::listen(&window, &document);
    probe::install(&window);
    dispatch(Msg::Address);
    dispatch(Msg::Cache(cache::Event::Changed(String::new())));
    fetch_shelf(window);
}

fn fetch_shelf(window: Window) {
    spawn_local(async move { dispatch(Msg::Shelf(shelf::fetch(window).await)) });
}

impl App {
    fn new(window: Window, glue: &str, worker: &str) -> Result<App, String> {
        let document = window.document().ok_or("no document")?;
        let card = |prefix| Card::find(&document, prefix);
        Ok(App {
            cards: [card("student")?, card("teacher")?, card("draw")?],
            ui: Ui::find(document.clone())?,
            engine: Engine::start(glue.into(), worker.into())?,
            engine_info: None,
            shelf: None,
            models: HashMap::new(),
            link: Link::default(),
            choice: Choice::default(),
            free_view: true,
            sides: [Side::new(&document)?, Side::new(&document)?],
            jobs: 0,
            problems: vec![],
            retry: None,
            kept: cache::Notes::default(),
            address: Debounce::new(|| dispatch(Msg::WriteAddress)),
            window,
        })
    }

    fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Worker(message, data) => self.hear(message, data),
            Msg::Shelf(Ok(entries)) => {
                self.shelf = Some(entries);
                self.settle();
            }
            Msg::Shelf(Err(message)) => {
                self.shelf = Some(vec![]);
                self.problem(&message, Some(Retry::Shelf));
                self.settle();
            }
            Msg::Address => self.follow_address(),
            Msg::Control(control) => self.control(control),
            Msg::Generate if self.drawing() => self.stop(),
            Msg::Generate => {
                self.sides.iter_mut().for_each(Side::forget);
                self.redraw();
            }
            Msg::Shuffle => self.shuffle(),
            Msg::View(view) => {
                self.link.view = view;
                self.free_view = false;
                self.settle();
            }
            Msg::OpenUrl => self.open_url(),
            Msg::OpenFile(name, buffer) => self.open_file(name, buffer),
            Msg::Save => self.save(),
            Msg::Copy => self.copy(),
            Msg::Say(words) => self.say(&words),
            Msg::Cache(event) => self.cache_event(event),
            Msg::Retry => self.try_again(),
            Msg::Dismiss => self.dismiss(),
            Msg::Repaint => self.paint(),
            Msg::WriteAddress => address::replace(&self.window, &self.fragment()),
        }
    }

    /// Takes over what the address bar says.
    fn follow_address(&mut self) {
        let address = address::read(&address::current(&self.window));
        if self.retry != Some(Retry::Engine) {
            self.dismiss();
        }
        self.link = address.link;
        self.free_view = address.empty;
        for problem in &address.problems {
            self.problem(problem, None);
        }
        if address.empty {
            self.link.view = View::Compare;
        }
        if self.engine_info.is_none() || self.choice != address.choice {
            self.choice = address.choice;
            self.set_up();
        }
        self.sides.iter_mut().for_each(|s| s.key = None);
        self.settle();
    }

    /// Tells the worker which interpreter is wanted, and forgets what another one drew.
    fn set_up(&mut self) {
        self.sides.iter_mut().for_each(Side::forget);
        self.post(ToWorker::Setup { choice: self.choice }, None);
    }

    fn hear(&mut self, message: FromWorker, data: JsValue) {
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
            FromWorker::Progress { key, received, total } => self.progress(&key, received, total),
            FromWorker::Opened { key, info } => self.opened(key, *info),
            FromWorker::OpenFailed { key, message } => self.open_failed(key, &message),
            FromWorker::Kept { note } => self.cache_event(cache::Event::Changed(note)),
            FromWorker::Started { number, calls } => self.with_run(number, |run| run.start(calls)),
            FromWorker::Slice { number, first, ms } => self.with_run(number, |run| run.take(first, ms, &data)),
            FromWorker::Done { number, ms } => self.with_run(number, |run| run.finish(ms)),
            FromWorker::Cancelled { number } => self.with_run(number, run::Run::cancel),
            FromWorker::DrawFailed { number, message } => {
                self.with_run(number, run::Run::fail);
                self.problem(&format!("The pictures could not be drawn: {message}."), None);
            }
            FromWorker::Fatal { message } => self.broken(&message),
        }
    }

    fn post(&mut self, message: ToWorker, data: Option<ArrayBuffer>) {
        if let Err(e) = self.engine.post(message, data) {
            self.broken(&format!("The engine cannot be reached: {e}"));
        }
    }

    /// Says something in the status line, which screen readers read out.
    fn say(&self, words: &str) {
        text(&self.ui.status, words);
    }

    /// The link to what is shown.
    fn fragment(&self) -> String {
        let mut link = self.link.clone();
        if link.view != View::Compare {
            link.models[1] = Default::default();
        }
        address::write(&link, self.choice)
    }
}
