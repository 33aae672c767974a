//! One chunk backward through the graph, and the sum over chunks.

use super::forward::{BlockMap, Values, attention_shape, geometry, norm_shape};
use super::matmul::{Mat, matmul};
use super::norm::{self, Affine};
use super::pack::{Direction, Packed};
use super::plan::{self, Backward};
use super::{
    Chunk, Exec, Keep, Precision, Scratch, Tape, attention, conv, deal::deal, dropout, for_each_lane, from_chunk, threads, to_chunk,
};
use crate::error::{Error, Result};
use crate::graph::Op;
use std::sync::atomic::Ordering;

/// What a backward pass gives.
#[derive(Debug, Default)]
pub struct Gradients {
    /// Gradient of the input image `[n, c, h, w]`, if asked for.
    pub dx: Option<Vec<f32>>,
    /// Gradient of theta, if asked for.
    pub dtheta: Option<Vec<f32>>,
}

impl Exec {
    /// Gradients of `sum(out * dy)` for `dy` of the output's shape `[n, ...]`.
    ///
    /// # Errors
    /// [`Error::Call`] if `dy` has not the output's length, or the tape was not kept for what is asked.
    pub fn backward(&self, theta: &[f32], tape: &Tape, dy: &[f32], want_dx: bool, want_dtheta: bool) -> Result<Gradients> {
        let g = &self.graph;
        let enough = match tape.keep {
            Keep::Nothing => false,
            Keep::ForInput => !want_dtheta,
            Keep::ForAll => true,
        };
        if !enough {
            return Err(Error::call("tape", format!("{:?}", tape.keep), "one that kept what these gradients need"));
        }
        let n: usize = tape.chunks.iter().map(|c| c.images.len()).sum();
        let out_len = g.output_shape().iter().product::<usize>();
        let in_len = g.input_shape().iter().product::<usize>();
        if dy.len() != n * out_len {
            return Err(Error::call("output gradient", dy.len(), n * out_len));
        }
        if !want_dx && !want_dtheta {
            return Ok(Gradients::default());
        }
        let which = usize::from(want_dx) + 2 * usize::from(want_dtheta) - 1;
        let plan = self.backward[which].get_or_init(|| plan::backward(g, want_dx, want_dtheta));
        if !plan.needs[g.output] {
            // The output depends on nothing that is differentiated.
            return Ok(Gradients { dx: want_dx.then(|| vec![0.0; n * in_len]), dtheta: want_dtheta.then(|| vec![0.0; g.param_count()]) });
        }
        self.passes.fetch_add(n as u64 * (1 + u64::from(want_dtheta)), Ordering::Relaxed);
        let packed = self.pack(theta, Direction::Backward);
        let mut dx = want_dx.then(|| vec![0.0; n * in_len]);
        // One sum more than threads, so that no thread waits for a sum that another holds; none: a place for each chunk.
        let sum_count = if threads() == 1 { 1 } else { threads() + 1 }.min(tape.chunks.len());
        let sums: Vec<Option<Vec<f32>>> = if want_dtheta {
            let zeros = || {
                let mut sum = self.pool.take(g.param_count());
                sum.fill(0.0);
                Some(sum)
            };
            (0..sum_count).map(|_| zeros()).collect()
        } else {
            vec![None; tape.chunks.len()]
        };
        let mut items = vec![];
        let mut rest = dx.as_deref_mut().unwrap_or_default();
        for chunk in &tape.chunks {
            let take = if want_dx { chunk.images.len() * in_len } else { 0 };
            let (own, tail) = std::mem::take(&mut rest).split_at_mut(take);
            rest = tail;
            items.push((chunk, own));
        }
        let sums = deal(
            items,
            sums,
            || self.pool.scratch(),
            |scratch| self.pool.give_scratch(scratch),
            |scratch, (chunk, dx), sum| {
                let mut grads = self.pool.take(plan.layout.len * chunk.images.len());
                self.backward_chunk(plan, theta, &packed, tape, chunk, dy, sum.as_mut(), &mut grads, scratch);
                if want_dx && plan.needs[0] {
                    let m = chunk.images.len();
                    from_chunk(&grads[plan.layout.offsets[0] * m..], m, g.input_shape(), dx);
                }
                self.pool.give(grads);
            },
        );
        let mut sums = sums.into_iter().flatten();
        let dtheta = sums.next().map(|mut total| {
            for sum in sums {
                add(&mut total, &sum);
                self.pool.give(sum);
            }
            total
        });
        Ok(Gradients { dx, dtheta })
    }

    /// Gives a gradient's buffer back for the next step.
    pub fn recycle(&self, buffer: Vec<f32>) {
        self.pool.give(buffer);
    }

    fn backward_chunk(
        &self,
        plan: &Backward,
        theta: &[f32],
        packed: &Packed,
        tape: &Tape,
        chunk: &Chunk,
        dy: &[f32],
        mut dtheta: Option<&mut Vec<f32>>,
        grads: &mut [f32],
        s: &mut Scratch,
    ) {
        let g = &self.graph;
        let (n, first) = (chunk.images.len(), chunk.images.start);
        let layout = &self.forward[tape.keep as usize];
        let values = Values::read_only(&chunk.values, layout, g, n);
        let grads = Values::new(grads, &plan.layout, g, n);
        let out_len = g.output_shape().iter().product::<usize>();
        // SAFETY: nothing else of `grads` is borrowed yet.
        to_chunk(&dy[first * out_len..(first + n) * out_len], n, g.output_shape(), unsafe { grads.get_mut(g.output) });

        for (id, node) in g.nodes.iter().enumerate().rev() {
            if !plan.needs[id] {
                continue;
            }
            let dy = grads.get(id);
            let param = |i: usize| &theta[g.params[node.params[i]].range()];
            let input = |i: usize| values.get(node.inputs[i]);
            let add = |i: usize| plan.add[id][i];
            // SAFETY: a gradient's place is apart from that of every gradient alive with it, this node's own included.
            let dx = |i: usize| plan.needs[node.inputs[i]].then(|| unsafe { grads.get_mut(node.inputs[i]) });
            let [c, h, w] = node.shape;
            match &node.op {
                Op::Input | Op::TimeEmbed { .. } => {}
                Op::LabelEmbed { dim, .. } => {
                    if let Some(d) = dtheta.as_deref_mut() {
                        let table = &mut d[g.params[node.params[0]].range()];
                        for j in 0..n {
                            let row = &mut table[tape.labels[first + j] as usize * dim..][..*dim];
                            row.iter_mut().enumerate().for_each(|(i, v)| *v += dy[i * n + j]);
                        }
                    }
                }
                Op::Linear { out } => {
                    let len = g.nodes[node.inputs[0]].shape[0];
                    if let Some(d) = dtheta.as_deref_mut() {
                        let dw = &mut d[g.params[node.params[0]].range()];
                        matmul(*out, n, len, dy, Mat::rows(n), input(0), Mat::rows(n).t(), dw, Mat::rows(len), true, 1.0);
                        norm::row_sums(dy, n, &mut d[g.params[node.params[1]].range()], true);
                    }
                    if let Some(dx) = dx(0) {
                        matmul(len, *out, n, param(0), Mat::rows(len).t(), dy, Mat::rows(n), dx, Mat::rows(n), add(0), 1.0);
                    }
                }
                Op::Silu => {
                    if let Some(dx) = dx(0) {
                        norm::silu_backward(input(0), dy, dx, add(0));
                    }
                }
                Op::Add => {
                    for i in 0..2 {
                        if let Some(dx) = dx(i) {
                            pass(dy, dx, add(i));
                        }
                    }
                }
                Op::GroupNorm { groups, scale_shift, .. } => {
                    let o = norm_shape(node, n);
                    let moments = &chunk.moments[self.moments[id] * n..][..2 * groups * n];
                    let a = Affine { weight: param(0), bias: param(1), scale_shift: scale_shift.then(|| input(1)) };
                    let affine = dtheta.as_deref_mut().map(|d| two(d, g.params[node.params[0]].range(), g.params[node.params[1]].range()));
                    let modulation = if *scale_shift { dx(1).map(|d| (d, add(1))) } else { None };
                    s.work.resize(o.channels / o.groups * o.area, 0.0);
                    let to = norm::Gradients { dx: dx(0), add: add(0), affine, scale_shift: modulation };
                    norm::backward(&o, input(0), moments, a, dy, to, &mut s.work);
                }
                Op::Conv2d { channel_bias, residual, .. } => {
                    let area = h * w;
                    if let Some(d) = dtheta.as_deref_mut() {
                        norm::row_sums(dy, n * area, &mut d[g.params[node.params[1]].range()], true);
                    }
                    let weight = g.params[node.params[0]].range();
                    let geo = geometry(g, node, n);
                    let dw = dtheta.as_deref_mut().map(|d| (input(0), &mut d[weight]));
                    let x_gradient = dx(0);
                    match self.precision {
                        Precision::F32 => {
                            let packed = packed.single(self, id);
                            conv::single::backward(&geo, dy, x_gradient.map(|d| (d, packed, add(0))), dw, &mut s.conv);
                        }
                        Precision::Bf16(parts) => {
                            let packed = packed.half(self, id);
                            conv::half::backward(parts, &geo, dy, x_gradient.map(|d| (d, packed, add(0))), dw, &mut s.conv);
                        }
                    }
                    // In the order of the inputs, which is the order of `add`: they may be one node.
                    if *channel_bias && let Some(db) = dx(1) {
                        norm::row_sums(dy, area, db, add(1));
                    }
                    if *residual && let Some(dx) = dx(node.inputs.len() - 1) {
                        pass(dy, dx, add(node.inputs.len() - 1));
                    }
                }
                Op::Attention { .. } => {
                    if let (Some(q), Some(k), Some(v)) = (dx(0), dx(1), dx(2)) {
                        let to = [(q, add(0)), (k, add(1)), (v, add(2))];
                        attention::backward(&attention_shape(node, n), [input(0), input(1), input(2)], dy, to, &mut s.work);
                    }
                }
                Op::Upsample2x => {
                    if let Some(dx) = dx(0) {
                        upsample_backward(dy, c * n, h / 2, w / 2, dx, add(0));
                    }
                }
                Op::Concat => {
                    let split = g.nodes[node.inputs[0]].shape.iter().product::<usize>() * n;
                    for (i, part) in [&dy[..split], &dy[split..]].into_iter().enumerate() {
                        if let Some(dx) = dx(i) {
                            pass(part, dx, add(i));
                        }
                    }
                }
                Op::SpaceToDepth { block } => {
                    if let Some(dx) = dx(0) {
                        let map = BlockMap { n, channels: c / (block * block), h, w, block: *block };
                        map.for_each(|deep, flat| put(&mut dx[flat], dy[deep], add(0)));
                    }
                }
                Op::DepthToSpace { block } => {
                    if let Some(dx) = dx(0) {
                        let map = BlockMap { n, channels: c, h: h / block, w: w / block, block: *block };
                        map.for_each(|deep, flat| put(&mut dx[deep], dy[flat], add(0)));
                    }
                }
                Op::Dropout { rate } => {
                    if let Some(dx) = dx(0) {
                        match &tape.dropout {
                            Some((seed, images)) => dropout::apply(*rate, *seed, id, &images[first..first + n], c, dy, dx, add(0)),
                            None => pass(dy, dx, add(0)),
                        }
                    }
                }
                Op::MeanPool => {
                    if let Some(dx) = dx(0) {
                        let area = dx.len() / dy.len();
                        for (d, &v) in dx.chunks_exact_mut(area).zip(dy) {
                            d.iter_mut().for_each(|d| put(d, v / area as f32, add(0)));
                        }
                    }
                }
                Op::DivideByTime { slot } => {
                    if let Some(dx) = dx(0) {
                        for (i, (d, u)) in dx.chunks_exact_mut(h * w).zip(dy.chunks_exact(h * w)).enumerate() {
                            let t = tape.times[(first + i % n) * g.times + slot];
                            d.iter_mut().zip(u).for_each(|(d, u)| put(d, u / t, add(0)));
                        }
                    }
                }
            }
        }
    }
}

/// `total += part`, on all threads.
fn add(total: &mut [f32], part: &[f32]) {
    const BLOCK: usize = 1 << 16;
    let blocks: Vec<_> = total.chunks_mut(BLOCK).zip(part.chunks(BLOCK)).collect();
    for_each_lane(blocks, |(total, part)| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
}

fn put(d: &mut f32, v: f32, add: bool) {
    *d = if add { *d + v } else { v };
}

fn pass(dy: &[f32], dx: &mut [f32], add: bool) {
    if add {
        dx.iter_mut().zip(dy).for_each(|(d, v)| *d += v);
    } else {
        dx.copy_from_slice(dy);
    }
}

/// Two parameters' slices of one gradient; a node's parameters follow each other.
fn two(d: &mut [f32], a: std::ops::Range<usize>, b: std::ops::Range<usize>) -> (&mut [f32], &mut [f32]) {
    let (head, tail) = d.split_at_mut(b.start);
    (&mut head[a], &mut tail[..b.len()])
}

fn upsample_backward(dy: &[f32], maps: usize, h: usize, w: usize, dx: &mut [f32], add: bool) {
    for m in 0..maps {
        for r in 0..h {
            let top = &dy[(m * h + r) * 4 * w..][..2 * w];
            let bottom = &dy[(m * h + r) * 4 * w + 2 * w..][..2 * w];
            for x in 0..w {
                let sum = top[2 * x] + top[2 * x + 1] + bottom[2 * x] + bottom[2 * x + 1];
                put(&mut dx[(m * h + r) * w + x], sum, add);
            }
        }
    }
}
