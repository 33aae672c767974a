//! The one conversion point: every network, however parameterised, answers with x0.
//!
//! With `x = alpha x0 + sigma eps`, each parameterisation is affine: `x0 = c_skip x + c_out F(c_in x)`. [`adapter`] gives the
//! three numbers, [`lower`] writes them into a sampler's program, and no sampler or method knows how a network was
//! parameterised.

use crate::error::{Error, Result};
use crate::program::Label;
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};

mod lowered;
#[cfg(test)]
mod tests;

pub use lowered::{Lowered, NetEval, Step, lower, lower_keeping};

/// What a network's output means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Parameterization {
    /// The clean image.
    X0,
    /// The noise (Ho et al. 2020): `x0 = (x - sigma eps) / alpha`.
    Eps,
    /// `v = alpha eps - sigma x0` (Salimans and Ho 2022).
    V,
    /// The velocity `d/dt x_t = alpha' x0 + sigma' eps` in the schedule's own time (Lipman et al. 2023).
    Flow,
    /// Preconditioned as in EDM (Karras et al. 2022, eq. 7).
    Edm {
        /// Standard deviation of the data.
        sigma_data: f64,
    },
    /// Average velocity of a flow map, `X_{s,t}(x) = x + (t - s) sigma_data F(x / sigma_data; s, t)` (Boffi et al. 2025).
    FlowMap {
        /// Standard deviation of the data.
        sigma_data: f64,
    },
    /// The same around a network preconditioned as in EDM, whose diagonal a trained EDM denoiser already is ([`edm_velocity`]).
    EdmFlowMap {
        /// Standard deviation of the data, and of the schedule's noise.
        sigma_data: f64,
    },
}

impl Parameterization {
    /// Whether the network answers for two times with an average velocity.
    pub fn is_flow_map(&self) -> bool {
        matches!(self, Parameterization::FlowMap { .. } | Parameterization::EdmFlowMap { .. })
    }
}

/// What samplers and adapters need to know of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Noise schedule, whose time programs use.
    pub schedule: Schedule,
    /// Meaning of the network's output.
    pub parameterization: Parameterization,
    /// The network takes a target time (BOOT students, flow maps).
    pub second_time: bool,
    /// The network takes the guidance weight as an input.
    pub guidance_input: bool,
    /// The network knows the null label, so that guidance can be made from two calls.
    pub null_label: bool,
    /// The time at which a student starts, where that is not the schedule's noisiest.
    pub init_time: Option<f64>,
}

/// `x0 = c_skip x + c_out F(c_in x)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapter {
    /// Factor on the network's input.
    pub c_in: f64,
    /// Weight of `x`.
    pub c_skip: f64,
    /// Weight of the network's output.
    pub c_out: f64,
}

/// The largest noise level that a network preconditioned as in EDM is told, where its schedule reaches `alpha = 0`; EDM's
/// sigma_max.
pub const EDM_SIGMA_MAX: f64 = 80.0;
/// The smallest one that a flow map around an EDM network tells it, whose schedule reaches `sigma = 0`; EDM's sigma_min.
pub const EDM_SIGMA_MIN: f64 = 0.002;

/// A network as the interpreters offer it.
pub trait Net {
    /// Shape of one image, `[channels, height, width]`; input and output agree.
    fn shape(&self) -> [usize; 3];
    /// One call on a batch.
    ///
    /// `x` and `out` hold `n` images one after another; `times` has one value per slot, the same for all images; `labels` has
    /// `n` entries, which an unconditional network ignores.
    ///
    /// # Errors
    /// [`Error::Call`] if the arguments do not fit the network; [`Error::Gpu`] if a device fails.
    fn eval(&self, x: &[f32], n: usize, times: &[f32], labels: &[u32], out: &mut [f32]) -> Result<()>;
}

/// A denoiser in closed form, for tests and 2-D toys.
pub trait Denoiser {
    /// Writes `E[x0 | x_t = x]` into `out`, of the length of `x`.
    fn x0(&self, x: &[f32], t: f64, label: Label, out: &mut [f32]);

    /// Writes what a two-time network answers: the flow map `X_{t,target}(x)`, or BOOT's signal at `target`.
    ///
    /// # Errors
    /// [`Error::Call`] if this denoiser has none, which is the default.
    fn target(&self, _x: &[f32], _t: f64, target: f64, _label: Label, _out: &mut [f32]) -> Result<()> {
        Err(Error::call("target time of a closed-form denoiser", target, "none"))
    }
}

impl ModelSpec {
    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] names the key that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.schedule.validate()?;
        match self.parameterization {
            Parameterization::Edm { sigma_data }
            | Parameterization::FlowMap { sigma_data }
            | Parameterization::EdmFlowMap { sigma_data }
                if !(sigma_data > 0.0 && sigma_data.is_finite()) =>
            {
                return Err(Error::config("parameterization.sigma_data", sigma_data, "a number above 0"));
            }
            p if p.is_flow_map() && (!self.second_time || !matches!(self.schedule, Schedule::Flow { .. })) => {
                return Err(Error::config("parameterization", format!("{p:?}"), "a network with a target time on the flow schedule"));
            }
            Parameterization::EdmFlowMap { sigma_data } if self.schedule != (Schedule::Flow { base_std: sigma_data }) => {
                let expected = format!("the flow schedule from noise of standard deviation {sigma_data}, as the data's");
                return Err(Error::config("schedule", format!("{:?}", self.schedule), expected));
            }
            _ => {}
        }
        if let Some(t) = self.init_time {
            let (a, b) = (self.schedule.start(), self.schedule.end());
            if !(a.min(b)..=a.max(b)).contains(&t) || self.schedule.sigma(t) <= 0.0 {
                return Err(Error::config("init_time", t, format!("a time from {a} to before {b}")));
            }
        }
        Ok(())
    }
}

/// EDM's preconditioning (Karras et al. 2022, Table 1) for `x = alpha x0 + sigma eps`: theirs at noise level `sigma / alpha` on
/// `x / alpha`, multiplied out so that it stays finite at `alpha = 0`, where `c_skip = 0` and `c_out = sigma_data`.
pub fn edm_adapter(alpha: f64, sigma: f64, sigma_data: f64) -> Adapter {
    let variance = sigma * sigma + alpha * alpha * sigma_data * sigma_data;
    let root = libm::sqrt(variance);
    Adapter { c_in: 1.0 / root, c_skip: alpha * sigma_data * sigma_data / variance, c_out: sigma * sigma_data / root }
}

/// `v = skip x + out F(c_in x)` of an EDM network in linear-flow time t, 0 noise of standard deviation `sigma_data` and 1 data.
///
/// EDM's x0 at noise level `sigma_data (1 - t) / t` on `x / t`, put into `v = (x0 - x) / (1 - t)` and multiplied out with
/// `q = t^2 + (1 - t)^2`: `(2t - 1) / q`, `sigma_data / sqrt(q)` and `1 / (sigma_data sqrt(q))`, finite on the whole of [0, 1].
pub fn edm_velocity(t: f64, sigma_data: f64) -> Adapter {
    let q = t * t + (1.0 - t) * (1.0 - t);
    let root = libm::sqrt(q);
    Adapter { c_in: 1.0 / (sigma_data * root), c_skip: (2.0 * t - 1.0) / q, c_out: sigma_data / root }
}

/// EDM's loss weight `1 / c_out^2 = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2` (Karras et al. 2022, Table 1).
pub fn edm_weight(sigma: f64, sigma_data: f64) -> f64 {
    let product = sigma * sigma_data;
    (sigma * sigma + sigma_data * sigma_data) / (product * product)
}

/// The alpha by which an answer at `t` becomes x0: the schedule's own, except that noise read as x0 on a schedule of zero terminal
/// SNR divides by `sqrt(alpha^2 + 1e-8)`. At its last step x0 is then 10^4 times what the network missed: to be clipped
/// ([`crate::program::Sampler::DdimClipped`]).
pub fn conversion_alpha(spec: &ModelSpec, t: f64) -> f64 {
    let alpha = spec.schedule.alpha(t);
    match (spec.parameterization, spec.schedule) {
        (Parameterization::Eps, Schedule::DdpmZeroSnr { .. }) => libm::sqrt(alpha * alpha + 1e-8),
        _ => alpha,
    }
}

/// How x0 follows from the network's output at schedule time `t`; with a `target`, how the flow map to it does (for the other
/// parameterisations, BOOT's signal at the target is read exactly as x0 is).
///
/// # Errors
/// [`Error::Config`] where the conversion has no finite coefficients, such as eps at `alpha = 0`.
pub fn adapter(spec: &ModelSpec, t: f64, target: Option<f64>) -> Result<Adapter> {
    let schedule = &spec.schedule;
    let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
    let plain = |c_skip: f64, c_out: f64| Adapter { c_in: 1.0, c_skip, c_out };
    let adapter = match spec.parameterization {
        Parameterization::X0 => plain(0.0, 1.0),
        Parameterization::Eps => {
            let alpha = conversion_alpha(spec, t);
            plain(1.0 / alpha, -sigma / alpha)
        }
        Parameterization::V => {
            // 1 on variance-preserving schedules.
            let norm = alpha * alpha + sigma * sigma;
            plain(alpha / norm, -sigma / norm)
        }
        Parameterization::Flow => {
            // Solves x = alpha x0 + sigma eps, u = alpha' x0 + sigma' eps.
            let (d_alpha, d_sigma) = (schedule.d_alpha(t), schedule.d_sigma(t));
            let det = alpha * d_sigma - d_alpha * sigma;
            plain(d_sigma / det, -sigma / det)
        }
        Parameterization::Edm { sigma_data } => edm_adapter(alpha, sigma, sigma_data),
        // Without a target the diagonal: v_{t,t} is the velocity, and following it straight to time 1 gives x0.
        Parameterization::FlowMap { sigma_data } => {
            Adapter { c_in: 1.0 / sigma_data, c_skip: 1.0, c_out: (target.unwrap_or(1.0) - t) * sigma_data }
        }
        Parameterization::EdmFlowMap { sigma_data } => {
            let (gap, v) = (target.unwrap_or(1.0) - t, edm_velocity(t, sigma_data));
            Adapter { c_in: v.c_in, c_skip: 1.0 + gap * v.c_skip, c_out: gap * v.c_out }
        }
    };
    if [adapter.c_in, adapter.c_skip, adapter.c_out].iter().all(|c| c.is_finite()) {
        Ok(adapter)
    } else {
        Err(Error::config(
            "parameterization",
            format!("{:?} at time {t}", spec.parameterization),
            "a time at which x0 follows from the output",
        ))
    }
}

/// The noise level as the network reads it, its time input 0.
///
/// `ln(sigma) / 4` for EDM networks (Karras et al. 2022, Table 1), sigma the ratio `sigma / alpha`, at most [`EDM_SIGMA_MAX`]
/// on schedules that reach pure noise, and at least [`EDM_SIGMA_MIN`] for a flow map around one. Other flow maps read the schedule's time itself: their time derivative is trained, so its
/// scale stays near 1. The others read the discrete index `t steps - 1` of the DDPM schedule, and `1000 t` of any other, which
/// their embeddings expect.
pub fn noise_input(spec: &ModelSpec, t: f64) -> f64 {
    let ratio = spec.schedule.noise_ratio(t);
    match (spec.parameterization, spec.schedule) {
        (Parameterization::Edm { .. }, Schedule::Edm { .. }) => 0.25 * libm::log(ratio),
        (Parameterization::Edm { .. }, _) => 0.25 * libm::log(ratio.min(EDM_SIGMA_MAX)),
        (Parameterization::EdmFlowMap { .. }, _) => 0.25 * libm::log(ratio.clamp(EDM_SIGMA_MIN, EDM_SIGMA_MAX)),
        (Parameterization::FlowMap { .. }, _) => t,
        (_, Schedule::DdpmLinear { steps, .. } | Schedule::DdpmZeroSnr { steps, .. }) => t * f64::from(steps) - 1.0,
        _ => 1000.0 * t,
    }
}

/// All time inputs of a network in slot order: noise level, target time, guidance weight, the latter two where the network has
/// them.
///
/// A flow map without a target is asked on its diagonal; a guidance input without a weight gets 1.
///
/// # Errors
/// [`Error::Config`] if a time input would not be finite, or if the network lacks the input for what is asked, or is not asked
/// what it answers.
pub fn time_inputs(spec: &ModelSpec, t: f64, target: Option<f64>, guidance: Option<f64>) -> Result<Vec<f32>> {
    let mut times = vec![noise_input(spec, t) as f32];
    match (spec.second_time, target, spec.parameterization) {
        (true, Some(target), _) => times.push(target as f32),
        (true, None, p) if p.is_flow_map() => times.push(t as f32),
        (true, None, _) => return Err(Error::config("target", "none", "a target time, which the network takes")),
        (false, Some(target), _) => return Err(Error::config("target", target, "none: the network takes no target time")),
        (false, None, _) => {}
    }
    match (spec.guidance_input, guidance) {
        (true, w) => times.push(w.unwrap_or(1.0) as f32),
        (false, Some(w)) => return Err(Error::config("guidance", w, "none: the network takes no guidance")),
        (false, None) => {}
    }
    match times.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Error::config("time input", format!("{v} at time {t}"), "a finite number")),
        None => Ok(times),
    }
}
