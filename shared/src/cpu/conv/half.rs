//! Convolution with bf16 products and f32 sums ([`super::super::tiles`]): operands are rounded as they are laid out in planes,
//! everything outside the products stays f32.

use super::{Epilogue, Geometry, Scratch, grow_aligned};
use crate::cpu::tiles::{self, Correlation, DEPTH, Planes, SIDE, SLACK, TILE};

/// How many bf16 hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// One: the value rounded.
    One,
    /// Two: the value rounded, and what that left rounded.
    Two,
}

impl Parts {
    fn count(self) -> usize {
        self as usize + 1
    }
    /// The products of parts (of the left operand, of the right) that make a product of values.
    fn terms(self) -> &'static [(usize, usize)] {
        match self {
            Parts::One => &[(0, 0)],
            // The product of the two small parts is below what the others round away.
            Parts::Two => &[(0, 0), (0, 1), (1, 0)],
        }
    }
    fn of(part: usize, v: f32) -> f32 {
        if part == 0 { v } else { v - f32::from_bits(tiles::to_bf16(v) << 16) }
    }
}

/// Depth tiles of `channels` at `taps` taps.
fn depth(parts: Parts, channels: usize, taps: usize) -> usize {
    channels.div_ceil(DEPTH) * taps * parts.terms().len()
}

/// Where the depth tiles begin: for each block of channels, each tap's shift, each term its part's planes.
fn offsets(parts: Parts, row: usize, channels: usize, shifts: impl Iterator<Item = usize> + Clone, to: &mut Vec<u32>) {
    to.clear();
    let part_len = channels.div_ceil(DEPTH) * SIDE * row;
    for block in 0..channels.div_ceil(DEPTH) {
        for shift in shifts.clone() {
            to.extend(parts.terms().iter().map(|&(_, part)| (part * part_len + block * SIDE * row + shift) as u32));
        }
    }
}

/// Words of the packed forward weights.
pub fn packed_forward_len(parts: Parts, g: &Geometry) -> usize {
    tiles::packed_len(g.c_out, depth(parts, g.c_in, g.taps()))
}

/// Packs `[c_out, c_in, kernel, kernel]` for [`forward`].
pub fn pack_forward(parts: Parts, g: &Geometry, w: &[f32], out: &mut [u32]) {
    let (taps, terms) = (g.taps(), parts.terms());
    tiles::pack(g.c_out, depth(parts, g.c_in, taps), out, |m, k, i| {
        let (part, k) = (terms[k % terms.len()].0, k / terms.len());
        let ci = k / taps * DEPTH + i;
        if ci < g.c_in { Parts::of(part, w[(m * g.c_in + ci) * taps + k % taps]) } else { 0.0 }
    });
}

/// Words of the packed weights for [`backward`].
pub fn packed_backward_len(parts: Parts, g: &Geometry) -> usize {
    tiles::packed_len(g.c_in, depth(parts, g.c_out, g.taps()))
}

/// Packs `[c_out, c_in, kernel, kernel]` for [`backward`], in the order of [`super::single::pack_backward`].
pub fn pack_backward(parts: Parts, g: &Geometry, w: &[f32], out: &mut [u32]) {
    let (mut rest, terms) = (out, parts.terms());
    for phase in 0..g.phases() {
        let taps = g.gradient_taps(phase);
        let k = depth(parts, g.c_out, taps.len());
        let (part, tail) = rest.split_at_mut(tiles::packed_len(g.c_in, k));
        tiles::pack(g.c_in, k, part, |m, k, i| {
            let (part, k) = (terms[k % terms.len()].0, k / terms.len());
            let co = k / taps.len() * DEPTH + i;
            if co < g.c_out { Parts::of(part, w[(co * g.c_in + m) * g.taps() + taps[k % taps.len()].0]) } else { 0.0 }
        });
        rest = tail;
    }
}

/// Words from one row of a plane's pairs to the next: whole cache lines, an odd number of them, so that the sixteen rows of a
/// tile fall into different sets of the cache.
fn spread(len: usize, line: usize) -> usize {
    (len.div_ceil(line) | 1) * line
}

/// `y = conv(x)` and the epilogue.
///
/// `x [c_in][n][h w]`, `packed` from [`pack_forward`], `y [c_out][n][oh ow]`.
pub fn forward(parts: Parts, g: &Geometry, x: &[f32], packed: &[u32], e: Epilogue<'_>, y: &mut [f32], s: &mut Scratch) {
    let (area, len) = (g.n * g.h * g.w, g.plane_len());
    let (row, pairs) = (spread(len, SIDE), g.c_in.div_ceil(DEPTH) * SIDE);
    let words = grow_aligned(&mut s.words, parts.count() * pairs * row + SLACK);
    let planes = grow_aligned(&mut s.x, 2 * len);
    let (even, odd) = planes.split_at_mut(len);
    for i in 0..pairs {
        for (c, plane) in [(2 * i, &mut *even), (2 * i + 1, &mut *odd)] {
            match x.chunks_exact(area).nth(c) {
                Some(x) => g.pad(x, plane),
                None => plane.fill(0.0),
            }
        }
        for part in 0..parts.count() {
            if part > 0 {
                tiles::remainder(even);
                tiles::remainder(odd);
            }
            tiles::interleave(even, odd, &mut words[(part * pairs + i) * row..][..len]);
        }
    }
    let shifts = (0..g.taps()).map(|t| g.tap(t)).map(|(phase, shift)| phase * g.phase_len() + shift);
    offsets(parts, row, g.c_in, shifts, &mut s.offsets);
    let ld = spread(g.out_len() + SLACK, SIDE);
    let out = grow_aligned(&mut s.out, g.c_out.next_multiple_of(SIDE) * ld);
    tiles::product(g.c_out, packed, Planes { x: words, row, offsets: &s.offsets }, g.out_len(), out, ld);
    g.finish(out, ld, e, y);
}

/// As [`super::single::backward`], the weights from [`pack_backward`].
pub fn backward(
    parts: Parts,
    g: &Geometry,
    dy: &[f32],
    dx: Option<(&mut [f32], &[u32], bool)>,
    dw: Option<(&[f32], &mut [f32])>,
    s: &mut Scratch,
) {
    let len = g.dy_len();
    let (row, pairs) = (spread(len, SIDE), g.c_out.div_ceil(DEPTH) * SIDE);
    let left = Left::new(g);
    let words = grow_aligned(&mut s.words, if dx.is_some() { parts.count() * pairs * row + SLACK } else { 0 });
    let narrow = grow_aligned(&mut s.narrow, if dw.is_some() { parts.count() * 2 * pairs * left.ld } else { 0 });
    let planes = grow_aligned(&mut s.y, 2 * len);
    for i in 0..pairs {
        for (c, plane) in (2 * i..).zip(planes.chunks_exact_mut(len)) {
            match dy.chunks_exact(g.n * g.oh * g.ow).nth(c) {
                Some(dy) => g.pad_gradient(dy, plane),
                None => plane.fill(0.0),
            }
        }
        for part in 0..parts.count() {
            if part > 0 {
                tiles::remainder(planes);
            }
            if dw.is_some() {
                let rows = narrow[2 * (part * pairs + i) * left.ld..].chunks_exact_mut(left.ld);
                for (out, plane) in rows.zip(planes.chunks_exact(len)) {
                    out[..MARGIN].fill(0);
                    tiles::narrow(plane, &mut out[MARGIN..MARGIN + len]);
                    out[MARGIN + len..].fill(0);
                }
            }
            if dx.is_some() {
                let (even, odd) = planes.split_at(len);
                tiles::interleave(even, odd, &mut words[(part * pairs + i) * row..][..len]);
            }
        }
    }
    if let Some((x, dw)) = dw {
        weight_gradient(parts, g, &left, narrow, x, dw, &mut s.x, &mut s.tiles, &mut s.out);
    }
    let Some((dx, packed, add)) = dx else { return };
    if g.stride == 2 && !add {
        // Rows and columns that no output reaches get no gradient.
        dx.fill(0.0);
    }
    let mut rest = packed;
    for phase in 0..g.phases() {
        offsets(parts, row, g.c_out, g.gradient_taps(phase).iter().map(|tap| tap.1), &mut s.offsets);
        let (part, tail) = rest.split_at(tiles::packed_len(g.c_in, s.offsets.len()));
        rest = tail;
        let len = g.gradient_len();
        let ld = spread(len + SLACK, SIDE);
        let out = grow_aligned(&mut s.out, g.c_in.next_multiple_of(SIDE) * ld);
        tiles::product(g.c_in, part, Planes { x: words, row, offsets: &s.offsets }, len, out, ld);
        for (c, dx) in dx.chunks_exact_mut(g.n * g.h * g.w).enumerate() {
            g.crop_gradient(phase, &out[c * ld..], dx, add);
        }
    }
}

/// Zeros before a row of the left operand: the furthest tap reaches one value before the padded plane.
const MARGIN: usize = 2;

/// How the weight gradient walks the planes: over the input's pixels from `first`, so that the input's tiles serve every tap
/// and only the output's gradient is shifted.
struct Left {
    /// First pixel of a phase that can be other than zero.
    first: usize,
    /// Tiles of pixels from there.
    steps: usize,
    /// From one row of the narrowed output gradient to the next.
    ld: usize,
}

impl Left {
    fn new(g: &Geometry) -> Left {
        let padded = g.kernel == 3 && g.stride == 1;
        let first = if padded { g.pitch() } else { 0 };
        let steps = (if padded { g.h * g.pitch() } else { g.phase_len() }).div_ceil(DEPTH);
        let reach = MARGIN + first + g.dy_origin() + steps * DEPTH;
        Left { first, steps, ld: spread(reach.max(MARGIN + g.dy_len()), DEPTH) }
    }
}

fn weight_gradient(
    parts: Parts,
    g: &Geometry,
    left: &Left,
    dy: &[u16],
    x: &[f32],
    dw: &mut [f32],
    planes: &mut Vec<f32>,
    words: &mut Vec<u32>,
    sums: &mut Vec<f32>,
) {
    let (m, c) = (g.c_out.next_multiple_of(2 * SIDE), g.c_in.next_multiple_of(2 * SIDE));
    let (blocks, block_len) = (c / SIDE, left.steps * TILE);
    let words = grow_aligned(words, parts.count() * g.phases() * blocks * block_len);
    // Past the last pixel come zeros, which the last tile of pixels reads.
    let ld = g.plane_len() + left.first + DEPTH;
    let planes = grow_aligned(planes, SIDE * ld);
    for block in 0..blocks {
        for (i, plane) in planes.chunks_exact_mut(ld).enumerate() {
            let (inside, after) = plane.split_at_mut(g.plane_len());
            match x.chunks_exact(g.n * g.h * g.w).nth(block * SIDE + i) {
                Some(x) => g.pad(x, inside),
                None => inside.fill(0.0),
            }
            after.fill(0.0);
        }
        for part in 0..parts.count() {
            if part > 0 {
                tiles::remainder(planes);
            }
            for phase in 0..g.phases() {
                let out = &mut words[((part * g.phases() + phase) * blocks + block) * block_len..][..block_len];
                tiles::transpose(&planes[phase * g.phase_len() + left.first..], ld, left.steps, out);
            }
        }
    }
    let sums = grow_aligned(sums, g.taps() * m * c);
    sums.fill(0.0);
    for &(of_dy, of_x) in parts.terms() {
        let taps = (0..g.taps()).map(|t| g.tap(t));
        let taps: Vec<_> =
            taps.map(|(phase, shift)| (MARGIN + left.first + g.dy_origin() - shift, (of_x * g.phases() + phase) * blocks)).collect();
        let dy = &dy[of_dy * m * left.ld..];
        tiles::correlate(&Correlation { m, c, dy, ld: left.ld, x: words, steps: left.steps }, &taps, sums);
    }
    for (co, dw) in dw.chunks_exact_mut(g.c_in * g.taps()).enumerate() {
        for (ci, dw) in dw.chunks_exact_mut(g.taps()).enumerate() {
            dw.iter_mut().enumerate().for_each(|(t, d)| *d += sums[(t * m + co) * c + ci]);
        }
    }
}
