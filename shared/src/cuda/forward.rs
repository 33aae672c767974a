//! The forward pass.

use super::conv::Key;
use super::gemm::Heads;
use super::{Arg, Engine, Theta, reduced, size};
use crate::cpu::{Exec, time_features};
use crate::graph::{Graph, Node, Op};
use crate::nn::stock::{self, check_conditions};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result, bail};
use rayon::prelude::*;
use std::sync::Arc;

/// What a forward pass kept.
pub struct Tape {
    pub(super) n: usize,
    /// Each node's value; shared where an operation passes it on.
    pub(super) values: Vec<Option<Arc<CudaSlice<f32>>>>,
    /// A norm's means and deviations, attention's probabilities.
    pub(super) extra: Vec<Option<CudaSlice<f32>>>,
    pub(super) labels: Option<CudaSlice<u32>>,
    /// Each image's entry of every time input.
    pub(super) times: Vec<CudaSlice<f32>>,
}

/// What one call was asked about.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Images.
    pub n: usize,
    /// `[n * graph.times]`, image by image.
    pub times: &'a [f32],
    /// `[n]`, or empty.
    pub labels: &'a [u32],
}

/// A convolution's shape, and whether its input has to be framed first because the zeros around it are not alike.
pub(super) fn shape_of(graph: &Graph, node: &Node, n: usize, exec: &Exec) -> Result<(Key, Option<usize>)> {
    let Op::Conv2d { kernel, stride, pad, .. } = node.op else { bail!("no convolution: {:?}", node.op) };
    let [c, h, w] = graph.nodes[node.inputs[0]].shape;
    let read = |out: usize| (out - 1) * stride + kernel;
    let alike = pad[0] == pad[1];
    let input = if alike { [c, h, w] } else { [c, read(node.shape[1]), read(node.shape[2])] };
    let pad_here = if alike { pad[0] } else { 0 };
    let key = Key { n, input, output: node.shape, kernel, stride, pad: pad_here, reduced: reduced(exec.precision()) };
    Ok((key, (!alike).then_some(pad[0])))
}

pub(super) fn heads(node: &Node, n: usize) -> Option<Heads> {
    let Op::Attention { heads } = node.op else { return None };
    let [c, h, w] = node.shape;
    Some(Heads { count: n * heads, d: c / heads, pixels: h * w })
}

impl Engine {
    /// Output `[n, ...]` for `x` of `n` images, and what [`Engine::backward`] needs if `keep`.
    ///
    /// # Errors
    /// If an argument does not fit the network, or the card refuses.
    pub fn forward(
        &self,
        exec: &Exec,
        theta: Theta<'_>,
        x: CudaSlice<f32>,
        asked: Asked<'_>,
        keep: bool,
    ) -> Result<(CudaSlice<f32>, Tape)> {
        let graph = theta.graph;
        check_conditions(graph, asked.n, asked.times, asked.labels)?;
        let upload = |v: &[u32]| self.stream.clone_htod(v).map_err(Error::wrap);
        let times = (0..graph.times).map(|slot| self.stream.clone_htod(&stock::slot(graph, asked.times, slot)).map_err(Error::wrap));
        let mut tape = Tape {
            n: asked.n,
            values: vec![None; graph.nodes.len()],
            extra: graph.nodes.iter().map(|_| None).collect(),
            labels: if asked.labels.is_empty() { None } else { Some(upload(asked.labels)?) },
            times: times.collect::<Result<_>>()?,
        };
        tape.values[0] = Some(Arc::new(x));
        let mut last_reader = vec![0; graph.nodes.len()];
        for (id, node) in graph.nodes[..=graph.output].iter().enumerate() {
            node.inputs.iter().for_each(|&i| last_reader[i] = id);
        }
        for id in 1..=graph.output {
            let value = self.node(exec, theta, id, &mut tape, asked)?;
            tape.values[id] = Some(value);
            if !keep {
                tape.extra[id] = None;
                for &i in graph.nodes[id].inputs.iter().filter(|&&i| last_reader[i] == id) {
                    tape.values[i] = None;
                }
            }
        }
        // Nothing reads the output again.
        let output = tape.values[graph.output].take().ok_or_else(|| Error::msg("the output is not a node of the graph"))?;
        let output = Arc::try_unwrap(output).or_else(|shared| self.stream.clone_dtod(&*shared).map_err(Error::wrap))?;
        Ok((output, tape))
    }

    fn node(&self, exec: &Exec, theta: Theta<'_>, id: usize, tape: &mut Tape, asked: Asked<'_>) -> Result<Arc<CudaSlice<f32>>> {
        let (graph, n) = (theta.graph, asked.n);
        let node = &graph.nodes[id];
        let [c, h, w] = node.shape;
        let (pixels, len) = (h * w, n * c * h * w);
        let input = |i: usize| -> Result<&Arc<CudaSlice<f32>>> {
            tape.values[node.inputs[i]].as_ref().ok_or_else(|| Error::msg(format!("node {id} reads a value that is gone")))
        };
        let param = |i: usize| theta.at(self, node.params[i]);
        let mut extra = None;
        let y = match &node.op {
            Op::Input => bail!("the input is given, not computed"),
            Op::TimeEmbed { slot, dim, features } => {
                let frequencies = match node.params.first() {
                    None => vec![],
                    Some(&p) => self.stream.clone_dtoh(&theta.part(p)).map_err(Error::wrap)?,
                };
                let times = stock::slot(graph, asked.times, *slot);
                let mut rows = vec![0f32; n * dim];
                rows.par_chunks_exact_mut(*dim).zip(&times).for_each(|(row, &t)| {
                    time_features(t, *dim, features, &frequencies, |i, v| row[i] = v);
                });
                self.stream.clone_htod(&rows).map_err(Error::wrap)?
            }
            Op::LabelEmbed { dim, .. } => {
                let y = self.memory(len)?;
                let labels = self.labels(tape)?;
                self.each("embed", len, &[param(0), labels, self.at(&y), size(*dim)], &[])?;
                y
            }
            Op::Linear { out } => {
                let (x, of) = (input(0)?, graph.nodes[node.inputs[0]].shape[0]);
                let mut y = self.memory(len)?;
                self.linear(theta, node.params[0], x, [n, of, *out], &mut y)?;
                self.each("finish", len, &[self.at(&y), param(1), Arg::At(0), Arg::At(0), size(c), size(1)], &[])?;
                y
            }
            Op::Silu => {
                let y = self.memory(len)?;
                self.each("silu", len, &[self.at(input(0)?), self.at(&y)], &[])?;
                y
            }
            Op::Add => {
                let y = self.memory(len)?;
                self.each("add", len, &[self.at(input(0)?), self.at(input(1)?), self.at(&y)], &[])?;
                y
            }
            Op::GroupNorm { groups, eps, scale_shift, silu } => {
                let (y, stats) = (self.memory(len)?, self.memory(2 * n * groups)?);
                let vector = if *scale_shift { self.at(input(1)?) } else { Arg::At(0) };
                let args = [self.at(input(0)?), self.at(&y), self.at(&stats), param(0), param(1), vector];
                let rest = [size(c), size(pixels), size(*groups), Arg::Number(*eps as f32), Arg::Flag(*silu)];
                self.count(len)?;
                self.blocks("group_norm", (n * groups) as u32, &[&args[..], &rest].concat())?;
                extra = Some(stats);
                y
            }
            Op::Conv2d { channel_bias, residual, .. } => {
                let (key, framed) = shape_of(graph, node, n, exec)?;
                let mut y = self.memory(len)?;
                match framed {
                    None => self.convolve(key, input(0)?, theta, node.params[0], &mut y)?,
                    Some(at) => {
                        let x = self.framed(input(0)?, graph.nodes[node.inputs[0]].shape, key, at)?;
                        self.convolve(key, &x, theta, node.params[0], &mut y)?;
                    }
                }
                let vector = if *channel_bias { self.at(input(1)?) } else { Arg::At(0) };
                let residual = if *residual { self.at(input(node.inputs.len() - 1)?) } else { Arg::At(0) };
                self.each("finish", len, &[self.at(&y), param(1), vector, residual, size(c), size(pixels)], &[])?;
                y
            }
            Op::Attention { .. } => {
                let Some(heads) = heads(node, n) else { bail!("no attention: {:?}", node.op) };
                let (mut y, mut p) = (self.memory(len)?, self.memory(heads.scores())?);
                self.pair(heads, heads.scale(), input(0)?, input(1)?, &mut p)?;
                let rows = heads.count * heads.pixels;
                self.rows("softmax", rows, &[self.at(&p), size(rows), size(heads.pixels)])?;
                self.mix(heads, false, 1.0, &p, input(2)?, &mut y, false)?;
                extra = Some(p);
                y
            }
            Op::Upsample2x => {
                let y = self.memory(len)?;
                self.each("upsample", len, &[self.at(input(0)?), self.at(&y), size(h / 2), size(w / 2)], &[])?;
                y
            }
            Op::Concat => {
                let y = self.memory(len)?;
                let mut begin = 0;
                for i in 0..2 {
                    let part = graph.nodes[node.inputs[i]].shape[0] * pixels;
                    self.each("put_part", n * part, &[self.at(input(i)?), self.at(&y), size(part), size(c * pixels), size(begin)], &[])?;
                    begin += part;
                }
                y
            }
            Op::SpaceToDepth { block } => {
                let y = self.memory(len)?;
                self.each("deepen", len, &[self.at(input(0)?), self.at(&y), size(*block), size(h), size(w)], &[Arg::Flag(false)])?;
                y
            }
            Op::DepthToSpace { block } => {
                let y = self.memory(len)?;
                let deep = [size(*block), size(h / block), size(w / block)];
                self.each("widen", len, &[&[self.at(input(0)?), self.at(&y)], &deep[..]].concat(), &[Arg::Flag(false)])?;
                y
            }
            Op::MeanPool => {
                let y = self.memory(len)?;
                let [_, ih, iw] = graph.nodes[node.inputs[0]].shape;
                let args = [self.at(input(0)?), self.at(&y), size(len), size(ih * iw), Arg::Number(1.0 / (ih * iw) as f32)];
                self.rows("row_sums", len, &args)?;
                y
            }
            Op::DivideByTime { slot } => {
                let y = self.memory(len)?;
                let args = [self.at(input(0)?), self.at(&tape.times[*slot]), self.at(&y), size(c * pixels)];
                self.each("divide", len, &args, &[Arg::Flag(false)])?;
                y
            }
            // Dropout is the CPU interpreter's; here a value passes.
            Op::Dropout { .. } => return Ok(input(0)?.clone()),
        };
        tape.extra[id] = extra;
        Ok(Arc::new(y))
    }

    pub(super) fn labels(&self, tape: &Tape) -> Result<Arg> {
        use candle_core::cuda_backend::cudarc::driver::DevicePtr;
        let labels = tape.labels.as_ref().ok_or_else(|| Error::msg("labels: found none, expected one for each image"))?;
        Ok(Arg::At(labels.device_ptr(&self.stream).0))
    }

    /// `x [n, c, h, w]` with zeros around it, as the convolution reads it.
    pub(super) fn framed(&self, x: &CudaSlice<f32>, [_, h, w]: [usize; 3], key: Key, at: usize) -> Result<CudaSlice<f32>> {
        let [c, oh, ow] = key.input;
        let count = key.n * c * oh * ow;
        let y = self.memory(count)?;
        let sizes = [size(h), size(w), size(oh), size(ow), size(at)];
        self.each("frame", count, &[&[self.at(x), self.at(&y)], &sizes[..]].concat(), &[])?;
        Ok(y)
    }
}
