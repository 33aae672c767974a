//! The network over dual numbers: a value and its directional derivative together, as candle tensors.
//!
//! The tangent is computed by forward rules from candle's differentiable operations, so that `backward` goes through it as
//! through any other tensor: gradients of losses that hold a derivative in time or along an image direction (flow maps,
//! MeanFlow, consistency training). Every operation has its rule here, or this file does not compile.

use super::stock::{Call, Params, walk};
use crate::cpu::time_feature_rates;
use crate::graph::{Graph, Node, Op};
use candle_core::{D, Result, Tensor, bail};

/// A value and its derivative along a direction.
#[derive(Clone, Debug)]
pub struct Dual {
    /// The value.
    pub value: Tensor,
    /// The derivative, of the value's shape; none where it is zero.
    pub tangent: Option<Tensor>,
}

impl Dual {
    /// A value that does not move.
    pub fn constant(value: Tensor) -> Dual {
        Dual { value, tangent: None }
    }

    /// The derivative, zeros written out.
    ///
    /// # Errors
    /// From candle.
    pub fn tangent(&self) -> Result<Tensor> {
        self.tangent.clone().map_or_else(|| self.value.zeros_like(), Ok)
    }

    /// Both times a number.
    ///
    /// # Errors
    /// From candle.
    pub fn scale(&self, by: f64) -> Result<Dual> {
        self.linear(|t| t * by)
    }

    /// The same linear operation on both.
    fn linear(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Dual> {
        Ok(Dual { value: f(&self.value)?, tangent: self.tangent.as_ref().map(f).transpose()? })
    }

    fn add(&self, other: &Dual) -> Result<Dual> {
        Ok(Dual { value: self.value.broadcast_add(&other.value)?, tangent: sum(&self.tangent, &other.tangent)? })
    }

    /// The product rule.
    fn mul(&self, other: &Dual) -> Result<Dual> {
        let left = self.tangent.as_ref().map(|d| d.broadcast_mul(&other.value)).transpose()?;
        let right = other.tangent.as_ref().map(|d| self.value.broadcast_mul(d)).transpose()?;
        Ok(Dual { value: self.value.broadcast_mul(&other.value)?, tangent: sum(&left, &right)? })
    }

    fn matmul(&self, other: &Dual) -> Result<Dual> {
        let left = self.tangent.as_ref().map(|d| d.matmul(&other.value)).transpose()?;
        let right = other.tangent.as_ref().map(|d| self.value.matmul(d)).transpose()?;
        Ok(Dual { value: self.value.matmul(&other.value)?, tangent: sum(&left, &right)? })
    }

    /// `x s(x)` with `d = s (1 + x (1 - s))`.
    fn silu(&self) -> Result<Dual> {
        // The logistic function by tanh, which saturates without overflow in its gradient.
        let s = (((&self.value * 0.5)?.tanh()? + 1.0)? * 0.5)?;
        let value = (&self.value * &s)?;
        let tangent = match &self.tangent {
            None => None,
            Some(d) => Some((d * (&s + (&value * (1.0 - &s)?)?)?)?),
        };
        Ok(Dual { value, tangent })
    }
}

fn sum(a: &Option<Tensor>, b: &Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(a.broadcast_add(b)?),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    })
}

/// The output for `x`, and its derivative along `x.tangent` and `rates`, the rate of every time input (`[n * graph.times]`, as
/// `times`). Shapes as in [`super::stock::forward`].
///
/// # Errors
/// If an argument does not fit the network, or from candle.
pub fn forward(graph: &Graph, params: &Params, x: &Dual, times: &[f32], rates: &[f32], labels: &[u32]) -> Result<Dual> {
    if rates.len() != times.len() {
        bail!("time rates: found {}, expected {}, one a time input", rates.len(), times.len());
    }
    if let Some(d) = &x.tangent
        && d.dims() != x.value.dims()
    {
        bail!("image direction: found {:?}, expected {:?}", d.dims(), x.value.dims());
    }
    let call = Call::new(graph, params, &x.value, times, labels, super::conv::conv2d)?;
    let moving = Moving { call, graph, rates };
    let y = walk(graph, x.linear(|t| moving.call.images(t))?, |node, inputs| moving.node(node, inputs))?;
    y.linear(|t| moving.call.result(t.clone()))
}

/// A call whose inputs move.
struct Moving<'a> {
    call: Call<'a>,
    graph: &'a Graph,
    rates: &'a [f32],
}

impl Moving<'_> {
    /// Rate of time input `slot` of every image; none if all stand still.
    fn rate(&self, slot: usize) -> Option<Vec<f32>> {
        let rates: Vec<f32> = self.rates.iter().skip(slot).step_by(self.graph.times.max(1)).copied().collect();
        rates.iter().any(|&r| r != 0.0).then_some(rates)
    }

    fn node(&self, node: &Node, x: &[&Dual]) -> Result<Dual> {
        let call = &self.call;
        let [c, h, w] = node.shape;
        let channel = |i: usize| call.param(node, i)?.reshape((1, c, 1, 1));
        match &node.op {
            Op::Input => bail!("the input is given, not computed"),
            Op::TimeEmbed { slot, dim, features } => {
                let value = call.node(node, &[])?;
                let Some(rates) = self.rate(*slot) else { return Ok(Dual::constant(value)) };
                let frequencies = match node.params.is_empty() {
                    true => vec![],
                    false => call.param(node, 0)?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?,
                };
                let mut rows = vec![0f32; rates.len() * dim];
                for ((row, t), rate) in rows.chunks_exact_mut(*dim).zip(call.slot(*slot)).zip(&rates) {
                    time_feature_rates(t, *dim, features, &frequencies, |i, v| row[i] = v * rate);
                }
                let tangent = call.constant(rows, (rates.len(), c, 1, 1))?;
                Ok(Dual { value, tangent: Some(tangent) })
            }
            Op::LabelEmbed { .. } => Ok(Dual::constant(call.node(node, &[])?)),
            Op::Linear { .. } => {
                let weight = call.param(node, 0)?.t()?;
                let y = x[0].linear(|t| t.flatten_from(1)?.matmul(&weight)?.unsqueeze(2)?.unsqueeze(3))?;
                y.add(&Dual::constant(channel(1)?))
            }
            Op::Silu => x[0].silu(),
            Op::Add => x[0].add(x[1]),
            Op::GroupNorm { groups, eps, scale_shift, silu } => {
                let n = x[0].value.dim(0)?;
                let centred = x[0].linear(|t| {
                    let grouped = t.reshape((n, *groups, c / groups * h * w))?;
                    grouped.broadcast_sub(&grouped.mean_keepdim(2)?)
                })?;
                let inv = (centred.value.sqr()?.mean_keepdim(2)? + *eps)?.sqrt()?.recip()?;
                let normed = centred.value.broadcast_mul(&inv)?;
                // d xhat = (d - xhat mean(xhat d)) / std
                let tangent = match &centred.tangent {
                    None => None,
                    Some(d) => {
                        let along = (&normed * d)?.mean_keepdim(2)?;
                        Some((d - normed.broadcast_mul(&along)?)?.broadcast_mul(&inv)?)
                    }
                };
                let normed = Dual { value: normed, tangent }.linear(|t| t.reshape((n, c, h, w)))?;
                let mut y = normed.mul(&Dual::constant(channel(0)?))?.add(&Dual::constant(channel(1)?))?;
                if *scale_shift {
                    let mut scale = x[1].linear(|t| t.narrow(1, 0, c))?;
                    scale.value = (scale.value + 1.0)?;
                    y = y.mul(&scale)?.add(&x[1].linear(|t| t.narrow(1, c, c))?)?;
                }
                if *silu { y.silu() } else { Ok(y) }
            }
            Op::Conv2d { channel_bias, residual, .. } => {
                let mut y = x[0].linear(|t| call.filter(node, t))?.add(&Dual::constant(channel(1)?))?;
                if *channel_bias {
                    let bias = x[1].linear(|t| t.broadcast_as((t.dim(0)?, c, h, w)))?;
                    y = y.add(&bias)?;
                }
                if *residual { y.add(x[x.len() - 1]) } else { Ok(y) }
            }
            Op::Attention { heads } => {
                let (n, d, pixels) = (x[0].value.dim(0)?, c / heads, h * w);
                let split = |x: &Dual| x.linear(|t| t.reshape((n, *heads, d, pixels))?.contiguous());
                let (k, v) = (split(x[1])?, split(x[2])?);
                let q = split(x[0])?.linear(|t| t.transpose(2, 3)?.contiguous()? * (1.0 / (d as f64).sqrt()))?;
                let scores = q.matmul(&k)?;
                let e = scores.value.broadcast_sub(&scores.value.detach().max_keepdim(D::Minus1)?)?.exp()?;
                let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
                // d P = P (d S - sum P d S)
                let tangent = match &scores.tangent {
                    None => None,
                    Some(ds) => Some((&p * ds.broadcast_sub(&(&p * ds)?.sum_keepdim(D::Minus1)?)?)?),
                };
                let p = Dual { value: p, tangent }.linear(|t| t.transpose(2, 3)?.contiguous())?;
                v.matmul(&p)?.linear(|t| t.reshape((n, c, h, w)))
            }
            Op::Concat => {
                let value = Tensor::cat(&[&x[0].value, &x[1].value], 1)?;
                let tangent = match (&x[0].tangent, &x[1].tangent) {
                    (None, None) => None,
                    _ => Some(Tensor::cat(&[x[0].tangent()?, x[1].tangent()?], 1)?),
                };
                Ok(Dual { value, tangent })
            }
            Op::Dropout { .. } | Op::Upsample2x | Op::SpaceToDepth { .. } | Op::DepthToSpace { .. } | Op::MeanPool => {
                x[0].linear(|t| call.node(node, &[t]))
            }
            Op::DivideByTime { slot } => {
                // d (x / t) = dx / t - (x / t) t' / t
                let y = x[0].linear(|t| call.node(node, &[t]))?;
                let Some(rates) = self.rate(*slot) else { return Ok(y) };
                let shrink: Vec<f32> = rates.iter().zip(call.slot(*slot)).map(|(r, t)| -r / t).collect();
                let own = y.value.broadcast_mul(&call.constant(shrink, (rates.len(), 1, 1, 1))?)?;
                Ok(Dual { tangent: sum(&y.tangent, &Some(own))?, value: y.value })
            }
        }
    }
}
