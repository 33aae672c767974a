//! The Model view: what a bundle says of itself.

use super::App;
use super::controls::way_text;
use super::ui::{attr, duration, figure, plural, text};
use crate::protocol::ModelInfo;
use web_sys::HtmlElement;

/// A fact: its name, its value, and whether the value is code.
type Fact = (String, String, bool);

/// A method in plain words; empty for one that this page does not know.
fn in_plain_words(method: &str) -> &'static str {
    match method {
        "edm" => {
            "A diffusion model, trained to remove noise from images. It draws by starting from pure noise and removing a little of it \
             at a time, with one or two calls of its network each time: slow, and good. Students learn from it."
        }
        "boot" => {
            "A student that never saw an image. It learned from its teacher alone (BOOT, Gu et al. 2023): asked for the teacher's \
             picture at any moment between noise and image, it answers in one call, and each moment's answer was trained against the \
             moment before, moved one small step on by the teacher. Asked for the last moment, it draws in one call."
        }
        _ => "",
    }
}

fn facts(info: &ModelInfo) -> Vec<Fact> {
    let [c, h, w] = info.shape;
    let sum = info.params.iter().sum::<usize>();
    let macs = info.macs.iter().map(|&m| figure(m as f64)).collect::<Vec<_>>().join(", ");
    let ways = info.ways.iter().map(|w| format!("{} ({})", way_text(w, true), plural(w.calls, "call"))).collect::<Vec<_>>().join("; ");
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
        text(&ui.model_method, in_plain_words(&info.method));
        ui.model_method.set_hidden(in_plain_words(&info.method).is_empty());
        self.list(&ui.model_facts, &facts(&info));
        let figures: Vec<Fact> = info.evaluation.iter().map(|(k, v)| (k.clone(), v.clone(), false)).collect();
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
