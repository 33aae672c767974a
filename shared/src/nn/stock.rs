//! A network with candle's own operations: any device, f32 or f64, gradients by candle's tape.
//!
//! The reference for the fast path of [`super::Network`] and the portable way to run elsewhere than on the CPU. Only operations
//! whose gradient candle 0.11 gets right are used: upsampling is a broadcast (`upsample_nearest2d` overwrites the gradient of a
//! tensor with another reader), norms and softmax are spelt out (the fused ones cut the tape), and a convolution's input is
//! padded to exactly the pixels it reads (candle takes the width's leftover at stride 2 to be the height's).

use crate::cpu::time_features;
use crate::graph::{Graph, Node, Op};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Result, Tensor, Var, bail};
use std::collections::BTreeMap;

/// Parameters by name, each of the shape [`crate::graph::Param::shape`] gives.
pub type Params = BTreeMap<String, Tensor>;

/// The parts of a flat theta as leaf variables, one a parameter; fixed parameters (Fourier frequencies) are constants.
///
/// # Errors
/// If theta has not the graph's length, or the device refuses.
pub fn params_from_flat(graph: &Graph, theta: &[f32], dtype: DType, device: &Device) -> Result<Params> {
    if theta.len() != graph.param_count() {
        bail!("parameters: found {}, expected {}", theta.len(), graph.param_count());
    }
    let one = |p: &crate::graph::Param| {
        let values = Tensor::from_slice(&theta[p.range()], p.shape.as_slice(), device)?.to_dtype(dtype)?;
        let leaf = if p.fixed { values } else { Var::from_tensor(&values)?.into_inner() };
        Ok((p.name.clone(), leaf))
    };
    graph.params.iter().map(one).collect()
}

/// The same parameters as constants: no gradient is computed for them.
pub fn frozen(params: &Params) -> Params {
    params.iter().map(|(name, p)| (name.clone(), p.detach())).collect()
}

/// The gradients of all parameters, laid out as theta; zero where the store has none.
///
/// # Errors
/// If a parameter is missing or a gradient cannot be read back.
pub fn flat_gradient(graph: &Graph, grads: &GradStore, params: &Params) -> Result<Vec<f64>> {
    let mut flat = vec![0.0; graph.param_count()];
    for p in &graph.params {
        if let Some(grad) = grads.get(find(params, &p.name)?) {
            flat[p.range()].copy_from_slice(&grad.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
        }
    }
    Ok(flat)
}

/// The network's output for `x [n, c, h, w]`, or `[n, c]` for networks on points; as many dimensions as `x` has.
///
/// `times [n * graph.times]` image by image, `labels [n]`, or empty for a network without classes. Dtype and device are those
/// of `x`, which the parameters must share. Time features are computed in f64 and rounded to f32, as [`crate::cpu`] does.
///
/// # Errors
/// If an argument does not fit the network, or from candle.
pub fn forward(graph: &Graph, params: &Params, x: &Tensor, times: &[f32], labels: &[u32]) -> Result<Tensor> {
    forward_with(graph, params, x, times, labels, |x, w, stride| x.contiguous()?.conv2d(w, 0, stride, 1, 1))
}

/// A convolution without padding: `(x, w, stride)` to `y`.
pub(super) type Convolution = fn(&Tensor, &Tensor, usize) -> Result<Tensor>;

/// As [`forward`], with a convolution of the caller's.
pub(super) fn forward_with(
    graph: &Graph,
    params: &Params,
    x: &Tensor,
    times: &[f32],
    labels: &[u32],
    convolve: Convolution,
) -> Result<Tensor> {
    let call = Call::new(graph, params, x, times, labels, convolve)?;
    let x = call.images(x)?;
    let y = walk(graph, x, |node, inputs| call.node(node, inputs))?;
    call.result(y)
}

/// Every node in turn by `compute`; values are dropped after their last reader, so that without a tape memory stays that of the
/// widest stretch.
pub(super) fn walk<T: Clone>(graph: &Graph, x: T, mut compute: impl FnMut(&Node, &[&T]) -> Result<T>) -> Result<T> {
    let mut last_reader = vec![0; graph.nodes.len()];
    for (id, node) in graph.nodes[..=graph.output].iter().enumerate() {
        node.inputs.iter().for_each(|&i| last_reader[i] = id);
    }
    let mut values: Vec<Option<T>> = vec![None; graph.nodes.len()];
    for (id, node) in graph.nodes[..=graph.output].iter().enumerate() {
        let y = match node.op {
            Op::Input => x.clone(),
            _ => {
                let inputs: Option<Vec<&T>> = node.inputs.iter().map(|&i| values[i].as_ref()).collect();
                let Some(inputs) = inputs else { bail!("node {id} reads a later node") };
                compute(node, &inputs)?
            }
        };
        values[id] = Some(y);
        for &i in &node.inputs {
            if last_reader[i] == id {
                values[i] = None;
            }
        }
    }
    values.swap_remove(graph.output).ok_or_else(|| candle_core::Error::msg("the output is not a node of the graph"))
}

fn find<'a>(params: &'a Params, name: &str) -> Result<&'a Tensor> {
    params.get(name).ok_or_else(|| candle_core::Error::msg(format!("parameter `{name}` is missing")))
}

/// Checks that times and labels are those of `n` images.
///
/// # Errors
/// Says how many were found, or which label is none.
pub(crate) fn check_conditions(graph: &Graph, n: usize, times: &[f32], labels: &[u32]) -> Result<()> {
    if times.len() != n * graph.times {
        bail!("time inputs: found {}, expected {} for {n} images", times.len(), n * graph.times);
    }
    if labels.len() != if graph.classes > 0 { n } else { 0 } {
        bail!("labels: found {} for {n} images of a network with {} classes", labels.len(), graph.classes);
    }
    if let Some(l) = labels.iter().find(|&&l| l as usize >= graph.classes) {
        bail!("label: found {l}, expected 0 to {}", graph.classes - 1);
    }
    Ok(())
}

/// Time input `slot` of every image.
pub(crate) fn slot(graph: &Graph, times: &[f32], slot: usize) -> Vec<f32> {
    times.iter().skip(slot).step_by(graph.times.max(1)).copied().collect()
}

/// What all nodes of one call share.
pub(super) struct Call<'a> {
    graph: &'a Graph,
    params: &'a Params,
    n: usize,
    /// The call was given `[n, c]`.
    points: bool,
    times: &'a [f32],
    labels: &'a [u32],
    dtype: DType,
    device: &'a Device,
    convolve: Convolution,
}

impl<'a> Call<'a> {
    /// Checks the arguments of one call.
    pub(super) fn new(
        graph: &'a Graph,
        params: &'a Params,
        x: &'a Tensor,
        times: &'a [f32],
        labels: &'a [u32],
        convolve: Convolution,
    ) -> Result<Call<'a>> {
        let [c, h, w] = graph.input_shape();
        let n = match *x.dims() {
            [n, channels] if [channels, 1, 1] == [c, h, w] => n,
            [n, channels, height, width] if [channels, height, width] == [c, h, w] => n,
            ref dims => bail!("image: found {dims:?}, expected [n, {c}, {h}, {w}]"),
        };
        check_conditions(graph, n, times, labels)?;
        Ok(Call { graph, params, n, points: x.rank() == 2, times, labels, dtype: x.dtype(), device: x.device(), convolve })
    }

    /// `[n, c, h, w]`, whatever the call was given.
    pub(super) fn images(&self, x: &Tensor) -> Result<Tensor> {
        let [c, h, w] = self.graph.input_shape();
        x.reshape((self.n, c, h, w))
    }

    /// As many dimensions as the call was given.
    pub(super) fn result(&self, y: Tensor) -> Result<Tensor> {
        if self.points { y.flatten_from(1) } else { Ok(y) }
    }

    /// A convolution without what is added to it.
    pub(super) fn filter(&self, node: &Node, x: &Tensor) -> Result<Tensor> {
        let Op::Conv2d { kernel, stride, pad, .. } = &node.op else { bail!("no convolution: {:?}", node.op) };
        let [c, h, w] = node.shape;
        let weight = self.param(node, 0)?.reshape((c, x.dim(1)?, *kernel, *kernel))?;
        let read = |out: usize| (out - 1) * stride + kernel;
        let padded = frame(&frame(x, 2, pad[0], read(h))?, 3, pad[0], read(w))?;
        (self.convolve)(&padded, &weight, *stride)
    }

    /// A constant in the call's type, on its device.
    pub(super) fn constant(&self, values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        Tensor::from_vec(values, shape.into(), self.device)?.to_dtype(self.dtype)
    }

    pub(super) fn param(&self, node: &Node, i: usize) -> Result<&Tensor> {
        find(self.params, &self.graph.params[node.params[i]].name)
    }

    /// Time input `slot` of every image.
    pub(super) fn slot(&self, slot: usize) -> Vec<f32> {
        self::slot(self.graph, self.times, slot)
    }

    pub(super) fn node(&self, node: &Node, x: &[&Tensor]) -> Result<Tensor> {
        let n = self.n;
        let [c, h, w] = node.shape;
        match &node.op {
            Op::Input => bail!("the input is given, not computed"),
            Op::TimeEmbed { slot, dim, features } => {
                let frequencies = match node.params.is_empty() {
                    true => vec![],
                    false => self.param(node, 0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?,
                };
                let mut rows = vec![0f32; n * dim];
                for (row, t) in rows.chunks_exact_mut(*dim).zip(self.slot(*slot)) {
                    time_features(t, *dim, features, &frequencies, |i, v| row[i] = v);
                }
                self.constant(rows, (n, c, 1, 1))
            }
            Op::LabelEmbed { .. } => {
                let labels = Tensor::from_slice(self.labels, n, self.device)?;
                self.param(node, 0)?.index_select(&labels, 0)?.reshape((n, c, 1, 1))
            }
            Op::Linear { .. } => {
                let y = x[0].flatten_from(1)?.matmul(&self.param(node, 0)?.t()?)?;
                y.broadcast_add(self.param(node, 1)?)?.reshape((n, c, 1, 1))
            }
            Op::Silu => x[0].silu(),
            Op::Add => x[0] + x[1],
            Op::GroupNorm { groups, eps, scale_shift, silu } => {
                let grouped = x[0].reshape((n, *groups, c / groups * h * w))?;
                let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
                let std = (centred.sqr()?.mean_keepdim(2)? + *eps)?.sqrt()?;
                let normed = centred.broadcast_div(&std)?.reshape((n, c, h, w))?;
                let y = per_channel(&normed, self.param(node, 0)?, self.param(node, 1)?)?;
                let y = match scale_shift {
                    true => y.broadcast_mul(&(x[1].narrow(1, 0, c)? + 1.0)?)?.broadcast_add(&x[1].narrow(1, c, c)?)?,
                    false => y,
                };
                if *silu { y.silu() } else { Ok(y) }
            }
            Op::Conv2d { channel_bias, residual, .. } => {
                let y = self.filter(node, x[0])?;
                let mut y = y.broadcast_add(&self.param(node, 1)?.reshape((1, c, 1, 1))?)?;
                if *channel_bias {
                    y = y.broadcast_add(x[1])?;
                }
                if *residual {
                    y = (y + x[x.len() - 1])?;
                }
                Ok(y)
            }
            Op::Attention { heads } => {
                let (d, pixels) = (c / heads, h * w);
                let split = |x: &Tensor| x.reshape((n, *heads, d, pixels));
                let (q, k, v) = (split(x[0])?, split(x[1])?, split(x[2])?);
                let q = (q.transpose(2, 3)?.contiguous()? * (1.0 / (d as f64).sqrt()))?;
                let scores = q.matmul(&k.contiguous()?)?;
                // Softmax does not depend on the shift, so the maximum needs no gradient.
                let e = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
                let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
                v.contiguous()?.matmul(&p.transpose(2, 3)?.contiguous()?)?.reshape((n, c, h, w))
            }
            Op::Upsample2x => {
                let (ih, iw) = (h / 2, w / 2);
                x[0].reshape(&[n, c, ih, 1, iw, 1][..])?.broadcast_as(&[n, c, ih, 2, iw, 2][..])?.reshape((n, c, h, w))
            }
            Op::Concat => Tensor::cat(&[x[0], x[1]], 1),
            Op::SpaceToDepth { block: b } => {
                let blocks = x[0].reshape(&[n, c / (b * b), h, *b, w, *b][..])?;
                blocks.permute([0, 1, 3, 5, 2, 4].as_slice())?.reshape((n, c, h, w))
            }
            Op::DepthToSpace { block: b } => {
                let blocks = x[0].reshape(&[n, c, *b, *b, h / b, w / b][..])?;
                blocks.permute([0, 1, 4, 2, 5, 3].as_slice())?.reshape((n, c, h, w))
            }
            // Dropout is the CPU interpreter's; elsewhere a value passes.
            Op::Dropout { .. } => Ok(x[0].clone()),
            Op::MeanPool => x[0].flatten_from(2)?.mean_keepdim(2)?.reshape((n, c, 1, 1)),
            Op::DivideByTime { slot } => {
                let t = self.constant(self.slot(*slot), (n, 1, 1, 1))?;
                x[0].broadcast_div(&t)
            }
        }
    }
}

/// `x w + b`, one weight and one bias a channel.
fn per_channel(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let shape = (1, weight.elem_count(), 1, 1);
    x.broadcast_mul(&weight.reshape(shape)?)?.broadcast_add(&bias.reshape(shape)?)
}

/// `before` zeros ahead of dimension `dim`, then as many zeros after it, or as few of its elements, as make it `len` long.
fn frame(x: &Tensor, dim: usize, before: usize, len: usize) -> Result<Tensor> {
    let kept = x.narrow(dim, 0, x.dim(dim)?.min(len - before))?;
    let after = len - before - kept.dim(dim)?;
    kept.pad_with_zeros(dim, before, after)
}
