//! What this browser keeps for the next visit, listed in the Model view, and deleting it.

use super::ui::attr;
use super::{App, Msg, dispatch};
use crate::cache::{self, Kept};
use js_sys::{Date, Object, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Document, Element, Navigator, ServiceWorkerRegistration, StorageEstimate};

/// Something that happened to what is kept.
pub enum Event {
    /// It may have changed; a sentence for the visitor, if there is something to say.
    Changed(String),
    /// It was read.
    Read(Result<Vec<Kept>, String>, Room),
    /// The visitor wants one model deleted, or all.
    Delete(Option<String>),
}

/// Room for this site, and whether it has moved in.
#[derive(Clone, Copy, Default)]
pub struct Room {
    /// Bytes used and bytes at most, where the browser tells.
    bytes: Option<(f64, f64)>,
    /// The page itself opens without a network.
    offline: bool,
}

/// What was said of the cache.
#[derive(Default)]
pub struct Notes {
    last: String,
}

impl App {
    /// Follows an event.
    pub fn cache_event(&mut self, event: Event) {
        match event {
            Event::Changed(note) => {
                if !note.is_empty() && note != self.kept.last {
                    self.say(&note);
                    self.kept.last = note;
                }
                spawn_local(refresh(self.window.navigator()));
            }
            Event::Read(kept, room) => self.show_kept(&kept, room),
            Event::Delete(key) => {
                let navigator = self.window.navigator();
                spawn_local(async move {
                    let deleted = match key {
                        Some(key) => cache::delete(&key).await,
                        None => cache::clear().await,
                    };
                    let note = deleted.err().map_or(String::new(), |e| format!("This browser did not delete it: {e}."));
                    dispatch(Msg::Cache(Event::Changed(note)));
                    refresh(navigator).await;
                });
            }
        }
    }

    /// Fills the card in the Model view.
    fn show_kept(&self, kept: &Result<Vec<Kept>, String>, room: Room) {
        let document = &self.ui.document;
        let Some(card) = document.get_element_by_id("kept") else { return };
        card.set_text_content(None);
        let header = child(document, &card, "header", "", "");
        let title = header.as_ref().and_then(|h| child(document, h, "h2", "", "Kept on this device"));
        if let Some(title) = title {
            attr(&title, "id", "kept-title");
        }
        let mut words = vec![];
        match kept {
            Err(e) => words.push(format!("This browser keeps no models between visits: {}.", e.trim_end_matches('.'))),
            Ok(kept) if kept.is_empty() => words.push("No model is kept: each is downloaded when it is opened.".into()),
            Ok(kept) => {
                let sum: u64 = kept.iter().map(|k| k.bytes).sum();
                words.push(format!(
                    "{}, {}: the next visit downloads none of them.",
                    super::ui::plural(kept.len(), "model"),
                    megabytes(sum as f64)
                ));
            }
        }
        if room.offline {
            words.push("The page itself is kept too and opens without a network.".into());
        }
        if let Some((used, most)) = room.bytes {
            words.push(format!("This site uses {} of the {} that the browser allows it.", megabytes(used), megabytes(most)));
        }
        if !self.kept.last.is_empty() {
            words.push(self.kept.last.clone());
        }
        if let Some(header) = header {
            child(document, &header, "p", "meta", &words.join(" "));
        }
        let Ok(kept) = kept else { return };
        let Some(list) = child(document, &card, "ul", "kept", "") else { return };
        for model in kept {
            let Some(row) = child(document, &list, "li", "", "") else { return };
            let name = self.shelf.iter().flatten().find(|e| model.key.ends_with(&e.sha256)).map_or(&model.name, |e| &e.title);
            child(document, &row, "span", "name", name);
            let day = Date::new(&JsValue::from_f64(model.since)).to_locale_date_string("default", &Object::new());
            let facts = format!("{}, since {}", megabytes(model.bytes as f64), String::from(day));
            child(document, &row, "span", "meta", &facts);
            button(document, &row, "Delete", &format!("Delete {name} from this device"), Some(model.key.clone()));
        }
        if kept.len() > 1 {
            button(document, &card, "Delete all", "Delete all models from this device", None);
        }
    }
}

/// Reads what is kept, and tells the page.
async fn refresh(navigator: Navigator) {
    let kept = cache::list().await;
    let room = Room { bytes: estimate(&navigator).await, offline: offline(&navigator).await };
    dispatch(Msg::Cache(Event::Read(kept, room)));
}

/// An object of the navigator's that is absent where the page does not come over https.
fn part<T: JsCast>(navigator: &Navigator, name: &str) -> Option<T> {
    Reflect::get(navigator, &name.into()).ok().filter(|p| p.is_object()).map(JsCast::unchecked_into)
}

async fn estimate(navigator: &Navigator) -> Option<(f64, f64)> {
    let storage: web_sys::StorageManager = part(navigator, "storage")?;
    let estimate: StorageEstimate = JsFuture::from(storage.estimate().ok()?).await.ok()?.unchecked_into();
    Some((estimate.get_usage()?, estimate.get_quota()?))
}

async fn offline(navigator: &Navigator) -> bool {
    let Some(workers) = part::<web_sys::ServiceWorkerContainer>(navigator, "serviceWorker") else { return false };
    let Ok(registration) = JsFuture::from(workers.get_registration()).await else { return false };
    registration.dyn_into::<ServiceWorkerRegistration>().is_ok_and(|r| r.active().is_some())
}

/// A size for reading.
fn megabytes(bytes: f64) -> String {
    if bytes < 1e9 { format!("{:.1} MB", bytes / 1e6) } else { format!("{:.1} GB", bytes / 1e9) }
}

/// A new element at the end of `parent`.
fn child(document: &Document, parent: &Element, tag: &str, class: &str, content: &str) -> Option<Element> {
    let element = document.create_element(tag).ok()?;
    if !class.is_empty() {
        attr(&element, "class", class);
    }
    element.set_text_content(Some(content));
    parent.append_child(&element).ok()?;
    Some(element)
}

fn button(document: &Document, parent: &Element, words: &str, label: &str, key: Option<String>) {
    let Some(button) = child(document, parent, "button", "", words) else { return };
    attr(&button, "type", "button");
    attr(&button, "aria-label", label);
    // Clicked at most once: the list is made anew after each deletion, and collected with its closures.
    let click = Closure::once_into_js(move || dispatch(Msg::Cache(Event::Delete(key))));
    let _ = button.add_event_listener_with_callback("click", click.unchecked_ref());
}
