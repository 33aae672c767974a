//! Scaled dot-product attention over the pixels of a map, forward and gradient. Maps are `[channels][n][pixels]`.

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the parameter tells apart the copies that `dispatch!` compiles for each instruction set"
)]

use super::exp::exp;
use super::matmul::{Mat, matmul};
use super::simd::{Simd, dispatch};

/// Shape of the operation.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Images in the chunk.
    pub n: usize,
    /// Channels, all heads together.
    pub channels: usize,
    /// Pixels: queries and keys.
    pub pixels: usize,
    /// Heads.
    pub heads: usize,
}

impl Attention {
    fn head(&self) -> usize {
        self.channels / self.heads
    }
    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }
    /// `[d, pixels]` of one head and image.
    fn part(&self, head: usize, j: usize) -> Mat {
        Mat { at: (head * self.head() * self.n + j) * self.pixels, row: self.n * self.pixels, col: 1 }
    }
    /// `p[i, j] = softmax_j(scale q_i . k_j)`.
    fn weights(&self, q: &[f32], k: &[f32], part: Mat, p: &mut [f32]) {
        let (l, d) = (self.pixels, self.head());
        matmul(l, d, l, q, part.t(), k, part, p, Mat::rows(l), false, self.scale());
        softmax(p, l);
    }
}

dispatch! {
    /// Softmax of every row of length `l`.
    fn softmax(p: &mut [f32], l: usize) = softmax_body
}

#[inline(always)]
fn softmax_body<S: Simd>(p: &mut [f32], l: usize) {
    for row in p.chunks_exact_mut(l) {
        // Sixteen running values each for maximum and sum: one would make every element wait for the one before.
        let mut most = [f32::NEG_INFINITY; 16];
        for part in row.chunks(16) {
            most.iter_mut().zip(part).for_each(|(m, v)| *m = if *v > *m { *v } else { *m });
        }
        let max = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0f32; 16];
        for part in row.chunks_mut(16) {
            for (s, v) in sums.iter_mut().zip(part) {
                *v = exp(*v - max);
                *s += *v;
            }
        }
        let inv = 1.0 / sums.iter().sum::<f32>();
        row.iter_mut().for_each(|v| *v *= inv);
    }
}

/// `y = v softmax(scale q^T k)^T` for every head and image. `work` is resized to one head's weights.
pub fn forward(o: &Attention, q: &[f32], k: &[f32], v: &[f32], y: &mut [f32], work: &mut Vec<f32>) {
    let (l, d) = (o.pixels, o.head());
    work.resize(l * l, 0.0);
    for head in 0..o.heads {
        for j in 0..o.n {
            let part = o.part(head, j);
            o.weights(q, k, part, work);
            matmul(d, l, l, v, part, work, Mat::rows(l).t(), y, part, false, 1.0);
        }
    }
}

/// Gradients of the three inputs from `dy`; each is assigned, or added to where its flag says so.
pub fn backward(o: &Attention, qkv: [&[f32]; 3], dy: &[f32], grads: [(&mut [f32], bool); 3], work: &mut Vec<f32>) {
    let (l, d) = (o.pixels, o.head());
    work.resize(2 * l * l, 0.0);
    let (p, dp) = work.split_at_mut(l * l);
    let [q, k, v] = qkv;
    let [(dq, add_q), (dk, add_k), (dv, add_v)] = grads;
    for head in 0..o.heads {
        for j in 0..o.n {
            let part = o.part(head, j);
            let rows = Mat::rows(l);
            o.weights(q, k, part, p);
            matmul(d, l, l, dy, part, p, rows, dv, part, add_v, 1.0);
            matmul(l, d, l, dy, part.t(), v, part, dp, rows, false, 1.0);
            // dS = P (dP - sum_j dP P)
            for (row, g) in p.chunks_exact(l).zip(dp.chunks_exact_mut(l)) {
                let dot: f32 = row.iter().zip(g.iter()).map(|(a, b)| a * b).sum();
                g.iter_mut().zip(row).for_each(|(g, p)| *g = p * (*g - dot));
            }
            matmul(d, l, l, k, part, dp, rows.t(), dq, part, add_q, o.scale());
            matmul(d, l, l, q, part, dp, rows, dk, part, add_k, o.scale());
        }
    }
}
