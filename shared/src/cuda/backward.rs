//! The backward pass: the forward pass's nodes from the last to the first, each adding to the gradients of what it read.

use super::forward::{heads, shape_of};
use super::{Arg, Engine, Tape, Theta, size};
use crate::cpu::Exec;
use crate::graph::{Graph, Node, Op};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtrMut};
use candle_core::{Error, Result, bail};

/// Gradients of a network.
pub struct Gradients {
    /// By the input `[n, c, h, w]`.
    pub dx: Option<CudaSlice<f32>>,
    /// By theta.
    pub dtheta: Option<CudaSlice<f32>>,
}

/// What is known so far.
struct Sums<'a> {
    graph: &'a Graph,
    n: usize,
    /// Whether anybody asks for a node's gradient.
    wanted: Vec<bool>,
    nodes: Vec<Option<CudaSlice<f32>>>,
    dtheta: Option<CudaSlice<f32>>,
}

impl Sums<'_> {
    /// A node's gradient and whether something is in it already; new memory if not.
    fn onto(&mut self, engine: &Engine, node: usize) -> Result<(CudaSlice<f32>, bool)> {
        match self.nodes[node].take() {
            Some(sum) => Ok((sum, true)),
            None => Ok((engine.memory(self.n * self.graph.nodes[node].shape.iter().product::<usize>())?, false)),
        }
    }

    /// Adds a gradient whose memory is free to keep.
    fn give(&mut self, engine: &Engine, node: usize, dy: CudaSlice<f32>) -> Result<()> {
        if !self.wanted[node] {
            return Ok(());
        }
        match &self.nodes[node] {
            Some(sum) => engine.add_onto(sum, &dy, dy.len()),
            None => {
                self.nodes[node] = Some(dy);
                Ok(())
            }
        }
    }

    /// Where a parameter's gradient begins, if it is asked for.
    fn param(&mut self, engine: &Engine, param: usize) -> Option<Arg> {
        let fixed = self.graph.params[param].fixed;
        let dtheta = self.dtheta.as_mut().filter(|_| !fixed)?;
        let (base, _) = dtheta.device_ptr_mut(&engine.stream);
        Some(Arg::At(base + 4 * self.graph.params[param].offset as u64))
    }
}

/// Whether a node's gradient leads to what is asked for.
fn wanted(graph: &Graph, dx: bool, dtheta: bool) -> Vec<bool> {
    let mut wanted = vec![false; graph.nodes.len()];
    wanted[0] = dx;
    for id in 1..graph.nodes.len() {
        let node = &graph.nodes[id];
        wanted[id] = (dtheta && node.params.iter().any(|&p| !graph.params[p].fixed)) || node.inputs.iter().any(|&i| wanted[i]);
    }
    wanted
}

impl Engine {
    /// Gradients for an output gradient `dy`; only those asked for are computed.
    ///
    /// # Errors
    /// If the tape is of another call, or the card refuses.
    pub fn backward(&self, exec: &Exec, theta: Theta<'_>, tape: &Tape, dy: CudaSlice<f32>, dx: bool, dtheta: bool) -> Result<Gradients> {
        let graph = theta.graph;
        let mut sums = Sums {
            graph,
            n: tape.n,
            wanted: wanted(graph, dx, dtheta),
            nodes: graph.nodes.iter().map(|_| None).collect(),
            dtheta: if dtheta { Some(self.zeros(graph.param_count())?) } else { None },
        };
        sums.nodes[graph.output] = Some(dy);
        for id in (1..=graph.output).rev().filter(|&id| sums.wanted[id]).collect::<Vec<_>>() {
            if let Some(dy) = sums.nodes[id].take() {
                self.node_back(exec, theta, id, tape, dy, &mut sums)?;
            }
        }
        let none = |len| self.zeros(len);
        let dx = match (dx, sums.nodes[0].take()) {
            (false, _) => None,
            (true, Some(dx)) => Some(dx),
            (true, None) => Some(none(tape.n * graph.input_shape().iter().product::<usize>())?),
        };
        Ok(Gradients { dx, dtheta: sums.dtheta })
    }

    fn node_back(&self, exec: &Exec, theta: Theta<'_>, id: usize, tape: &Tape, dy: CudaSlice<f32>, sums: &mut Sums<'_>) -> Result<()> {
        let (graph, n) = (theta.graph, tape.n);
        let node = &graph.nodes[id];
        let [c, h, w] = node.shape;
        let (pixels, len) = (h * w, n * c * h * w);
        let input = |i: usize| -> Result<&CudaSlice<f32>> {
            tape.values[node.inputs[i]].as_deref().ok_or_else(|| Error::msg(format!("node {id} reads a value that was not kept")))
        };
        let extra = || tape.extra[id].as_ref().ok_or_else(|| Error::msg(format!("node {id} kept nothing")));
        match &node.op {
            Op::Input | Op::TimeEmbed { .. } => {}
            Op::LabelEmbed { dim, classes } => {
                if let Some(table) = sums.param(self, node.params[0]) {
                    let args = [self.at(&dy), self.labels(tape)?, table, size(*dim), size(n)];
                    self.each("embed_back", classes * dim, &args, &[])?;
                }
            }
            Op::Linear { out } => {
                let sizes = [n, graph.nodes[node.inputs[0]].shape[0], *out];
                if let Some(dtheta) = &mut sums.dtheta {
                    self.linear_by_weight(graph, node.params[0], input(0)?, &dy, sizes, dtheta)?;
                }
                self.column_sums(sums.param(self, node.params[1]), &dy, n, c)?;
                self.to_input(sums, node, 0, |dx, more| self.linear_by_input(theta, node.params[0], &dy, sizes, dx, more))?;
            }
            Op::Silu => self.to_input(sums, node, 0, |dx, more| {
                self.each("silu_back", len, &[self.at(input(0)?), self.at(&dy), self.at(dx)], &[Arg::Flag(more)])
            })?,
            Op::Add => {
                let (a, b) = (node.inputs[0], node.inputs[1]);
                if sums.wanted[a] && sums.wanted[b] {
                    sums.give(self, a, self.copy(&dy)?)?;
                    sums.give(self, b, dy)?;
                } else {
                    sums.give(self, if sums.wanted[a] { a } else { b }, dy)?;
                }
            }
            Op::GroupNorm { groups, scale_shift, silu, .. } => {
                let norm = Norm { groups: *groups, scale_shift: *scale_shift, silu: *silu };
                self.norm_back(theta, node, (input(0)?, if *scale_shift { Some(input(1)?) } else { None }, extra()?), &dy, norm, sums)?;
            }
            Op::Conv2d { channel_bias, residual, .. } => {
                let (key, framed) = shape_of(graph, node, n, exec)?;
                let shape = graph.nodes[node.inputs[0]].shape;
                if let Some(dtheta) = &mut sums.dtheta {
                    match framed {
                        None => self.convolve_by_weight(key, input(0)?, &dy, graph, node.params[0], dtheta)?,
                        Some(at) => {
                            let x = self.framed(input(0)?, shape, key, at)?;
                            self.convolve_by_weight(key, &x, &dy, graph, node.params[0], dtheta)?;
                        }
                    }
                }
                let vector = channel_bias.then(|| node.inputs[1]).filter(|&v| sums.wanted[v]);
                let bias = sums.param(self, node.params[1]);
                if bias.is_some() || vector.is_some() {
                    let each = self.memory(n * c)?;
                    self.rows("row_sums", n * c, &[self.at(&dy), self.at(&each), size(n * c), size(pixels), Arg::Number(1.0)])?;
                    self.column_sums(bias, &each, n, c)?;
                    if let Some(vector) = vector {
                        sums.give(self, vector, each)?;
                    }
                }
                self.to_input(sums, node, 0, |dx, more| match framed {
                    None => self.convolve_by_input(key, &dy, theta, node.params[0], dx, more),
                    Some(at) => {
                        let [c, oh, ow] = key.input;
                        let mut whole = self.memory(n * c * oh * ow)?;
                        self.convolve_by_input(key, &dy, theta, node.params[0], &mut whole, false)?;
                        let sizes = [size(shape[1]), size(shape[2]), size(oh), size(ow), size(at)];
                        let count = n * shape.iter().product::<usize>();
                        self.each("unframe", count, &[&[self.at(&whole), self.at(dx)], &sizes[..]].concat(), &[Arg::Flag(more)])
                    }
                })?;
                if *residual {
                    sums.give(self, node.inputs[node.inputs.len() - 1], dy)?;
                }
            }
            Op::Attention { .. } => {
                let Some(heads) = heads(node, n) else { bail!("no attention: {:?}", node.op) };
                let p = extra()?;
                self.to_input(sums, node, 2, |dv, more| self.mix(heads, true, 1.0, p, &dy, dv, more))?;
                let mut ds = self.memory(heads.scores())?;
                self.pair(heads, 1.0, &dy, input(2)?, &mut ds)?;
                let rows = heads.count * heads.pixels;
                self.rows("softmax_back", rows, &[self.at(p), self.at(&ds), size(rows), size(heads.pixels)])?;
                self.to_input(sums, node, 0, |dq, more| self.mix(heads, false, heads.scale(), &ds, input(1)?, dq, more))?;
                self.to_input(sums, node, 1, |dk, more| self.mix(heads, true, heads.scale(), &ds, input(0)?, dk, more))?;
            }
            Op::Upsample2x => self.to_input(sums, node, 0, |dx, more| {
                self.each("upsample_back", len / 4, &[self.at(&dy), self.at(dx), size(w / 2)], &[Arg::Flag(more)])
            })?,
            Op::Concat => {
                let mut begin = 0;
                for i in 0..2 {
                    let part = graph.nodes[node.inputs[i]].shape[0] * pixels;
                    let sizes = [size(part), size(c * pixels), size(begin)];
                    self.to_input(sums, node, i, |dx, more| {
                        self.each("take_part", n * part, &[&[self.at(&dy), self.at(dx)], &sizes[..]].concat(), &[Arg::Flag(more)])
                    })?;
                    begin += part;
                }
            }
            Op::SpaceToDepth { block } => self.to_input(sums, node, 0, |dx, more| {
                let args = [self.at(&dy), self.at(dx), size(*block), size(h), size(w)];
                self.each("widen", len, &args, &[Arg::Flag(more)])
            })?,
            Op::DepthToSpace { block } => self.to_input(sums, node, 0, |dx, more| {
                let args = [self.at(&dy), self.at(dx), size(*block), size(h / block), size(w / block)];
                self.each("deepen", len, &args, &[Arg::Flag(more)])
            })?,
            Op::MeanPool => {
                let [_, ih, iw] = graph.nodes[node.inputs[0]].shape;
                self.to_input(sums, node, 0, |dx, more| {
                    let args = [self.at(&dy), self.at(dx), size(ih * iw), Arg::Number(1.0 / (ih * iw) as f32)];
                    self.each("spread_rows", len * ih * iw, &args, &[Arg::Flag(more)])
                })?;
            }
            Op::DivideByTime { slot } => self.to_input(sums, node, 0, |dx, more| {
                let args = [self.at(&dy), self.at(&tape.times[*slot]), self.at(dx), size(c * pixels)];
                self.each("divide", len, &args, &[Arg::Flag(more)])
            })?,
            Op::Dropout { .. } => sums.give(self, node.inputs[0], dy)?,
        }
        Ok(())
    }

    /// Lets `add` put a gradient into that of input `i`, onto what is there if told so; nothing if nobody asks for it.
    fn to_input(
        &self,
        sums: &mut Sums<'_>,
        node: &Node,
        i: usize,
        add: impl FnOnce(&mut CudaSlice<f32>, bool) -> Result<()>,
    ) -> Result<()> {
        let to = node.inputs[i];
        if !sums.wanted[to] {
            return Ok(());
        }
        let (mut dx, more) = sums.onto(self, to)?;
        add(&mut dx, more)?;
        sums.nodes[to] = Some(dx);
        Ok(())
    }

    fn copy(&self, x: &CudaSlice<f32>) -> Result<CudaSlice<f32>> {
        self.stream.clone_dtod(x).map_err(Error::wrap)
    }

    /// `[n, c]` summed over n onto a parameter's gradient.
    fn column_sums(&self, onto: Option<Arg>, x: &CudaSlice<f32>, n: usize, c: usize) -> Result<()> {
        match onto {
            None => Ok(()),
            Some(onto) => self.blocks("column_sums", c.div_ceil(32) as u32, &[self.at(x), onto, size(n), size(c)]),
        }
    }

    fn norm_back(
        &self,
        theta: Theta<'_>,
        node: &Node,
        (x, vector, stats): (&CudaSlice<f32>, Option<&CudaSlice<f32>>, &CudaSlice<f32>),
        dy: &CudaSlice<f32>,
        norm: Norm,
        sums: &mut Sums<'_>,
    ) -> Result<()> {
        let (n, [c, h, w]) = (sums.n, node.shape);
        let weight = sums.param(self, node.params[0]);
        let each = match weight {
            None => None,
            Some(_) => Some((self.memory(n * c)?, self.memory(n * c)?)),
        };
        let (to, to_vector) = (node.inputs[0], norm.scale_shift.then(|| node.inputs[1]).filter(|&v| sums.wanted[v]));
        let dx = if sums.wanted[to] { Some(sums.onto(self, to)?) } else { None };
        let dvector = to_vector.map(|v| sums.onto(self, v)).transpose()?;
        let at = |s: Option<&CudaSlice<f32>>| s.map_or(Arg::At(0), |s| self.at(s));
        let more = |d: &Option<(CudaSlice<f32>, bool)>| Arg::Flag(d.as_ref().is_some_and(|d| d.1));
        let args = [
            self.at(x),
            self.at(dy),
            self.at(stats),
            theta.at(self, node.params[0]),
            theta.at(self, node.params[1]),
            at(vector),
            at(dx.as_ref().map(|d| &d.0)),
            at(each.as_ref().map(|e| &e.0)),
            at(each.as_ref().map(|e| &e.1)),
            at(dvector.as_ref().map(|d| &d.0)),
            size(c),
            size(h * w),
            size(norm.groups),
            Arg::Flag(norm.silu),
            more(&dx),
            more(&dvector),
        ];
        self.blocks("group_norm_back", (n * norm.groups) as u32, &args)?;
        if let Some((dweight, dbias)) = &each {
            self.column_sums(weight, dweight, n, c)?;
            self.column_sums(sums.param(self, node.params[1]), dbias, n, c)?;
        }
        if let Some((dx, _)) = dx {
            sums.nodes[to] = Some(dx);
        }
        if let (Some(v), Some((dvector, _))) = (to_vector, dvector) {
            sums.nodes[v] = Some(dvector);
        }
        Ok(())
    }
}

/// A norm's settings.
#[derive(Clone, Copy)]
struct Norm {
    groups: usize,
    scale_shift: bool,
    silu: bool,
}
