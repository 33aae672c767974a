//! GroupNorm, per-channel scale and shift, and SiLU in one pass over a group, with the analytic gradient.
//!
//! `z = (x - mean) rstd w + b`, then `z (1 + scale) + shift`, then `z sigmoid(z)`. A group of one image is read twice (moments,
//! result) while it is in the first-level cache; the backward pass recomputes `z` instead of storing it.

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the parameter tells apart the copies that `dispatch!` compiles for each instruction set"
)]

use super::exp::sigmoid;
use super::simd::{Simd, dispatch};

/// Which parts of the operation there are.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Images in the chunk.
    pub n: usize,
    /// Channels.
    pub channels: usize,
    /// Pixels.
    pub area: usize,
    /// Groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// SiLU at the end.
    pub silu: bool,
}

/// Vectors of the operation: norm weight and bias `[c]`, scale and shift `[2c][n]` if any.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Norm weight.
    pub weight: &'a [f32],
    /// Norm bias.
    pub bias: &'a [f32],
    /// Rows `0..c` scale, rows `c..2c` shift, one column an image.
    pub scale_shift: Option<&'a [f32]>,
}

impl Affine<'_> {
    /// `(1 + scale, shift)` of a channel in an image.
    #[inline(always)]
    fn modulation(&self, c: usize, j: usize, o: &Norm) -> (f32, f32) {
        self.scale_shift.map_or((1.0, 0.0), |v| (1.0 + v[c * o.n + j], v[(o.channels + c) * o.n + j]))
    }
}

/// Where the gradients go. All are added to, but `dx`, which is assigned unless `add`.
pub struct Gradients<'a> {
    /// `[c][n][area]`.
    pub dx: Option<&'a mut [f32]>,
    /// Add to `dx`.
    pub add: bool,
    /// `[c]` each: norm weight and bias.
    pub affine: Option<(&'a mut [f32], &'a mut [f32])>,
    /// `[2c][n]`, assigned unless the flag says add.
    pub scale_shift: Option<(&'a mut [f32], bool)>,
}

#[inline(always)]
fn sum_with<S: Simd>(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for c in &mut chunks {
        for i in 0..16 {
            lanes[i] += f(c[i]);
        }
    }
    for (i, &v) in chunks.remainder().iter().enumerate() {
        lanes[i] += f(v);
    }
    let mut half = 16;
    while half > 1 {
        half /= 2;
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

dispatch! {
    /// Writes `y` and the moments: `moments[(g * n + j) * 2] = mean`, `+ 1` is `1 / sqrt(var + eps)`.
    pub fn forward(o: &Norm, x: &[f32], a: Affine<'_>, y: &mut [f32], moments: &mut [f32]) = forward_body
}

#[inline(always)]
fn forward_body<S: Simd>(o: &Norm, x: &[f32], a: Affine<'_>, y: &mut [f32], moments: &mut [f32]) {
    let per = o.channels / o.groups;
    let row = |c: usize, j: usize| (c * o.n + j) * o.area..(c * o.n + j + 1) * o.area;
    let count = (per * o.area) as f32;
    for g in 0..o.groups {
        for j in 0..o.n {
            let channels = g * per..(g + 1) * per;
            let mean = channels.clone().map(|c| sum_with::<S>(&x[row(c, j)], |v| v)).sum::<f32>() / count;
            let var = channels.clone().map(|c| sum_with::<S>(&x[row(c, j)], |v| (v - mean) * (v - mean))).sum::<f32>() / count;
            let rstd = 1.0 / (var + o.eps).sqrt();
            moments[(g * o.n + j) * 2] = mean;
            moments[(g * o.n + j) * 2 + 1] = rstd;
            for c in channels {
                let (m, s) = a.modulation(c, j, o);
                let k = rstd * a.weight[c] * m;
                let d = (a.bias[c] - mean * rstd * a.weight[c]) * m + s;
                let (src, dst) = (&x[row(c, j)], &mut y[row(c, j)]);
                if o.silu {
                    for (out, &v) in dst.iter_mut().zip(src) {
                        let z = v * k + d;
                        *out = z * sigmoid(z);
                    }
                } else {
                    for (out, &v) in dst.iter_mut().zip(src) {
                        *out = v * k + d;
                    }
                }
            }
        }
    }
}

dispatch! {
    /// The gradients from `dy`. `work` holds at least one group of one image: `channels / groups * area` floats.
    pub fn backward(o: &Norm, x: &[f32], moments: &[f32], a: Affine<'_>, dy: &[f32], grads: Gradients<'_>, work: &mut [f32]) = backward_body
}

#[inline(always)]
fn backward_body<S: Simd>(o: &Norm, x: &[f32], moments: &[f32], a: Affine<'_>, dy: &[f32], grads: Gradients<'_>, work: &mut [f32]) {
    let per = o.channels / o.groups;
    let row = |c: usize, j: usize| (c * o.n + j) * o.area..(c * o.n + j + 1) * o.area;
    let count = (per * o.area) as f32;
    let Gradients { mut dx, add, mut affine, mut scale_shift } = grads;
    for g in 0..o.groups {
        for j in 0..o.n {
            let (mean, rstd) = (moments[(g * o.n + j) * 2], moments[(g * o.n + j) * 2 + 1]);
            // Sums over the group of d xhat and d xhat * xhat.
            let (mut sum, mut dot) = (0f32, 0f32);
            for (i, c) in (g * per..(g + 1) * per).enumerate() {
                let (m, s) = a.modulation(c, j, o);
                let (w, b) = (a.weight[c], a.bias[c]);
                let dz = &mut work[i * o.area..(i + 1) * o.area];
                let (src, up) = (&x[row(c, j)], &dy[row(c, j)]);
                // dz is kept for the second pass; its sum and its product with xhat give every other gradient.
                if o.silu {
                    let (k, d) = (rstd * w * m, (b - mean * rstd * w) * m + s);
                    for ((out, &v), &u) in dz.iter_mut().zip(src).zip(up) {
                        let z = v * k + d;
                        let p = sigmoid(z);
                        *out = u * p * (1.0 + z * (1.0 - p));
                    }
                } else {
                    dz.copy_from_slice(up);
                }
                let total = sum_with::<S>(dz, |v| v);
                let with_x = dot_with::<S>(dz, src, mean) * rstd;
                if let Some((dw, db)) = affine.as_mut() {
                    dw[c] += with_x * m;
                    db[c] += total * m;
                }
                if let Some((d, add)) = scale_shift.as_mut() {
                    let (scale, shift) = (c * o.n + j, (o.channels + c) * o.n + j);
                    let (ds, dt) = (with_x * w + total * b, total);
                    d[scale] = if *add { d[scale] + ds } else { ds };
                    d[shift] = if *add { d[shift] + dt } else { dt };
                }
                sum += total * w * m;
                dot += with_x * w * m;
            }
            let Some(dx) = dx.as_mut() else { continue };
            let (sum, dot) = (sum / count, dot / count);
            for (i, c) in (g * per..(g + 1) * per).enumerate() {
                let (m, _) = a.modulation(c, j, o);
                // dx = rstd (dz w m - sum - xhat dot)
                let k = rstd * a.weight[c] * m;
                let q = rstd * rstd * dot;
                let d = rstd * sum - mean * q;
                let dz = &work[i * o.area..(i + 1) * o.area];
                let (src, dst) = (&x[row(c, j)], &mut dx[row(c, j)]);
                if add {
                    for ((out, &v), &u) in dst.iter_mut().zip(src).zip(dz) {
                        *out += u * k - v * q - d;
                    }
                } else {
                    for ((out, &v), &u) in dst.iter_mut().zip(src).zip(dz) {
                        *out = u * k - v * q - d;
                    }
                }
            }
        }
    }
}

/// `sum a (x - mean)`.
#[inline(always)]
fn dot_with<S: Simd>(a: &[f32], x: &[f32], mean: f32) -> f32 {
    let mut lanes = [0f32; 16];
    let whole = a.len() / 16 * 16;
    for (p, q) in a[..whole].chunks_exact(16).zip(x[..whole].chunks_exact(16)) {
        for i in 0..16 {
            lanes[i] += p[i] * (q[i] - mean);
        }
    }
    for i in whole..a.len() {
        lanes[i - whole] += a[i] * (x[i] - mean);
    }
    lanes.iter().sum()
}

dispatch! {
    /// `y = x sigmoid(x)`.
    pub fn silu(x: &[f32], y: &mut [f32]) = silu_body
}

#[inline(always)]
fn silu_body<S: Simd>(x: &[f32], y: &mut [f32]) {
    for (out, &v) in y.iter_mut().zip(x) {
        *out = v * sigmoid(v);
    }
}

dispatch! {
    /// `dx (+)= dy * silu'(x)`.
    pub fn silu_backward(x: &[f32], dy: &[f32], dx: &mut [f32], add: bool) = silu_backward_body
}

#[inline(always)]
fn silu_backward_body<S: Simd>(x: &[f32], dy: &[f32], dx: &mut [f32], add: bool) {
    for ((out, &v), &u) in dx.iter_mut().zip(x).zip(dy) {
        let p = sigmoid(v);
        let d = u * p * (1.0 + v * (1.0 - p));
        *out = if add { *out + d } else { d };
    }
}

dispatch! {
    /// `to[i] (+)= sum` of row `i` of `x`.
    pub fn row_sums(x: &[f32], row: usize, to: &mut [f32], add: bool) = row_sums_body
}

#[inline(always)]
fn row_sums_body<S: Simd>(x: &[f32], row: usize, to: &mut [f32], add: bool) {
    for (t, r) in to.iter_mut().zip(x.chunks_exact(row)) {
        let sum = sum_with::<S>(r, |v| v);
        *t = if add { *t + sum } else { sum };
    }
}
