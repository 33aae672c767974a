//! The controls: reading them, and setting them to what is so.

use super::canvas::Look;
use super::run::{Run, Stage, guidance, way};
use super::ui::{attr, duration, figure, options, plural, text};
use super::{App, canvas};
use crate::protocol::{Choice, ModelInfo, Way};
use limbeck_shared::link::{Class, View};
use limbeck_shared::program::Sampler;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

/// Draws that took less are repeated while a control moves, milliseconds.
const LIVE: f64 = 400.0;
/// Seeds that Shuffle takes from: six digits, for short links.
const SEEDS: f64 = 1_000_000.0;

/// A control with a new value; `live` while it still moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Model,
    With,
    WithSteps,
    Class,
    Seed { live: bool },
    Count { live: bool },
    Steps,
    Guidance { live: bool },
    Backend,
}

impl Control {
    /// Every control's element, meaning and kind of event.
    pub const ALL: [(&str, Control, &str); 12] = [
        ("model", Control::Model, "change"),
        ("with", Control::With, "change"),
        ("with-steps", Control::WithSteps, "change"),
        ("class", Control::Class, "change"),
        ("seed", Control::Seed { live: true }, "input"),
        ("seed", Control::Seed { live: false }, "change"),
        ("count", Control::Count { live: true }, "input"),
        ("count", Control::Count { live: false }, "change"),
        ("steps", Control::Steps, "change"),
        ("guidance", Control::Guidance { live: true }, "input"),
        ("guidance", Control::Guidance { live: false }, "change"),
        ("backend", Control::Backend, "change"),
    ];
}

impl App {
    /// Takes over a control's value.
    pub fn control(&mut self, control: Control) {
        let live = match control {
            Control::Model => return self.pick(0, self.ui.model.value()),
            Control::With => return self.pick(1, self.ui.with.value()),
            Control::Steps => self.choose_way(0, &self.ui.steps.value()),
            Control::WithSteps => self.choose_way(1, &self.ui.with_steps.value()),
            Control::Class => {
                let value = self.ui.class.value();
                self.link.class = value.parse().map_or(Class::Each, Class::Index);
                false
            }
            Control::Seed { live } => {
                let seed = self.ui.seed.value().trim().parse();
                attr(&self.ui.seed, "aria-invalid", if seed.is_ok() { "false" } else { "true" });
                match seed {
                    Ok(seed) => self.link.seed = seed,
                    Err(_) if live => return,
                    Err(_) => self.say("A seed is a whole number from 0 to 18446744073709551615."),
                }
                live
            }
            Control::Count { live } => {
                self.link.count = (self.ui.count.value_as_number() as u32).clamp(1, limbeck_shared::link::MAX_COUNT);
                live
            }
            Control::Guidance { live } => {
                self.link.guidance = Some(self.ui.guidance.value_as_number()).filter(|w| w.is_finite());
                live
            }
            Control::Backend => {
                self.choice = Choice::parse(&self.ui.backend.value()).unwrap_or_default();
                self.set_up();
                false
            }
        };
        self.free_view = false;
        if live && !self.fast() {
            self.fill();
            self.address.arm(300);
        } else {
            self.settle();
        }
    }

    /// Drawing is quick enough to follow a moving control.
    fn fast(&self) -> bool {
        let quick = |run: &Run| run.ms < LIVE && run.stage != Stage::Failed;
        self.shown().iter().all(|&side| self.sides[side].run.as_ref().is_some_and(quick))
    }

    /// A seed at random.
    pub fn shuffle(&mut self) {
        self.link.seed = (js_sys::Math::random() * SEEDS) as u64;
        self.free_view = false;
        self.settle();
    }

    fn choose_way(&mut self, side: usize, value: &str) -> bool {
        if let Some(info) = self.info(side)
            && let Some(way) = info.ways.iter().find(|w| way_value(w) == value)
        {
            let first = info.ways.iter().find(|w| w.default).map(|w| w.sampler);
            let choice = &mut self.link.models[side];
            choice.steps = Some(way.steps);
            choice.sampler = (first != Some(way.sampler)).then_some(way.sampler);
        }
        false
    }

    /// Sets every control to what is so.
    pub fn fill(&mut self) {
        self.fill_models();
        let info = self.info(0);
        let ui = &self.ui;
        if Some(self.link.seed) != ui.seed.value().trim().parse().ok() {
            ui.seed.set_value(&self.link.seed.to_string());
            attr(&ui.seed, "aria-invalid", "false");
        }
        ui.count.set_value(&self.link.count.to_string());
        text(&ui.count_out, &self.link.count.to_string());
        ui.backend.set_value(self.choice.word());
        ui.field_class.set_hidden(info.as_ref().is_none_or(|i| i.classes.is_empty()));
        ui.field_guidance.set_hidden(info.as_ref().is_none_or(|i| i.guidance.is_none_or(|g| g.min >= g.max)));
        let Some(info) = info else { return };
        let mut classes = vec![("each".to_owned(), "Each in turn".to_owned())];
        classes.extend(info.classes.iter().enumerate().map(|(i, name)| (i.to_string(), name.clone())));
        let class = match self.link.class {
            Class::Each => "each".to_owned(),
            Class::Index(i) => i.min(info.classes.len().saturating_sub(1) as u32).to_string(),
        };
        options(&ui.class, &classes, &class);
        self.fill_ways(0, &info);
        if let Some(range) = info.guidance {
            let (slider, w) = (&ui.guidance, guidance(&info, self.link.guidance));
            slider.set_min(&range.min.to_string());
            slider.set_max(&range.max.to_string());
            slider.set_step("0.1");
            slider.set_value(&w.to_string());
            text(&ui.guidance_out, &format!("{w:.1}"));
        }
        if let Some(beside) = self.info(1) {
            self.fill_ways(1, &beside);
        }
    }

    fn fill_models(&self) {
        let mut keys: Vec<String> = self.shelf.iter().flatten().map(|e| e.id.clone()).collect();
        let chosen = self.sides.iter().filter_map(|s| s.key.clone());
        for key in self.models.keys().cloned().chain(chosen) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let entries: Vec<_> = keys.iter().map(|k| (k.clone(), self.title(k))).collect();
        let key = |side: usize| self.sides[side].key.as_deref().unwrap_or_default();
        options(&self.ui.model, &entries, key(0));
        options(&self.ui.with, &entries, key(1));
        let line = self.shelf.iter().flatten().find(|e| e.id == key(0)).map(|e| e.line.clone());
        text(&self.ui.model_hint, &line.unwrap_or_default());
        self.ui.field_with.set_hidden(self.link.view != View::Compare);
    }

    fn fill_ways(&self, side: usize, info: &ModelInfo) {
        let several = info.ways.windows(2).any(|w| w[0].sampler != w[1].sampler);
        let entries: Vec<_> = info.ways.iter().map(|w| (way_value(w), way_text(w, several))).collect();
        let chosen = way(info, &self.link.models[side]).map(|w| way_value(&w)).unwrap_or_default();
        let select = if side == 0 { &self.ui.steps } else { &self.ui.with_steps };
        options(select, &entries, &chosen);
        if side == 0 {
            self.ui.field_steps.set_hidden(entries.len() < 2);
        }
    }

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

    fn paint_canvas(&self, card: &super::ui::Card, side: usize, stale: bool) {
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

/// A way in a list of choices.
fn way_value(way: &Way) -> String {
    format!("{:?}-{}", way.sampler, way.steps)
}

/// A way for reading.
fn way_text(way: &Way, named: bool) -> String {
    let name = match way.sampler {
        Sampler::OneStep => return plural(way.steps, "step"),
        Sampler::Ddim => "DDIM".to_owned(),
        Sampler::Renoise => "re-noised".to_owned(),
        Sampler::FlowMap => "flow map".to_owned(),
        other => format!("{other:?}"),
    };
    let steps = plural(way.steps, "step");
    if named { format!("{steps}, {name}") } else { steps }
}
