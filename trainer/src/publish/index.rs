//! `models/index.json`: the page's list of the bundles that lie beside it.

use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::{self, Bundle};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const ENDING: &str = "safetensors";
/// Names of bundles that are the visitor's own begin with this.
const MINE: &str = "my-";

/// The list.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    version: u32,
    models: Vec<Entry>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in links: the file's name without its ending, `[a-z0-9-]{1,64}`.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Its title.
    pub title: String,
    /// One line about it.
    pub line: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// `classifier` for models that do not draw, else `diffusion`.
    pub kind: String,
    /// Method of training.
    pub method: String,
    /// SHA-256 of its teacher's file, for the page's pairing of students and teachers.
    pub teacher: Option<String>,
}

/// Titles and lines by id.
pub type Titles = HashMap<String, (String, String)>;

impl Entry {
    /// The entry of a bundle, with its title and line among `titles` if they are there.
    ///
    /// # Errors
    /// If the file's name cannot be an id.
    pub fn of(path: &Path, bytes: &[u8], bundle: &Bundle, titles: &Titles) -> Result<Entry> {
        let id = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
        let plain = id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !plain || !(1..=64).contains(&id.len()) || path.extension().is_none_or(|e| e != ENDING) {
            bail!(
                "`{}`: its name is the model's id in links, expected a-z, 0-9 and - only, at most 64, ending in .{ENDING}",
                path.display()
            );
        }
        let meta = &bundle.meta;
        let (title, line) = titles.get(&id).cloned().unwrap_or_else(|| (meta.name.clone(), describe(bundle)));
        Ok(Entry {
            file: format!("{id}.{ENDING}"),
            id,
            title,
            line,
            bytes: bytes.len() as u64,
            sha256: bundle.sha256.clone(),
            kind: if meta.is_classifier() { "classifier" } else { "diffusion" }.into(),
            method: meta.training.method.clone(),
            teacher: meta.training.teacher_sha256.clone(),
        })
    }
}

/// One line about a bundle, for those that nobody wrote one about.
fn describe(bundle: &Bundle) -> String {
    let meta = &bundle.meta;
    let steps = meta.samplers.first().map_or(String::new(), |s| match s.default_steps {
        1 => ", 1 step".into(),
        n => format!(", {n} steps"),
    });
    let params = bundle.graphs.iter().map(|g| g.param_count()).sum::<usize>() as f64;
    let params = match params {
        p if p >= 1e6 => format!("{:.2} M", p / 1e6),
        p if p >= 1e3 => format!("{:.1} k", p / 1e3),
        p => format!("{p}"),
    };
    let (method, image) = (method(&meta.training.method), meta.image);
    format!("{method}{steps}, {params} parameters, {} x {} pixels", image.width, image.height)
}

/// A method as people write it; methods of other programs as they are.
fn method(name: &str) -> &str {
    match name {
        "edm" => "EDM",
        "boot" => "BOOT",
        "sid" => "SiD",
        "flow_map" => "Flow map",
        "tdc" => "Routed",
        "continual" => "Learned in tasks",
        "classifier" => "Classifier",
        other => other,
    }
}

/// The titles and lines of a list; none if there is no list.
fn titles(list: &Path) -> Result<Titles> {
    if !list.exists() {
        return Ok(Titles::new());
    }
    let text = fs::read_to_string(list).with_context(|| format!("`{}` cannot be read", list.display()))?;
    let index: Index = serde_json::from_str(&text).with_context(|| format!("`{}`", list.display()))?;
    Ok(index.models.into_iter().map(|m| (m.id, (m.title, m.line))).collect())
}

/// The titles and lines of the list that lies beside a bundle.
///
/// # Errors
/// If the list cannot be read.
pub fn titles_beside(bundle: &Path) -> Result<Titles> {
    titles(&bundle.with_file_name("index.json"))
}

/// The text of the list.
///
/// # Errors
/// Never, for entries of finite numbers.
pub fn text(models: Vec<Entry>) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Index { version: 1, models })? + "\n")
}

/// Writes the list of the bundles in `dir`; those named `my-*` only with `mine`. What was written by hand into an earlier list
/// (titles, lines) stays. Returns the number of models.
///
/// # Errors
/// If a file is no bundle, its name cannot be an id, or the list cannot be written.
pub fn write(dir: &Path, mine: bool) -> Result<usize> {
    let list = dir.join("index.json");
    let titles = titles(&list)?;
    let mut entries = vec![];
    for file in fs::read_dir(dir).with_context(|| format!("`{}` cannot be read", dir.display()))? {
        let path = file?.path();
        let own = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(MINE));
        if path.extension().is_none_or(|e| e != ENDING) || (own && !mine) {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
        let bundle = bundle::read(&bytes).with_context(|| format!("`{}`", path.display()))?;
        entries.push(Entry::of(&path, &bytes, &bundle, &titles)?);
    }
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    let count = entries.len();
    crate::log::write_whole(&list, text(entries)?.as_bytes())?;
    Ok(count)
}
