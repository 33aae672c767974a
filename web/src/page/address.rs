//! The link in the address bar: [`Link`], and the keys that only the page knows.

use crate::protocol::Choice;
use limbeck_shared::link::{Link, Problem};
use wasm_bindgen::JsValue;
use web_sys::Window;

const BACKEND: &str = "backend=";

/// What the address bar asks for.
pub struct Address {
    /// The link proper.
    pub link: Link,
    /// `backend=auto|webgpu|cpu`: which interpreter.
    pub choice: Choice,
    /// There was no fragment: a first visit.
    pub empty: bool,
    /// What could not be followed, in words.
    pub problems: Vec<String>,
}

/// Reads a fragment.
pub fn read(fragment: &str) -> Address {
    let (link, problems) = Link::parse(fragment);
    let mut problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let word = link.unknown().iter().find_map(|pair| pair.strip_prefix(BACKEND));
    let choice = word.map(|w| {
        Choice::parse(w).unwrap_or_else(|| {
            problems.push(format!("link: `backend` is \"{w}\", expected auto, webgpu or cpu"));
            Choice::Auto
        })
    });
    let empty = fragment.trim_start_matches('#').is_empty();
    Address { link, choice: choice.unwrap_or_default(), empty, problems }
}

/// The fragment, without `#`.
pub fn write(link: &Link, choice: Choice) -> String {
    let fragment = link.to_fragment();
    let mut pairs: Vec<&str> = fragment.split('&').filter(|p| !p.starts_with(BACKEND)).collect();
    let backend = format!("{BACKEND}{}", choice.word());
    if choice != Choice::Auto {
        pairs.push(&backend);
    }
    pairs.join("&")
}

/// The address bar's fragment.
pub fn current(window: &Window) -> String {
    window.location().hash().unwrap_or_default()
}

/// Replaces the address bar's fragment, leaving no trace in the history.
pub fn replace(window: &Window, fragment: &str) {
    if let Ok(history) = window.history() {
        // Browsers refuse when a page does this hundreds of times a minute; the next change catches up.
        let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&format!("#{fragment}")));
    }
}

/// The whole address with this fragment, for copying.
pub fn absolute(window: &Window, fragment: &str) -> String {
    let href = window.location().href().unwrap_or_default();
    format!("{}#{fragment}", href.split('#').next().unwrap_or_default())
}
