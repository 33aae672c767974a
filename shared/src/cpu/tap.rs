//! The inner kernel of every convolution in f32: products over taps, read straight from a padded plane.
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
    let k = offsets.len();
    let blocks = m.div_ceil(MR);
    let reach = len.next_multiple_of(S::LANES);
    assert!(w.len() >= packed_len(m, k) && reach <= ld && out.len() >= blocks * MR * ld);
    assert!(offsets.iter().all(|&o| o as usize + reach <= x.len()));
    let [rows, most] = S::TILE;
    for block in 0..blocks {
        let (w, out) = (&w[block * k * MR..], &mut out[block * MR * ld..]);
        let mut p = 0;
        while p < reach {
            let columns = most.min((reach - p) / S::LANES);
            // SAFETY: offsets, weights and output rows were checked above against the furthest pixel read or written.
            unsafe {
                for row in (0..MR).step_by(rows) {
                    match (rows, columns) {
                        (4, 2) => tile::<S, 4, 2>(&w[row..], offsets, x, p, &mut out[row * ld..], ld),
                        (4, _) => tile::<S, 4, 1>(&w[row..], offsets, x, p, &mut out[row * ld..], ld),
                        (_, 3) => tile::<S, MR, 3>(w, offsets, x, p, out, ld),
                        (_, 2) => tile::<S, MR, 2>(w, offsets, x, p, out, ld),
                        _ => tile::<S, MR, 1>(w, offsets, x, p, out, ld),
                    }
                }
            }
            p += columns * S::LANES;
        }
    }
}

/// `ROWS` channels by `COLUMNS` vectors of pixels from `p` on.
///
/// # Safety
/// Every offset plus `p` and every output row's `p` have that many pixels after them; `w` has `ROWS` weights, [`MR`] apart, for each offset.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    w: &[f32],
    offsets: &[u32],
    x: &[f32],
    p: usize,
    out: &mut [f32],
    ld: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let (xp, mut row) = (x.as_ptr().add(p), w.as_ptr());
        let mut acc = [[S::splat(0.0); COLUMNS]; ROWS];
        for &offset in offsets {
            let src = xp.add(offset as usize);
            let mut v = [S::splat(0.0); COLUMNS];
            for c in 0..COLUMNS {
                v[c] = S::load(src.add(c * S::LANES));
            }
            for i in 0..ROWS {
                let s = S::splat(*row.add(i));
                for c in 0..COLUMNS {
                    acc[i][c] = S::fma(s, v[c], acc[i][c]);
                }
            }
            row = row.add(MR);
        }
        let to = out.as_mut_ptr().add(p);
        for i in 0..ROWS {
            for c in 0..COLUMNS {
                S::store(to.add(i * ld + c * S::LANES), acc[i][c]);
            }
        }
    }
}
