//! One chunk forward through the graph.

use super::conv::{self, Epilogue, Geometry};
use super::matmul::{Mat, matmul};
use super::norm::{Affine, Norm};
use super::pack::Packed;
use super::plan::Layout;
use super::{Chunk, Cond, Exec, Precision, Scratch, attention, dropout, norm, to_chunk};
use crate::graph::{Graph, Node, Op, TimeFeatures};

/// A chunk's arena: values by node. Nodes live at once lie apart by construction of the layout ([`super::plan`]).
pub(super) struct Values<'a> {
    base: *mut f32,
    len: usize,
    layout: &'a Layout,
    graph: &'a Graph,
    n: usize,
}

impl<'a> Values<'a> {
    pub(super) fn new(buffer: &'a mut [f32], layout: &'a Layout, graph: &'a Graph, n: usize) -> Values<'a> {
        assert!(buffer.len() >= layout.len * n);
        Values { base: buffer.as_mut_ptr(), len: buffer.len(), layout, graph, n }
    }
    /// As [`Values::new`] for a buffer that is only read: [`Values::get_mut`] must not be called on it.
    pub(super) fn read_only(buffer: &'a [f32], layout: &'a Layout, graph: &'a Graph, n: usize) -> Values<'a> {
        assert!(buffer.len() >= layout.len * n);
        Values { base: buffer.as_ptr().cast_mut(), len: buffer.len(), layout, graph, n }
    }
    fn range(&self, id: usize) -> (usize, usize) {
        let at = self.layout.offsets[id];
        let len = self.graph.nodes[id].shape.iter().product::<usize>() * self.n;
        assert!(at != usize::MAX && at * self.n + len <= self.len, "node {id} has no place in this plan");
        (at * self.n, len)
    }
    /// A node's value `[c][n][hw]`.
    pub(super) fn get(&self, id: usize) -> &[f32] {
        let (at, len) = self.range(id);
        // SAFETY: in bounds (checked), initialised (buffers are never uninitialised).
        unsafe { std::slice::from_raw_parts(self.base.add(at), len) }
    }
    /// A node's value, to write.
    ///
    /// # Safety
    /// No other slice of this node, or of one that shares its place, is alive, and the buffer came through [`Values::new`].
    #[expect(clippy::mut_from_ref, reason = "the layout keeps simultaneously live nodes apart, which the borrow checker cannot see")]
    pub(super) unsafe fn get_mut(&self, id: usize) -> &mut [f32] {
        let (at, len) = self.range(id);
        // SAFETY: in bounds (checked); exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at), len) }
    }
}

/// Geometry of a convolution node.
pub(super) fn geometry(g: &Graph, node: &Node, n: usize) -> Geometry {
    let [c_in, h, w] = g.nodes[node.inputs[0]].shape;
    let [c_out, oh, ow] = node.shape;
    let Op::Conv2d { kernel, stride, pad, .. } = node.op else { unreachable!("only called for convolutions") };
    if kernel == 1 {
        return Geometry::pointwise(n, c_in, c_out, h * w);
    }
    Geometry { n, c_in, c_out, h, w, oh, ow, kernel, stride, before: pad[0] }
}

/// Shape of a norm node.
pub(super) fn norm_shape(node: &Node, n: usize) -> Norm {
    let Op::GroupNorm { groups, eps, silu, .. } = node.op else { unreachable!("only called for norms") };
    Norm { n, channels: node.shape[0], area: node.shape[1] * node.shape[2], groups, eps: eps as f32, silu }
}

/// Shape of an attention node.
pub(super) fn attention_shape(node: &Node, n: usize) -> attention::Attention {
    let Op::Attention { heads } = node.op else { unreachable!("only called for attention") };
    attention::Attention { n, channels: node.shape[0], pixels: node.shape[1] * node.shape[2], heads }
}

/// Angle of each frequency at time `t`, its rate in `t`, and whether the cosine comes first.
fn angle(t: f32, i: usize, half: usize, features: &TimeFeatures, frequencies: &[f32]) -> (f64, f64, bool) {
    match features {
        TimeFeatures::Positional { flip_sin_to_cos, freq_shift, scale } => {
            let exponent = -(10_000f64.ln()) * i as f64 / (half as f64 - freq_shift);
            let rate = scale * exponent.exp();
            (f64::from(t) * rate, rate, *flip_sin_to_cos)
        }
        TimeFeatures::Fourier { flip_sin_to_cos } => {
            let turn = f64::from(frequencies[i]) * 2.0 * std::f64::consts::PI;
            (f64::from(t).ln() * turn, turn / f64::from(t), *flip_sin_to_cos)
        }
    }
}

/// Features of one scalar time; `frequencies` are the stored ones of Fourier features.
///
/// Computed in f64: `t` reaches 1000 at a frequency of 1, where f32 arguments would lose four digits.
pub fn time_features(t: f32, dim: usize, features: &TimeFeatures, frequencies: &[f32], mut write: impl FnMut(usize, f32)) {
    let half = dim / 2;
    for i in 0..half {
        let (angle, _, flip) = angle(t, i, half, features, frequencies);
        let (sin, cos) = (libm::sin(angle) as f32, libm::cos(angle) as f32);
        write(i, if flip { cos } else { sin });
        write(half + i, if flip { sin } else { cos });
    }
}

/// Derivatives of [`time_features`] in `t`.
pub fn time_feature_rates(t: f32, dim: usize, features: &TimeFeatures, frequencies: &[f32], mut write: impl FnMut(usize, f32)) {
    let half = dim / 2;
    for i in 0..half {
        let (angle, rate, flip) = angle(t, i, half, features, frequencies);
        let (sin, cos) = ((rate * libm::cos(angle)) as f32, (-rate * libm::sin(angle)) as f32);
        write(i, if flip { cos } else { sin });
        write(half + i, if flip { sin } else { cos });
    }
}

impl Exec {
    pub(super) fn forward_chunk(
        &self,
        layout: &Layout,
        theta: &[f32],
        packed: &Packed,
        x: &[f32],
        cond: Cond<'_>,
        chunk: &mut Chunk,
        s: &mut Scratch,
    ) {
        let g = &self.graph;
        let n = chunk.images.len();
        let first = chunk.images.start;
        let values = Values::new(&mut chunk.values, layout, g, n);
        for (id, node) in g.nodes.iter().enumerate() {
            // SAFETY: `y` is this node's place; the slices taken of its inputs lie elsewhere by the layout.
            let y = unsafe { values.get_mut(id) };
            let input = |i: usize| values.get(node.inputs[i]);
            let param = |i: usize| &theta[g.params[node.params[i]].range()];
            let [c, h, w] = node.shape;
            match &node.op {
                Op::Input => {
                    let len = c * h * w;
                    to_chunk(&x[first * len..(first + n) * len], n, node.shape, y);
                }
                Op::TimeEmbed { slot, dim, features } => {
                    let frequencies = if node.params.is_empty() { &[][..] } else { param(0) };
                    for j in 0..n {
                        let t = cond.times[(first + j) * g.times + slot];
                        time_features(t, *dim, features, frequencies, |i, v| y[i * n + j] = v);
                    }
                }
                Op::LabelEmbed { dim, .. } => {
                    let table = param(0);
                    for j in 0..n {
                        let row = &table[cond.labels[first + j] as usize * dim..][..*dim];
                        row.iter().enumerate().for_each(|(i, &v)| y[i * n + j] = v);
                    }
                }
                Op::Linear { out } => {
                    let len = g.nodes[node.inputs[0]].shape[0];
                    for (row, &b) in y.chunks_exact_mut(n).zip(param(1)) {
                        row.fill(b);
                    }
                    matmul(*out, len, n, param(0), Mat::rows(len), input(0), Mat::rows(n), y, Mat::rows(n), true, 1.0);
                }
                Op::Silu => norm::silu(input(0), y),
                Op::Add => y.iter_mut().zip(input(0)).zip(input(1)).for_each(|((y, a), b)| *y = a + b),
                Op::GroupNorm { scale_shift, groups, .. } => {
                    let moments = &mut chunk.moments[self.moments[id] * n..][..2 * groups * n];
                    let affine = Affine { weight: param(0), bias: param(1), scale_shift: scale_shift.then(|| input(1)) };
                    norm::forward(&norm_shape(node, n), input(0), affine, y, moments);
                }
                Op::Conv2d { channel_bias, residual, .. } => {
                    let e = Epilogue {
                        bias: param(1),
                        channel_bias: channel_bias.then(|| input(1)),
                        residual: residual.then(|| input(node.inputs.len() - 1)),
                    };
                    let geo = geometry(g, node, n);
                    match self.precision {
                        Precision::F32 if packed.for_good() && conv::winograd::suits(&geo) => {
                            conv::winograd::forward(&geo, input(0), packed.single(self, id), e, y, &mut s.conv)
                        }
                        Precision::F32 => conv::single::forward(&geo, input(0), packed.single(self, id), e, y, &mut s.conv),
                        Precision::Bf16(parts) => conv::half::forward(parts, &geo, input(0), packed.half(self, id), e, y, &mut s.conv),
                    }
                }
                Op::Attention { .. } => attention::forward(&attention_shape(node, n), input(0), input(1), input(2), y, &mut s.work),
                Op::Upsample2x => upsample(input(0), c * n, h / 2, w / 2, y),
                Op::Concat => {
                    let (a, b) = y.split_at_mut(input(0).len());
                    a.copy_from_slice(input(0));
                    b.copy_from_slice(input(1));
                }
                Op::SpaceToDepth { block } => {
                    let map = BlockMap { n, channels: c / (block * block), h, w, block: *block };
                    map.for_each(|deep, flat| y[deep] = input(0)[flat]);
                }
                Op::DepthToSpace { block } => {
                    let map = BlockMap { n, channels: c, h: h / block, w: w / block, block: *block };
                    map.for_each(|deep, flat| y[flat] = input(0)[deep]);
                }
                Op::Dropout { rate } => match cond.dropout {
                    Some(d) => dropout::apply(*rate, d.seed, id, &d.images[first..first + n], c, input(0), y, false),
                    None => y.copy_from_slice(input(0)),
                },
                Op::MeanPool => {
                    let area = input(0).len() / y.len();
                    y.iter_mut().zip(input(0).chunks_exact(area)).for_each(|(y, m)| *y = m.iter().sum::<f32>() / area as f32);
                }
                Op::DivideByTime { slot } => {
                    let area = h * w;
                    for (i, (y, x)) in y.chunks_exact_mut(area).zip(input(0).chunks_exact(area)).enumerate() {
                        let t = cond.times[(first + i % n) * g.times + slot];
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = x / t);
                    }
                }
            }
        }
    }
}

fn upsample(x: &[f32], maps: usize, h: usize, w: usize, y: &mut [f32]) {
    for m in 0..maps {
        for r in 0..h {
            let src = &x[(m * h + r) * w..][..w];
            let (top, rest) = y[(m * h + r) * 4 * w..].split_at_mut(2 * w);
            for (pair, &v) in top.chunks_exact_mut(2).zip(src) {
                pair.fill(v);
            }
            rest[..2 * w].copy_from_slice(top);
        }
    }
}

/// Pairs of positions of a space-to-depth rearrangement: `deep` has `channels * block^2` channels of `h x w`.
pub(super) struct BlockMap {
    pub(super) n: usize,
    pub(super) channels: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) block: usize,
}

impl BlockMap {
    pub(super) fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        let BlockMap { n, channels, h, w, block } = *self;
        for c in 0..channels {
            for dy in 0..block {
                for dx in 0..block {
                    let deep_channel = (c * block + dy) * block + dx;
                    for j in 0..n {
                        for y in 0..h {
                            for x in 0..w {
                                let deep = ((deep_channel * n + j) * h + y) * w + x;
                                let flat = ((c * n + j) * h * block + y * block + dy) * w * block + x * block + dx;
                                f(deep, flat);
                            }
                        }
                    }
                }
            }
        }
    }
}
