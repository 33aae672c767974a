//! What page and worker say to each other: a JSON text and, beside it, at most one array whose buffer changes hands.

mod measure;
mod model;

pub use measure::{Measurement, Race, Trial};
pub use model::{ModelInfo, Way};

use js_sys::{Object, Reflect};
use limbeck_shared::program::Sampler;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use wasm_bindgen::prelude::*;

/// Which interpreter the visitor wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The faster one for each model, where there is a real GPU; else the CPU.
    #[default]
    Auto,
    /// WebGPU on whatever adapter there is, a software one too.
    Webgpu,
    /// The CPU interpreter.
    Cpu,
}

impl Choice {
    /// From the link's or the control's word.
    pub fn parse(word: &str) -> Option<Choice> {
        match word {
            "auto" => Some(Choice::Auto),
            "webgpu" => Some(Choice::Webgpu),
            "cpu" => Some(Choice::Cpu),
            _ => None,
        }
    }
    /// The word for link and control.
    pub fn word(self) -> &'static str {
        match self {
            Choice::Auto => "auto",
            Choice::Webgpu => "webgpu",
            Choice::Cpu => "cpu",
        }
    }
}

/// From page to worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToWorker {
    /// Choose an interpreter; always the first message, and again when the visitor changes it.
    Setup {
        /// The wish.
        choice: Choice,
        /// What former races found on this device.
        races: Vec<Race>,
    },
    /// Read a bundle and keep it under `key`.
    Open {
        /// The page's name for it.
        key: String,
        /// Where it comes from.
        source: Source,
    },
    /// Stop a download; nothing more is said of it.
    Abort {
        /// The model.
        key: String,
    },
    /// Measure; answered by one [`FromWorker::Measured`], [`FromWorker::Cancelled`] or [`FromWorker::DrawFailed`].
    Measure(Trial),
    /// Draw; answered by [`FromWorker::Slice`]s and one [`FromWorker::Done`], [`FromWorker::Cancelled`] or [`FromWorker::DrawFailed`].
    Draw(Job),
    /// Stop all jobs up to this number.
    Cancel {
        /// The number.
        upto: u32,
    },
}

/// Where a bundle comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// An address, absolute.
    Url {
        /// The address.
        url: String,
        /// Its size where known beforehand, for progress.
        bytes: Option<u64>,
        /// Its SHA-256 where known beforehand; another one is an error.
        sha256: Option<String>,
    },
    /// The message's array holds the file.
    Buffer,
}

/// One grid to draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Rises with every job.
    pub number: u32,
    /// Which model.
    pub key: String,
    /// How.
    pub sampler: Sampler,
    /// Steps of the sampler.
    pub steps: usize,
    /// Guidance weight, 1 for none.
    pub guidance: f64,
    /// Seed of the noise; image k takes noise `first + k` of this seed.
    pub seed: u64,
    /// One label an image; empty for an unconditional model. Its length is the number of images unless empty.
    pub labels: Vec<u32>,
    /// Number of images.
    pub count: usize,
    /// Index of the first image's noise.
    pub first: u64,
    /// Give the states on the way as well; of one image only.
    pub path: bool,
    /// The seed to travel to: image k of n takes the noise a part `k / (n - 1)` of the way to it, all of them at index `first`.
    pub to: Option<u64>,
    /// The classes at both ends of a travel: image k of n lies a part `k / (n - 1)` of the way between their embeddings. The labels
    /// then only name the nearer one.
    pub blend: Option<[u32; 2]>,
}

/// Who computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// `webgpu` or `cpu`.
    pub backend: String,
    /// The adapter's name, or what the CPU interpreter is.
    pub adapter: String,
    /// The adapter computes on the CPU.
    pub software: bool,
    /// The adapter that is open, also where the CPU computes because it is faster.
    pub gpu: Option<String>,
    /// Why this one, in a sentence; empty where there is nothing to explain.
    pub note: String,
}

/// From worker to page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FromWorker {
    /// The worker's script listens (sent by `worker.js`).
    Up,
    /// The worker's engine listens.
    Serving,
    /// Who computes from now on.
    Engine(EngineInfo),
    /// A race was run.
    Raced(Race),
    /// A download goes on.
    Progress {
        /// The model.
        key: String,
        /// Bytes received.
        received: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A bundle is ready to draw.
    Opened {
        /// The model.
        key: String,
        /// What it is.
        info: Box<ModelInfo>,
    },
    /// A bundle could not be opened.
    OpenFailed {
        /// The model.
        key: String,
        /// Why, in words.
        message: String,
    },
    /// A model was kept for the next visit, or could not be.
    Kept {
        /// What the visitor should know; empty if nothing.
        note: String,
    },
    /// A job begins: kernels are being compiled.
    Started {
        /// The job.
        number: u32,
        /// Network calls an image.
        calls: usize,
        /// For a path: the noise level of each state, noisiest first.
        levels: Vec<f64>,
    },
    /// Some images of a job; the message's array holds them, f32 `[count, C, H, W]` in [-1, 1]. Of a path, all of it at once: the
    /// image, then for each level the state, scaled to be seen, and the network's estimate of the image.
    Slice {
        /// The job.
        number: u32,
        /// Index of the first image.
        first: usize,
        /// Time computed so far for this job, milliseconds.
        ms: f64,
    },
    /// A job is finished.
    Done {
        /// The job.
        number: u32,
        /// Time computed, milliseconds; compiling kernels not included.
        ms: f64,
    },
    /// A trial is finished. Of a single call, the message's array holds the images that the network was given, then its answers:
    /// f32 `[count, C, H, W]` each.
    Measured {
        /// The job.
        number: u32,
        /// What it found.
        measurement: Measurement,
    },
    /// A job was stopped.
    Cancelled {
        /// The job.
        number: u32,
    },
    /// A job cannot be done.
    DrawFailed {
        /// The job.
        number: u32,
        /// Why, in words.
        message: String,
    },
    /// The worker is broken and answers no more.
    Fatal {
        /// Why, in words.
        message: String,
    },
}

/// The JavaScript value to post: `{json, data}`.
pub fn pack<T: Serialize>(message: &T, data: Option<&JsValue>) -> Result<JsValue, JsValue> {
    let json = serde_json::to_string(message).map_err(|e| JsValue::from_str(&e.to_string()))?;
    let value = Object::new();
    Reflect::set(&value, &"json".into(), &json.into())?;
    if let Some(data) = data {
        Reflect::set(&value, &"data".into(), data)?;
    }
    Ok(value.into())
}

/// The message in a posted value, and its array.
pub fn unpack<T: DeserializeOwned>(value: &JsValue) -> Result<(T, JsValue), String> {
    let json = Reflect::get(value, &"json".into()).ok().and_then(|v| v.as_string()).ok_or("a message without text")?;
    let message = serde_json::from_str(&json).map_err(|e| format!("a message that cannot be read: {e}"))?;
    Ok((message, Reflect::get(value, &"data".into()).unwrap_or(JsValue::UNDEFINED)))
}
