//! The weight gradient of a convolution in f32: a sum of outer products over the output's pixels.
//!
//! `sums[k, m] = sum_p x[offset[k] + at(p)] * dy[m, p]`: `k` runs over input channel and tap, `m` over output channels, `p` over
//! the pixels. Vectors hold output channels, so `dy` is turned to have them together; a pixel of `x` is one broadcast, which
//! needs no alignment, and nothing is ever summed across a vector. A tile of taps and channels stays in registers over a
//! segment of pixels.

use super::simd::{Simd, dispatch};

/// Floats of a row of `sums` for `m` output channels.
pub fn row_len(m: usize) -> usize {
    m.next_multiple_of(16)
}

/// Floats of the turned `dy` for `m` output channels of `pixels` pixels.
pub fn turned_len(m: usize, pixels: usize) -> usize {
    // A block is two vectors of at most 16.
    m.next_multiple_of(32) * pixels
}

/// Where the output's pixels lie: rows of `width`, the next row of an image `pitch` further on in `x`'s planes, the next image
/// `step` further.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    /// Images.
    pub images: usize,
    /// Rows of an image.
    pub rows: usize,
    /// Pixels of a row.
    pub width: usize,
    /// From row to row.
    pub pitch: usize,
    /// From image to image.
    pub step: usize,
}

impl Pixels {
    fn count(&self) -> usize {
        self.images * self.rows * self.width
    }
    /// Where row `r` of all images' rows lies.
    fn at(&self, r: usize) -> usize {
        r / self.rows * self.step + r % self.rows * self.pitch
    }
    /// Furthest pixel.
    fn reach(&self) -> usize {
        (self.images - 1) * self.step + (self.rows - 1) * self.pitch + self.width
    }
}

/// Pixels of a segment: its turned `dy` takes half of the first-level cache.
const SEGMENT: usize = 192;

dispatch! {
    /// Writes `sums`, rows of [`row_len`]`(m)`, from `dy [m][pixels]`. `turned` has [`turned_len`] floats.
    pub fn correlate(m: usize, dy: &[f32], pixels: Pixels, offsets: &[u32], x: &[f32], turned: &mut [f32], sums: &mut [f32]) = body
}

#[inline(always)]
fn body<S: Simd>(m: usize, dy: &[f32], pixels: Pixels, offsets: &[u32], x: &[f32], turned: &mut [f32], sums: &mut [f32]) {
    // Taps by vectors of channels: the tile, the vectors of `dy` and one broadcast fill the register file.
    if S::MANY_REGISTERS {
        blocks::<S, 9>(m, dy, pixels, offsets, x, turned, sums)
    } else {
        blocks::<S, 6>(m, dy, pixels, offsets, x, turned, sums)
    }
}

#[inline(always)]
fn blocks<S: Simd, const T: usize>(m: usize, dy: &[f32], pixels: Pixels, offsets: &[u32], x: &[f32], turned: &mut [f32], sums: &mut [f32]) {
    let (k, count, ld) = (offsets.len(), pixels.count(), row_len(m));
    assert!(dy.len() >= m * count && turned.len() >= turned_len(m, count) && sums.len() >= k * ld);
    assert!(k > 0 && offsets.iter().all(|&o| o as usize + pixels.reach() <= x.len()));
    let mut first = 0;
    while first < m {
        let of_block = &dy[first * count..];
        if first + S::LANES < m {
            block::<S, T, 2>(m - first, of_block, pixels, offsets, x, turned, &mut sums[first..], ld);
            first += 2 * S::LANES;
        } else {
            block::<S, T, 1>(m - first, of_block, pixels, offsets, x, turned, &mut sums[first..], ld);
            first += S::LANES;
        }
    }
}

/// `to[p][c] = dy[c][p]`, zeros past the last channel.
#[inline(always)]
fn turn<const W: usize>(channels: usize, dy: &[f32], count: usize, to: &mut [f32]) {
    const SIDE: usize = 16;
    for p in (0..count).step_by(SIDE) {
        let side = SIDE.min(count - p);
        for c in 0..W {
            if c < channels {
                let from = &dy[c * count + p..][..side];
                for (i, &v) in from.iter().enumerate() {
                    to[(p + i) * W + c] = v;
                }
            } else {
                (0..side).for_each(|i| to[(p + i) * W + c] = 0.0);
            }
        }
    }
}

#[inline(always)]
fn block<S: Simd, const T: usize, const V: usize>(
    channels: usize,
    dy: &[f32],
    pixels: Pixels,
    offsets: &[u32],
    x: &[f32],
    turned: &mut [f32],
    sums: &mut [f32],
    ld: usize,
) {
    let (k, width, lanes) = (offsets.len(), pixels.width, V * S::LANES);
    match lanes {
        32 => turn::<32>(channels, dy, pixels.count(), turned),
        16 => turn::<16>(channels, dy, pixels.count(), turned),
        8 => turn::<8>(channels, dy, pixels.count(), turned),
        _ => turn::<4>(channels, dy, pixels.count(), turned),
    }
    let rows = pixels.images * pixels.rows;
    let part = (SEGMENT / width).max(1);
    for begin in (0..rows).step_by(part) {
        let end = (begin + part).min(rows);
        for k0 in (0..k).step_by(T) {
            // Past the last tap it is computed again and dropped.
            let taps: [usize; T] = std::array::from_fn(|t| offsets[(k0 + t).min(k - 1)] as usize);
            // SAFETY: `blocks` checked the furthest pixel of every tap; `turned` has `lanes` floats for every pixel; a row of
            // `sums` is a multiple of 16 long, so a vector begun inside ends inside.
            unsafe {
                let mut acc = [[S::splat(0.0); V]; T];
                for r in begin..end {
                    let at = pixels.at(r);
                    let xs: [*const f32; T] = std::array::from_fn(|t| x.as_ptr().add(taps[t] + at));
                    let mut ys = turned.as_ptr().add(r * width * lanes);
                    for p in 0..width {
                        let y: [S::V; V] = std::array::from_fn(|v| S::load(ys.add(v * S::LANES)));
                        for t in 0..T {
                            let s = S::splat(*xs[t].add(p));
                            for v in 0..V {
                                acc[t][v] = S::fma(s, y[v], acc[t][v]);
                            }
                        }
                        ys = ys.add(lanes);
                    }
                }
                for t in 0..T.min(k - k0) {
                    for v in 0..V {
                        let to = sums.as_mut_ptr().add((k0 + t) * ld + v * S::LANES);
                        let sum = if begin == 0 { acc[t][v] } else { S::add(S::load(to), acc[t][v]) };
                        S::store(to, sum);
                    }
                }
            }
        }
    }
}
