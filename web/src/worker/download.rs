//! Fetches a bundle, telling how far it is.

use crate::timer;
use js_sys::{Reflect, Uint8Array};
use limbeck_shared::bundle::MAX_FILE;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{DedicatedWorkerGlobalScope, ReadableStreamDefaultReader, Response};

/// Most bytes reserved on a server's word alone.
const RESERVE: u64 = 64 << 20;
/// Milliseconds between two reports.
const REPORT: f64 = 60.0;

/// The file at `url`. `progress` gets the bytes received and, where known, the bytes in all.
///
/// # Errors
/// What went wrong, in words for the visitor.
pub async fn download(
    scope: &DedicatedWorkerGlobalScope,
    url: &str,
    expected: Option<u64>,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Vec<u8>, String> {
    let unreachable = |e: JsValue| {
        format!(
            "{url} could not be downloaded ({}). Is the device online and the address right? If so, its server does not let other \
             sites read the file (it sends no Access-Control-Allow-Origin header): download it and open it from this device.",
            timer::text_of(&e)
        )
    };
    let response = JsFuture::from(scope.fetch_with_str(url)).await.map_err(unreachable)?;
    let response: Response = response.dyn_into().map_err(unreachable)?;
    if !response.ok() {
        return Err(format!("{url} could not be downloaded: the server answered {} {}.", response.status(), response.status_text()));
    }
    let mut total = expected.or_else(|| length(&response));
    let too_long = || format!("{url} is longer than {} MB, the most a model may have.", MAX_FILE / 1_000_000);
    if total.is_some_and(|t| t > MAX_FILE) {
        return Err(too_long());
    }
    let body = response.body().ok_or_else(|| format!("{url} is empty."))?;
    let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let mut bytes: Vec<u8> = Vec::with_capacity(total.unwrap_or(0).min(RESERVE) as usize);
    let mut reported = f64::NEG_INFINITY;
    loop {
        let broken =
            |e: JsValue| format!("The download of {url} broke off after {:.1} MB ({}).", bytes.len() as f64 / 1e6, timer::text_of(&e));
        let chunk = JsFuture::from(reader.read()).await.map_err(broken)?;
        let done = Reflect::get(&chunk, &"done".into()).is_ok_and(|d| d.is_truthy());
        if done {
            break;
        }
        let chunk: Uint8Array = Reflect::get(&chunk, &"value".into()).and_then(|v| v.dyn_into()).map_err(broken)?;
        let (start, grown) = (bytes.len(), bytes.len() + chunk.length() as usize);
        if grown as u64 > MAX_FILE {
            return Err(too_long());
        }
        if bytes.try_reserve(grown - start).is_err() {
            return Err(format!("{url} does not fit into the memory that this browser gives to a page."));
        }
        bytes.resize(grown, 0);
        chunk.copy_to(&mut bytes[start..]);
        // A length that the body exceeds was that of the compressed body.
        total = total.filter(|&t| t >= grown as u64);
        if timer::now() - reported > REPORT {
            reported = timer::now();
            progress(grown as u64, total);
        }
    }
    if let Some(total) = total.filter(|&t| t != bytes.len() as u64) {
        return Err(format!("The download of {url} broke off: {} of {total} bytes arrived.", bytes.len()));
    }
    progress(bytes.len() as u64, Some(bytes.len() as u64));
    Ok(bytes)
}

/// The body's length as far as headers tell: that of a compressed body is not what will be read.
fn length(response: &Response) -> Option<u64> {
    let header = |name: &str| response.headers().get(name).ok().flatten();
    if header("Content-Encoding").is_some_and(|e| e != "identity") {
        return None;
    }
    header("Content-Length")?.parse().ok()
}
