//! The fields a flow map's losses ask: the network in training, and a frozen teacher.

use super::residual::Field;
use crate::device::device;
use crate::method::guided::{entries, guided};
use crate::method::per_image;
use anyhow::{Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::cpu::{Dropout, Exec, Precision};
use limbeck_shared::denoiser::{Adapter, EDM_SIGMA_MAX, EDM_SIGMA_MIN, ModelSpec, Parameterization};
use limbeck_shared::denoiser::{adapter, edm_velocity, time_inputs};
use limbeck_shared::nn::Network;
use limbeck_shared::nn::dual::Dual;
use limbeck_shared::program::Guidance;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a derivative along times and image is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Derivative {
    /// Forward mode, exact; walks the network by candle's own operations, so it is slow on images.
    #[default]
    Exact,
    /// A central difference of two calls, both differentiated: fast, within about 1e-3, and in need of f32's digits.
    Difference,
}

/// Half the width of the central difference, in time: its truncation and f32's rounding are alike small there.
const WIDTH: f64 = 5e-3;

/// The network in training, for the images of one label list.
pub struct NetField<'a> {
    /// The network.
    pub net: &'a Network,
    /// What answers where no gradient flows, if not the network as it is: the average of its weights.
    pub average: Option<&'a Network>,
    /// How it is preconditioned: a flow map.
    pub spec: &'a ModelSpec,
    /// How derivatives are taken.
    pub derivative: Derivative,
    /// The label of each image; empty for a network without a table.
    pub labels: &'a [u32],
}

/// `v = c_skip x + c_out F(c_in x)` of a flow map's network at s, and the time derivatives of the three and of its noise input.
fn precondition(spec: &ModelSpec, s: f64) -> (Adapter, Adapter, f64) {
    let still = Adapter { c_in: 0.0, c_skip: 0.0, c_out: 0.0 };
    match spec.parameterization {
        Parameterization::EdmFlowMap { sigma_data } => {
            let a = edm_velocity(s, sigma_data);
            // q = s^2 + (1 - s)^2
            let (q, dq) = (s * s + (1.0 - s) * (1.0 - s), 4.0 * s - 2.0);
            let rates = Adapter { c_in: -0.5 * dq / q * a.c_in, c_skip: 2.0 / q - dq / q * a.c_skip, c_out: -0.5 * dq / q * a.c_out };
            let sigma = spec.schedule.noise_ratio(s);
            let inside = (EDM_SIGMA_MIN..=EDM_SIGMA_MAX).contains(&sigma);
            // ln(sigma) / 4 with sigma = sigma_data (1 - s) / s
            (a, rates, if inside { -0.25 / (s * (1.0 - s)) } else { 0.0 })
        }
        Parameterization::FlowMap { sigma_data } => (Adapter { c_in: 1.0 / sigma_data, c_skip: 0.0, c_out: sigma_data }, still, 1.0),
        other => unreachable!("{other:?} is no flow map; FlowMap::new makes the specification"),
    }
}

impl NetField<'_> {
    fn times(&self, s: &[f64], t: &[f64]) -> Result<Vec<f32>> {
        let pairs: Vec<_> = s.iter().zip(t).map(|(s, t)| time_inputs(self.spec, *s, Some(*t), None)).collect::<Result<_, _>>()?;
        Ok(pairs.concat())
    }

    /// The velocity on the diagonal with dropout.
    ///
    /// # Errors
    /// From the network.
    pub fn dropping(&self, t: &[f64], x: &Tensor, dropout: Dropout<'_>) -> Result<Tensor> {
        self.call(self.net, t, t, x, Some(dropout))
    }

    fn call(&self, net: &Network, s: &[f64], t: &[f64], x: &Tensor, dropout: Option<Dropout<'_>>) -> Result<Tensor> {
        let all: Vec<_> = s.iter().map(|&s| precondition(self.spec, s).0).collect();
        let of = |pick: fn(&Adapter) -> f64| per_image(all.iter().map(pick));
        let (input, times) = (x.broadcast_mul(&of(|a| a.c_in)?)?, self.times(s, t)?);
        let y = match dropout {
            Some(dropout) => net.forward_dropping(&input, &times, self.labels, dropout)?,
            None => net.forward(&input, &times, self.labels)?,
        };
        Ok((x.broadcast_mul(&of(|a| a.c_skip)?)? + y.broadcast_mul(&of(|a| a.c_out)?)?)?)
    }

    fn exact(&self, s: &[f64], t: &[f64], x: &Dual, [ds, dt]: [f32; 2]) -> Result<Dual> {
        let ds64 = f64::from(ds);
        let all: Vec<_> = s.iter().map(|&s| precondition(self.spec, s)).collect();
        let factor = |pick: fn(&Adapter) -> f64| -> Result<(Tensor, Tensor)> {
            Ok((per_image(all.iter().map(|p| pick(&p.0)))?, per_image(all.iter().map(|p| ds64 * pick(&p.1)))?))
        };
        // The product rule for a factor that depends on s alone.
        let times = |(value, rate): &(Tensor, Tensor), x: &Dual| -> Result<Dual> {
            let mut tangent = x.value.broadcast_mul(rate)?;
            if let Some(d) = &x.tangent {
                tangent = (tangent + d.broadcast_mul(value)?)?;
            }
            Ok(Dual { value: x.value.broadcast_mul(value)?, tangent: Some(tangent) })
        };
        let input = times(&factor(|a| a.c_in)?, x)?;
        let rates: Vec<f32> = all.iter().flat_map(|p| [(p.2 * ds64) as f32, dt]).collect();
        let y = times(&factor(|a| a.c_out)?, &self.net.dual(&input, &self.times(s, t)?, &rates, self.labels)?)?;
        let skipped = times(&factor(|a| a.c_skip)?, x)?;
        Ok(Dual { value: (&y.value + &skipped.value)?, tangent: Some((y.tangent()? + skipped.tangent()?)?) })
    }

    fn difference(&self, s: &[f64], t: &[f64], x: &Dual, rates: [f32; 2]) -> Result<Dual> {
        let side = |sign: f64| {
            let moved = |v: &[f64], rate: f32| v.iter().map(|v| v + sign * WIDTH * f64::from(rate)).collect::<Vec<_>>();
            let x = match &x.tangent {
                Some(d) => (&x.value + (d * (sign * WIDTH))?)?,
                None => x.value.clone(),
            };
            self.at(&moved(s, rates[0]), &moved(t, rates[1]), &x)
        };
        let (after, before) = (side(1.0)?, side(-1.0)?);
        Ok(Dual { value: ((&after + &before)? * 0.5)?, tangent: Some(((after - before)? * (0.5 / WIDTH))?) })
    }
}

impl Field for NetField<'_> {
    fn at(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        self.call(self.net, s, t, x, None)
    }

    fn constant(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        let x = x.detach();
        match self.average {
            Some(average) => self.call(average, s, t, &x, None),
            None => self.call(&self.net.detached(), s, t, &x, None),
        }
    }

    fn dual(&self, s: &[f64], t: &[f64], x: &Dual, rates: [f32; 2]) -> Result<Dual> {
        match self.derivative {
            Derivative::Exact => self.exact(s, t, x, rates),
            Derivative::Difference => self.difference(s, t, x, rates),
        }
    }
}

/// A frozen model of any parameterisation, asked for velocities in linear-flow time.
pub struct Teacher {
    net: Network,
    spec: ModelSpec,
    null_label: Option<u32>,
    guidance: Guidance,
}

/// Times from here on ask a model at this one: the velocity `(x0 - x) / (1 - t)` has no digits left after it.
const LATEST: f64 = 1.0 - 1e-3;

impl Teacher {
    /// Plans the bundle's network; `guidance` is the weight of its guided answer, 1 the plain one, and at which noise levels it holds.
    ///
    /// # Errors
    /// If the bundle is no diffusion model or flow map, or knows no null label to guide with.
    pub fn new(bundle: &Bundle, guidance: Guidance, precision: Precision) -> Result<Teacher> {
        let spec = bundle.meta.spec();
        if bundle.graphs.len() != 1 || spec.guidance_input || (spec.second_time && !spec.parameterization.is_flow_map()) {
            bail!("`teacher`: found a one-step student or a routed model, expected a diffusion model or a flow map");
        }
        if guidance.weight != 1.0 && bundle.meta.null_label.is_none() {
            bail!("`method.guidance`: found {guidance}, expected 1 for a teacher without a null label");
        }
        let exec = Arc::new(Exec::with_precision(bundle.graphs[0].clone(), precision)?);
        let net = Network::frozen(exec, &bundle.thetas[0], device())?;
        Ok(Teacher { net, spec, null_label: bundle.meta.null_label, guidance })
    }

    /// The velocity from s to t: a flow map's own average, of a diffusion model its velocity at s.
    ///
    /// `base` is the noise's standard deviation. A model is asked at the time that has the same ratio of noise to data,
    /// `(1 - s) base / s` within its range, on x scaled as it has it there, `sigma / ((1 - s) base)`, which is finite at s = 0.
    ///
    /// # Errors
    /// From the network, or if its answer cannot be converted there.
    pub fn velocity(&self, base: f64, s: &[f64], t: &[f64], x: &Tensor, labels: &[u32]) -> Result<Tensor> {
        let schedule = &self.spec.schedule;
        let mut times = vec![];
        // Input, skip and output factors on x and on the network's answer, so that v = skip x + out F(in x).
        let mut scales: Vec<[f64; 3]> = vec![];
        let mut weights = vec![];
        for (&s, &t) in s.iter().zip(t) {
            let s = s.min(LATEST);
            let ratio = if s > 0.0 { (1.0 - s) * base / s } else { f64::INFINITY };
            let start = schedule.start();
            let at = if ratio < schedule.noise_ratio(start) { schedule.time_of_ratio(ratio) } else { start };
            // A flow map's schedule is this one; its jump is asked for where there is one.
            let jump = (self.spec.second_time && t > s).then_some(t);
            let a = adapter(&self.spec, at, jump)?;
            weights.push(self.guidance.at(schedule.noise_ratio(at)));
            times.extend(time_inputs(&self.spec, at, jump, None)?);
            let scale = schedule.sigma(at) / ((1.0 - s) * base);
            let gap = jump.map_or(1.0 - s, |t| t - s);
            scales.push([a.c_in * scale, (a.c_skip * scale - 1.0) / gap, a.c_out / gap]);
        }
        let of = |i: usize| per_image(scales.iter().map(|c| c[i]));
        let input = x.broadcast_mul(&of(0)?)?;
        let each = times.len() / s.len();
        let ask = |rows: Option<&[u32]>, labels: &[u32]| -> Result<Tensor> {
            let input = match rows {
                None => input.clone(),
                Some(rows) => input.index_select(&Tensor::new(rows, device())?, 0)?,
            };
            Ok(self.net.forward(&input, &entries(&times, each, rows), labels)?)
        };
        let y = match self.null_label {
            Some(null) => guided(&weights, labels, null, ask)?,
            None => ask(None, labels)?,
        };
        Ok((x.broadcast_mul(&of(1)?)? + y.broadcast_mul(&of(2)?)?)?)
    }
}
