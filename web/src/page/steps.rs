//! How a model draws: its samplers and numbers of steps, as lists or as a slider.

use super::App;
use super::run::way as way_of;
use super::ui::{options, plural, text};
use crate::protocol::{ModelInfo, Way};
use limbeck_shared::link::View;
use limbeck_shared::program::Sampler;

/// Most steps on the slider; a link may ask for more.
const SLIDE: usize = 100;

impl App {
    /// Takes over the value of a list.
    pub fn choose_way(&mut self, side: usize, value: &str) -> bool {
        if let Some(info) = self.info(side)
            && let Some(way) = info.ways.iter().find(|w| way_value(w) == value || sampler_value(w.sampler) == value)
        {
            let first = info.ways.iter().find(|w| w.default).map(|w| w.sampler);
            let choice = &mut self.link.models[side];
            // Another sampler that takes any number of steps keeps the slider where it is.
            let kept = way_of(&info, choice).filter(|_| way.open && sampler_value(way.sampler) == value);
            choice.steps = Some(kept.unwrap_or(*way).steps);
            choice.sampler = (first != Some(way.sampler)).then_some(way.sampler);
        }
        false
    }

    /// Sets the lists, and the slider where the main model's sampler takes any number of steps.
    pub fn fill_ways(&self, side: usize, info: &ModelInfo) {
        let several = info.ways.windows(2).any(|w| w[0].sampler != w[1].sampler);
        let mut entries: Vec<_> = info.ways.iter().map(|w| (way_value(w), way_text(w, several))).collect();
        let Some(chosen) = way_of(info, &self.link.models[side]) else { return };
        if side > 0 {
            // What a link asked for, between the usual numbers.
            if !info.ways.contains(&chosen) {
                let place = info.ways.iter().position(|w| w.sampler == chosen.sampler && w.steps > chosen.steps).unwrap_or(entries.len());
                entries.insert(place, (way_value(&chosen), way_text(&chosen, several)));
            }
            return options(self.ui.beside(side).1, &entries, &way_value(&chosen));
        }
        let ui = &self.ui;
        if chosen.open {
            entries = info.ways.iter().map(|w| (sampler_value(w.sampler), sampler_text(w.sampler).to_owned())).collect();
            entries.dedup();
            let value = sampler_value(chosen.sampler);
            options(&ui.steps, &entries, &value);
            ui.slide.set_max(&SLIDE.max(chosen.steps).to_string());
            ui.slide.set_value(&chosen.steps.to_string());
            text(&ui.slide_out, &chosen.steps.to_string());
        } else {
            options(&ui.steps, &entries, &way_value(&chosen));
        }
        ui.steps.set_hidden(entries.len() < 2);
        ui.slide_row.set_hidden(!chosen.open);
        // A path shows all of a student's.
        let all = self.link.view == View::Path && info.teacher.is_some();
        ui.field_steps.set_hidden((entries.len() < 2 && !chosen.open) || all);
    }
}

/// A sampler in a list of choices.
fn sampler_value(sampler: Sampler) -> String {
    format!("{sampler:?}")
}

/// A way in a list of choices.
fn way_value(way: &Way) -> String {
    format!("{:?}-{}", way.sampler, way.steps)
}

/// A way for reading; `named`: with its sampler.
fn way_text(way: &Way, named: bool) -> String {
    let steps = plural(way.steps, "step");
    if named && way.sampler != Sampler::OneStep { format!("{steps}, {}", sampler_text(way.sampler)) } else { steps }
}

/// A sampler for reading.
pub fn sampler_text(sampler: Sampler) -> &'static str {
    match sampler {
        Sampler::OneStep => "one call",
        Sampler::Euler => "Euler",
        Sampler::Ddim => "DDIM",
        Sampler::DdimClipped => "clipped DDIM",
        Sampler::Heun => "Heun",
        Sampler::Renoise => "re-noised",
        Sampler::FlowMap => "flow map",
        Sampler::FlowEuler => "Euler in flow time",
    }
}
