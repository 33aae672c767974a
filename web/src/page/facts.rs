//! The Model view: what a bundle says of itself.

use super::App;
use super::steps::sampler_text;
use super::ui::{attr, duration, figure, plural, text};
use crate::protocol::ModelInfo;
use limbeck_shared::program::Sampler;
use web_sys::HtmlElement;

/// A fact: its name, its value, and whether the value is code.
type Fact = (String, String, bool);

/// What is shown of a measurement by `limbeck eval`; none if the value is something else.
fn measured(value: &serde_json::Value) -> Option<String> {
    let number = |key: &str| value.get(key).and_then(serde_json::Value::as_f64);
    let calls = number("evals").map_or(String::new(), |n| format!("{}: ", plural(n as usize, "network call")));
    let floor = number("fd_floor").map_or(String::new(), |f| format!(" (real images: {f:.3})"));
    let named = number("accuracy").map_or(String::new(), |a| format!(", {:.1} % of the classes named right", 100.0 * a));
    let count = number("count").map_or(String::new(), |n| format!(", {n:.0} images"));
    Some(format!("{calls}fd {:.3}{floor}{named}{count}", number("fd")?))
}

/// What is shown of the places where a routed model's networks hand over; none if the value is something else.
fn edges(value: &serde_json::Value) -> Option<String> {
    let percent = |edge: &serde_json::Value| Some(format!("{:.1} %", 100.0 * edge.get("eps")?.as_f64()?));
    let apart = value.as_array()?.iter().map(percent).collect::<Option<Vec<_>>>()?;
    Some(format!("where one network follows another, the noise that they see differs by {}", apart.join(", ")))
}

/// The evaluation, one line for each way of drawing.
fn evaluation(info: &ModelInfo) -> Vec<Fact> {
    let line = |(name, text): &(String, String)| {
        let words = serde_json::from_str(text).ok().as_ref().and_then(|value| measured(value).or_else(|| edges(value)));
        (name.replace(['_', '-'], " "), words.unwrap_or_else(|| text.clone()), false)
    };
    info.evaluation.iter().map(line).collect()
}

fn facts(info: &ModelInfo) -> Vec<Fact> {
    let [c, h, w] = info.shape;
    let sum = info.params.iter().sum::<usize>();
    let macs = info.macs.iter().map(|&m| figure(m as f64)).collect::<Vec<_>>().join(", ");
    let mut ways: Vec<(Sampler, Vec<String>)> = vec![];
    for way in &info.ways {
        match ways.last_mut().filter(|w| w.0 == way.sampler) {
            Some(_) if way.open => {}
            Some((_, steps)) => steps.push(way.steps.to_string()),
            None if way.open => ways.push((way.sampler, vec!["any number of".into()])),
            None => ways.push((way.sampler, vec![way.steps.to_string()])),
        }
    }
    let number = |steps: &[String]| if steps == ["1"] { "1 step".to_owned() } else { format!("{} steps", steps.join(", ")) };
    let ways = ways.iter().map(|(sampler, steps)| format!("{}: {}", sampler_text(*sampler), number(steps)));
    let ways = ways.collect::<Vec<_>>().join("; ");
    let mut out = vec![
        ("Method", info.method.clone(), false),
        ("Preset", info.preset.clone(), false),
        ("Images seen in training", figure(info.images_seen as f64), false),
        ("Training time", duration(info.seconds * 1e3), false),
        ("Images", format!("{w} x {h}, {c} {}", if c == 1 { "channel" } else { "channels" }), false),
        ("Parameters", figure(sum as f64), false),
        ("Multiply-adds a network call", macs, false),
        ("Samplers", ways, false),
        ("Classes", info.classes.join(", "), false),
        ("Licence", info.licence.clone(), false),
        ("File", format!("{:.2} MB", info.bytes as f64 / 1e6), false),
        ("SHA-256", info.sha256.clone(), true),
        ("Teacher's SHA-256", info.teacher.clone().unwrap_or_default(), true),
        ("Noise schedule", info.schedule.clone(), true),
        ("Network's answer", info.parameterization.clone(), true),
        ("Trained by", info.command.clone(), true),
    ];
    out.retain(|(_, value, _)| !value.is_empty());
    out.into_iter().map(|(name, value, code)| (name.to_owned(), value, code)).collect()
}

impl App {
    /// Fills the Model view.
    pub fn show_facts(&self) {
        let ui = &self.ui;
        let key = self.sides[0].key.as_deref();
        text(&ui.model_name, &key.map_or("None chosen".to_owned(), |k| self.title(k)));
        let Some(info) = self.info(0) else {
            ui.model_facts.set_text_content(None);
            ui.model_eval.set_text_content(None);
            return ui.model_eval_title.set_hidden(true);
        };
        let line = self.shelf.iter().flatten().find(|e| Some(e.id.as_str()) == key).map(|e| e.line.clone());
        text(&ui.model_line, &line.unwrap_or_default());
        let methods = ui.model_methods.children();
        for figure in (0..methods.length()).filter_map(|i| methods.item(i)) {
            if let Some(method) = figure.get_attribute("data-method") {
                let _ = figure.toggle_attribute_with_force("hidden", method != info.method);
            }
        }
        let mut facts = facts(&info);
        if let Some(teacher) = self.shelf.iter().flatten().find(|e| Some(&e.sha256) == info.teacher.as_ref()) {
            facts.insert(1, ("Teacher".to_owned(), teacher.title.clone(), false));
        }
        self.list(&ui.model_facts, &facts);
        let figures = evaluation(&info);
        ui.model_eval_title.set_hidden(figures.is_empty());
        self.list(&ui.model_eval, &figures);
    }

    fn list(&self, list: &HtmlElement, facts: &[Fact]) {
        list.set_text_content(None);
        for (name, value, code) in facts {
            let make = |tag: &str, content: Option<&str>| {
                let element = self.ui.document.create_element(tag).ok()?;
                element.set_text_content(content);
                Some(element)
            };
            let (Some(row), Some(term), Some(datum)) = (make("div", None), make("dt", Some(name)), make("dd", Some(value))) else { return };
            if *code {
                attr(&datum, "class", "code");
            }
            // Appending a new element to a new element cannot fail.
            let _ = row.append_child(&term).and_then(|_| row.append_child(&datum)).and_then(|_| list.append_child(&row));
        }
    }
}
