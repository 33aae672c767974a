//! 3x3 convolution, stride 1 and 2, forward and both gradients, over the padded planes of [`super::tap`].
//!
//! Values of a chunk of `n` images are `[channels][n][height * width]`. A plane holds one channel of all images side by side,
//! sharing one zero column between neighbours, so that 7x7 maps waste an eighth and 28x28 maps a thirtieth of the work.
//! For stride 2 a plane is split into its four phases (even and odd rows and columns); a tap then reads one phase at
//! stride 1. 1x1 convolutions need no planes; they are matrix products (`pointwise`).

use super::tap::{self, SLACK};

/// Geometry of one 3x3 convolution on `n` images.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Images side by side.
    pub n: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output height.
    pub oh: usize,
    /// Output width.
    pub ow: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Zero rows and columns before the map.
    pub before: usize,
}

/// Buffers of one thread, grown once and reused.
#[derive(Default)]
pub struct Scratch {
    x: Vec<f32>,
    y: Vec<f32>,
    out: Vec<f32>,
    offsets: Vec<u32>,
}

/// The buffer at a length, its old content kept (every reader writes first what it reads, or does not care).
fn grow(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if v.len() < len {
        v.resize(len, 0.0);
    }
    &mut v[..len]
}

impl Geometry {
    /// Floats from one image to the next within a row of a plane.
    fn step(&self) -> usize {
        self.ow + 1
    }
    /// Floats from one row of a plane to the next.
    fn pitch(&self) -> usize {
        self.n * self.step()
    }
    /// Floats of one phase of the input's plane.
    fn phase_len(&self) -> usize {
        (self.oh + if self.stride == 1 { 2 } else { 1 }) * self.pitch() + 1
    }
    /// Floats of one channel of the input's planes.
    fn plane_len(&self) -> usize {
        self.phase_len() * self.stride * self.stride
    }
    /// Pixels of an output plane, the columns between images included.
    fn out_len(&self) -> usize {
        self.oh * self.pitch()
    }
    /// Floats of one channel of the padded output gradient: it ends in enough zeros for the widest vector's last read.
    fn dy_len(&self) -> usize {
        (self.oh + 2) * self.pitch() + 16
    }

    fn input_offsets(&self, offsets: &mut Vec<u32>) {
        offsets.clear();
        for ci in 0..self.c_in {
            for ky in 0..3 {
                for kx in 0..3 {
                    let (phase, shift) = if self.stride == 1 {
                        (0, ky * self.pitch() + kx)
                    } else {
                        ((ky % 2) * 2 + kx % 2, (ky / 2) * self.pitch() + kx / 2)
                    };
                    offsets.push((ci * self.plane_len() + phase * self.phase_len() + shift) as u32);
                }
            }
        }
    }

    /// Lays `x` out in planes.
    fn pad_input(&self, x: &[f32], planes: &mut [f32]) {
        if self.stride == 1 {
            return pad_plane(self.c_in, self.n, self.h, self.w, x, self.plane_len(), planes);
        }
        planes.fill(0.0);
        let (pitch, step) = (self.pitch(), self.step());
        for ci in 0..self.c_in {
            for j in 0..self.n {
                for y in 0..self.h {
                    let yp = y + self.before;
                    let row = &x[((ci * self.n + j) * self.h + y) * self.w..][..self.w];
                    if yp / 2 > self.oh {
                        continue;
                    }
                    for px in 0..2 {
                        let base = ci * self.plane_len() + ((yp % 2) * 2 + px) * self.phase_len() + (yp / 2) * pitch + j * step;
                        // Columns xp = x + before of this parity.
                        let first = (px + self.before) % 2;
                        for (i, &v) in row.iter().skip(first).step_by(2).enumerate() {
                            let c = (first + self.before) / 2 + i;
                            if c <= self.ow {
                                planes[base + c] = v;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Rows of all images with one zero before each, a row of zeros above, zeros below up to `len` floats a channel.
fn pad_plane(channels: usize, n: usize, h: usize, w: usize, x: &[f32], len: usize, planes: &mut [f32]) {
    let pitch = n * (w + 1);
    for c in 0..channels {
        let plane = &mut planes[c * len..][..len];
        plane[..pitch].fill(0.0);
        plane[(h + 1) * pitch..].fill(0.0);
        for y in 0..h {
            let row = &mut plane[(y + 1) * pitch..][..pitch];
            for (j, out) in row.chunks_exact_mut(w + 1).enumerate() {
                out[0] = 0.0;
                out[1..].copy_from_slice(&x[((c * n + j) * h + y) * w..][..w]);
            }
        }
    }
    planes[channels * len..].fill(0.0);
}

/// Floats of the packed forward weights.
pub fn packed_forward_len(c_out: usize, c_in: usize) -> usize {
    tap::packed_len(c_out, 9 * c_in)
}

/// Packs `[c_out, c_in, 3, 3]` for [`forward`].
pub fn pack_forward(c_out: usize, c_in: usize, w: &[f32], out: &mut [f32]) {
    tap::pack(c_out, 9 * c_in, out, |m, k| w[m * 9 * c_in + k]);
}

/// Taps of one axis that reach phase `p` of the input at stride 2.
fn phase_taps(p: usize) -> &'static [usize] {
    if p == 0 { &[0, 2] } else { &[1] }
}

/// Floats of the packed weights for [`input_gradient`].
pub fn packed_backward_len(c_out: usize, c_in: usize) -> usize {
    tap::packed_len(c_in, 9 * c_out)
}

/// Packs `[c_out, c_in, 3, 3]` for [`input_gradient`]: transposed, and flipped (stride 1) or sorted by phase (stride 2).
pub fn pack_backward(stride: usize, c_out: usize, c_in: usize, w: &[f32], out: &mut [f32]) {
    let at = |co: usize, ci: usize, ky: usize, kx: usize| w[(co * c_in + ci) * 9 + ky * 3 + kx];
    if stride == 1 {
        return tap::pack(c_in, 9 * c_out, out, |m, k| at(k / 9, m, 2 - k % 9 / 3, 2 - k % 3));
    }
    let mut begin = 0;
    for py in 0..2 {
        for px in 0..2 {
            let (ys, xs) = (phase_taps(py), phase_taps(px));
            let taps = ys.len() * xs.len();
            let len = tap::packed_len(c_in, taps * c_out);
            tap::pack(c_in, taps * c_out, &mut out[begin..begin + len], |m, k| {
                let t = k % taps;
                at(k / taps, m, ys[t / xs.len()], xs[t % xs.len()])
            });
            begin += len;
        }
    }
}

/// `y = conv(x) + bias[c] + channel_bias[c][image] + residual`.
///
/// `x [c_in][n][h w]`, `packed` from [`pack_forward`], `channel_bias [c_out][n]`, `residual` and `y [c_out][n][oh ow]`.
pub fn forward(
    g: &Geometry,
    x: &[f32],
    packed: &[f32],
    bias: &[f32],
    channel_bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    y: &mut [f32],
    s: &mut Scratch,
) {
    let planes = grow(&mut s.x, g.c_in * g.plane_len() + SLACK);
    g.pad_input(x, planes);
    g.input_offsets(&mut s.offsets);
    let ld = g.out_len() + SLACK;
    let out = grow(&mut s.out, g.c_out.next_multiple_of(tap::MR) * ld);
    tap::product(g.c_out, packed, &s.offsets, planes, g.out_len(), out, ld);
    let area = g.oh * g.ow;
    for c in 0..g.c_out {
        for j in 0..g.n {
            let add = bias[c] + channel_bias.map_or(0.0, |b| b[c * g.n + j]);
            let at = (c * g.n + j) * area;
            for oy in 0..g.oh {
                let src = &out[c * ld + oy * g.pitch() + j * g.step()..][..g.ow];
                let dst = &mut y[at + oy * g.ow..][..g.ow];
                match residual {
                    None => dst.iter_mut().zip(src).for_each(|(d, s)| *d = s + add),
                    Some(r) => {
                        let r = &r[at + oy * g.ow..][..g.ow];
                        dst.iter_mut().zip(src).zip(r).for_each(|((d, s), r)| *d = s + add + r);
                    }
                }
            }
        }
    }
}

/// Gradients of a convolution's input and weight from `dy [c_out][n][oh ow]`. Either may be left out.
///
/// `dx`: the gradient's buffer, the weights from [`pack_backward`], and whether to add to what the buffer holds.
/// `dw`: the input and the weight gradient `[c_out, c_in, 3, 3]`, which is added to.
pub fn backward(g: &Geometry, dy: &[f32], dx: Option<(&mut [f32], &[f32], bool)>, dw: Option<(&[f32], &mut [f32])>, s: &mut Scratch) {
    let dy_len = g.dy_len();
    let planes = grow(&mut s.y, g.c_out * dy_len + SLACK);
    pad_plane(g.c_out, g.n, g.oh, g.ow, dy, dy_len, planes);
    if let Some((x, dw)) = dw {
        let input = grow(&mut s.x, g.c_in * g.plane_len() + SLACK);
        g.pad_input(x, input);
        g.input_offsets(&mut s.offsets);
        // The padded gradient from its first pixel on: rows of `pitch`, zero between the images.
        tap::correlate(g.c_out, &planes[g.pitch() + 1..], dy_len, &s.offsets, input, g.out_len(), dw);
    }
    if let Some((dx, packed, add)) = dx {
        input_gradient(g, planes, dx, packed, add, &mut s.out, &mut s.offsets);
    }
}

fn input_gradient(g: &Geometry, planes: &[f32], dx: &mut [f32], packed: &[f32], add: bool, out: &mut Vec<f32>, offsets: &mut Vec<u32>) {
    let (pitch, step, dy_len) = (g.pitch(), g.step(), g.dy_len());
    if g.stride == 1 {
        offsets.clear();
        for co in 0..g.c_out {
            for t in 0..9 {
                offsets.push((co * dy_len + (t / 3) * pitch + t % 3) as u32);
            }
        }
        let len = g.h * pitch;
        let ld = len + SLACK;
        let out = grow(out, g.c_in.next_multiple_of(tap::MR) * ld);
        tap::product(g.c_in, packed, offsets, planes, len, out, ld);
        for c in 0..g.c_in {
            for j in 0..g.n {
                for y in 0..g.h {
                    let src = &out[c * ld + y * pitch + j * step..][..g.w];
                    let dst = &mut dx[((c * g.n + j) * g.h + y) * g.w..][..g.w];
                    if add {
                        dst.iter_mut().zip(src).for_each(|(d, s)| *d += s);
                    } else {
                        dst.copy_from_slice(src);
                    }
                }
            }
        }
        return;
    }
    if !add {
        // Rows and columns that no output reaches get no gradient.
        dx.fill(0.0);
    }
    let mut begin = 0;
    for py in 0..2 {
        for px in 0..2 {
            let (ys, xs) = (phase_taps(py), phase_taps(px));
            offsets.clear();
            for co in 0..g.c_out {
                for ky in ys {
                    for kx in xs {
                        offsets.push((co * dy_len + (1 - ky / 2) * pitch + 1 - kx / 2) as u32);
                    }
                }
            }
            let size = tap::packed_len(g.c_in, offsets.len());
            let len = (g.oh + 1) * pitch;
            let ld = len + SLACK;
            let out = grow(out, g.c_in.next_multiple_of(tap::MR) * ld);
            tap::product(g.c_in, &packed[begin..begin + size], offsets, planes, len, out, ld);
            begin += size;
            for c in 0..g.c_in {
                for j in 0..g.n {
                    for y in (0..g.h).filter(|y| (y + g.before) % 2 == py) {
                        let r = (y + g.before) / 2;
                        let src = &out[c * ld + r * pitch + j * step..];
                        let dst = &mut dx[((c * g.n + j) * g.h + y) * g.w..][..g.w];
                        for x in (0..g.w).filter(|x| (x + g.before) % 2 == px) {
                            dst[x] += src[(x + g.before) / 2];
                        }
                    }
                }
            }
        }
    }
}
