//! What a link's short words mean.

use super::integer;
use super::source::Source;
use crate::bundle::MAX_STEPS;
use crate::program::Sampler;

/// What the page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum View {
    /// Images of one model.
    #[default]
    Draw,
    /// Models from the same noise, all timed.
    Compare,
    /// The states between noise and image.
    Path,
    /// The images between two seeds.
    Travel,
    /// What a bundle says about itself.
    Model,
    /// How fast this machine is.
    Bench,
}

impl View {
    /// All views and their names in links.
    pub const ALL: [(View, &str); 6] = [
        (View::Draw, "draw"),
        (View::Compare, "compare"),
        (View::Path, "path"),
        (View::Travel, "travel"),
        (View::Model, "model"),
        (View::Bench, "bench"),
    ];

    /// The name in links.
    pub fn name(self) -> &'static str {
        View::ALL.iter().find(|v| v.0 == self).map_or("draw", |v| v.1)
    }
}

/// Which classes to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Class {
    /// Image k has class k modulo the number of classes.
    #[default]
    Each,
    /// All images have this class, at most [`super::MAX_CLASS`].
    Index(u32),
}

/// A model and how to draw with it; what is `None` the page or the bundle decides.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Choice {
    /// Which bundle.
    pub source: Option<Source>,
    /// Start of the file's SHA-256: 8 to 64 lower-case hexadecimal digits. A page must refuse a file that does not match.
    pub sha256: Option<String>,
    /// Which sampler.
    pub sampler: Option<Sampler>,
    /// How many steps, 1 to 1000.
    pub steps: Option<usize>,
}

impl Choice {
    /// Sets the value of one of a model's keys, or says what it should be.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "m" => self.source = Some(Source::parse(value)?),
            "h" => {
                let hex = (8..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit());
                let hash = hex.then(|| value.to_ascii_lowercase()).ok_or("8 to 64 hexadecimal digits of a SHA-256")?;
                self.sha256 = Some(hash);
            }
            "sampler" => {
                let names = || format!("one of {}", Sampler::ALL.map(Sampler::name).join(", "));
                self.sampler = Some(Sampler::ALL.into_iter().find(|s| s.name() == value).ok_or_else(names)?);
            }
            "steps" => self.steps = Some(integer(value, 1, MAX_STEPS)?),
            _ => return Err("a key of this version".into()),
        }
        Ok(())
    }
}
