//! Classifier-free guidance, at every noise level or at some.

use crate::error::Error;

/// The answer `f(null) + w (f(given) - f(null))` (Ho and Salimans 2022), with `w` the weight at noise levels within an interval and
/// 1 at all others (Kynkäänniemi et al. 2024, arXiv 2404.07724): guidance at high levels costs variety, at low ones it does nothing.
///
/// As text `1.5`, or `1.5@0.3..3` for levels 0.3 to 3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// The weight; 1 is the plain answer.
    pub weight: f64,
    /// Least and largest level, `sigma / alpha`, at which it holds; from 0 to infinity everywhere.
    pub levels: [f64; 2],
}

impl Guidance {
    /// The weight at a noise level `sigma / alpha`.
    pub fn at(&self, level: f64) -> f64 {
        if self.everywhere() || (self.levels[0]..=self.levels[1]).contains(&level) { self.weight } else { 1.0 }
    }

    /// Whether the weight holds at every level.
    pub fn everywhere(&self) -> bool {
        self.levels == [0.0, f64::INFINITY]
    }
}

impl From<f64> for Guidance {
    /// This weight everywhere.
    fn from(weight: f64) -> Guidance {
        Guidance { weight, levels: [0.0, f64::INFINITY] }
    }
}

impl std::fmt::Display for Guidance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.everywhere() {
            true => write!(f, "{}", self.weight),
            false => write!(f, "{}@{}..{}", self.weight, self.levels[0], self.levels[1]),
        }
    }
}

impl std::str::FromStr for Guidance {
    type Err = Error;

    fn from_str(s: &str) -> Result<Guidance, Error> {
        let bad = || Error::config("guidance", s, "a weight such as 1.5, or a weight at noise levels such as 1.5@0.3..3");
        let number = |s: &str| s.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(bad);
        let Some((weight, levels)) = s.split_once('@') else { return Ok(number(s)?.into()) };
        let (low, high) = levels.split_once("..").ok_or_else(bad)?;
        let found = Guidance { weight: number(weight)?, levels: [number(low)?, number(high)?] };
        if found.levels[0] < 0.0 || found.levels[0] > found.levels[1] { Err(bad()) } else { Ok(found) }
    }
}
