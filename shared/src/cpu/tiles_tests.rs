use super::*;
use crate::rng::{self, Stream};

fn normals(len: usize, index: u64) -> Vec<f32> {
    let mut v = vec![0.0; len];
    rng::normals(3, Stream::Other(90), index, &mut v);
    v
}

/// The nearest bf16 as a float.
fn rounded(v: f32) -> f32 {
    half::bf16::from_f32(v).to_f32()
}

#[test]
fn rounding_is_that_of_the_half_crate() {
    let special = [0.0, -0.0, 1.0, -1.5, 1.003_906_2, 1.011_718_7, f32::MIN_POSITIVE, 3.4e38, f32::INFINITY, f32::NEG_INFINITY];
    for v in normals(1000, 0).into_iter().chain(special) {
        assert_eq!(to_bf16(v) as u16, half::bf16::from_f32(v).to_bits(), "{v}");
    }
    assert!(f32::from_bits(to_bf16(f32::NAN) << 16).is_nan());
}

#[test]
fn products_match_sums_of_rounded_values() {
    // 40 rows leave a single block of 16 and eight rows of zeros; 50 columns leave half a tile.
    let (m, channels, len) = (40, 64, 50);
    let row = 112;
    let offsets = [3u32, (SIDE * row) as u32 + 7];
    let (w, x) = (normals(m * channels, 1), normals(channels * row, 2));
    let mut packed = vec![0; packed_len(m, 2)];
    pack(m, 2, &mut packed, |m, k, i| w[m * channels + k * DEPTH + i]);
    let mut words = vec![0; channels / 2 * row + SLACK];
    for (i, out) in words[..channels / 2 * row].chunks_exact_mut(row).enumerate() {
        interleave(&x[2 * i * row..][..row], &x[(2 * i + 1) * row..][..row], out);
    }
    let ld = len + SLACK;
    let planes = Planes { x: &words, row, offsets: &offsets };
    let (mut fast, mut plain) = (vec![0.0; 48 * ld], vec![0.0; 48 * ld]);
    product(m, &packed, planes, len, &mut fast, ld);
    product_plain(m, &packed, planes, len, &mut plain, ld);
    for i in 0..m {
        for p in 0..len {
            let at = |c: usize| c * row + if c < DEPTH { 3 } else { 7 } + p;
            let exact: f64 = (0..channels).map(|c| f64::from(rounded(w[i * channels + c])) * f64::from(rounded(x[at(c)]))).sum();
            for found in [fast[i * ld + p], plain[i * ld + p]] {
                assert!((f64::from(found) - exact).abs() < 2e-5, "row {i}, column {p}: {found} against {exact}");
            }
        }
    }
}

#[test]
fn correlations_match_sums_of_rounded_values() {
    let (m, c, steps, ld) = (32, 64, 13, 13 * DEPTH + 32);
    let (dy, x) = (normals(m * ld, 3), normals(c * steps * DEPTH, 4));
    let mut narrowed = vec![0; dy.len()];
    narrow(&dy, &mut narrowed);
    let mut tiles = vec![0; c / SIDE * steps * TILE];
    for (block, out) in tiles.chunks_exact_mut(steps * TILE).enumerate() {
        transpose(&x[block * SIDE * steps * DEPTH..], steps * DEPTH, steps, out);
    }
    let mut plain = vec![0; steps * TILE];
    transpose_plain(&x, steps * DEPTH, steps, &mut plain);
    assert_eq!(plain, tiles[..steps * TILE]);
    let o = Correlation { m, c, dy: &narrowed, ld, x: &tiles, steps };
    let taps = [(0, 0), (5, 0)];
    let (mut fast, mut plain) = (vec![1.0; 2 * m * c], vec![1.0; 2 * m * c]);
    correlate(&o, &taps, &mut fast);
    correlate_plain(&o, &taps, &mut plain);
    for (t, (shift, _)) in taps.into_iter().enumerate() {
        for (i, j) in (0..m).flat_map(|i| (0..c).map(move |j| (i, j))) {
            let term = |q: usize| f64::from(rounded(dy[i * ld + shift + q])) * f64::from(rounded(x[j * steps * DEPTH + q]));
            let exact = 1.0 + (0..steps * DEPTH).map(term).sum::<f64>();
            for found in [fast[(t * m + i) * c + j], plain[(t * m + i) * c + j]] {
                assert!((f64::from(found) - exact).abs() < 1e-4, "tap {t}, {i}, {j}: {found} against {exact}");
            }
        }
    }
}

#[test]
fn two_parts_hold_a_float() {
    let v = normals(1000, 5);
    let mut rest = v.clone();
    remainder(&mut rest);
    for (v, r) in v.iter().zip(&rest) {
        assert!((rounded(*v) + rounded(*r) - v).abs() <= v.abs() / 131_072.0, "{v}");
    }
}
