//! What the visitor does, as messages.

use super::controls::Control;
use super::view::TABS;
use super::{Msg, dispatch, keys};
use crate::timer;
use js_sys::ArrayBuffer;
use limbeck_shared::link::View;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Document, DragEvent, Element, Event, EventTarget, File, HtmlElement, HtmlInputElement, KeyboardEvent, MouseEvent, Window};

/// A button's id, and what a click on it means.
type Click = (&'static str, fn() -> Msg);

/// The page's buttons.
const CLICKS: [Click; 25] = [
    ("shuffle", || Msg::Shuffle),
    ("save", || Msg::Save),
    ("copy", || Msg::Copy),
    ("open-share", || Msg::Share),
    ("share-copy", || Msg::Copy),
    ("share-send", || Msg::Send),
    ("share-frame-copy", || Msg::CopyFrame),
    ("bench-start", || Msg::Generate),
    ("bench-copy", || Msg::CopyBench),
    ("open-help", || Msg::Help),
    ("open-url", || Msg::OpenUrl),
    ("retry", || Msg::Retry),
    ("dismiss", || Msg::Dismiss),
    ("path-back", || Msg::Step(-1)),
    ("path-play", || Msg::Play),
    ("path-on", || Msg::Step(1)),
    ("travel-back", || Msg::Step(-1)),
    ("travel-play", || Msg::Play),
    ("travel-on", || Msg::Step(1)),
    ("travel-save", || Msg::Animation),
    ("large-back", || Msg::Step(-1)),
    ("large-on", || Msg::Step(1)),
    ("large-save", || Msg::Save),
    ("large-path", || Msg::View(View::Path)),
    ("large-travel", || Msg::View(View::Travel)),
];

/// Calls `f` for every event of a kind on a target, for as long as the page lives.
pub fn on<E: JsCast + 'static>(target: &EventTarget, kind: &str, f: impl FnMut(E) + 'static) {
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
    for (id, msg) in CLICKS {
        click(id, msg);
    }
    for view in TABS {
        if let Some(tab) = by_id(&format!("tab-{}", view.name())) {
            on::<Event>(&tab, "click", move |_| dispatch(Msg::View(view)));
            on::<KeyboardEvent>(&tab, "keydown", |event| step_tab(&event));
        }
    }
    pictures(document);
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
    keys::listen(document);
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

/// Clicks on pictures: an image of a grid is shown large, a film strip goes where it is clicked.
fn pictures(document: &Document) {
    let part = |event: &MouseEvent, target: &Element| {
        let room = target.get_bounding_client_rect();
        let inside = |v: f64, size: f64| if size > 0.0 { (v / size).clamp(0.0, 1.0) } else { 0.0 };
        let (x, y) = (f64::from(event.client_x()) - room.left(), f64::from(event.client_y()) - room.top());
        [inside(x, room.width()), inside(y, room.height())]
    };
    for (id, side) in [("canvas-student", 0), ("canvas-teacher", 1), ("canvas-third", 2), ("canvas-fourth", 3), ("canvas-draw", 0)] {
        let Some(canvas) = document.get_element_by_id(id) else { continue };
        let target = canvas.clone();
        on::<MouseEvent>(&canvas, "click", move |event| dispatch(Msg::Hit(side, part(&event, &target))));
        on::<KeyboardEvent>(&canvas, "keydown", |event| {
            if event.key() == "Enter" {
                event.prevent_default();
                dispatch(Msg::Large(Some(0)));
            }
        });
    }
    for id in ["path-rows", "travel-film"] {
        let Some(films) = document.get_element_by_id(id) else { continue };
        on::<MouseEvent>(&films, "click", move |event| {
            let target = event.target().and_then(|t| t.dyn_into::<Element>().ok());
            if let Some(strip) = target.filter(|t| t.class_list().contains("strip")) {
                dispatch(Msg::Film(part(&event, &strip)[0]));
            }
        });
    }
    // Escape closes a dialog without a click.
    if let Some(large) = document.get_element_by_id("large") {
        on::<Event>(&large, "close", |_| dispatch(Msg::Large(None)));
    }
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
