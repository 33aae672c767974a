//! Models kept in the browser's Cache API, for page and worker alike.
//!
//! A model whose SHA-256 is known beforehand is kept under it, so that a new version never meets an old file; any other under its
//! address. Nothing here is needed for drawing: every failure is a sentence, and the caller goes on without.

use crate::timer;
use js_sys::{ArrayBuffer, Date, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{Cache, CacheStorage, Headers, Request, Response, ResponseInit};

/// The cache's name; another layout of its entries gets another name.
pub const NAME: &str = "limbeck-models-v1";
/// What keys of files with a known SHA-256 begin with: a name that no server can have.
const BY_HASH: &str = "https://sha256.invalid/";

/// What is known of a kept file, in the headers of its entry.
const TITLE: &str = "X-Limbeck-Name";
const SOURCE: &str = "X-Limbeck-Source";
const BYTES: &str = "X-Limbeck-Bytes";
const SINCE: &str = "X-Limbeck-Since";

/// A kept model.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its key in the cache.
    pub key: String,
    /// The model's name.
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// When it was kept, milliseconds since 1970.
    pub since: f64,
    /// The address it came from.
    pub source: String,
    /// What its server said of its version.
    pub version: Version,
}

/// What a server says of a file's version, as far as it lets the page see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The header `ETag`.
    pub etag: Option<String>,
    /// The header `Last-Modified`.
    pub modified: Option<String>,
}

impl Version {
    /// From an answer's headers.
    pub fn of(headers: &Headers) -> Version {
        let get = |name| headers.get(name).ok().flatten();
        Version { etag: get("ETag"), modified: get("Last-Modified") }
    }

    /// Both name a version, and it is the same.
    pub fn is_surely(&self, other: &Version) -> bool {
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified.is_some() && self.modified == other.modified,
        }
    }
}

/// The key of a file: by its whole SHA-256 where that is known, else by its address.
pub fn key(url: &str, sha256: Option<&str>) -> String {
    match sha256.filter(|h| h.len() == 64) {
        Some(hash) => format!("{BY_HASH}{}", hash.to_ascii_lowercase()),
        None => url.to_owned(),
    }
}

async fn wait(promise: Promise) -> Result<JsValue, String> {
    JsFuture::from(promise).await.map_err(|e| timer::text_of(&e))
}

fn storage() -> Result<CacheStorage, String> {
    // Absent where the page does not come over https.
    let caches = Reflect::get(&js_sys::global(), &"caches".into()).ok().filter(|c| c.is_object());
    caches.map(JsCast::unchecked_into).ok_or_else(|| "it has no storage for pages like this one".into())
}

/// The browser has a cache, at least by its word.
pub fn present() -> bool {
    storage().is_ok()
}

async fn open() -> Result<Cache, String> {
    Ok(wait(storage()?.open(NAME)).await?.unchecked_into())
}

/// Everything that is kept, in the order in which it was.
///
/// # Errors
/// Why the browser does not say.
pub async fn list() -> Result<Vec<Kept>, String> {
    let cache = open().await?;
    let mut kept = vec![];
    for request in js_sys::Array::from(&wait(cache.keys()).await?) {
        let key = request.unchecked_into::<Request>().url();
        if let Some((entry, _)) = entry(&cache, key).await? {
            kept.push(entry);
        }
    }
    Ok(kept)
}

/// The entry of a key, if there is one.
async fn entry(cache: &Cache, key: String) -> Result<Option<(Kept, Response)>, String> {
    let Ok(response) = wait(cache.match_with_str(&key)).await?.dyn_into::<Response>() else { return Ok(None) };
    let headers = response.headers();
    let get = |name: &str| headers.get(name).ok().flatten().unwrap_or_default();
    let name = js_sys::decode_uri_component(&get(TITLE)).map(String::from).unwrap_or_default();
    let kept = Kept {
        name: if name.is_empty() { key.clone() } else { name },
        bytes: get(BYTES).parse().unwrap_or(0),
        since: get(SINCE).parse().unwrap_or(0.0),
        source: get(SOURCE),
        version: Version::of(&headers),
        key,
    };
    Ok(Some((kept, response)))
}

/// What is known of the kept file of a key.
///
/// # Errors
/// Why the browser does not say.
pub async fn find(key: &str) -> Result<Option<Kept>, String> {
    Ok(entry(&open().await?, key.to_owned()).await?.map(|(kept, _)| kept))
}

/// The kept file of a key.
///
/// # Errors
/// Why the browser does not give it.
pub async fn read(key: &str) -> Result<Option<Vec<u8>>, String> {
    let Some((_, response)) = entry(&open().await?, key.to_owned()).await? else { return Ok(None) };
    let buffer = response.array_buffer().map_err(|e| timer::text_of(&e))?;
    let buffer: ArrayBuffer = wait(buffer).await?.unchecked_into();
    Ok(Some(Uint8Array::new(&buffer).to_vec()))
}

/// Keeps a file, instead of what was kept from the same address.
///
/// # Errors
/// Why the browser does not, such as a lack of room.
pub async fn keep(key: &str, name: &str, source: &str, version: &Version, bytes: &[u8]) -> Result<(), String> {
    let cache = open().await?;
    let headers = Headers::new().map_err(|e| timer::text_of(&e))?;
    let title = String::from(js_sys::encode_uri_component(name));
    let (size, now) = (bytes.len().to_string(), Date::now().to_string());
    let known = [("ETag", version.etag.as_deref()), ("Last-Modified", version.modified.as_deref())];
    let ours = [(TITLE, title.as_str()), (SOURCE, source), (BYTES, &size), (SINCE, &now)].map(|(k, v)| (k, Some(v)));
    for (name, value) in ours.into_iter().chain(known).filter_map(|(k, v)| Some((k, v?))) {
        headers.set(name, value).map_err(|e| timer::text_of(&e))?;
    }
    let init = ResponseInit::new();
    init.set_headers(&headers);
    let body = Uint8Array::from(bytes);
    let response = Response::new_with_opt_js_u8_array_and_init(Some(&body), &init).map_err(|e| timer::text_of(&e))?;
    wait(cache.put_with_str(key, &response)).await?;
    for old in list().await?.into_iter().filter(|k| k.source == source && k.key != key) {
        delete(&old.key).await?;
    }
    Ok(())
}

/// Deletes what is kept under a key.
///
/// # Errors
/// Why the browser does not.
pub async fn delete(key: &str) -> Result<(), String> {
    wait(open().await?.delete_with_str(key)).await.map(drop)
}

/// Deletes everything that is kept.
///
/// # Errors
/// Why the browser does not.
pub async fn clear() -> Result<(), String> {
    wait(storage()?.delete(NAME)).await.map(drop)
}
