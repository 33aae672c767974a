//! The interpreter on the CPU: forward and analytic gradients, native (threads, AVX-512 or AVX2 found at run time) and wasm32.
//!
//! The batch is cut into chunks of a few images, and each chunk goes through the whole network before the next, so that values
//! stay in the cache that a layer-by-layer run would stream through memory. A chunk's values are `[channels][images][pixels]`
//! in one arena ([`plan`]). Threads take whole chunks as they come free ([`deal`]); weight gradients go into a few sums, each in
//! the order of its chunks, so a run gives the same bits every time.

pub mod attention;
mod backward;
pub mod conv;
mod correlate;
mod deal;
mod dropout;
mod exp;
mod forward;
pub mod matmul;
mod net;
pub mod norm;
mod pack;
pub mod plan;
mod pool;
pub mod simd;
pub mod tap;
pub mod tiles;

pub use backward::Gradients;
pub use forward::{time_feature_rates, time_features};
pub use net::Net;
pub use plan::Keep;

use crate::error::{Error, Result};
use crate::graph::{Graph, Op};
use pool::{Pool, Scratch};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Floats of the largest value of a chunk: it and its neighbours should share the second-level cache. Planes of bf16 take half
/// the room there.
fn chunk_floats(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 256 * 1024,
        Precision::Bf16(_) => 512 * 1024,
    }
}

/// How convolutions multiply. Everything else is f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Operands held as one or two bf16, sums in f32: faster where [`tiles::native`], slower than f32 elsewhere.
    Bf16(conv::half::Parts),
}

/// One call's conditions, image by image.
#[derive(Clone, Copy, Debug)]
pub struct Cond<'a> {
    /// `[n * graph.times]`: the time inputs of image 0, then of image 1, ...
    pub times: &'a [f32],
    /// `[n]` rows of the label table; empty if the network has none.
    pub labels: &'a [u32],
    /// Dropout, for networks that have it; none: values pass.
    pub dropout: Option<Dropout<'a>>,
}

/// What decides which values are dropped: the same for an image in any batch.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// Key of the random numbers.
    pub seed: u64,
    /// `[n]`: each image's number.
    pub images: &'a [u64],
}

/// A network ready to run: its graph, plans and reusable buffers. Parameters are given at each call.
pub struct Exec {
    graph: Graph,
    forward: [plan::Layout; 3],
    backward: [OnceLock<plan::Backward>; 3],
    /// Per node: where its moments begin (floats per image) if it is a norm.
    moments: Vec<usize>,
    moments_len: usize,
    precision: Precision,
    places: pack::Places,
    passes: AtomicU64,
    pool: Arc<Pool>,
}

/// What a forward pass kept of one chunk.
struct Chunk {
    images: Range<usize>,
    values: Vec<f32>,
    moments: Vec<f32>,
}

/// What a forward pass kept for the backward pass.
pub struct Tape {
    keep: Keep,
    chunks: Vec<Chunk>,
    times: Vec<f32>,
    labels: Vec<u32>,
    dropout: Option<(u64, Vec<u64>)>,
    pool: Arc<Pool>,
}

impl Tape {
    /// Floats held.
    pub fn floats(&self) -> usize {
        self.chunks.iter().map(|c| c.values.len() + c.moments.len()).sum()
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        for c in self.chunks.drain(..) {
            self.pool.give(c.values);
            self.pool.give(c.moments);
        }
    }
}

/// Threads that [`Exec`] uses.
pub fn threads() -> usize {
    #[cfg(not(target_arch = "wasm32"))]
    return rayon::current_num_threads();
    #[cfg(target_arch = "wasm32")]
    1
}

/// Runs `f` on every item, on all threads; items are dealt out in order.
fn for_each_lane<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        items.into_par_iter().with_max_len(1).for_each(f);
    }
    #[cfg(target_arch = "wasm32")]
    items.into_iter().for_each(f);
}

impl Exec {
    /// Plans the network in f32.
    ///
    /// # Errors
    /// As [`Exec::with_precision`].
    pub fn new(graph: Graph) -> Result<Exec> {
        Exec::with_precision(graph, Precision::F32)
    }

    /// Plans the network.
    ///
    /// # Errors
    /// [`Error::Config`] for an operation whose gradient could not tell its inputs apart.
    pub fn with_precision(graph: Graph, precision: Precision) -> Result<Exec> {
        let (mut moments, mut moments_len) = (vec![0; graph.nodes.len()], 0);
        for (id, node) in graph.nodes.iter().enumerate() {
            match node.op {
                Op::GroupNorm { groups, .. } => {
                    moments[id] = moments_len;
                    moments_len += 2 * groups;
                }
                Op::Conv2d { kernel: 3, stride: 1, pad: [1, 1], .. } | Op::Conv2d { kernel: 3, stride: 2, pad: [0 | 1, 1], .. } => {}
                Op::Conv2d { kernel: 3, stride, pad, .. } => {
                    return Err(Error::config(
                        "conv2d",
                        format!("stride {stride}, padding {pad:?}"),
                        "stride 1 or 2 with padding 1, or stride 2 with padding [0, 1]",
                    ));
                }
                Op::Conv2d { kernel: 1, stride: 1, pad: [0, 0], .. } => {}
                Op::Conv2d { kernel, stride, pad, .. } => {
                    return Err(Error::config(
                        "conv2d",
                        format!("kernel {kernel}, stride {stride}, padding {pad:?}"),
                        "kernel 3, or kernel 1 with stride 1 and no padding",
                    ));
                }
                Op::Attention { .. } => {
                    let i = &node.inputs;
                    if i[0] == i[1] || i[0] == i[2] || i[1] == i[2] {
                        return Err(Error::config("attention", format!("inputs {i:?}"), "three different nodes"));
                    }
                }
                _ => {}
            }
        }
        let forward = [Keep::Nothing, Keep::ForInput, Keep::ForAll].map(|k| plan::forward(&graph, k));
        let places = pack::Places::new(&graph, precision);
        Ok(Exec {
            graph,
            forward,
            backward: Default::default(),
            moments,
            moments_len,
            precision,
            places,
            passes: AtomicU64::new(0),
            pool: Arc::default(),
        })
    }

    /// Passes of single images so far: a forward pass counts 1, a backward pass 1, and 1 more with gradients of the weights.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// How convolutions multiply.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    fn check(&self, theta: &[f32], x: &[f32], n: usize, cond: Cond<'_>) -> Result<()> {
        let g = &self.graph;
        let lens = [
            ("parameters", theta.len(), g.param_count()),
            ("image values", x.len(), n * g.input_shape().iter().product::<usize>()),
            ("time inputs", cond.times.len(), n * g.times),
            ("labels", cond.labels.len(), if g.classes > 0 { n } else { 0 }),
            ("image numbers of dropout", cond.dropout.map_or(n, |d| d.images.len()), n),
        ];
        for (what, found, expected) in lens {
            if found != expected {
                return Err(Error::call(what, found, format!("{expected} for {n} images")));
            }
        }
        match cond.labels.iter().find(|&&l| l as usize >= g.classes) {
            Some(l) => Err(Error::call("label", l, format!("0 to {}", g.classes - 1))),
            None => Ok(()),
        }
    }

    /// Sizes of the chunks for a batch of `n`: equal to within one image, a multiple of the threads where there is work for all.
    fn chunks(&self, n: usize) -> Vec<Range<usize>> {
        let largest = self.graph.nodes.iter().map(|v| v.shape.iter().product::<usize>()).max().unwrap_or(1);
        let most = (chunk_floats(self.precision) / largest.max(1)).clamp(1, 32);
        let count = n.div_ceil(most).next_multiple_of(threads()).min(n);
        (0..count).map(|i| i * n / count..(i + 1) * n / count).collect()
    }

    /// Runs the network on `x [n, c, h, w]` and returns the output `[n, ...]` and what a backward pass needs.
    ///
    /// # Errors
    /// [`Error::Call`] if an argument's length does not fit the network or a label is out of range.
    pub fn forward(&self, theta: &[f32], x: &[f32], n: usize, cond: Cond<'_>, keep: Keep) -> Result<(Vec<f32>, Tape)> {
        let mut out = vec![0.0; n * self.graph.output_shape().iter().product::<usize>()];
        let tape = self.forward_into(theta, None, x, n, cond, keep, &mut out, None)?;
        Ok((out, tape))
    }

    /// As [`Exec::forward`] with [`Keep::Nothing`], into buffers of the caller; `features` also gets the graph's feature node.
    ///
    /// # Errors
    /// As [`Exec::forward`].
    pub fn infer(&self, theta: &[f32], x: &[f32], n: usize, cond: Cond<'_>, out: &mut [f32], features: Option<&mut [f32]>) -> Result<()> {
        self.forward_into(theta, None, x, n, cond, Keep::Nothing, out, features).map(|_| ())
    }

    fn forward_into(
        &self,
        theta: &[f32],
        packed: Option<&pack::Packed>,
        x: &[f32],
        n: usize,
        cond: Cond<'_>,
        keep: Keep,
        out: &mut [f32],
        features: Option<&mut [f32]>,
    ) -> Result<Tape> {
        self.check(theta, x, n, cond)?;
        let out_len = self.graph.output_shape().iter().product::<usize>();
        let feature_len = self.graph.features.map_or(0, |f| self.graph.nodes[f].shape.iter().product::<usize>());
        if out.len() != n * out_len {
            return Err(Error::call("output values", out.len(), n * out_len));
        }
        if let Some(f) = &features
            && (f.len() != n * feature_len || feature_len == 0)
        {
            return Err(Error::call("feature values", f.len(), n * feature_len));
        }
        self.passes.fetch_add(n as u64, Ordering::Relaxed);
        let fresh;
        let packed = match packed {
            Some(packed) => packed,
            None => {
                fresh = self.pack(theta, pack::Direction::Forward);
                &fresh
            }
        };
        let layout = &self.forward[keep as usize];
        let (mut out, mut features) = (out, features);
        let mut items = vec![];
        let mut chunks: Vec<_> = self
            .chunks(n)
            .into_iter()
            .map(|images| {
                let m = images.len();
                Chunk { images, values: self.pool.take(layout.len * m), moments: self.pool.take(self.moments_len * m) }
            })
            .collect();
        for chunk in &mut chunks {
            let m = chunk.images.len();
            let (own, rest) = std::mem::take(&mut out).split_at_mut(m * out_len);
            out = rest;
            let own_features = features.take().map(|f| {
                let (own, rest) = f.split_at_mut(m * feature_len);
                features = Some(rest);
                own
            });
            items.push((chunk, own, own_features));
        }
        let states = vec![(); items.len()];
        deal::deal(
            items,
            states,
            || self.pool.scratch(),
            |scratch| self.pool.give_scratch(scratch),
            |scratch, (chunk, out, features), ()| {
                self.forward_chunk(layout, theta, packed, x, cond, chunk, scratch);
                let m = chunk.images.len();
                let of = |id: usize| &chunk.values[layout.offsets[id] * m..];
                from_chunk(of(self.graph.output), m, self.graph.output_shape(), out);
                if let (Some(f), Some(id)) = (features, self.graph.features) {
                    from_chunk(of(id), m, self.graph.nodes[id].shape, f);
                }
            },
        );
        let dropout = cond.dropout.map(|d| (d.seed, d.images.to_vec()));
        Ok(Tape { keep, chunks, times: cond.times.to_vec(), labels: cond.labels.to_vec(), dropout, pool: self.pool.clone() })
    }
}

/// `[c][n][hw]` to `[n][c][hw]`.
fn from_chunk(values: &[f32], n: usize, [c, h, w]: [usize; 3], out: &mut [f32]) {
    let area = h * w;
    for j in 0..n {
        for ch in 0..c {
            out[(j * c + ch) * area..][..area].copy_from_slice(&values[(ch * n + j) * area..][..area]);
        }
    }
}

/// `[n][c][hw]` to `[c][n][hw]`.
fn to_chunk(images: &[f32], n: usize, [c, h, w]: [usize; 3], values: &mut [f32]) {
    let area = h * w;
    for j in 0..n {
        for ch in 0..c {
            values[(ch * n + j) * area..][..area].copy_from_slice(&images[(j * c + ch) * area..][..area]);
        }
    }
}
