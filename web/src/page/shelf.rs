//! The shipped models: `models/index.json`, written by `limbeck index` and `limbeck publish`.

use crate::protocol::Source;
use crate::timer;
use serde::Deserialize;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Response, Url, Window};

/// The list.
#[derive(Debug, Deserialize)]
struct Index {
    version: u32,
    models: Vec<Entry>,
}

/// One shipped model.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Its name in links.
    pub id: String,
    /// Its file, relative to `models/`.
    pub file: String,
    /// Its title.
    pub title: String,
    /// One line about it.
    #[serde(default)]
    pub line: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// SHA-256 of its teacher's file.
    #[serde(default)]
    pub teacher: Option<String>,
    /// `classifier` for models that do not draw.
    #[serde(default)]
    pub kind: Option<String>,
}

impl Entry {
    /// Where the worker finds it.
    pub fn source(&self, base: &str) -> Option<Source> {
        let url = Url::new_with_base(&format!("models/{}", self.file), base).ok()?.href();
        Some(Source::Url { url, bytes: Some(self.bytes), sha256: Some(self.sha256.clone()) })
    }
}

/// Fetches the list of the models that draw.
///
/// # Errors
/// What went wrong, in words for the visitor.
pub async fn fetch(window: Window) -> Result<Vec<Entry>, String> {
    let failed = |why: String| format!("The list of models (models/index.json) could not be read: {why}.");
    let response = JsFuture::from(window.fetch_with_str("models/index.json")).await.map_err(|e| failed(timer::text_of(&e)))?;
    let response: Response = response.dyn_into().map_err(|_| failed("no response".into()))?;
    if !response.ok() {
        return Err(failed(format!("the server answered {}", response.status())));
    }
    let text = response.text().map_err(|e| failed(timer::text_of(&e)))?;
    let text = JsFuture::from(text).await.map_err(|e| failed(timer::text_of(&e)))?;
    let index: Index = serde_json::from_str(&text.as_string().unwrap_or_default()).map_err(|e| failed(e.to_string()))?;
    if index.version != 1 {
        return Err(failed(format!("it has version {}, expected 1", index.version)));
    }
    Ok(index.models.into_iter().filter(|m| m.kind.as_deref() != Some("classifier")).collect())
}
