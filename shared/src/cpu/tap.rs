//! The two inner kernels of every convolution: products over taps, read straight from a padded plane.
//!
//! A convolution is `out[m, p] = sum_k w[k, m] * x[offset[k] + p]`: `k` runs over input channel and tap, `p` over the pixels of
//! a padded plane in which every tap is one constant offset away. Nothing is unfolded or packed but the weights: a block of
//! pixels is loaded once for eight output channels, and neighbouring taps find their pixels in the first-level cache.
//! Stride 2 is the same over the plane's four phases (see `conv`).

use super::simd::{Simd, dispatch};

/// Output channels computed together.
pub const MR: usize = 8;
/// Floats that kernels may read or write past the end of a plane.
pub const SLACK: usize = 64;

/// Number of floats that [`pack`] needs for `m` output channels and `k` taps.
pub fn packed_len(m: usize, k: usize) -> usize {
    m.div_ceil(MR) * MR * k
}

/// Packs weights as `[m / MR][k][MR]`, zero-filled past `m`. `weight(m, k)` gives one of them.
pub fn pack(m: usize, k: usize, out: &mut [f32], weight: impl Fn(usize, usize) -> f32) {
    for block in 0..m.div_ceil(MR) {
        for kk in 0..k {
            for i in 0..MR {
                let row = block * MR + i;
                out[(block * k + kk) * MR + i] = if row < m { weight(row, kk) } else { 0.0 };
            }
        }
    }
}

dispatch! {
    /// `out[m * ld + p] = sum_k w[k, m] * x[offsets[k] + p]` for `p < len`.
    ///
    /// `w` is [`pack`]ed; `out` has `m` rounded up to [`MR`] rows of `ld >= len + SLACK` floats; `x` holds
    /// `offsets[k] + len + SLACK` floats for every `k`.
    pub fn product(m: usize, w: &[f32], offsets: &[u32], x: &[f32], len: usize, out: &mut [f32], ld: usize) = product_body
}

#[inline(always)]
fn product_body<S: Simd>(m: usize, w: &[f32], offsets: &[u32], x: &[f32], len: usize, out: &mut [f32], ld: usize) {
    // Accumulators and operands of a tile fill the register file: 8 x 2 vectors of 32 registers, 8 x 1 of 16.
    if S::MANY_REGISTERS {
        product_tiles::<S, 2>(m, w, offsets, x, len, out, ld)
    } else {
        product_tiles::<S, 1>(m, w, offsets, x, len, out, ld)
    }
}

#[inline(always)]
fn product_tiles<S: Simd, const COLS: usize>(m: usize, w: &[f32], offsets: &[u32], x: &[f32], len: usize, out: &mut [f32], ld: usize) {
    let k = offsets.len();
    let blocks = m.div_ceil(MR);
    let step = COLS * S::LANES;
    let reach = len.next_multiple_of(step);
    assert!(w.len() >= packed_len(m, k) && reach <= ld && out.len() >= blocks * MR * ld);
    assert!(offsets.iter().all(|&o| o as usize + reach <= x.len()));
    let (xp, wp, op) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    for block in 0..blocks {
        // SAFETY: offsets, weights and output rows were checked above against the furthest pixel read or written.
        unsafe {
            let wp = wp.add(block * k * MR);
            let op = op.add(block * MR * ld);
            let mut p = 0;
            while p < len {
                let mut acc = [[S::splat(0.0); COLS]; MR];
                for kk in 0..k {
                    let src = xp.add(*offsets.get_unchecked(kk) as usize + p);
                    let mut v = [S::splat(0.0); COLS];
                    for c in 0..COLS {
                        v[c] = S::load(src.add(c * S::LANES));
                    }
                    let row = wp.add(kk * MR);
                    for i in 0..MR {
                        let s = S::splat(*row.add(i));
                        for c in 0..COLS {
                            acc[i][c] = S::fma(s, v[c], acc[i][c]);
                        }
                    }
                }
                for i in 0..MR {
                    for c in 0..COLS {
                        S::store(op.add(i * ld + p + c * S::LANES), acc[i][c]);
                    }
                }
                p += step;
            }
        }
    }
}

/// Pixels of one pass: the rows of a block then stay in the first-level cache.
const SEGMENT: usize = 1536;

dispatch! {
    /// `dw[m * k + kk] += sum_p dy[m * ld + p] * x[offsets[kk] + p]` for `p < len`: the weight gradient.
    ///
    /// `dy` rows lie `ld` apart and are zero in `len..len rounded up to 16`; `x` as in [`product`] (finite where `dy` is zero).
    pub fn correlate(m: usize, dy: &[f32], ld: usize, offsets: &[u32], x: &[f32], len: usize, dw: &mut [f32]) = correlate_body
}

#[inline(always)]
fn correlate_body<S: Simd>(m: usize, dy: &[f32], ld: usize, offsets: &[u32], x: &[f32], len: usize, dw: &mut [f32]) {
    // Rows of dy by taps, again to fill the registers.
    if S::MANY_REGISTERS {
        correlate_tiles::<S, 4, 6>(m, dy, ld, offsets, x, len, dw)
    } else {
        correlate_tiles::<S, 3, 3>(m, dy, ld, offsets, x, len, dw)
    }
}

#[inline(always)]
fn correlate_tiles<S: Simd, const CM: usize, const CK: usize>(
    m: usize,
    dy: &[f32],
    ld: usize,
    offsets: &[u32],
    x: &[f32],
    len: usize,
    dw: &mut [f32],
) {
    let k = offsets.len();
    let reach = len.next_multiple_of(S::LANES);
    assert!(dy.len() >= (m - 1) * ld + reach && dw.len() >= m * k);
    assert!(offsets.iter().all(|&o| o as usize + reach <= x.len()));
    let (xp, yp) = (x.as_ptr(), dy.as_ptr());
    for start in (0..len).step_by(SEGMENT) {
        let end = (start + SEGMENT).min(reach);
        for m0 in (0..m).step_by(CM) {
            // Past the last row or tap the last one is computed again and dropped.
            let row = |i: usize| (m0 + i).min(m - 1);
            for k0 in (0..k).step_by(CK) {
                let tap = |j: usize| offsets[(k0 + j).min(k - 1)] as usize;
                // SAFETY: `reach` was checked above for every row and tap.
                unsafe {
                    let ys: [*const f32; CM] = std::array::from_fn(|i| yp.add(row(i) * ld));
                    let xs: [*const f32; CK] = std::array::from_fn(|j| xp.add(tap(j)));
                    let mut acc = [[S::splat(0.0); CK]; CM];
                    let mut p = start;
                    while p < end {
                        let mut v = [S::splat(0.0); CK];
                        for j in 0..CK {
                            v[j] = S::load(xs[j].add(p));
                        }
                        for i in 0..CM {
                            let y = S::load(ys[i].add(p));
                            for j in 0..CK {
                                acc[i][j] = S::fma(y, v[j], acc[i][j]);
                            }
                        }
                        p += S::LANES;
                    }
                    for i in 0..CM.min(m - m0) {
                        for j in 0..CK.min(k - k0) {
                            dw[(m0 + i) * k + k0 + j] += S::sum(acc[i][j]);
                        }
                    }
                }
            }
        }
    }
}
