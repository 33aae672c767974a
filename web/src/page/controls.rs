//! The controls: reading them, and setting them to what is so.

use super::App;
use super::run::{Run, Stage, guidance, way};
use super::ui::{attr, options, plural, text};
use crate::protocol::{Choice, ModelInfo, Way};
use limbeck_shared::link::{Class, View};
use limbeck_shared::program::Sampler;

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
}

/// A way in a list of choices.
fn way_value(way: &Way) -> String {
    format!("{:?}-{}", way.sampler, way.steps)
}

/// A way for reading; `named`: with its sampler.
pub fn way_text(way: &Way, named: bool) -> String {
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
