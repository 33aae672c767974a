//! The controls: reading them, and setting them to what is so.

use super::App;
use super::run::guidance;
use super::ui::{attr, options, text};
use crate::protocol::Choice;
use limbeck_shared::bundle::MAX_STEPS;
use limbeck_shared::link::{Class, MAX_COUNT, MAX_MODELS, View};

/// Seeds that Shuffle takes from: six digits, for short links.
const SEEDS: f64 = 1_000_000.0;
/// The seed's slider goes through so many seeds.
const NEAR: u64 = 1000;
const SEED_IS: &str = "A seed is a whole number from 0 to 18446744073709551615.";

/// A control with a new value; `live` while it still moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Model,
    /// A model beside the main one: its side.
    With(usize),
    /// Its steps.
    WithSteps(usize),
    Class,
    Seed {
        live: bool,
    },
    /// The seed's last three digits.
    Near {
        live: bool,
    },
    Seed2,
    Class2,
    Show,
    /// A place on the path or travel.
    Place,
    /// Which image of the seed.
    Image,
    Theme,
    Count {
        live: bool,
    },
    Steps,
    /// The number of steps of a sampler that takes any.
    Slide {
        live: bool,
    },
    Guidance {
        live: bool,
    },
    Backend,
}

impl Control {
    /// Every control's element, meaning and kind of event.
    pub const ALL: [(&str, Control, &str); 27] = [
        ("model", Control::Model, "change"),
        ("with", Control::With(1), "change"),
        ("with-steps", Control::WithSteps(1), "change"),
        ("third", Control::With(2), "change"),
        ("third-steps", Control::WithSteps(2), "change"),
        ("fourth", Control::With(3), "change"),
        ("fourth-steps", Control::WithSteps(3), "change"),
        ("near", Control::Near { live: true }, "input"),
        ("near", Control::Near { live: false }, "change"),
        ("seed2", Control::Seed2, "change"),
        ("class2", Control::Class2, "change"),
        ("path-show", Control::Show, "change"),
        ("path-place", Control::Place, "input"),
        ("travel-place", Control::Place, "input"),
        ("image", Control::Image, "change"),
        ("theme", Control::Theme, "change"),
        ("class", Control::Class, "change"),
        ("seed", Control::Seed { live: true }, "input"),
        ("seed", Control::Seed { live: false }, "change"),
        ("count", Control::Count { live: true }, "input"),
        ("count", Control::Count { live: false }, "change"),
        ("steps", Control::Steps, "change"),
        ("slide", Control::Slide { live: true }, "input"),
        ("slide", Control::Slide { live: false }, "change"),
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
            Control::With(side) => return self.pick(side, self.ui.beside(side).0.value()),
            Control::Theme => return self.choose_theme(),
            Control::Place => {
                let slider = if self.link.view == View::Path { &self.ui.path_place } else { &self.ui.travel_place };
                let (to, of) = (slider.value_as_number() as usize, self.positions().unwrap_or(1));
                self.playing = false;
                return self.go_to(to, of);
            }
            Control::Image => {
                let number = self.ui.image.value().trim().parse().unwrap_or(1).clamp(1, MAX_COUNT);
                self.link.image = Some(number - 1);
                false
            }
            Control::Show => {
                self.link.estimate = self.ui.path_show.value() == "x0";
                false
            }
            Control::Seed2 => {
                match self.ui.seed2.value().trim().parse() {
                    Ok(seed) => self.link.seed2 = Some(seed),
                    Err(_) => self.say(SEED_IS),
                }
                false
            }
            Control::Class2 => {
                self.link.class2 = self.ui.class2.value().parse().ok();
                false
            }
            Control::Near { live } => {
                let digits = (self.ui.near.value_as_number() as u64).min(NEAR - 1);
                // The largest seeds have no such neighbour.
                self.link.seed = (self.link.seed / NEAR * NEAR).saturating_add(digits);
                live
            }
            Control::Steps => self.choose_way(0, &self.ui.steps.value()),
            Control::Slide { live } => {
                self.link.models[0].steps = Some((self.ui.slide.value_as_number() as usize).clamp(1, MAX_STEPS));
                live
            }
            Control::WithSteps(side) => self.choose_way(side, &self.ui.beside(side).1.value()),
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
                    Err(_) => self.say(SEED_IS),
                }
                live
            }
            Control::Count { live } => {
                self.link.count = (self.ui.count.value_as_number() as u32).clamp(1, MAX_COUNT);
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
        if live {
            // Only what is quick follows; the rest when the control comes to rest.
            (self.stopped, self.live) = (false, true);
            self.fill();
            self.address.arm(300);
            if self.fast() {
                self.redraw();
            }
        } else {
            self.settle();
        }
    }

    /// A seed at random.
    pub fn shuffle(&mut self) {
        let random = || (js_sys::Math::random() * SEEDS) as u64;
        self.link.seed = random();
        if self.link.view == View::Travel {
            self.link.seed2 = Some(random());
        }
        self.free_view = false;
        self.settle();
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
        ui.near.set_value(&(self.link.seed % NEAR).to_string());
        ui.seed2.set_value(&self.seed2().to_string());
        let travels = self.link.view == View::Travel;
        ui.field_seed2.set_hidden(!travels);
        ui.field_image.set_hidden(!matches!(self.link.view, View::Path | View::Travel));
        ui.image.set_value(&(self.link.image.unwrap_or(0) + 1).to_string());
        ui.field_count.set_hidden(!matches!(self.link.view, View::Draw | View::Compare));
        ui.count.set_value(&self.link.count.to_string());
        text(&ui.count_out, &self.link.count.to_string());
        ui.backend.set_value(self.choice.word());
        let classless = info.as_ref().is_none_or(|i| i.classes.is_empty());
        ui.field_class.set_hidden(classless);
        ui.field_class2.set_hidden(classless || !travels);
        ui.field_guidance.set_hidden(info.as_ref().is_none_or(|i| i.guidance.is_none_or(|g| g.min >= g.max)));
        let Some(info) = info else { return };
        let mut classes = vec![("each".to_owned(), "Each in turn".to_owned())];
        classes.extend(info.classes.iter().enumerate().map(|(i, name)| (i.to_string(), name.clone())));
        let class = match self.link.class {
            Class::Each => "each".to_owned(),
            Class::Index(i) => i.min(info.classes.len().saturating_sub(1) as u32).to_string(),
        };
        options(&ui.class, &classes, &class);
        classes[0] = (String::new(), "The same".to_owned());
        options(&ui.class2, &classes, &self.link.class2.map_or(String::new(), |c| c.min(classes.len() as u32 - 2).to_string()));
        self.fill_ways(0, &info);
        if let Some(range) = info.guidance {
            let (slider, w) = (&ui.guidance, guidance(&info, self.link.guidance));
            slider.set_min(&range.min.to_string());
            slider.set_max(&range.max.to_string());
            slider.set_step("0.1");
            slider.set_value(&w.to_string());
            text(&ui.guidance_out, &format!("{w:.1}"));
        }
        for side in 1..MAX_MODELS {
            match self.info(side) {
                Some(beside) => self.fill_ways(side, &beside),
                None => options(self.ui.beside(side).1, &[], ""),
            }
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
        let mut more = vec![(String::new(), "Nothing more".to_owned())];
        more.extend(entries);
        for side in 2..MAX_MODELS {
            let (model, steps) = self.ui.beside(side);
            options(model, &more, key(side));
            steps.set_hidden(key(side).is_empty());
        }
        // A fourth model after a third one only.
        self.ui.fourth.set_hidden(key(2).is_empty() && key(3).is_empty());
        let line = self.shelf.iter().flatten().find(|e| e.id == key(0)).map(|e| e.line.clone());
        text(&self.ui.model_hint, &line.unwrap_or_default());
        self.ui.field_with.set_hidden(!self.compares());
    }
}
