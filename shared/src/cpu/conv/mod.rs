//! Convolution, 3x3 at stride 1 and 2 and 1x1, forward and both gradients, over padded planes.
//!
//! Values of a chunk of `n` images are `[channels][n][height * width]`. A plane holds one channel of all images side by side,
//! sharing one zero column between neighbours, so that 7x7 maps waste an eighth and 28x28 maps a thirtieth of the work. Every
//! tap is one constant offset away in it. For stride 2 a plane is split into its four phases (even and odd rows and columns);
//! a tap then reads one phase at stride 1. The arithmetic is [`single`] (f32) or [`half`] (products of bf16, sums in f32).

pub mod half;
mod rows;
pub mod single;
pub mod winograd;

use rows::Onto;

/// Geometry of one convolution on `n` images.
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
    /// 3 or 1.
    pub kernel: usize,
    /// 1 or 2; a 1x1 kernel has 1.
    pub stride: usize,
    /// Zero rows and columns before the map.
    pub before: usize,
}

/// What a convolution's result gets added to it.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// `[c_out]`.
    pub bias: &'a [f32],
    /// `[c_out][n]`.
    pub channel_bias: Option<&'a [f32]>,
    /// `[c_out][n][oh ow]`.
    pub residual: Option<&'a [f32]>,
}

/// Buffers of one thread, grown once and reused.
#[derive(Default)]
pub struct Scratch {
    x: Vec<f32>,
    y: Vec<f32>,
    out: Vec<f32>,
    offsets: Vec<u32>,
    words: Vec<u32>,
    tiles: Vec<u32>,
    narrow: Vec<u16>,
}

/// The buffer at a length, its old content kept (every reader writes first what it reads, or does not care).
fn grow<T: Copy + Default>(v: &mut Vec<T>, len: usize) -> &mut [T] {
    if v.len() < len {
        v.resize(len, T::default());
    }
    &mut v[..len]
}

/// As [`grow`], from the first element on a 64-byte line: tiles and wide vectors then never straddle two.
fn grow_aligned<T: Copy + Default>(v: &mut Vec<T>, len: usize) -> &mut [T] {
    let line = 64 / size_of::<T>();
    let all = grow(v, len + line);
    let begin = all.as_ptr().align_offset(64).min(line);
    &mut all[begin..begin + len]
}

impl Geometry {
    /// A 1x1 convolution: each image is one row, and nothing is padded.
    pub fn pointwise(n: usize, c_in: usize, c_out: usize, area: usize) -> Geometry {
        Geometry { n, c_in, c_out, h: 1, w: area, oh: 1, ow: area, kernel: 1, stride: 1, before: 0 }
    }
    /// Zero columns between images, and zero rows above and below them.
    fn border(&self) -> usize {
        self.kernel / 2
    }
    /// Floats from one image to the next within a row of a plane.
    fn step(&self) -> usize {
        self.ow + self.border()
    }
    /// Floats from one row of a plane to the next.
    fn pitch(&self) -> usize {
        self.n * self.step()
    }
    /// Floats of one phase of the input's plane.
    fn phase_len(&self) -> usize {
        (self.oh + self.border() * (3 - self.stride)) * self.pitch() + self.border()
    }
    /// Phases of the input's plane.
    fn phases(&self) -> usize {
        self.stride * self.stride
    }
    /// Floats of one channel of the input's planes.
    fn plane_len(&self) -> usize {
        self.phase_len() * self.phases()
    }
    /// Pixels of an output plane, the columns between images included.
    fn out_len(&self) -> usize {
        self.oh * self.pitch()
    }
    /// Floats of one channel of the padded output gradient.
    fn dy_len(&self) -> usize {
        (self.oh + 2 * self.border()) * self.pitch() + self.border()
    }
    /// Where the first output pixel lies in its padded plane.
    fn dy_origin(&self) -> usize {
        self.border() * (self.pitch() + 1)
    }
    /// Taps of the kernel.
    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }
    /// Phase of a tap, and its shift within the phase.
    fn tap(&self, t: usize) -> (usize, usize) {
        let (ky, kx) = (t / self.kernel, t % self.kernel);
        if self.stride == 1 { (0, ky * self.pitch() + kx) } else { ((ky % 2) * 2 + kx % 2, (ky / 2) * self.pitch() + kx / 2) }
    }
    /// The kernel's taps whose gradient reaches phase `phase` of the input, each with its shift in the padded output gradient.
    /// In the order in which the backward weights are packed.
    fn gradient_taps(&self, phase: usize) -> Vec<(usize, usize)> {
        if self.stride == 1 {
            return (0..self.taps()).map(|t| (self.taps() - 1 - t, (t / self.kernel) * self.pitch() + t % self.kernel)).collect();
        }
        let reach = |odd: usize| if odd == 0 { &[0, 2][..] } else { &[1] };
        let columns = |ky: usize| reach(phase % 2).iter().map(move |kx| (ky * 3 + kx, (1 - ky / 2) * self.pitch() + 1 - kx / 2));
        reach(phase / 2).iter().flat_map(|&ky| columns(ky)).collect()
    }
    /// Pixels of one phase's input gradient, as the product computes them.
    fn gradient_len(&self) -> usize {
        if self.stride == 1 { self.h * self.pitch() } else { (self.oh + 1) * self.pitch() }
    }

    /// Lays one channel `[n][h w]` out in its plane.
    fn pad(&self, x: &[f32], plane: &mut [f32]) {
        if self.kernel == 1 {
            return plane.copy_from_slice(x);
        }
        if self.stride == 1 {
            return rows::pad(self.n, self.h, self.w, x, plane);
        }
        plane.fill(0.0);
        let (pitch, step) = (self.pitch(), self.step());
        for j in 0..self.n {
            for y in (0..self.h).filter(|y| (y + self.before) / 2 <= self.oh) {
                let yp = y + self.before;
                let row = &x[(j * self.h + y) * self.w..][..self.w];
                for px in 0..2 {
                    let base = ((yp % 2) * 2 + px) * self.phase_len() + (yp / 2) * pitch + j * step;
                    // Columns xp = x + before of this parity.
                    let first = (px + self.before) % 2;
                    for (i, &v) in row.iter().skip(first).step_by(2).enumerate() {
                        let c = (first + self.before) / 2 + i;
                        if c <= self.ow {
                            plane[base + c] = v;
                        }
                    }
                }
            }
        }
    }

    /// Lays one channel `[n][oh ow]` of the output's gradient out in its plane.
    fn pad_gradient(&self, dy: &[f32], plane: &mut [f32]) {
        if self.kernel == 1 { plane.copy_from_slice(dy) } else { rows::pad(self.n, self.oh, self.ow, dy, plane) }
    }

    /// Takes one phase of one input channel's gradient `[n][h w]` from a plane; it is added where there is something already.
    fn crop_gradient(&self, phase: usize, plane: &[f32], dx: &mut [f32], add: bool) {
        let (pitch, step) = (self.pitch(), self.step());
        if self.stride == 1 {
            let onto = if add { Onto::Itself } else { Onto::Nothing };
            return rows::crop(self.n, self.h, self.w, pitch, step, plane, &[0.0], onto, dx);
        }
        for j in 0..self.n {
            for y in (0..self.h).filter(|y| (y + self.before) % 2 == phase / 2) {
                let src = &plane[(y + self.before) / 2 * pitch + j * step..];
                let dst = &mut dx[(j * self.h + y) * self.w..][..self.w];
                for x in (0..self.w).filter(|x| (x + self.before) % 2 == phase % 2) {
                    dst[x] += src[(x + self.before) / 2];
                }
            }
        }
    }

    /// `y = out + bias[c] + channel_bias[c][image] + residual`, from planes `ld` apart.
    fn finish(&self, out: &[f32], ld: usize, e: Epilogue<'_>, y: &mut [f32]) {
        let area = self.n * self.oh * self.ow;
        let mut sums = vec![0.0; self.n];
        for (c, y) in y.chunks_exact_mut(area).enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = e.bias[c] + e.channel_bias.map_or(0.0, |b| b[c * self.n + j]);
            }
            let onto = e.residual.map_or(Onto::Nothing, |r| Onto::Map(&r[c * area..]));
            rows::crop(self.n, self.oh, self.ow, self.pitch(), self.step(), &out[c * ld..], &sums, onto, y);
        }
    }
}

#[cfg(test)]
mod tests;
