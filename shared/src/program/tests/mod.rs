//! Every sampler against closed forms, without any network.

mod boot;
mod clipped;
mod path;
mod route;
mod samplers;

use super::*;
use crate::denoiser::Denoiser;
use crate::schedule::Schedule;

/// Gaussian data `N(mu, c^2)` per pixel; the null label knows data `N(0, 1)`.
pub struct Gaussian {
    pub schedule: Schedule,
    pub mu: f64,
    pub c: f64,
}

impl Gaussian {
    /// `E[x0 | x_t = x]`.
    pub fn mean(&self, x: f64, t: f64, label: Label) -> f64 {
        let (mu, c) = if label == Label::Given { (self.mu, self.c) } else { (0.0, 1.0) };
        let (a, s) = (self.schedule.alpha(t), self.schedule.sigma(t));
        mu + a * c * c / (a * a * c * c + s * s) * (x - a * mu)
    }
}

impl Denoiser for Gaussian {
    fn x0(&self, x: &[f32], t: f64, label: Label, out: &mut [f32]) {
        for (o, &v) in out.iter_mut().zip(x) {
            *o = self.mean(f64::from(v), t, label) as f32;
        }
    }

    /// The flow map of the linear interpolant: `X_{s,t}(x) = t mu + sqrt(V_t / V_s) (x - s mu)`.
    fn target(&self, x: &[f32], s: f64, t: f64, _label: Label, out: &mut [f32]) -> Result<()> {
        let variance = |t: f64| self.schedule.sigma(t).powi(2) + (self.schedule.alpha(t) * self.c).powi(2);
        for (o, &v) in out.iter_mut().zip(x) {
            let (mean_s, mean_t) = (self.schedule.alpha(s) * self.mu, self.schedule.alpha(t) * self.mu);
            *o = (mean_t + (variance(t) / variance(s)).sqrt() * (f64::from(v) - mean_s)) as f32;
        }
        Ok(())
    }
}

pub const EDM: Schedule = Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 };
pub const FLOW: Schedule = Schedule::Flow { base_std: 1.0 };
pub const DDPM: Schedule = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };
pub const ZERO_SNR: Schedule = Schedule::DdpmZeroSnr { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };

pub fn spec(schedule: Schedule, parameterization: Parameterization) -> ModelSpec {
    let second_time = parameterization.is_flow_map();
    ModelSpec { schedule, parameterization, second_time, guidance_input: false, null_label: true, init_time: None }
}

/// Data of the references' tables: mean 2, standard deviation 0.5.
pub fn gaussian(schedule: Schedule) -> Gaussian {
    Gaussian { schedule, mu: 2.0, c: 0.5 }
}

/// Where a program takes noise `eps` (the same in every draw).
pub fn draw(program: &Program, denoiser: &dyn Denoiser, eps: f32) -> f64 {
    f64::from(run_closed_form(program, denoiser, 1, &mut |_, out| out.fill(eps)).unwrap()[0])
}

pub fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}
