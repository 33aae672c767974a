//! The keyboard's shortcuts, which the page's `?` dialog lists.

use super::events::on;
use super::view::TABS;
use super::{Msg, dispatch};
use limbeck_shared::link::View;
use wasm_bindgen::JsCast;
use web_sys::{Document, Element, HtmlInputElement, KeyboardEvent};

/// Listens to keys, except while the visitor is typing or another dialog than the large image is open.
pub fn listen(document: &Document) {
    let page = document.clone();
    on::<KeyboardEvent>(document, "keydown", move |event| {
        let target = event.target().and_then(|t| t.dyn_into::<Element>().ok());
        if target.as_ref().is_some_and(|t| t.id() == "seed") && step_seed(&event) {
            return;
        }
        let tag = target.as_ref().map(|t| t.tag_name()).unwrap_or_default();
        let range = target.as_ref().is_some_and(|t| t.get_attribute("type").as_deref() == Some("range"));
        let typing = tag == "SELECT" || tag == "TEXTAREA" || (tag == "INPUT" && !range);
        let plain = !event.ctrl_key() && !event.meta_key() && !event.alt_key();
        let dialog = page.query_selector("dialog[open]").ok().flatten().map(|d| d.id());
        if typing || !plain || dialog.as_ref().is_some_and(|d| d != "large") {
            return;
        }
        let key = event.key();
        // Arrows belong to sliders and tabs, and the space bar to buttons, while these have the focus.
        let role = target.as_ref().and_then(|t| t.get_attribute("role")).unwrap_or_default();
        let taken = match key.as_str() {
            "ArrowLeft" | "ArrowRight" => range || role == "tab",
            " " => tag == "BUTTON" || tag == "SUMMARY" || tag == "A",
            _ => false,
        };
        let open = dialog.is_some();
        if let Some(msg) = meaning(&key, open, page.document_element()).filter(|_| !taken) {
            event.prevent_default();
            dispatch(msg);
        }
    });
}

/// What a key asks for; `open`: an image is shown large.
fn meaning(key: &str, open: bool, root: Option<Element>) -> Option<Msg> {
    let view = root.and_then(|r| r.get_attribute("data-view")).unwrap_or_default();
    let moves = open || view == View::Path.name() || view == View::Travel.name();
    match key.to_lowercase().as_str() {
        "arrowleft" if moves => Some(Msg::Step(-1)),
        "arrowright" if moves => Some(Msg::Step(1)),
        "s" => Some(Msg::Save),
        _ if open => None,
        " " if moves => Some(Msg::Play),
        "?" => Some(Msg::Help),
        "r" => Some(Msg::Shuffle),
        "g" => Some(Msg::Generate),
        "c" => Some(Msg::Copy),
        "l" => Some(Msg::Share),
        "e" => Some(Msg::Large(Some(0))),
        "t" => Some(Msg::Theme),
        digit => {
            let number: usize = digit.parse().ok()?;
            TABS.get(number.checked_sub(1)?).map(|&v| Msg::View(v))
        }
    }
}

/// Up and down in the seed's field are the next seed and the one before.
fn step_seed(event: &KeyboardEvent) -> bool {
    let up = match event.key().as_str() {
        "ArrowUp" => true,
        "ArrowDown" => false,
        _ => return false,
    };
    let Some(field) = event.target().and_then(|t| t.dyn_into::<HtmlInputElement>().ok()) else { return false };
    let Ok(seed) = field.value().trim().parse::<u64>() else { return false };
    let seed = if up { seed.wrapping_add(1) } else { seed.wrapping_sub(1) };
    event.prevent_default();
    field.set_value(&seed.to_string());
    dispatch(Msg::Control(super::controls::Control::Seed { live: false }));
    true
}
