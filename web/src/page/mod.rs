//! The view: controls, canvases, the link in the address bar.
//!
//! Everything that happens (a click, a message from the worker, a download) becomes a [`Msg`] and passes through [`dispatch`], one
//! after another; [`App`] is the page's whole state.

mod address;
mod bench;
mod cache;
mod canvas;
mod controls;
mod engine;
mod events;
mod export;
mod facts;
mod film;
mod grid;
mod hear;
mod keys;
mod large;
mod models;
mod msg;
mod open;
mod path;
mod png;
mod probe;
mod problem;
mod races;
mod run;
mod share;
mod shelf;
mod steps;
mod theme;
mod travel;
mod ui;
mod view;
mod want;

use crate::protocol::{Choice, EngineInfo};
use crate::timer::Debounce;
use engine::Engine;
use limbeck_shared::link::{Link, MAX_MODELS, View};
use models::Slot;
pub use msg::Msg;
use problem::{Retry, fail};
use run::Show;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use ui::{Card, Ui};
use want::Place;
use wasm_bindgen_futures::spawn_local;
use web_sys::Window;

/// One of the models on show.
#[derive(Default)]
struct Side {
    /// Which model.
    key: Option<String>,
    /// The model is not the one that the link was made with.
    refused: bool,
}

/// The page's state.
pub struct App {
    window: Window,
    ui: Ui,
    /// The cards: those of the Compare view by side, and the Draw view's.
    cards: [Card; 5],
    engine: Engine,
    engine_info: Option<EngineInfo>,
    shelf: Option<Vec<shelf::Entry>>,
    models: HashMap<String, Slot>,
    link: Link,
    choice: Choice,
    /// The address named no view, so the page chooses one.
    free_view: bool,
    /// The main model and those beside it.
    sides: [Side; MAX_MODELS],
    /// Pictures, by where they are shown.
    shows: BTreeMap<Place, Show>,
    /// Number of the newest job.
    jobs: u32,
    /// The job that the worker has.
    flying: Option<u32>,
    /// The visitor stopped drawing.
    stopped: bool,
    /// A control is moving.
    live: bool,
    bench: bench::Bench,
    /// Frames follow each other, on or back.
    playing: bool,
    backward: bool,
    ticker: Debounce,
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
        Ok(app) => {
            app.recall_theme();
            APP.with(|a| a.replace(Some(app)))
        }
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
            cards: [card("student")?, card("teacher")?, card("third")?, card("fourth")?, card("draw")?],
            ui: Ui::find(document.clone())?,
            engine: Engine::start(glue.into(), worker.into())?,
            engine_info: None,
            shelf: None,
            models: HashMap::new(),
            link: Link::default(),
            choice: Choice::default(),
            free_view: true,
            sides: Default::default(),
            shows: BTreeMap::new(),
            jobs: 0,
            flying: None,
            stopped: false,
            live: false,
            bench: bench::Bench::default(),
            playing: false,
            backward: false,
            ticker: App::ticker(),
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
            Msg::Generate if self.link.view == View::Bench => self.start_bench(),
            Msg::Generate => {
                self.forget();
                (self.stopped, self.live) = (false, false);
                self.redraw();
            }
            Msg::Shuffle => self.shuffle(),
            Msg::View(view) => self.turn_to(view),
            Msg::OpenUrl => self.open_url(),
            Msg::OpenFile(name, buffer) => self.open_file(name, buffer),
            Msg::Save => self.save(),
            Msg::Animation => self.save_animation(),
            Msg::Copy => self.copy(),
            Msg::Share => self.show_share(),
            Msg::Send => self.send(),
            Msg::CopyFrame => self.copy_frame(),
            Msg::CopyBench => self.copy_bench(),
            Msg::Help => {
                if !self.ui.help.open() && self.ui.help.show_modal().is_err() {
                    self.say("This browser cannot open the dialog.");
                }
            }
            Msg::Play => self.toggle_play(),
            Msg::Tick => self.tick(),
            Msg::Step(by) if self.large_image().is_some() => self.step_large(by),
            Msg::Step(by) => self.step_film(by),
            Msg::Film(part) => self.click_film(part),
            Msg::Large(image) => self.set_large(image),
            Msg::Hit(side, part) => self.hit(side, part),
            Msg::Theme => self.next_theme(),
            Msg::Say(words) => self.say(&words),
            Msg::Cache(event) => self.cache_event(event),
            Msg::Retry => self.try_again(),
            Msg::Dismiss => self.dismiss(),
            Msg::Repaint => self.paint(),
            Msg::WriteAddress => address::replace(&self.window, &self.fragment()),
        }
    }

    /// Another view.
    fn turn_to(&mut self, view: View) {
        if view == self.link.view {
            return;
        }
        // A grid is shown as a whole; a path or travel begins anew.
        if !matches!(view, View::Path | View::Travel) {
            self.link.image = None;
        }
        self.link.place = None;
        self.playing = false;
        self.bench.stop();
        self.link.view = view;
        self.free_view = false;
        self.settle();
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
        self.playing = false;
        self.bench.stop();
        self.settle();
    }

    /// The link, without what the view does not show.
    fn shown_link(&self) -> Link {
        let mut link = self.link.clone();
        if !self.compares() {
            link.models[1..].fill(Default::default());
        }
        if link.view != View::Travel {
            (link.seed2, link.class2) = (None, None);
        }
        link.estimate &= link.view == View::Path;
        link
    }

    /// The fragment that shows what is shown.
    fn fragment(&self) -> String {
        address::write(&self.shown_link(), self.choice)
    }
}
