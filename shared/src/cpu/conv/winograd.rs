//! 3x3 convolutions at stride 1 with 16 products for four results instead of 36 (Lavin and Gray 2015, arXiv 1509.09308,
//! F(2x2, 3x3)), for networks whose weights do not change from call to call.
//!
//! A 2x2 tile of the result comes from a 4x4 tile `d` of the padded input: `A' ((G w G') . (B' d B)) A`, the middle product summed
//! over input channels. For all tiles together these are sixteen products of a matrix `[c_out, c_in]` with one `[c_in, tiles]`, which
//! [`tap::product`] makes; tiles are ordered `(row of tiles, image, column of tiles)`, so that the transforms work on long rows.

use super::{Epilogue, Geometry, Scratch, grow};
use crate::cpu::simd::{Isa, Simd, dispatch, isa};
use crate::cpu::tap::{self, SLACK};

/// Floats of transformed maps that images are grouped by: the second-level cache holds them.
const MOST: usize = 1 << 18;

/// Whether a convolution is made this way. The transforms cost as much as a few channels' products; and where one instruction
/// multiplies and adds, and a register holds eight or sixteen floats, the products saved are cheaper than the memory they take (a
/// sixth slower than directly, measured with AVX-512; in wasm twice as fast).
pub fn suits(g: &Geometry) -> bool {
    isa() == Isa::Plain && g.kernel == 3 && g.stride == 1 && g.c_in >= 8 && g.c_out >= 8
}

/// Floats of the transformed weights.
pub fn packed_len(g: &Geometry) -> usize {
    16 * tap::packed_len(g.c_out, g.c_in)
}

/// Transforms and packs `[c_out, c_in, 3, 3]`: `[4][4]` of what [`tap::pack`] makes.
pub fn pack(g: &Geometry, w: &[f32], out: &mut [f32]) {
    let len = tap::packed_len(g.c_out, g.c_in);
    // G: halves of sum and difference between the first and the last.
    let spread = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    out.fill(0.0);
    for (i, w) in w.chunks_exact(9).enumerate() {
        let (m, k) = (i / g.c_in, i % g.c_in);
        let at = (m / tap::MR * g.c_in + k) * tap::MR + m % tap::MR;
        let columns: [[f32; 4]; 3] = std::array::from_fn(|x| spread([w[x], w[3 + x], w[6 + x]]));
        for y in 0..4 {
            let row = spread([columns[0][y], columns[1][y], columns[2][y]]);
            row.iter().enumerate().for_each(|(x, v)| out[(4 * y + x) * len + at] = *v);
        }
    }
}

/// Tiles of `n` images: rows and columns of an image's, the tiles of a row, and floats from one channel's to the next.
#[derive(Clone, Copy)]
struct Tiles {
    n: usize,
    high: usize,
    wide: usize,
    run: usize,
    ld: usize,
}

impl Tiles {
    fn new(g: &Geometry, n: usize) -> Tiles {
        let (high, wide) = (g.oh.div_ceil(2), g.ow.div_ceil(2));
        Tiles { n, high, wide, run: n * wide, ld: n * high * wide + SLACK }
    }
}

/// `y = conv(x)` and the epilogue, as [`super::single::forward`], with the weights from [`pack`].
pub fn forward(g: &Geometry, x: &[f32], packed: &[f32], e: Epilogue<'_>, y: &mut [f32], s: &mut Scratch) {
    let rows = g.c_out.next_multiple_of(tap::MR);
    let each = 16 * (g.c_in + rows) * Tiles::new(g, 1).ld;
    let most = (MOST / each).clamp(1, g.n);
    let len = tap::packed_len(g.c_out, g.c_in);
    let mut first = 0;
    while first < g.n {
        let n = most.min(g.n - first);
        let t = Tiles::new(g, n);
        let input = grow(&mut s.x, 16 * g.c_in * t.ld);
        let sums = grow(&mut s.out, 16 * rows * t.ld);
        let work = grow(&mut s.y, (g.h + 3).max(4) * 4 * (t.run + SLACK) + 2 * t.wide + 2 + SLACK);
        for c in 0..g.c_in {
            let images = &x[(c * g.n + first) * g.h * g.w..][..n * g.h * g.w];
            transform(g.h, g.w, t, images, &mut input[c * t.ld..], g.c_in * t.ld, work);
        }
        s.offsets.clear();
        s.offsets.extend((0..g.c_in).map(|c| (c * t.ld) as u32));
        for i in 0..16 {
            let (input, sums) = (&input[i * g.c_in * t.ld..][..g.c_in * t.ld], &mut sums[i * rows * t.ld..][..rows * t.ld]);
            tap::product(g.c_out, &packed[i * len..][..len], &s.offsets, input, t.n * t.high * t.wide, sums, t.ld);
        }
        for c in 0..g.c_out {
            let range = (c * g.n + first) * g.oh * g.ow..(c * g.n + first + n) * g.oh * g.ow;
            let residual = e.residual.map(|r| &r[range.clone()]);
            let bias = |j: usize| e.bias[c] + e.channel_bias.map_or(0.0, |b| b[c * g.n + first + j]);
            gather(t, &sums[c * t.ld..], rows * t.ld, work);
            put(g.oh, g.ow, t, work, bias, residual, &mut y[range]);
        }
        first += n;
    }
}

dispatch! {
    /// `B' d B` of every tile of one channel `[n][h w]`: entry (y, x) of tile p goes to `out[(4 y + x) * stride + p]`.
    fn transform(h: usize, w: usize, t: Tiles, images: &[f32], out: &mut [f32], stride: usize, work: &mut [f32]) = transform_body
}

#[inline(always)]
fn transform_body<S: Simd>(h: usize, w: usize, t: Tiles, images: &[f32], out: &mut [f32], stride: usize, work: &mut [f32]) {
    let row = t.run + SLACK;
    // Along rows first: `[row][4][tiles]`, a row of zeros above and two below, since the last tile may reach past the map by one.
    let (rows, padded) = work.split_at_mut((h + 3) * 4 * row);
    let padded = &mut padded[..2 * t.wide + 2];
    padded.fill(0.0);
    for y in [0, h + 1, h + 2] {
        rows[y * 4 * row..][..4 * row].fill(0.0);
    }
    for (j, image) in images.chunks_exact(h * w).enumerate() {
        for (y, from) in image.chunks_exact(w).enumerate() {
            padded[1..=w].copy_from_slice(from);
            let to = &mut rows[(y + 1) * 4 * row + j * t.wide..];
            let (d0, to) = to.split_at_mut(row);
            let (d1, to) = to.split_at_mut(row);
            let (d2, d3) = to.split_at_mut(row);
            let outs = d0.iter_mut().zip(d1).zip(d2).zip(d3);
            for ((((d0, d1), d2), d3), p) in outs.take(t.wide).zip(padded.windows(4).step_by(2)) {
                (*d0, *d1, *d2, *d3) = (p[0] - p[2], p[1] + p[2], p[2] - p[1], p[1] - p[3]);
            }
        }
    }
    let reach = t.run.next_multiple_of(S::LANES);
    assert!(reach <= row && out.len() >= 15 * stride + (t.high - 1) * t.run + reach && (2 * t.high + 2) * 4 * row <= rows.len());
    for ty in 0..t.high {
        for x in 0..4 {
            for i in (0..reach).step_by(S::LANES) {
                // SAFETY: rows 2 ty to 2 ty + 3 of `rows` and entry 15 of the last tile are within bounds, as checked above; what a
                // vector writes past its run is written again by the next run, or lies in the slack.
                unsafe {
                    let from = rows.as_ptr().add((2 * ty * 4 + x) * row + i);
                    let [a, b, c, d] = std::array::from_fn(|k| S::load(from.add(k * 4 * row)));
                    let to = out.as_mut_ptr().add(x * stride + ty * t.run + i);
                    S::store(to, S::sub(a, c));
                    S::store(to.add(4 * stride), S::add(b, c));
                    S::store(to.add(8 * stride), S::sub(c, b));
                    S::store(to.add(12 * stride), S::sub(b, d));
                }
            }
        }
    }
}

dispatch! {
    /// `A' m A` of every tile of one channel, whose entry (y, x) of tile p lies at `sums[(4 y + x) * stride + p]`: for each row of tiles
    /// the even and the odd columns of its upper row, then of its lower one, to `work`, `run + SLACK` floats each.
    fn gather(t: Tiles, sums: &[f32], stride: usize, work: &mut [f32]) = gather_body
}

#[inline(always)]
fn gather_body<S: Simd>(t: Tiles, sums: &[f32], stride: usize, work: &mut [f32]) {
    let (row, reach) = (t.run + SLACK, t.run.next_multiple_of(S::LANES));
    assert!(reach <= row && sums.len() >= 15 * stride + (t.high - 1) * t.run + reach && work.len() >= 4 * t.high * row);
    for ty in 0..t.high {
        for i in (0..reach).step_by(S::LANES) {
            // SAFETY: all sixteen entries up to `reach` of the last run, and four rows for each row of tiles, as checked above.
            unsafe {
                let from = sums.as_ptr().add(ty * t.run + i);
                let (mut upper, mut lower) = ([S::splat(0.0); 4], [S::splat(0.0); 4]);
                for x in 0..4 {
                    let [a, b, c, d] = std::array::from_fn(|y| S::load(from.add((4 * y + x) * stride)));
                    upper[x] = S::add(S::add(a, b), c);
                    lower[x] = S::sub(S::sub(b, c), d);
                }
                let to = work.as_mut_ptr().add(4 * ty * row + i);
                for (k, [a, b, c, d]) in [upper, lower].into_iter().enumerate() {
                    S::store(to.add(2 * k * row), S::add(S::add(a, b), c));
                    S::store(to.add((2 * k + 1) * row), S::sub(S::sub(b, c), d));
                }
            }
        }
    }
}

/// Columns back in turn, with bias and residual, to one channel `[n][h w]`.
fn put(h: usize, w: usize, t: Tiles, work: &[f32], bias: impl Fn(usize) -> f32, residual: Option<&[f32]>, y: &mut [f32]) {
    let row = t.run + SLACK;
    for (j, image) in y.chunks_exact_mut(h * w).enumerate() {
        let bias = bias(j);
        for (r, to) in image.chunks_exact_mut(w).enumerate() {
            let even = &work[2 * r * row + j * t.wide..][..t.wide];
            let odd = &work[(2 * r + 1) * row + j * t.wide..][..t.wide];
            for ((pair, even), odd) in to.chunks_mut(2).zip(even).zip(odd) {
                pair[0] = even + bias;
                if let Some(last) = pair.get_mut(1) {
                    *last = odd + bias;
                }
            }
            if let Some(residual) = residual {
                to.iter_mut().zip(&residual[(j * h + r) * w..]).for_each(|(y, r)| *y += r);
            }
        }
    }
}
