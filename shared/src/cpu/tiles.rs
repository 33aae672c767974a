//! Products of bf16 values with f32 sums, on the processor's tile unit (AMX) where it has one.
//!
//! Two bf16 values that meet in one sum share a `u32`, the first in its low half. A tile is 16 rows of 16 such words: as the left
//! operand 16 rows of 32 values, as the right operand 32 values (in pairs, down) of 16 columns. One instruction multiplies two
//! tiles, 8192 multiplications; four accumulators of 16x16 floats keep it fed. Elsewhere the same sums run on ordinary vectors.
//!
//! A float is also the sum of two bf16 to within 2^-17 of its size, and three products of such parts (all but that of the two
//! small ones) give the product of two floats to within about 2^-16.

#![expect(
    clippy::extra_unused_type_parameters,
    reason = "the parameter tells apart the copies that `dispatch!` compiles for each instruction set"
)]

use super::simd::{Simd, dispatch};

/// Rows of a tile, and columns of an accumulator.
pub const SIDE: usize = 16;
/// Words of a tile.
pub const TILE: usize = SIDE * SIDE;
/// Values that one tile sums over.
pub const DEPTH: usize = 32;
/// Words that [`product`] may read, and floats that it may write, past the end of a plane.
pub const SLACK: usize = 64;

/// Rounds to the nearest bf16, ties to even. (The NaNs that arithmetic makes stay NaN.)
#[inline(always)]
pub fn to_bf16(v: f32) -> u32 {
    let bits = v.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// Two values as one word.
#[inline(always)]
pub fn pair(first: f32, second: f32) -> u32 {
    to_bf16(first) | to_bf16(second) << 16
}

/// The low and the high value of a word.
#[inline(always)]
fn values(word: u32) -> (f32, f32) {
    (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000))
}

/// Whether products run on the tile unit. `LIMBECK_ISA=avx2|plain` also rules it out, `LIMBECK_ISA=avx512` only it.
pub fn native() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return amx::allowed();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Words that [`pack`] needs for `m` rows and `k` tiles of depth.
pub fn packed_len(m: usize, k: usize) -> usize {
    m.div_ceil(SIDE) * k * TILE
}

/// Packs the left operand: pairs of row blocks, then depth, then the block, `[16][16]` words each; zero past `m`.
/// `weight(m, k, i)` is row `m`'s value `i < 32` of depth tile `k`.
pub fn pack(m: usize, k: usize, out: &mut [u32], weight: impl Fn(usize, usize, usize) -> f32) {
    let blocks = m.div_ceil(SIDE);
    let mut tiles = out.chunks_exact_mut(TILE);
    for first in (0..blocks).step_by(2) {
        for kk in 0..k {
            for block in first..(first + 2).min(blocks) {
                let Some(tile) = tiles.next() else { return };
                for (r, row) in tile.chunks_exact_mut(SIDE).enumerate() {
                    let at = block * SIDE + r;
                    for (i, word) in row.iter_mut().enumerate() {
                        *word = if at < m { pair(weight(at, kk, 2 * i), weight(at, kk, 2 * i + 1)) } else { 0 };
                    }
                }
            }
        }
    }
}

/// The right operand of [`product`]: depth tile `k` has its row `r` at `x[offsets[k] + r * row]`.
#[derive(Clone, Copy)]
pub struct Planes<'a> {
    /// Words.
    pub x: &'a [u32],
    /// From one pair of channels to the next.
    pub row: usize,
    /// Where each depth tile begins.
    pub offsets: &'a [u32],
}

/// `out[m * ld + p] = sum_k w[m, k] x[k, p]` for `p < len` and `m` rounded up to 16 rows; `ld >= len + SLACK`.
pub fn product(m: usize, w: &[u32], x: Planes<'_>, len: usize, out: &mut [f32], ld: usize) {
    let k = x.offsets.len();
    let reach = len.next_multiple_of(DEPTH);
    assert!(w.len() >= packed_len(m, k) && reach <= ld && out.len() >= m.next_multiple_of(SIDE) * ld);
    assert!(x.offsets.iter().all(|&o| o as usize + (SIDE - 1) * x.row + reach <= x.x.len()));
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if native() {
        // SAFETY: `native` saw the unit; every tile read and written was checked above.
        return unsafe { amx::product(m, w, x, len, out, ld) };
    }
    product_plain(m, w, x, len, out, ld);
}

dispatch! {
    /// [`product`] on ordinary vectors.
    fn product_plain(m: usize, w: &[u32], x: Planes<'_>, len: usize, out: &mut [f32], ld: usize) = product_body
}

#[inline(always)]
fn product_body<S: Simd>(m: usize, w: &[u32], x: Planes<'_>, len: usize, out: &mut [f32], ld: usize) {
    let (k, blocks) = (x.offsets.len(), m.div_ceil(SIDE));
    for block in 0..blocks {
        let width = (blocks - block / 2 * 2).min(2);
        let begin = block / 2 * 2 * k * TILE + block % 2 * TILE;
        for p in (0..len).step_by(SIDE) {
            let mut acc = [[0f32; SIDE]; SIDE];
            for (kk, &offset) in x.offsets.iter().enumerate() {
                let tile = &w[begin + kk * width * TILE..][..TILE];
                for r in 0..SIDE {
                    let words: [u32; SIDE] = std::array::from_fn(|c| x.x[offset as usize + r * x.row + p + c]);
                    for (acc, row) in acc.iter_mut().zip(tile.chunks_exact(SIDE)) {
                        let (a, b) = values(row[r]);
                        for c in 0..SIDE {
                            let (u, v) = values(words[c]);
                            acc[c] += a * u + b * v;
                        }
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate() {
                out[(block * SIDE + r) * ld + p..][..SIDE].copy_from_slice(acc);
            }
        }
    }
}

/// The operands of [`correlate`].
#[derive(Clone, Copy)]
pub struct Correlation<'a> {
    /// Rows, a multiple of 32.
    pub m: usize,
    /// Columns, a multiple of 32.
    pub c: usize,
    /// Left operand: bf16 rows.
    pub dy: &'a [u16],
    /// From one row of `dy` to the next.
    pub ld: usize,
    /// Right operand as [`transpose`] writes it: blocks of 16 columns, `steps` tiles each.
    pub x: &'a [u32],
    /// Tiles of depth of each block.
    pub steps: usize,
}

/// `sum[m * c_len + c] += sum_q dy[m * ld + shift + q] x[q, c]` over `32 steps` values of `q`, for each tap `(shift, first block)`, one after another.
pub fn correlate(o: &Correlation<'_>, taps: &[(usize, usize)], sums: &mut [f32]) {
    assert!(o.m.is_multiple_of(2 * SIDE) && o.c.is_multiple_of(2 * SIDE) && sums.len() >= taps.len() * o.m * o.c);
    for &(shift, block) in taps {
        assert!((o.m - 1) * o.ld + shift + o.steps * DEPTH <= o.dy.len() && (block + o.c / SIDE) * o.steps * TILE <= o.x.len());
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if native() {
        // SAFETY: as for `product`.
        return unsafe { amx::correlate(o, taps, sums) };
    }
    correlate_plain(o, taps, sums);
}

dispatch! {
    /// [`correlate`] on ordinary vectors.
    fn correlate_plain(o: &Correlation<'_>, taps: &[(usize, usize)], sums: &mut [f32]) = correlate_body
}

#[inline(always)]
fn correlate_body<S: Simd>(o: &Correlation<'_>, taps: &[(usize, usize)], sums: &mut [f32]) {
    for (&(shift, first), sums) in taps.iter().zip(sums.chunks_exact_mut(o.m * o.c)) {
        for m in 0..o.m {
            let row = &o.dy[m * o.ld + shift..][..o.steps * DEPTH];
            for block in 0..o.c / SIDE {
                let tiles = &o.x[(first + block) * o.steps * TILE..][..o.steps * TILE];
                let mut acc = [0f32; SIDE];
                for (words, two) in tiles.chunks_exact(SIDE).zip(row.chunks_exact(2)) {
                    let (a, b) = (f32::from_bits(u32::from(two[0]) << 16), f32::from_bits(u32::from(two[1]) << 16));
                    for c in 0..SIDE {
                        let (u, v) = values(words[c]);
                        acc[c] += a * u + b * v;
                    }
                }
                let out = &mut sums[m * o.c + block * SIDE..][..SIDE];
                out.iter_mut().zip(acc).for_each(|(s, a)| *s += a);
            }
        }
    }
}

dispatch! {
    /// `out[p] = pair(a[p], b[p])`.
    pub fn interleave(a: &[f32], b: &[f32], out: &mut [u32]) = interleave_body
}

#[inline(always)]
fn interleave_body<S: Simd>(a: &[f32], b: &[f32], out: &mut [u32]) {
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = pair(a, b);
    }
}

dispatch! {
    /// `out[p] = to_bf16(a[p])`.
    pub fn narrow(a: &[f32], out: &mut [u16]) = narrow_body
}

#[inline(always)]
fn narrow_body<S: Simd>(a: &[f32], out: &mut [u16]) {
    for (o, &a) in out.iter_mut().zip(a) {
        *o = to_bf16(a) as u16;
    }
}

dispatch! {
    /// `a[p] - bf16(a[p])`: what rounding leaves, the second part of a value that is held as two bf16.
    pub fn remainder(a: &mut [f32]) = remainder_body
}

#[inline(always)]
fn remainder_body<S: Simd>(a: &mut [f32]) {
    for v in a {
        *v -= f32::from_bits(to_bf16(*v) << 16);
    }
}

/// Writes `steps` tiles of the right operand: column `c` of tile `s` is `x[c * ld + 32 s..][..32]` in pairs.
pub fn transpose(x: &[f32], ld: usize, steps: usize, out: &mut [u32]) {
    assert!(x.len() >= (SIDE - 1) * ld + steps * DEPTH && out.len() >= steps * TILE);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if native() {
        // SAFETY: `native` saw the unit, and both ends were checked above.
        return unsafe { amx::transpose(x.as_ptr(), ld, steps, out.as_mut_ptr()) };
    }
    transpose_plain(x, ld, steps, out);
}

fn transpose_plain(x: &[f32], ld: usize, steps: usize, out: &mut [u32]) {
    for (s, tile) in out.chunks_exact_mut(TILE).take(steps).enumerate() {
        for (i, row) in tile.chunks_exact_mut(SIDE).enumerate() {
            for (c, word) in row.iter_mut().enumerate() {
                let at = c * ld + s * DEPTH + 2 * i;
                *word = pair(x[at], x[at + 1]);
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "amx.rs"]
mod amx;

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
