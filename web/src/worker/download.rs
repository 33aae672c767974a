//! Fetches a bundle, telling how far it is. A connection that breaks is tried once more, from where it broke if the server allows.

use crate::cache::{self, Version};
use crate::timer;
use js_sys::{Reflect, Uint8Array};
use limbeck_shared::bundle::{MAX_FILE, MAX_HEADER};
use serde::Deserialize;
use std::collections::HashMap;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, DedicatedWorkerGlobalScope, Headers, ReadableStreamDefaultReader, RequestCache, RequestInit, Response};

/// Most bytes reserved on a server's word alone.
const RESERVE: u64 = 64 << 20;
/// Milliseconds between two reports.
const REPORT: f64 = 60.0;
/// Bytes after which one is due anyway.
const REPORT_BYTES: usize = 128 << 10;
/// Milliseconds before the second attempt.
const PAUSE: i32 = 800;

/// A file to fetch.
pub struct Download<'a> {
    /// The worker.
    pub scope: &'a DedicatedWorkerGlobalScope,
    /// The file's address.
    pub url: &'a str,
    /// Its size, where that is known beforehand.
    pub size: Option<u64>,
    /// Its SHA-256 is known beforehand, so that parts of two versions cannot pass for one file.
    pub checked: bool,
    /// Stops the download.
    pub signal: &'a AbortSignal,
}

/// What has come of a file.
#[derive(Default)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its version.
    pub version: Version,
}

/// Why an attempt failed.
enum Failure {
    /// The connection broke: another attempt may succeed.
    Broken(String),
    /// Another attempt would end alike; a sentence.
    Final(String),
}

impl Download<'_> {
    /// The file. `progress` gets the bytes received and, where known, the bytes in all.
    ///
    /// # Errors
    /// What went wrong, in words for the visitor.
    pub async fn run(&self, mut progress: impl FnMut(u64, Option<u64>)) -> Result<File, String> {
        let mut file = File::default();
        let cause = match self.attempt(&mut file, &mut progress).await {
            Ok(()) => return Ok(file),
            Err(Failure::Final(words)) => return Err(words),
            Err(Failure::Broken(cause)) => cause,
        };
        let megabytes = |file: &File| file.bytes.len() as f64 / 1e6;
        let broke = format!("The download of {} broke off after {:.1} MB ({cause})", self.url, megabytes(&file));
        timer::sleep(PAUSE).await;
        if self.signal.aborted() {
            return Err(format!("{broke}."));
        }
        match self.attempt(&mut file, &mut progress).await {
            Ok(()) => Ok(file),
            Err(Failure::Broken(cause)) => Err(format!("{broke}, and again after {:.1} MB ({cause}).", megabytes(&file))),
            Err(Failure::Final(words)) => Err(format!("{broke}. A second attempt failed: {words}")),
        }
    }

    /// Fetches what `file` lacks, or all of it where the server does not continue it.
    async fn attempt(&self, file: &mut File, progress: &mut impl FnMut(u64, Option<u64>)) -> Result<(), Failure> {
        let response = match self.resume(file).await {
            Some(response) => response,
            None => {
                *file = File::default();
                let response = self.fetch(None).await.map_err(|e| Failure::Final(self.unreachable(&e)))?;
                if !response.ok() {
                    let (status, text) = (response.status(), response.status_text());
                    return Err(Failure::Final(format!("{} could not be downloaded: the server answered {status} {text}.", self.url)));
                }
                file.version = Version::of(&response.headers());
                response
            }
        };
        self.receive(&response, file, progress).await?;
        match self.size.filter(|&size| (file.bytes.len() as u64) < size) {
            Some(size) => Err(Failure::Broken(format!("{} of {size} bytes arrived", file.bytes.len()))),
            None => Ok(()),
        }
    }

    /// The answer that continues what has come, if the server gives one and the whole can be relied on.
    async fn resume(&self, file: &File) -> Option<Response> {
        let at = file.bytes.len();
        let strong = file.version.etag.as_ref().is_some_and(|e| !e.starts_with("W/")) || file.version.modified.is_some();
        if at == 0 || !(self.checked || strong) {
            return None;
        }
        let headers = Headers::new().ok()?;
        headers.set("Range", &format!("bytes={at}-")).ok()?;
        let response = self.fetch(Some(&headers)).await.ok()?;
        let header = |name: &str| response.headers().get(name).ok().flatten();
        let version = Version::of(&response.headers());
        let same = version.is_surely(&file.version) || (self.checked && version == Version::default());
        // Other origins may hide this header.
        let begins = header("Content-Range").is_none_or(|r| r.starts_with(&format!("bytes {at}-")));
        (response.status() == 206 && same && begins && header("Content-Encoding").is_none_or(|e| e == "identity")).then_some(response)
    }

    async fn fetch(&self, headers: Option<&Headers>) -> Result<Response, JsValue> {
        let init = RequestInit::new();
        init.set_signal(Some(self.signal));
        // What is kept is kept once: in our cache, or else in the browser's own, which must not answer with an old version.
        init.set_cache(if cache::present() { RequestCache::NoStore } else { RequestCache::NoCache });
        if let Some(headers) = headers {
            init.set_headers(headers);
        }
        JsFuture::from(self.scope.fetch_with_str_and_init(self.url, &init)).await?.dyn_into()
    }

    fn unreachable(&self, error: &JsValue) -> String {
        format!(
            "{} could not be downloaded ({}). Is the device online and the address right? If so, its server does not let other sites \
             read the file (it sends no Access-Control-Allow-Origin header): download it and open it from this device.",
            self.url,
            timer::text_of(error)
        )
    }

    /// Appends an answer's body to `file`.
    async fn receive(&self, response: &Response, file: &mut File, progress: &mut impl FnMut(u64, Option<u64>)) -> Result<(), Failure> {
        let too_long = || Failure::Final(format!("{} is longer than {} MB, the most a model may have.", self.url, MAX_FILE / 1_000_000));
        // The length of a body on its way: compressed, it is not that of the file, and other origins hide whether it is.
        let length = response.headers().get("Content-Length").ok().flatten().and_then(|l| l.parse().ok());
        if self.size.or(length).is_some_and(|t: u64| t > MAX_FILE) {
            return Err(too_long());
        }
        let body = response.body().ok_or_else(|| Failure::Final(format!("{} is empty.", self.url)))?;
        let reader: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
        let broken = |e: JsValue| Failure::Broken(timer::text_of(&e));
        let bytes = &mut file.bytes;
        let mut total = self.size;
        let (mut reported, mut shown) = (f64::NEG_INFINITY, 0);
        loop {
            let chunk = JsFuture::from(reader.read()).await.map_err(broken)?;
            if Reflect::get(&chunk, &"done".into()).is_ok_and(|d| d.is_truthy()) {
                break;
            }
            let chunk: Uint8Array = Reflect::get(&chunk, &"value".into()).and_then(|v| v.dyn_into()).map_err(broken)?;
            let (start, grown) = (bytes.len(), bytes.len() + chunk.length() as usize);
            if grown as u64 > MAX_FILE {
                return Err(too_long());
            }
            let wanted = total.unwrap_or(0).clamp(grown as u64, RESERVE.max(grown as u64)) as usize;
            if bytes.try_reserve(wanted - start).is_err() {
                return Err(Failure::Final(format!("{} does not fit into the memory that this browser gives to a page.", self.url)));
            }
            bytes.resize(grown, 0);
            chunk.copy_to(&mut bytes[start..]);
            total = total.or_else(|| announced(bytes)).filter(|&t| t >= grown as u64);
            if total.is_some_and(|t| t > MAX_FILE) {
                return Err(too_long());
            }
            // By bytes too: a transfer that stalls after a burst must not stand at what came before it.
            if timer::now() - reported > REPORT || grown - shown >= REPORT_BYTES {
                (reported, shown) = (timer::now(), grown);
                progress(grown as u64, total);
            }
        }
        progress(bytes.len() as u64, Some(bytes.len() as u64));
        Ok(())
    }
}

/// The length of the file that begins with these bytes, as its own table of tensors has it: right however the server sends it.
fn announced(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Tensor {
        data_offsets: Option<[u64; 2]>,
    }
    let header = u64::from_le_bytes(*bytes.first_chunk()?);
    if header > MAX_HEADER {
        return None;
    }
    let text = bytes.get(8..8 + header as usize)?;
    let tensors: HashMap<String, Tensor> = serde_json::from_slice(text).ok()?;
    let end = tensors.values().filter_map(|t| t.data_offsets).map(|[_, end]| end).max()?;
    end.checked_add(8 + header)
}
