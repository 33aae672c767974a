//! What the visitor does, as messages.

use super::controls::Control;
use super::{Msg, dispatch};
use crate::timer;
use js_sys::ArrayBuffer;
use limbeck_shared::link::View;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Document, DragEvent, Element, Event, EventTarget, File, HtmlElement, HtmlInputElement, KeyboardEvent, Window};

/// Calls `f` for every event of a kind on a target, for as long as the page lives.
fn on<E: JsCast + 'static>(target: &EventTarget, kind: &str, f: impl FnMut(E) + 'static) {
    let mut f = f;
    let closure = Closure::<dyn FnMut(Event)>::new(move |event: Event| f(event.unchecked_into()));
    // Adding a listener fails for no kind and no target.
    let _ = target.add_event_listener_with_callback(kind, closure.as_ref().unchecked_ref());
    closure.forget();
}

/// Listens to everything.
pub fn listen(window: &Window, document: &Document) {
    let by_id = |id: &str| document.get_element_by_id(id);
    let click = |id: &str, msg: fn() -> Msg| {
        if let Some(e) = by_id(id) {
            on::<Event>(&e, "click", move |_| dispatch(msg()));
        }
    };
    click("shuffle", || Msg::Shuffle);
    click("save", || Msg::Save);
    click("copy", || Msg::Copy);
    click("open-url", || Msg::OpenUrl);
    click("retry", || Msg::Retry);
    click("dismiss", || Msg::Dismiss);
    for (id, view) in [("tab-compare", View::Compare), ("tab-draw", View::Draw), ("tab-model", View::Model)] {
        if let Some(tab) = by_id(id) {
            on::<Event>(&tab, "click", move |_| dispatch(Msg::View(view)));
            on::<KeyboardEvent>(&tab, "keydown", |event| step_tab(&event));
        }
    }
    for (id, control, kind) in Control::ALL {
        if let Some(e) = by_id(id) {
            on::<Event>(&e, kind, move |_| dispatch(Msg::Control(control)));
        }
    }
    if let Some(form) = by_id("controls") {
        on::<Event>(&form, "submit", |event| {
            event.prevent_default();
            dispatch(Msg::Generate);
        });
    }
    if let Some(url) = by_id("url") {
        on::<KeyboardEvent>(&url, "keydown", |event| {
            if event.key() == "Enter" {
                event.prevent_default();
                dispatch(Msg::OpenUrl);
            }
        });
    }
    files(document, by_id("file"));
    keys(document);
    on::<Event>(window, "hashchange", |_| dispatch(Msg::Address));
    surroundings(window, by_id("stage"));
}

/// Arrow keys move between tabs, as screen reader users expect.
fn step_tab(event: &KeyboardEvent) {
    let step = match event.key().as_str() {
        "ArrowRight" => 1,
        "ArrowLeft" => -1,
        _ => return,
    };
    let Some(tab) = event.current_target().and_then(|t| t.dyn_into::<Element>().ok()) else { return };
    let Ok(Some(tabs)) = tab.closest("[role=tablist]") else { return };
    let Ok(list) = tabs.query_selector_all("[role=tab]") else { return };
    let count = list.length() as i32;
    let here = (0..count).find(|&i| list.item(i as u32).is_some_and(|n| n.is_same_node(Some(&tab))));
    let next = here.and_then(|i| list.item((i + step).rem_euclid(count) as u32));
    if let Some(next) = next.and_then(|n| n.dyn_into::<HtmlElement>().ok()) {
        event.prevent_default();
        let _ = next.focus();
        next.click();
    }
}

/// `R` shuffles, unless the visitor is typing.
fn keys(document: &Document) {
    on::<KeyboardEvent>(document, "keydown", |event| {
        let typing = event.target().and_then(|t| t.dyn_into::<Element>().ok()).is_some_and(|e| {
            let kind = e.get_attribute("type").unwrap_or_default();
            e.tag_name() == "SELECT" || (e.tag_name() == "INPUT" && kind != "range")
        });
        let plain = !event.ctrl_key() && !event.meta_key() && !event.alt_key();
        if plain && !typing && event.key().eq_ignore_ascii_case("r") {
            dispatch(Msg::Shuffle);
        }
    });
}

/// Files, chosen or dropped.
fn files(document: &Document, input: Option<Element>) {
    if let Some(input) = input {
        on::<Event>(&input, "change", |event| {
            let input = event.target().and_then(|t| t.dyn_into::<HtmlInputElement>().ok());
            if let Some(file) = input.and_then(|i| i.files()).and_then(|f| f.get(0)) {
                read(file);
            }
        });
    }
    let veil = document.get_element_by_id("drop");
    let show = move |shown: bool| {
        if let Some(veil) = &veil {
            let _ = veil.toggle_attribute_with_force("hidden", !shown);
        }
    };
    let carries_files = |event: &DragEvent| event.data_transfer().is_some_and(|d| d.types().includes(&"Files".into(), 0));
    let over = show.clone();
    on::<DragEvent>(document, "dragover", move |event| {
        if carries_files(&event) {
            event.prevent_default();
            over(true);
        }
    });
    let leave = show.clone();
    on::<DragEvent>(document, "dragleave", move |event| {
        // Leaving one element for another is not leaving the page.
        if event.related_target().is_none() {
            leave(false);
        }
    });
    on::<DragEvent>(document, "drop", move |event| {
        show(false);
        if let Some(file) = event.data_transfer().and_then(|d| d.files()).and_then(|f| f.get(0)) {
            event.prevent_default();
            read(file);
        }
    });
}

fn read(file: File) {
    spawn_local(async move {
        let buffer = JsFuture::from(file.array_buffer()).await;
        let buffer = buffer.and_then(JsCast::dyn_into::<ArrayBuffer>).map_err(|e| timer::text_of(&e));
        dispatch(Msg::OpenFile(file.name(), buffer));
    });
}

/// Sizes and colours that change while the page is open.
fn surroundings(window: &Window, stage: Option<Element>) {
    let repaint = Closure::<dyn FnMut()>::new(|| dispatch(Msg::Repaint));
    if let (Some(stage), Ok(observer)) = (stage, web_sys::ResizeObserver::new(repaint.as_ref().unchecked_ref())) {
        observer.observe(&stage);
        repaint.forget();
    }
    if let Ok(Some(dark)) = window.match_media("(prefers-color-scheme: dark)") {
        on::<Event>(&dark, "change", |_| dispatch(Msg::Repaint));
    }
}
