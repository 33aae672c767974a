//! From JSON to [`Meta`], every error naming the path of the field: `limbeck.samplers[1].steps`.
//!
//! Written out field by field because serde's derived readers know neither the path nor a missing key from a misspelt one.

use super::{BundleError, Golden, GuidanceRange, ImageSpec, Meta, SamplerSpec, TrainingRecord, VERSION};
use crate::graph::NetworkConfig;
use crate::program::Router;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

type Result<T> = std::result::Result<T, BundleError>;

/// Largest integer in a network's configuration: no key has a use for more, and products of a few of them still fit 64 bits.
const MAX_CONFIG_INTEGER: u64 = 100_000;

/// Reads the text of metadata entry `limbeck`.
pub(super) fn meta(text: &str) -> Result<(Meta, Value)> {
    let value: Value = parse("limbeck", text)?;
    let mut o = Object::new("limbeck", value)?;
    // The version decides whether anything else can be understood, so it is read before all.
    let found: u64 = o.take("version")?;
    if found != u64::from(VERSION) {
        return Err(BundleError::Version { found, expected: VERSION });
    }
    let configs: Vec<Value> = o.take("networks")?;
    let first = configs.first().cloned().unwrap_or(Value::Null);
    let networks = configs.into_iter().enumerate().map(|(i, v)| network(&format!("limbeck.networks[{i}]"), v)).collect::<Result<_>>()?;
    let samplers: Vec<Value> = o.take("samplers")?;
    let samplers = samplers.into_iter().enumerate().map(|(i, v)| sampler(&format!("limbeck.samplers[{i}]"), v)).collect::<Result<_>>()?;
    let meta = Meta {
        version: VERSION,
        name: o.take("name")?,
        networks,
        parameterization: o.take("parameterization")?,
        schedule: o.take("schedule")?,
        init_time: o.optional("init_time")?,
        second_time: o.take("second_time")?,
        guidance_input: o.take("guidance_input")?,
        samplers,
        classes: o.take("classes")?,
        null_label: o.optional("null_label")?,
        guidance: o.optional("guidance")?.map(|v| guidance("limbeck.guidance", v)).transpose()?,
        image: image("limbeck.image", o.take("image")?)?,
        training: training("limbeck.training", o.take("training")?)?,
        licence: o.take("licence")?,
        router: o.optional("router")?.map(|v| router("limbeck.router", v)).transpose()?,
        golden: o.optional("golden")?.map(|v| golden("limbeck.golden", v)).transpose()?,
    };
    o.finish()?;
    Ok((meta, first))
}

/// Reads a metadata entry as JSON.
pub(super) fn parse(key: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| BundleError::NotJson { key: key.into(), problem: e.to_string() })
}

fn network(path: &str, value: Value) -> Result<NetworkConfig> {
    integers(path, &value)?;
    typed(path, value)
}

/// Refuses integers whose products could overflow while the graph is built.
pub(super) fn integers(path: &str, value: &Value) -> Result<()> {
    match value {
        Value::Number(n) if n.as_u64().is_some_and(|n| n > MAX_CONFIG_INTEGER) => {
            Err(BundleError::Field { path: path.into(), found: n.to_string(), expected: format!("at most {MAX_CONFIG_INTEGER}") })
        }
        Value::Array(items) => items.iter().enumerate().try_for_each(|(i, v)| integers(&format!("{path}[{i}]"), v)),
        Value::Object(map) => map.iter().try_for_each(|(k, v)| integers(&format!("{path}.{}", short(k)), v)),
        _ => Ok(()),
    }
}

fn sampler(path: &str, value: Value) -> Result<SamplerSpec> {
    let mut o = Object::new(path, value)?;
    let s = SamplerSpec { sampler: o.take("sampler")?, steps: o.take("steps")?, default_steps: o.take("default_steps")? };
    o.finish()?;
    Ok(s)
}

fn router(path: &str, value: Value) -> Result<Router> {
    let mut o = Object::new(path, value)?;
    let r = Router { edges: o.take("edges")?, nets: o.take("nets")? };
    o.finish()?;
    Ok(r)
}

fn guidance(path: &str, value: Value) -> Result<GuidanceRange> {
    let mut o = Object::new(path, value)?;
    let (min, max, default) = (o.take("min")?, o.take("max")?, o.take("default")?);
    let g = GuidanceRange { min, max, default, levels: o.optional("levels")? };
    o.finish()?;
    Ok(g)
}

fn image(path: &str, value: Value) -> Result<ImageSpec> {
    let mut o = Object::new(path, value)?;
    let i = ImageSpec { channels: o.take("channels")?, height: o.take("height")?, width: o.take("width")?, range: o.take("range")? };
    o.finish()?;
    Ok(i)
}

fn training(path: &str, value: Value) -> Result<TrainingRecord> {
    let mut o = Object::new(path, value)?;
    let t = TrainingRecord {
        method: o.take("method")?,
        preset: o.take("preset")?,
        teacher_sha256: o.optional("teacher_sha256")?,
        images_seen: o.take("images_seen")?,
        seconds: o.take("seconds")?,
        command: o.take("command")?,
        evaluation: o.take("evaluation")?,
    };
    o.finish()?;
    Ok(t)
}

fn golden(path: &str, value: Value) -> Result<Golden> {
    let mut o = Object::new(path, value)?;
    let g = Golden {
        seed: o.take("seed")?,
        label: o.optional("label")?,
        sampler: o.take("sampler")?,
        steps: o.take("steps")?,
        guidance: o.take("guidance")?,
        pixels: o.take("pixels")?,
    };
    o.finish()?;
    Ok(g)
}

/// An object whose fields are taken one by one; [`Object::finish`] refuses what is left.
struct Object<'a> {
    path: &'a str,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    fn new(path: &'a str, value: Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Object { path, map }),
            other => Err(BundleError::Field { path: path.into(), found: excerpt(&other), expected: "an object".into() }),
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{}", self.path, short(key))
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<T> {
        match self.map.remove(key) {
            Some(value) => typed(&self.path(key), value),
            None => Err(BundleError::MissingField { path: self.path(key) }),
        }
    }

    /// Null and absent are the same.
    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.map.remove(key).map_or(Ok(None), |value| typed(&self.path(key), value))
    }

    fn finish(self) -> Result<()> {
        match self.map.keys().next() {
            Some(key) => Err(BundleError::UnknownField { path: self.path(key) }),
            None => Ok(()),
        }
    }
}

fn typed<T: DeserializeOwned>(path: &str, value: Value) -> Result<T> {
    let found = excerpt(&value);
    serde_json::from_value(value).map_err(|e| BundleError::Field { path: path.into(), found, expected: e.to_string() })
}

/// A value for a message: whole if short. Long containers are only described, never printed.
fn excerpt(value: &Value) -> String {
    match value {
        Value::Array(a) if a.len() > 4 => format!("an array of {}", a.len()),
        Value::Object(_) => "an object".into(),
        Value::String(s) => format!("\"{}\"", short(s)),
        other => short(&other.to_string()).into(),
    }
}

/// At most the first 60 bytes, cut at a character.
pub(super) fn short(s: &str) -> &str {
    &s[..s.floor_char_boundary(60)]
}
