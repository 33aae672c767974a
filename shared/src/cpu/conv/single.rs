//! Convolution in f32: products over taps, read where they lie ([`super::super::tap`]).

use super::{Epilogue, Geometry, Scratch, grow};
use crate::cpu::correlate::{Pixels, correlate, row_len, turned_len};
use crate::cpu::tap::{self, SLACK};

/// Floats of the packed forward weights.
pub fn packed_forward_len(g: &Geometry) -> usize {
    tap::packed_len(g.c_out, g.taps() * g.c_in)
}

/// Packs `[c_out, c_in, kernel, kernel]` for [`forward`].
pub fn pack_forward(g: &Geometry, w: &[f32], out: &mut [f32]) {
    let k = g.taps() * g.c_in;
    tap::pack(g.c_out, k, out, |m, i| w[m * k + i]);
}

/// Floats of the packed weights for [`backward`].
pub fn packed_backward_len(g: &Geometry) -> usize {
    tap::packed_len(g.c_in, g.taps() * g.c_out)
}

/// Packs `[c_out, c_in, kernel, kernel]` for [`backward`]: transposed, and flipped (stride 1) or sorted by phase (stride 2).
pub fn pack_backward(g: &Geometry, w: &[f32], out: &mut [f32]) {
    let mut rest = out;
    for phase in 0..g.phases() {
        let taps = g.gradient_taps(phase);
        let k = taps.len() * g.c_out;
        let (part, tail) = rest.split_at_mut(tap::packed_len(g.c_in, k));
        tap::pack(g.c_in, k, part, |m, i| w[(i / taps.len() * g.c_in + m) * g.taps() + taps[i % taps.len()].0]);
        rest = tail;
    }
}

fn pad_input(g: &Geometry, x: &[f32], s: &mut Vec<f32>, offsets: &mut Vec<u32>) {
    let (area, len) = (g.n * g.h * g.w, g.plane_len());
    let planes = grow(s, g.c_in * len + SLACK);
    for (plane, x) in planes.chunks_exact_mut(len).zip(x.chunks_exact(area)) {
        g.pad(x, plane);
    }
    planes[g.c_in * len..].fill(0.0);
    offsets.clear();
    for ci in 0..g.c_in {
        offsets.extend((0..g.taps()).map(|t| g.tap(t)).map(|(phase, shift)| (ci * len + phase * g.phase_len() + shift) as u32));
    }
}

/// `y = conv(x)` and the epilogue.
///
/// `x [c_in][n][h w]`, `packed` from [`pack_forward`], `y [c_out][n][oh ow]`.
pub fn forward(g: &Geometry, x: &[f32], packed: &[f32], e: Epilogue<'_>, y: &mut [f32], s: &mut Scratch) {
    pad_input(g, x, &mut s.x, &mut s.offsets);
    let ld = g.out_len() + SLACK;
    let out = grow(&mut s.out, g.c_out.next_multiple_of(tap::MR) * ld);
    tap::product(g.c_out, packed, &s.offsets, &s.x, g.out_len(), out, ld);
    g.finish(out, ld, e, y);
}

/// Gradients of a convolution's input and weight from `dy [c_out][n][oh ow]`. Either may be left out.
///
/// `dx`: the gradient's buffer, the weights from [`pack_backward`], and whether to add to what the buffer holds.
/// `dw`: the input and the weight gradient `[c_out, c_in, kernel, kernel]`, which is added to.
pub fn backward(g: &Geometry, dy: &[f32], dx: Option<(&mut [f32], &[f32], bool)>, dw: Option<(&[f32], &mut [f32])>, s: &mut Scratch) {
    if let Some((x, dw)) = dw {
        weight_gradient(g, dy, x, dw, s);
    }
    let Some((dx, packed, add)) = dx else { return };
    let dy_len = g.dy_len();
    let planes = grow(&mut s.y, g.c_out * dy_len + SLACK);
    for (plane, dy) in planes.chunks_exact_mut(dy_len).zip(dy.chunks_exact(g.n * g.oh * g.ow)) {
        g.pad_gradient(dy, plane);
    }
    planes[g.c_out * dy_len..].fill(0.0);
    if g.stride == 2 && !add {
        // Rows and columns that no output reaches get no gradient.
        dx.fill(0.0);
    }
    let mut rest = packed;
    for phase in 0..g.phases() {
        let taps = g.gradient_taps(phase);
        s.offsets.clear();
        for co in 0..g.c_out {
            s.offsets.extend(taps.iter().map(|&(_, shift)| (co * dy_len + shift) as u32));
        }
        let (part, tail) = rest.split_at(tap::packed_len(g.c_in, s.offsets.len()));
        rest = tail;
        let len = g.gradient_len();
        let ld = len + SLACK;
        let out = grow(&mut s.out, g.c_in.next_multiple_of(tap::MR) * ld);
        tap::product(g.c_in, part, &s.offsets, planes, len, out, ld);
        for (c, dx) in dx.chunks_exact_mut(g.n * g.h * g.w).enumerate() {
            g.crop_gradient(phase, &out[c * ld..], dx, add);
        }
    }
}

fn weight_gradient(g: &Geometry, dy: &[f32], x: &[f32], dw: &mut [f32], s: &mut Scratch) {
    pad_input(g, x, &mut s.x, &mut s.offsets);
    let pixels = Pixels { images: g.n, rows: g.oh, width: g.ow, pitch: g.pitch(), step: g.step() };
    let (k, ld) = (s.offsets.len(), row_len(g.c_out));
    let turned = turned_len(g.c_out, g.n * g.oh * g.ow);
    let (turned, sums) = grow(&mut s.out, turned + k * ld).split_at_mut(turned);
    correlate(g.c_out, dy, pixels, &s.offsets, &s.x, turned, sums);
    // Turned a line of channels at a time: rows of `sums` are read once, and the rows of `dw` in turn stay in the cache.
    for (block, dw) in dw.chunks_mut(16 * k).enumerate() {
        for (kk, sums) in sums.chunks_exact(ld).enumerate() {
            let sums = &sums[block * 16..];
            dw.iter_mut().skip(kk).step_by(k).zip(sums).for_each(|(d, s)| *d += s);
        }
    }
}
