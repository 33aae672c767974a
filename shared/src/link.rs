//! One fragment is a picture: the page's state as `#v=1&m=<bundle id or https url>&seed=..&n=..`.
//!
//! A link may come from anyone, so every value is typed and bounded, and nothing in a link can fail the page: [`Link::parse`] always
//! gives a link, with a [`Problem`] for whatever it had to leave out. Keys it does not know are kept and written back.
//!
//! | key | value | default |
//! |---|---|---|
//! | `v` | version, always written | 1 |
//! | `m`, `m2` to `m4` | first model and those beside it: bundle id `[a-z0-9-]{1,64}` or URL | the page's choice |
//! | `h`, `h2` to `h4` | first 8 to 64 hexadecimal digits of the model's SHA-256 | not checked |
//! | `sampler`, `sampler2` to `sampler4` | a [`Sampler`] | the bundle's choice |
//! | `steps`, `steps2` to `steps4` | 1 to 1000 | the bundle's choice |
//! | `seed` | 64 bits | 0 |
//! | `n` | images, 1 to 64 | 16 |
//! | `c` | class index, or `each`: image k has class k modulo their number | `each` |
//! | `w` | guidance weight, 0 to 20 | the bundle's choice |
//! | `i` | one image of the draw, 0 to 63: shown large, or on its path, or where a travel begins | none |
//! | `seed2`, `c2` | seed and class at the end of a travel | the page's choice, the same class |
//! | `t` | place on a path or travel, in thousandths | the end of a path, the beginning of a travel |
//! | `show` | on a path, `state` or `x0`: the noisy state, or the network's estimate of the image | `state` |
//! | `view` | `draw`, `compare`, `path`, `travel`, `model`, `bench` | `draw` |
//! | `embed` | `1`: without the page's frame, for showing inside of other pages | `0` |

use crate::bundle::MAX_GUIDANCE;
use std::fmt::Display;
use std::str::FromStr;
use thiserror::Error;

mod source;
#[cfg(test)]
mod tests;
mod view;

pub use source::{MAX_ID, MAX_URL, Source};
pub use view::{Choice, Class, View};

/// Version of links that this build writes.
pub const VERSION: u32 = 1;
/// Longest fragment, bytes.
pub const MAX_LENGTH: usize = 4000;
/// Most images in one draw.
pub const MAX_COUNT: u32 = 64;
/// Largest class index.
pub const MAX_CLASS: u32 = 99_999;
/// Most models in one link: one, and those beside it.
pub const MAX_MODELS: usize = 4;
/// What places on a path or travel are counted in: this many of them are all of it.
pub const WHOLE: u32 = 1000;
/// Images in one draw unless told otherwise.
pub const DEFAULT_COUNT: u32 = 16;

/// The state of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Version of the link, at least 1. A later one than [`VERSION`] is kept, so that a newer page still reads what this one copies.
    pub version: u32,
    /// The model, and those beside it in [`View::Compare`] and [`View::Path`].
    pub models: [Choice; MAX_MODELS],
    /// Seed of the draw.
    pub seed: u64,
    /// Number of images, 1 to [`MAX_COUNT`].
    pub count: u32,
    /// Which classes.
    pub class: Class,
    /// Guidance weight, 0 to 20.
    pub guidance: Option<f64>,
    /// One image of the draw, below [`MAX_COUNT`].
    pub image: Option<u32>,
    /// Seed at the end of a travel.
    pub seed2: Option<u64>,
    /// Class at the end of a travel, at most [`MAX_CLASS`].
    pub class2: Option<u32>,
    /// Place on a path or travel, 0 to [`WHOLE`].
    pub place: Option<u32>,
    /// On a path, show the network's estimate of the image instead of the noisy state.
    pub estimate: bool,
    /// What is shown.
    pub view: View,
    /// Without the page's frame.
    pub embed: bool,
    /// Pairs of unknown key, as they were, in their order.
    unknown: Vec<String>,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            version: VERSION,
            models: Default::default(),
            seed: 0,
            count: DEFAULT_COUNT,
            class: Class::default(),
            guidance: None,
            image: None,
            seed2: None,
            class2: None,
            place: None,
            estimate: false,
            view: View::default(),
            embed: false,
            unknown: vec![],
        }
    }
}

/// Something in a link that could not be followed; the rest of it was.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Problem {
    /// The link was ignored altogether.
    #[error("the link has {found} bytes, expected at most {MAX_LENGTH}; it is ignored")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// The link is of a later version: some of it may not be understood.
    #[error("the link has version {found}, this page reads {VERSION}; some of it may be missing")]
    Version {
        /// Its version.
        found: u32,
    },
    /// A value that cannot be used; its default is.
    #[error("link: `{key}` is \"{found}\", expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The start of the value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A key given twice; the first is used.
    #[error("link: `{key}` is given twice; the first is used")]
    Twice {
        /// The key.
        key: String,
    },
    /// Unknown keys that no longer fit into [`MAX_LENGTH`] beside the known ones.
    #[error("link: `{pair}` is dropped, the link is too long")]
    Dropped {
        /// The start of the pair.
        pair: String,
    },
}

impl Link {
    /// Reads a fragment, with or without its `#`. Never fails; see [`Problem`].
    pub fn parse(fragment: &str) -> (Link, Vec<Problem>) {
        let mut link = Link::default();
        let mut problems = vec![];
        let text = fragment.strip_prefix('#').unwrap_or(fragment);
        if text.len() > MAX_LENGTH {
            problems.push(Problem::TooLong { found: text.len() });
            return (link, problems);
        }
        let mut seen: Vec<&str> = vec![];
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(key) = KEYS.iter().copied().find(|k| *k == key) else {
                link.unknown.push(source::tame(pair));
                continue;
            };
            if seen.contains(&key) {
                problems.push(Problem::Twice { key: key.into() });
                continue;
            }
            seen.push(key);
            let value = source::decode(raw).ok_or_else(|| "percent-encoded UTF-8".to_owned());
            if let Err(expected) = value.and_then(|v| link.set(key, &v)) {
                problems.push(Problem::Value { key: key.into(), found: excerpt(raw), expected });
            }
        }
        if link.version > VERSION {
            problems.push(Problem::Version { found: link.version });
        }
        // What was read may be longer when written (escapes, the version); the known keys alone always fit.
        let mut length = link.to_fragment().len();
        while length > MAX_LENGTH
            && let Some(pair) = link.unknown.pop()
        {
            length -= pair.len() + 1;
            problems.push(Problem::Dropped { pair: excerpt(&pair) });
        }
        (link, problems)
    }

    /// The fragment, without `#`: known keys in a fixed order, defaults left out, then the unknown ones. For values within their
    /// bounds, [`Link::parse`] gives the same link back.
    pub fn to_fragment(&self) -> String {
        let mut out = self.known();
        for pair in &self.unknown {
            out.push('&');
            out.push_str(pair);
        }
        out
    }

    /// The pairs of unknown key, `key=value` as in the fragment, in their order.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    fn known(&self) -> String {
        let mut out = format!("v={}", self.version);
        let mut put = |key: &str, suffix: &str, value: Option<String>| {
            if let Some(v) = value {
                out.extend(["&", key, suffix, "=", &source::encode(&v)]);
            }
        };
        for (m, suffix) in self.models.iter().zip(SUFFIXES) {
            put("m", suffix, m.source.as_ref().map(|s| s.as_str().into()));
            put("h", suffix, m.sha256.clone());
            put("sampler", suffix, m.sampler.map(|s| s.name().into()));
            put("steps", suffix, m.steps.map(|n| n.to_string()));
        }
        put("seed", "", (self.seed != 0).then(|| self.seed.to_string()));
        put("n", "", (self.count != DEFAULT_COUNT).then(|| self.count.to_string()));
        put("c", "", if let Class::Index(c) = self.class { Some(c.to_string()) } else { None });
        put("w", "", self.guidance.map(number));
        put("i", "", self.image.map(|i| i.to_string()));
        put("seed2", "", self.seed2.map(|s| s.to_string()));
        put("c2", "", self.class2.map(|c| c.to_string()));
        put("t", "", self.place.map(|t| t.to_string()));
        put("show", "", self.estimate.then(|| "x0".into()));
        put("view", "", (self.view != View::default()).then(|| self.view.name().into()));
        put("embed", "", self.embed.then(|| "1".into()));
        out
    }

    /// Sets the value of a known key, or says what it should be.
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        for (model, suffix) in self.models.iter_mut().zip(SUFFIXES) {
            match key.strip_suffix(suffix).filter(|base| OF_MODELS.contains(base)) {
                Some(base) => return model.set(base, value),
                None => continue,
            }
        }
        match key {
            "v" => self.version = integer(value, 1, u32::MAX)?,
            "seed" => self.seed = integer(value, 0, u64::MAX)?,
            "n" => self.count = integer(value, 1, MAX_COUNT)?,
            "c" if value == "each" => self.class = Class::Each,
            "c" => {
                let index = integer(value, 0, MAX_CLASS).map_err(|e| format!("`each`, or {e}"))?;
                self.class = Class::Index(index);
            }
            "w" => {
                let w = value.parse().ok().filter(|w| (0.0..=MAX_GUIDANCE).contains(w));
                // Plus zero: a guidance of -0 is written as 0.
                self.guidance = Some(w.ok_or_else(|| format!("a number from 0 to {MAX_GUIDANCE}"))? + 0.0);
            }
            "i" => self.image = Some(integer(value, 0, MAX_COUNT - 1)?),
            "seed2" => self.seed2 = Some(integer(value, 0, u64::MAX)?),
            "c2" => self.class2 = Some(integer(value, 0, MAX_CLASS)?),
            "t" => self.place = Some(integer(value, 0, WHOLE)?),
            "show" => self.estimate = one_of(value, [("state", false), ("x0", true)])?,
            "embed" => self.embed = one_of(value, [("0", false), ("1", true)])?,
            "view" => {
                let names = || format!("one of {}", View::ALL.map(|v| v.1).join(", "));
                self.view = View::ALL.iter().find(|v| v.1 == value).ok_or_else(names)?.0;
            }
            _ => return Err("a key of this version".into()),
        }
        Ok(())
    }
}

/// Keys that each model has, and what follows them for the first, second, third and fourth model.
const OF_MODELS: [&str; 4] = ["m", "h", "sampler", "steps"];
const SUFFIXES: [&str; MAX_MODELS] = ["", "2", "3", "4"];
/// Every key.
const KEYS: [&str; 28] = [
    "v", "m", "h", "sampler", "steps", "m2", "h2", "sampler2", "steps2", "m3", "h3", "sampler3", "steps3", "m4", "h4", "sampler4",
    "steps4", "seed", "n", "c", "w", "i", "seed2", "c2", "t", "show", "view", "embed",
];

/// The meaning of a word.
fn one_of<T, const N: usize>(value: &str, words: [(&str, T); N]) -> Result<T, String> {
    let expected = words.iter().map(|w| w.0).collect::<Vec<_>>().join(" or ");
    words.into_iter().find(|w| w.0 == value).map(|w| w.1).ok_or(expected)
}

fn integer<T: FromStr + PartialOrd + Display>(value: &str, min: T, max: T) -> Result<T, String> {
    let n = value.parse().ok().filter(|n| (&min..=&max).contains(&n));
    n.ok_or_else(|| format!("a whole number from {min} to {max}"))
}

/// Shortest text that reads back as the same number; with an exponent where the digits alone would be long.
fn number(v: f64) -> String {
    let text = format!("{v:?}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The start of a text from a link, for messages.
fn excerpt(text: &str) -> String {
    text[..text.floor_char_boundary(60)].into()
}
