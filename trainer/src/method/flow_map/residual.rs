//! What a flow map's losses drive to zero: residuals of its three characterisations, and their siblings.
//!
//! Boffi, Albergo, Vanden-Eijnden, "How to build a consistency model: Learning flow maps via self-distillation"
//! (arXiv 2505.18825). Time runs from noise (0) to data (1); `X_{s,t}(x) = x + (t - s) v_{s,t}(x)`, and on the diagonal
//! `v_{t,t}` is the velocity. All residuals are in the form of v, never divided by `t - s`.

use crate::method::per_image;
use anyhow::{Result, bail};
use candle_core::Tensor;
use limbeck_shared::nn::dual::Dual;
use serde::{Deserialize, Serialize};

/// Which condition holds off the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Lagrangian: `d/dt X_{s,t}(x) = v_{t,t}(X_{s,t}(x))`.
    Lsd,
    /// Eulerian: `d/ds X_{s,t}(x) + grad X_{s,t}(x) v_{s,s}(x) = 0`.
    Esd,
    /// Semigroup, the point between uniform: `X_{u,t}(X_{s,u}(x)) = X_{s,t}(x)`.
    PsdU,
    /// Semigroup, the point between in the middle.
    PsdM,
    /// MeanFlow (Geng et al. 2025): the Eulerian condition with the sample's own velocity, its right side constant.
    MeanFlow,
    /// Shortcut models (Frans et al. 2024): PSD-M for gaps 1, 1/2, 1/4 down to one step of the grid, whose halves are Euler steps.
    Shortcut,
    /// Consistency training, or distillation with a teacher (Song et al. 2023): only jumps to the end, each as long as the one from
    /// the next point of the grid.
    Consistency,
    /// Progressive distillation (Salimans and Ho 2022): one step of the grid for two of a frozen teacher.
    Progressive,
}

impl Condition {
    /// Whether times lie on a grid.
    pub fn on_grid(self) -> bool {
        matches!(self, Condition::Shortcut | Condition::Consistency | Condition::Progressive)
    }
}

/// What gradients do not flow through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The paper's choice: convex for LSD and PSD, full for ESD.
    #[default]
    Published,
    /// The inner network call (for ESD: only the velocity).
    Convex,
    /// Nothing is stopped.
    None,
}

/// A two-time velocity field.
pub trait Field {
    /// `v_{s,t}(x)`, one s and one t an image.
    ///
    /// # Errors
    /// From the network.
    fn at(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor>;

    /// As [`Field::at`] without a gradient.
    ///
    /// # Errors
    /// From the network.
    fn constant(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor>;

    /// `v_{s,t}(x)` and its derivative along `x.tangent` and the rates of s and t, with a gradient through both.
    ///
    /// # Errors
    /// From the network.
    fn dual(&self, s: &[f64], t: &[f64], x: &Dual, rates: [f32; 2]) -> Result<Dual>;
}

/// One batch off the diagonal.
pub struct Point<'a> {
    /// Earlier times.
    pub s: &'a [f64],
    /// Later times.
    pub t: &'a [f64],
    /// Where between the semigroup splits: `u = gamma s + (1 - gamma) t`.
    pub gamma: &'a [f64],
    /// `I_s`.
    pub x: &'a Tensor,
    /// The sample's velocity `dI/ds`.
    pub velocity: &'a Tensor,
    /// One step of the grid, for conditions on one.
    pub step: f64,
}

/// The velocity from one time to another of a frozen model.
pub type Velocity<'a> = &'a dyn Fn(&[f64], &[f64], &Tensor) -> Result<Tensor>;

/// The residual at a point. `teacher`: the velocity of a frozen model instead of the field's own diagonal (LSD, ESD), the sample's
/// own (consistency) or both half steps (progressive, which needs one).
///
/// # Errors
/// From the field.
pub fn residual(condition: Condition, stop: Stop, field: &dyn Field, teacher: Option<Velocity<'_>>, p: &Point<'_>) -> Result<Tensor> {
    let (s, t, x) = (p.s, p.t, p.x);
    let gap = per_image(s.iter().zip(t).map(|(s, t)| t - s))?;
    let free = stop == Stop::None;
    // The velocity on the diagonal, as the condition reads it.
    let diagonal = |t: &[f64], x: &Tensor| match teacher {
        Some(b) if free => b(t, t, x),
        Some(b) => Ok(b(t, t, &x.detach())?.detach()),
        None if free => field.at(t, t, x),
        None => field.constant(t, t, &x.detach()),
    };
    match condition {
        Condition::Lsd => {
            let v = field.dual(s, t, &Dual::constant(x.clone()), [0.0, 1.0])?;
            let end = (x + gap.broadcast_mul(&v.value)?)?;
            let target = diagonal(t, &end)?;
            Ok(((&v.value + gap.broadcast_mul(&v.tangent()?)?)? - target)?)
        }
        Condition::Esd => {
            let v = field.dual(s, t, &Dual::constant(x.clone()), [1.0, 0.0])?;
            let by_s = (gap.broadcast_mul(&v.tangent()?)? - &v.value)?;
            let along = diagonal(s, x)?;
            let moved = field.dual(s, t, &Dual { value: x.clone(), tangent: Some(along.clone()) }, [0.0, 0.0])?.tangent()?;
            let carried = (along + gap.broadcast_mul(&moved)?)?;
            Ok((by_s + if stop == Stop::Published { carried.detach() } else { carried })?)
        }
        Condition::PsdU | Condition::PsdM | Condition::Shortcut | Condition::Progressive => {
            let u: Vec<f64> = p.gamma.iter().zip(s.iter().zip(t)).map(|(g, (s, t))| g * s + (1.0 - g) * t).collect();
            let gamma = per_image(p.gamma.iter().copied())?;
            let first_step = per_image(u.iter().zip(s).map(|(u, s)| u - s))?;
            let half = |s: &[f64], t: &[f64], x: &Tensor| match (condition, teacher) {
                (Condition::Progressive, Some(b)) => Ok(b(s, t, &x.detach())?.detach()),
                (Condition::Progressive, None) => bail!("progressive distillation: found no teacher, expected one"),
                (Condition::Shortcut, _) => {
                    // Half a step of the grid is below what the network is asked for: Euler.
                    let t: Vec<f64> = s.iter().zip(t).map(|(s, t)| if t - s < 0.75 * p.step { *s } else { *t }).collect();
                    field.constant(s, &t, x)
                }
                _ if free => field.at(s, t, x),
                _ => field.constant(s, t, x),
            };
            let first = half(s, &u, x)?;
            let second = half(&u, t, &(x + first_step.broadcast_mul(&first)?)?)?;
            let target = (&first + gamma.broadcast_mul(&(second - &first)?)?)?;
            Ok((field.at(s, t, x)? - target)?)
        }
        Condition::Consistency => {
            let next: Vec<f64> = s.iter().map(|s| (s + p.step).min(1.0)).collect();
            let along = match teacher {
                Some(b) => b(s, s, x)?,
                None => p.velocity.clone(),
            };
            let moved = (x + along.broadcast_mul(&per_image(next.iter().zip(s).map(|(n, s)| n - s))?)?)?;
            let rest = per_image(next.iter().map(|n| 1.0 - n))?;
            let from_there = if free { field.at(&next, t, &moved)? } else { field.constant(&next, t, &moved)? };
            let end = (moved + rest.broadcast_mul(&from_there)?)?;
            // (X_{next,1} - x) / (1 - s): s is a point of the grid before 1, so this divides by a step at least.
            let target = (end - x)?.broadcast_div(&gap)?;
            Ok((field.at(s, t, x)? - if free { target } else { target.detach() })?)
        }
        Condition::MeanFlow => {
            let along = Dual { value: x.clone(), tangent: Some(p.velocity.clone()) };
            let v = field.dual(s, t, &along, [1.0, 0.0])?;
            let target = (p.velocity + gap.broadcast_mul(&v.tangent()?)?)?;
            Ok((v.value - if free { target } else { target.detach() })?)
        }
    }
}
