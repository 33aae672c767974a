//! Gets a model's file: from what this browser keeps, else from its address.

use super::download::{Download, File};
use crate::cache::{self, Version};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{RequestCache, RequestInit, Response};

/// A file that is kept and may be used.
pub struct Hit {
    /// The file.
    pub bytes: Vec<u8>,
    /// What the visitor should know; empty if nothing.
    pub note: String,
}

/// The kept file of a download, if it is still that of its address. One kept under its SHA-256 always is. Any failure of the cache
/// is as if nothing were kept.
pub async fn look(download: &Download<'_>, key: &str) -> Option<Hit> {
    let mut note = String::new();
    if !download.checked {
        let kept = cache::find(key).await.ok()??;
        match current(download).await {
            Some(Ok(version)) if version.is_surely(&kept.version) => {}
            Some(_) => return None,
            None => note = format!("{} cannot be reached: this is the copy of `{}` that was kept.", download.url, kept.name),
        }
    }
    let bytes = cache::read(key).await.ok()??;
    Some(Hit { bytes, note })
}

/// What the server says of the file's version now: none if it cannot be reached, an error if it does not say.
async fn current(download: &Download<'_>) -> Option<Result<Version, ()>> {
    let init = RequestInit::new();
    init.set_method("HEAD");
    init.set_signal(Some(download.signal));
    init.set_cache(RequestCache::NoStore);
    let response = JsFuture::from(download.scope.fetch_with_str_and_init(download.url, &init)).await.ok()?;
    let response: Response = response.dyn_into().ok()?;
    Some(if response.ok() { Ok(Version::of(&response.headers())) } else { Err(()) })
}

/// Keeps a file for the next visit. Returns what the visitor should know; empty if all is well.
pub async fn keep(key: &str, name: &str, url: &str, file: &File) -> String {
    match cache::keep(key, name, url, &file.version, &file.bytes).await {
        Ok(()) => String::new(),
        Err(e) => format!("This browser does not keep `{name}` for the next visit: {}.", e.trim_end_matches('.')),
    }
}
