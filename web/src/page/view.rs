//! What is shown: pictures, their figures, the comparison in words, and the state that tests read.

use super::App;
use super::canvas::{self, Look};
use super::run::{Run, Stage};
use super::ui::{Card, attr, duration, figure, plural, text};
use super::want::Place;
use limbeck_shared::link::View;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

/// The views that have a tab, in order: the keys 1 to 6.
pub const TABS: [View; 6] = [View::Compare, View::Draw, View::Path, View::Travel, View::Model, View::Bench];
/// The card of the Draw view; those before it are the sides'.
const DRAW: usize = 4;

impl App {
    /// Paints what the view shows, and brings figures and state in line.
    pub fn paint(&mut self) {
        let view = self.link.view;
        for this in TABS {
            let shown = view == this;
            let by_id = |kind: &str| self.ui.document.get_element_by_id(&format!("{kind}-{}", this.name()));
            if let Some(tab) = by_id("tab") {
                attr(&tab, "aria-selected", if shown { "true" } else { "false" });
                attr(&tab, "tabindex", if shown { "0" } else { "-1" });
            }
            if let Some(panel) = by_id("panel").and_then(|p| p.dyn_into::<HtmlElement>().ok()) {
                panel.set_hidden(!shown);
            }
        }
        let _ = self.ui.root.toggle_attribute_with_force("data-embed", self.link.embed);
        let _ = self.ui.root.dataset().set("view", view.name());
        match view {
            View::Compare => {
                let shown = self.shown();
                for side in 0..DRAW {
                    if let Some(card) = self.cards[side].canvas.closest(".card").ok().flatten() {
                        let _ = card.toggle_attribute_with_force("hidden", !shown.contains(&side));
                    }
                    self.paint_card(side, side);
                }
                text(&self.ui.verdict, &self.verdict());
            }
            View::Path => self.paint_path(),
            View::Travel => self.paint_travel(),
            View::Model => self.show_facts(),
            View::Draw => self.paint_card(DRAW, 0),
            View::Bench => self.paint_bench(),
        }
        for button in [&self.ui.path_play, &self.ui.travel_play] {
            text(button, if self.playing { "Pause" } else { "Play" });
        }
        self.show_large();
        self.show_leave();
        self.show_loading();
    }

    fn paint_card(&self, card: usize, side: usize) {
        let card = &self.cards[card];
        let title = self.sides[side].key.as_ref().map_or("None chosen".to_owned(), |k| self.title(k));
        text(&card.name, &title);
        if let Some(role) = &card.role {
            text(role, self.role(side));
            if let Ok(Some(article)) = card.canvas.closest(".card") {
                let _ = article.class_list().toggle_with_force("student", self.role(side) == "Student");
            }
        }
        let Some(run) = self.run(Place::Grid(side)) else {
            text(&card.calls, "–");
            text(&card.time, "–");
            text(&card.rate, "–");
            card.bar.set_value(0.0);
            return self.paint_canvas(card, side, true);
        };
        text(&card.calls, &if run.calls > 0 { run.calls.to_string() } else { "–".to_owned() });
        text(&card.time, &if run.ms > 0.0 { duration(run.ms) } else { "–".to_owned() });
        text(&card.rate, &run.rate().map_or("–".to_owned(), figure));
        card.bar.set_value(run.drawn as f64 / run.job.count as f64);
        attr(&card.canvas, "aria-label", &canvas::describe(run, self.link.class));
        let stale = self.lacks(Place::Grid(side)) || !self.shows.get(&Place::Grid(side)).is_some_and(|s| s.picture.is_of(run));
        self.paint_canvas(card, side, stale);
    }

    /// Colours, and the room that a canvas has in its parent.
    pub fn look(&self, canvas: &Element) -> Look {
        let style = canvas.parent_element().and_then(|p| Some((self.window.get_computed_style(&p).ok()??, p)));
        let value =
            |name: &str| style.as_ref().map_or(String::new(), |s| s.0.get_property_value(name).unwrap_or_default().trim().to_owned());
        let pixels = |name: &str| value(name).trim_end_matches("px").parse::<f64>().unwrap_or(0.0);
        let width = style.as_ref().map_or(0.0, |s| f64::from(s.1.client_width())) - pixels("padding-left") - pixels("padding-right");
        Look {
            width,
            height: f64::INFINITY,
            ratio: self.window.device_pixel_ratio().max(0.5),
            tile: value("--tile"),
            ink: value("--soft"),
            accent: value("--copper"),
            font: value("font-family"),
        }
    }

    fn paint_canvas(&self, card: &Card, side: usize, stale: bool) {
        let Some(show) = self.shows.get(&Place::Grid(side)) else { return card.canvas.set_hidden(true) };
        let look = self.look(&card.canvas);
        // On a phone, both grids of a comparison should be seen at once.
        let height = if self.link.view == View::Compare { (0.9 * look.width).max(240.0) } else { (1.1 * look.width).max(480.0) };
        show.picture.paint(&card.canvas, &Look { height, ..look }, stale);
    }

    /// What part a model plays beside the other one.
    pub fn role(&self, side: usize) -> &'static str {
        let Some(info) = self.info(side) else { return if side == 0 { "Student" } else { "Teacher" } };
        let teaches = self.shelf.iter().flatten().any(|e| e.teacher.as_ref() == Some(&info.sha256));
        match (&info.teacher, teaches) {
            (Some(_), _) => "Student",
            (None, true) => "Teacher",
            (None, false) => "Model",
        }
    }

    /// The comparison in a sentence.
    fn verdict(&self) -> String {
        if self.shown().len() > 2 {
            return self.verdict_on_many();
        }
        let [Some(a), Some(b)] = [0, 1].map(|i| self.run(Place::Grid(i))) else { return String::new() };
        let name = |side: usize| format!("the {}", self.role(side).to_lowercase());
        let (first, second) = (name(0), name(1));
        let distinct = first != second;
        let capital = |s: &str| s[..1].to_uppercase() + &s[1..];
        match (a.stage, b.stage) {
            (Stage::Done, Stage::Done) if a.ms > 0.0 && b.ms > 0.0 && distinct => {
                let (quick, slow, ahead) = if a.ms <= b.ms { (a, b, &first) } else { (b, a, &second) };
                let calls = |run: &Run| plural(run.calls, "network call");
                let times = slow.ms / quick.ms;
                let times = if times < 9.95 { format!("{times:.1}") } else { format!("{times:.0}") };
                format!("From the same noise, {ahead} was {times} times faster: {} instead of {}.", calls(quick), slow.calls)
            }
            (Stage::Done, Stage::Drawing | Stage::Waiting) if distinct => {
                format!("{} is done in {}; {second} has drawn {} of {}.", capital(&first), duration(a.ms), b.drawn, b.job.count)
            }
            (Stage::Done, Stage::Done) => format!("The same noise: {} against {}.", duration(a.ms), duration(b.ms)),
            _ => "Both begin with the same noise.".into(),
        }
    }

    /// Three models or more, the slowest first.
    fn verdict_on_many(&self) -> String {
        let mut runs: Vec<&Run> = self.shown().into_iter().filter_map(|i| self.run(Place::Grid(i))).collect();
        if runs.len() < self.shown().len() || runs.iter().any(|r| r.stage != Stage::Done || r.ms <= 0.0) {
            return "All begin with the same noise.".into();
        }
        runs.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let part = |(k, run): (usize, &&Run)| {
            let calls = if k == 0 { plural(run.calls, "network call") } else { run.calls.to_string() };
            format!("{calls} took {}", duration(run.ms))
        };
        format!("From the same noise: {}.", runs.iter().enumerate().map(part).collect::<Vec<_>>().join(", "))
    }

    /// What tests and styles read from the document, and what the main button does.
    pub fn show_state(&self) {
        let places = self.places();
        let done = |&place: &Place| self.run(place).is_some_and(|r| r.stage == Stage::Done) && !self.lacks(place);
        let ready = self.shown().iter().all(|&side| self.info(side).is_some());
        let state = if self.drawing() {
            "drawing"
        } else if ready && (self.link.view == View::Bench && self.bench.over() || !places.is_empty() && places.iter().all(done)) {
            "done"
        } else if self.ui.problem.get_attribute("hidden").is_none() {
            "error"
        } else if ready {
            "ready"
        } else {
            "loading"
        };
        let _ = self.ui.root.dataset().set("state", state);
        let start = if self.link.view == View::Bench { "Measure" } else { "Generate" };
        text(&self.ui.generate, if state == "drawing" { "Stop" } else { start });
        self.ui.save.set_disabled(!places.iter().any(|&p| self.run(p).is_some_and(|r| r.drawn > 0)));
    }
}
