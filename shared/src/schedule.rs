//! Noise schedules: `x_t = alpha(t) x0 + sigma(t) eps` with `eps ~ N(0, I)`.
//!
//! The one place that knows what a time means. Samplers, methods and parameterisations ask for `alpha`, `sigma`, their
//! derivatives and inverses, and never write a formula of a schedule themselves. All in f64 and through `libm`, so that a
//! program built in a browser has the same coefficients as one built natively.

use crate::error::{Error, Result};
use core::f64::consts::FRAC_PI_2;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A noise schedule. Each has its own direction of time; [`Schedule::start`] is the noisiest time and [`Schedule::end`] the
/// clean one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Schedule {
    /// Karras et al. 2022 (EDM): `alpha = 1`, and time *is* sigma, from `sigma_max` (noise) down to 0 (data).
    Edm {
        /// Smallest noise level of the grid, above 0.
        sigma_min: f64,
        /// Largest noise level.
        sigma_max: f64,
        /// Exponent of the grid; 7 in the paper.
        rho: f64,
    },
    /// Ho et al. 2020 (DDPM) with linear betas. Time runs from 1 (noise) to 0 (data); `alpha^2` at `t = (i + 1) / steps` is the
    /// discrete cumulative product `alpha_bar_i`, and 1 at `t = 0`.
    DdpmLinear {
        /// First beta.
        beta_start: f64,
        /// Last beta, not smaller than the first.
        beta_end: f64,
        /// Number of discrete steps, at least 2.
        steps: u32,
    },
    /// [`Schedule::DdpmLinear`] with zero terminal SNR (Lin et al. 2023, arXiv 2305.08891, Algorithm 1): alpha is shifted and
    /// stretched so that it is unchanged at the first discrete step and exactly 0 at the last.
    DdpmZeroSnr {
        /// First beta.
        beta_start: f64,
        /// Last beta, not smaller than the first.
        beta_end: f64,
        /// Number of discrete steps, at least 2.
        steps: u32,
    },
    /// `alpha = cos(pi t / 2)`, `sigma = sin(pi t / 2)`; time runs from 1 (noise) to 0 (data).
    Cosine,
    /// Linear flow: `alpha = t`, `sigma = (1 - t) base_std`; time runs from 0 (noise) to 1 (data).
    Flow {
        /// Standard deviation of the noise end.
        base_std: f64,
    },
}

impl Schedule {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`Error::Config`] names the one that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, key: &str, found: f64, expected: &str| {
            if ok { Ok(()) } else { Err(Error::config(format!("schedule.{key}"), found, expected)) }
        };
        match *self {
            Schedule::Edm { sigma_min, sigma_max, rho } => {
                check(sigma_min > 0.0 && sigma_min.is_finite(), "sigma_min", sigma_min, "a number above 0")?;
                check(sigma_max > sigma_min && sigma_max.is_finite(), "sigma_max", sigma_max, "a number above sigma_min")?;
                check((0.1..=1000.0).contains(&rho), "rho", rho, "a number from 0.1 to 1000")
            }
            Schedule::DdpmLinear { beta_start, beta_end, steps } | Schedule::DdpmZeroSnr { beta_start, beta_end, steps } => {
                check(beta_start > 0.0 && beta_start < 1.0, "beta_start", beta_start, "a number between 0 and 1")?;
                check(beta_end >= beta_start && beta_end < 1.0, "beta_end", beta_end, "a number from beta_start to below 1")?;
                check((2..=1_000_000).contains(&steps), "steps", f64::from(steps), "2 to 1000000")?;
                // Else the smooth continuation to times before the first step would begin with a negative beta.
                let growth = (beta_end - beta_start) / f64::from(steps - 1);
                check(beta_start > 0.5 * growth, "beta_start", beta_start, "more than half of what beta grows in a step")
            }
            Schedule::Cosine => Ok(()),
            Schedule::Flow { base_std } => check(base_std > 0.0 && base_std.is_finite(), "base_std", base_std, "a number above 0"),
        }
    }

    /// The noisiest time, where sampling starts.
    pub fn start(&self) -> f64 {
        match *self {
            Schedule::Edm { sigma_max, .. } => sigma_max,
            Schedule::DdpmLinear { .. } | Schedule::DdpmZeroSnr { .. } | Schedule::Cosine => 1.0,
            Schedule::Flow { .. } => 0.0,
        }
    }

    /// The clean time, where `sigma = 0`.
    pub fn end(&self) -> f64 {
        match self {
            Schedule::Flow { .. } => 1.0,
            _ => 0.0,
        }
    }

    /// Coefficient of the image.
    pub fn alpha(&self, t: f64) -> f64 {
        match *self {
            Schedule::Edm { .. } => 1.0,
            Schedule::DdpmLinear { .. } => libm::exp(0.5 * self.log_alpha_bar(t).0),
            // Stretched about the first discrete step, it would pass 1 by some 1e-7 before it.
            Schedule::DdpmZeroSnr { .. } => self.rescaling().map_or(1.0, |(plain, last, gain)| (gain * (plain.alpha(t) - last)).min(1.0)),
            // The sine of the complement is exactly 0 at t = 1, where a cosine is not.
            Schedule::Cosine => libm::sin(FRAC_PI_2 * (1.0 - t)),
            Schedule::Flow { .. } => t,
        }
    }

    /// Coefficient of the noise.
    pub fn sigma(&self, t: f64) -> f64 {
        match *self {
            Schedule::Edm { .. } => t,
            Schedule::DdpmLinear { .. } => libm::sqrt(-libm::expm1(self.log_alpha_bar(t).0)),
            Schedule::DdpmZeroSnr { .. } => {
                let alpha = self.alpha(t);
                libm::sqrt((1.0 - alpha) * (1.0 + alpha))
            }
            Schedule::Cosine => libm::sin(FRAC_PI_2 * t),
            Schedule::Flow { base_std } => (1.0 - t) * base_std,
        }
    }

    /// Derivative of [`Schedule::alpha`] in `t`.
    pub fn d_alpha(&self, t: f64) -> f64 {
        match *self {
            Schedule::Edm { .. } => 0.0,
            Schedule::DdpmLinear { .. } => {
                let (log, slope) = self.log_alpha_bar(t);
                0.5 * slope * libm::exp(0.5 * log)
            }
            Schedule::DdpmZeroSnr { .. } => self.rescaling().map_or(0.0, |(plain, _, gain)| gain * plain.d_alpha(t)),
            Schedule::Cosine => -FRAC_PI_2 * libm::sin(FRAC_PI_2 * t),
            Schedule::Flow { .. } => 1.0,
        }
    }

    /// Derivative of [`Schedule::sigma`] in `t`; infinite at the clean end of the DDPM schedule, where sigma grows like a root.
    pub fn d_sigma(&self, t: f64) -> f64 {
        match *self {
            Schedule::Edm { .. } => 1.0,
            Schedule::DdpmLinear { .. } => {
                let (log, slope) = self.log_alpha_bar(t);
                -0.5 * slope * libm::exp(log) / self.sigma(t)
            }
            Schedule::DdpmZeroSnr { .. } => -self.alpha(t) * self.d_alpha(t) / self.sigma(t),
            Schedule::Cosine => FRAC_PI_2 * libm::sin(FRAC_PI_2 * (1.0 - t)),
            Schedule::Flow { base_std } => -base_std,
        }
    }

    /// `sigma / alpha`, the noise level an EDM network knows; infinite where alpha is 0.
    pub fn noise_ratio(&self, t: f64) -> f64 {
        match self {
            Schedule::Edm { .. } => t,
            Schedule::DdpmLinear { .. } => libm::sqrt(libm::expm1(-self.log_alpha_bar(t).0)),
            _ => self.sigma(t) / self.alpha(t),
        }
    }

    /// The time at which `sigma / alpha` is `ratio` (0 to infinity), clamped to the schedule's range for DDPM.
    pub fn time_of_ratio(&self, ratio: f64) -> f64 {
        match *self {
            Schedule::Edm { .. } => ratio,
            Schedule::DdpmLinear { .. } | Schedule::DdpmZeroSnr { .. } => {
                // The ratio grows with t: bisection to the last bits.
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..60 {
                    let middle = 0.5 * (low + high);
                    if self.noise_ratio(middle) < ratio { low = middle } else { high = middle }
                }
                0.5 * (low + high)
            }
            Schedule::Cosine => libm::atan(ratio) / FRAC_PI_2,
            Schedule::Flow { base_std } => base_std / (ratio + base_std),
        }
    }

    /// Signal-to-noise ratio in decibels, `10 log10(alpha^2 / sigma^2)`.
    pub fn snr_db(&self, t: f64) -> f64 {
        -20.0 * libm::log10(self.noise_ratio(t))
    }

    /// Derivative in `t` of `lambda = ln(sigma / alpha)`: the rate of BOOT's signal ODE (Gu et al. 2023).
    pub fn d_lambda(&self, t: f64) -> f64 {
        self.d_sigma(t) / self.sigma(t) - self.d_alpha(t) / self.alpha(t)
    }

    /// The time at `u`, uniform from 0 (clean) to 1 (noisiest). For [`Schedule::Edm`] this is the rho grid, `(sigma_min^(1/rho)
    /// + u (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho` (Karras et al. 2022, eq. 5, reversed), whose `u = 0` is sigma_min.
    pub fn at_uniform(&self, u: f64) -> f64 {
        match *self {
            Schedule::Edm { sigma_min, sigma_max, rho } => {
                let (low, high) = (libm::pow(sigma_min, 1.0 / rho), libm::pow(sigma_max, 1.0 / rho));
                libm::pow(low + u * (high - low), rho)
            }
            Schedule::DdpmLinear { .. } | Schedule::DdpmZeroSnr { .. } | Schedule::Cosine => u,
            Schedule::Flow { .. } => 1.0 - u,
        }
    }

    /// The inverse of [`Schedule::at_uniform`].
    pub fn uniform_of(&self, t: f64) -> f64 {
        match *self {
            Schedule::Edm { sigma_min, sigma_max, rho } => {
                let (low, high) = (libm::pow(sigma_min, 1.0 / rho), libm::pow(sigma_max, 1.0 / rho));
                (libm::pow(t, 1.0 / rho) - low) / (high - low)
            }
            Schedule::DdpmLinear { .. } | Schedule::DdpmZeroSnr { .. } | Schedule::Cosine => t,
            Schedule::Flow { .. } => 1.0 - t,
        }
    }

    /// Times of a chain of `steps` re-noised steps, the noisiest first: linear in uniform time from `init` towards the clean end.
    pub fn renoised(&self, init: f64, steps: usize) -> Vec<f64> {
        let u = self.uniform_of(init);
        (0..steps).map(|k| if k == 0 { init } else { self.at_uniform(u * (1.0 - k as f64 / steps as f64)) }).collect()
    }

    /// Times of a sampler of `steps` steps, from [`Schedule::start`] to [`Schedule::end`], both included: `steps + 1` of them.
    ///
    /// [`Schedule::Edm`] takes `steps` points of its rho grid from sigma_max to sigma_min and then 0 (Karras et al. 2022, eq.
    /// 5); the others are uniform.
    pub fn grid(&self, steps: usize) -> Vec<f64> {
        let n = steps.max(1);
        let mut times: Vec<f64> = match self {
            Schedule::Edm { .. } => (0..n).map(|i| self.at_uniform(1.0 - i as f64 / n.saturating_sub(1).max(1) as f64)).collect(),
            _ => (0..n).map(|i| self.at_uniform(1.0 - i as f64 / n as f64)).collect(),
        };
        // Exact ends, whatever the rounding of a power.
        times[0] = self.start();
        times.push(self.end());
        times
    }

    /// Number of discrete steps of a DDPM schedule; none of the others has any.
    pub fn discrete_steps(&self) -> Option<u32> {
        match *self {
            Schedule::DdpmLinear { steps, .. } | Schedule::DdpmZeroSnr { steps, .. } => Some(steps),
            _ => None,
        }
    }

    /// The schedule that [`Schedule::DdpmZeroSnr`] rescales, its last alpha, and the factor.
    fn rescaling(&self) -> Option<(Schedule, f64, f64)> {
        let Schedule::DdpmZeroSnr { beta_start, beta_end, steps } = *self else { return None };
        let plain = Schedule::DdpmLinear { beta_start, beta_end, steps };
        let (first, last) = (plain.alpha(1.0 / f64::from(steps)), plain.alpha(1.0));
        Some((plain, last, first / (first - last)))
    }

    /// `ln(alpha_bar)` of the DDPM schedule and its derivative in `t`, 0 for the others.
    ///
    /// With `beta_i = b + d i` the product of `1 - beta_i` over `i < n` is `d^n Gamma(z) / Gamma(z - n)`, `z = (1 - b) / d +
    /// 1`. That continues it smoothly to any real `n = steps t`, through every discrete value. Written by Stirling's formula so
    /// that the large terms cancel on paper instead of in floating point.
    fn log_alpha_bar(&self, t: f64) -> (f64, f64) {
        let Schedule::DdpmLinear { beta_start, beta_end, steps } = *self else { return (0.0, 0.0) };
        let steps = f64::from(steps);
        let n = t * steps;
        let d = (beta_end - beta_start) / (steps - 1.0);
        if d < 1e-15 {
            let slope = libm::log1p(-beta_start);
            return (n * slope, steps * slope);
        }
        let z = (1.0 - beta_start) / d + 1.0;
        let w = z - n;
        let ((tail_z, _), (tail_w, slope_w)) = (stirling_tail(z), stirling_tail(w));
        // ln(d z) = ln(1 - (b - d)): one minus the beta before the first.
        let log_dz = libm::log1p(d - beta_start);
        let log_ratio = libm::log1p(-n / z);
        let log = n * log_dz - (w - 0.5) * log_ratio - n + tail_z - tail_w;
        // d/dn of -ln Gamma(z - n) is the digamma function, ln w - 1/(2w) + tail'.
        (log, steps * (log_dz + log_ratio - 0.5 / w + slope_w))
    }
}

/// What Stirling's formula leaves: `ln Gamma(x) - (x - 1/2) ln x + x - ln(2 pi) / 2`, and its derivative, for `x > 0`.
fn stirling_tail(mut x: f64) -> (f64, f64) {
    let (mut tail, mut slope) = (0.0, 0.0);
    // The series needs a large argument; the recurrence Gamma(x + 1) = x Gamma(x) brings it there.
    while x < 12.0 {
        let log = libm::log1p(1.0 / x);
        tail += (x + 0.5) * log - 1.0;
        slope += log - 0.5 / x - 0.5 / (x + 1.0);
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    tail += (1.0 / 12.0 - y * (1.0 / 360.0 - y * (1.0 / 1260.0 - y / 1680.0))) / x;
    slope -= y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * (1.0 / 252.0 - y / 240.0)));
    (tail, slope)
}

/// How much of BOOT's current signal survives a step from `t` to the cleaner `s`: `kappa = sigma_s alpha_t / (alpha_s
/// sigma_t)`, in `[0, 1)`.
///
/// One DDIM step written for the signal `y = (x - sigma eps) / alpha` is `y_s = (1 - kappa) f(x_t, t) + kappa y_t` (Gu et al.
/// 2023). Computed as a ratio and not through logarithms, so it is 0 where `alpha_t = 0` (any finite start is forgotten) and
/// where `sigma_s = 0`.
pub fn boot_kappa(schedule: &Schedule, s: f64, t: f64) -> f64 {
    schedule.sigma(s) * schedule.alpha(t) / (schedule.alpha(s) * schedule.sigma(t))
}

/// The EDM noise level of linear-flow time `t` (0 noise, 1 data) with noise of `base_std`: `(1 - t) base_std / t`, at most
/// `sigma_max`.
///
/// At `t = 0` the ratio is infinite and an EDM network's image of pure noise is `sigma_max eps`, which stands for it.
pub fn flow_sigma(base_std: f64, sigma_max: f64, t: f64) -> f64 {
    // Written so that t = 0 gives infinity, and the smaller of the two is taken.
    ((1.0 - t) * base_std / t).min(sigma_max)
}
