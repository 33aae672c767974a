//! Classifier-free guidance, at every noise level or at some.

use crate::error::Error;

/// The answer `f(null) + w (f(given) - f(null))` (Ho and Salimans 2022), with `w` the weight at noise levels within an interval and
/// 1 at all others (Kynkäänniemi et al. 2024, arXiv 2404.07724): guidance at high levels costs variety, at low ones it does nothing.
///
/// As text `1.5`, or `1.5@0.3..3` for levels 0.3 to 3, or `1.5@0..inf` for all, whatever the model prefers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// The weight; 1 is the plain answer.
    pub weight: f64,
    /// Least and largest level, `sigma / alpha`, at which it holds; none: those that the model prefers, else all.
    pub levels: Option<[f64; 2]>,
}

impl Guidance {
    /// The weight at a noise level `sigma / alpha`.
    pub fn at(&self, level: f64) -> f64 {
        if self.levels.is_none_or(|[low, high]| (low..=high).contains(&level)) { self.weight } else { 1.0 }
    }

    /// Whether the weight is finite and the levels, if any, rise from 0 or more.
    pub fn is_sound(&self) -> bool {
        self.weight.is_finite() && self.levels.is_none_or(|[low, high]| 0.0 <= low && low < high)
    }
}

impl From<f64> for Guidance {
    /// This weight where the model prefers it.
    fn from(weight: f64) -> Guidance {
        Guidance { weight, levels: None }
    }
}

impl std::fmt::Display for Guidance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.levels {
            None => write!(f, "{}", self.weight),
            Some([low, high]) => write!(f, "{}@{low}..{high}", self.weight),
        }
    }
}

impl std::str::FromStr for Guidance {
    type Err = Error;

    fn from_str(s: &str) -> Result<Guidance, Error> {
        let bad = || Error::config("guidance", s, "a weight such as 1.5, or a weight at noise levels such as 1.5@0.3..3");
        let number = |s: &str| s.parse::<f64>().map_err(|_| bad());
        let (weight, levels) = match s.split_once('@') {
            None => (s, None),
            Some((weight, levels)) => {
                let (low, high) = levels.split_once("..").ok_or_else(bad)?;
                (weight, Some([number(low)?, number(high)?]))
            }
        };
        let found = Guidance { weight: number(weight)?, levels };
        if found.is_sound() { Ok(found) } else { Err(bad()) }
    }
}
