//! What is shown: pictures, their figures, the comparison in words, and the state that tests read.

use super::App;
use super::canvas::{self, Look};
use super::run::{Run, Stage};
use super::ui::{Card, attr, duration, figure, plural, text};
use limbeck_shared::link::View;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

impl App {
    /// Paints what the view shows, and brings figures and state in line.
    pub fn paint(&mut self) {
        let view = self.link.view;
        for (name, this) in [("compare", View::Compare), ("draw", View::Draw), ("model", View::Model)] {
            // Bench has no panel yet: its links show the pictures.
            let shown = view == this || (view == View::Bench && this == View::Draw);
            let by_id = |id: String| self.ui.document.get_element_by_id(&id);
            if let Some(tab) = by_id(format!("tab-{name}")) {
                attr(&tab, "aria-selected", if shown { "true" } else { "false" });
                attr(&tab, "tabindex", if shown { "0" } else { "-1" });
            }
            if let Some(panel) = by_id(format!("panel-{name}")).and_then(|p| p.dyn_into::<HtmlElement>().ok()) {
                panel.set_hidden(!shown);
            }
        }
        match view {
            View::Compare => {
                self.paint_card(0, 0);
                self.paint_card(1, 1);
                text(&self.ui.verdict, &self.verdict());
            }
            View::Model => self.show_facts(),
            View::Draw | View::Bench => self.paint_card(2, 0),
        }
        self.show_loading();
    }

    fn paint_card(&self, card: usize, side: usize) {
        let (card, side_state) = (&self.cards[card], &self.sides[side]);
        let title = side_state.key.as_ref().map_or("None chosen".to_owned(), |k| self.title(k));
        text(&card.name, &title);
        if let Some(role) = &card.role {
            text(role, self.role(side));
        }
        let Some(run) = &side_state.run else {
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
        self.paint_canvas(card, side, !side_state.picture.is_of(run));
    }

    fn paint_canvas(&self, card: &Card, side: usize, stale: bool) {
        let element: &Element = &card.canvas;
        let Some(parent) = element.parent_element() else { return };
        let Ok(Some(style)) = self.window.get_computed_style(&parent) else { return };
        let value = |name: &str| style.get_property_value(name).unwrap_or_default().trim().to_owned();
        let pixels = |name: &str| value(name).trim_end_matches("px").parse::<f64>().unwrap_or(0.0);
        let width = f64::from(parent.client_width()) - pixels("padding-left") - pixels("padding-right");
        // On a phone, both grids of a comparison should be seen at once.
        let height = if self.link.view == View::Compare { (0.9 * width).max(240.0) } else { (1.1 * width).max(480.0) };
        let look = Look {
            width,
            height,
            ratio: self.window.device_pixel_ratio().max(0.5),
            tile: value("--tile"),
            ink: value("--soft"),
            font: value("font-family"),
        };
        self.sides[side].picture.paint(&card.canvas, &look, stale);
    }

    /// What part a model plays beside the other one.
    fn role(&self, side: usize) -> &'static str {
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
        let [Some(a), Some(b)] = [0, 1].map(|i| self.sides[i].run.as_ref()) else { return String::new() };
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

    /// What tests and styles read from the document, and what the main button does.
    pub fn show_state(&self) {
        let shown = self.shown();
        let done = |&side: &usize| self.sides[side].run.as_ref().is_some_and(|r| r.stage == Stage::Done);
        let ready = shown.iter().all(|&side| self.info(side).is_some());
        let state = if self.drawing() {
            "drawing"
        } else if shown.iter().all(done) {
            "done"
        } else if self.ui.problem.get_attribute("hidden").is_none() {
            "error"
        } else if ready {
            "ready"
        } else {
            "loading"
        };
        let _ = self.ui.root.dataset().set("state", state);
        text(&self.ui.generate, if state == "drawing" { "Stop" } else { "Generate" });
        self.ui.save.set_disabled(shown.iter().all(|&side| self.sides[side].run.as_ref().is_none_or(|r| r.drawn == 0)));
    }
}
