//! Rows of small maps into planes and out of them. Rows are 7 to 64 floats: a call to copy each would cost more than the copy.

use crate::cpu::simd::{Simd, dispatch};

/// What a cropped map is added to.
#[derive(Clone, Copy)]
pub enum Onto<'a> {
    /// Nothing.
    Nothing,
    /// The map it is written to.
    Itself,
    /// Another map.
    Map(&'a [f32]),
}

dispatch! {
    /// Rows of all images with one zero before each, a row of zeros above, zeros below to the end of the plane.
    pub fn pad(n: usize, h: usize, w: usize, x: &[f32], plane: &mut [f32]) = pad_body
}

#[inline(always)]
fn pad_body<S: Simd>(n: usize, h: usize, w: usize, x: &[f32], plane: &mut [f32]) {
    let pitch = n * (w + 1);
    assert!(x.len() >= n * h * w && plane.len() >= (h + 1) * pitch);
    plane[..pitch].fill(0.0);
    plane[(h + 1) * pitch..].fill(0.0);
    let rest = w % S::LANES;
    for y in 0..h {
        for j in 0..n {
            let (from, to) = ((j * h + y) * w, (y + 1) * pitch + j * (w + 1));
            plane[to] = 0.0;
            // SAFETY: `w` floats from `from` and to `to + 1`, inside both slices (checked above).
            unsafe {
                let (src, dst) = (x.as_ptr().add(from), plane.as_mut_ptr().add(to + 1));
                let mut k = 0;
                while k + S::LANES <= w {
                    S::store(dst.add(k), S::load(src.add(k)));
                    k += S::LANES;
                }
                if rest > 0 {
                    S::store_part(dst.add(k), S::load_part(src.add(k), rest), rest);
                }
            }
        }
    }
}

dispatch! {
    /// `to[image][row][x] = plane[row * pitch + image * step + x] + bias[image] + onto`, where `onto` is nothing, another map, or
    /// what `to` holds. One bias may serve all images.
    pub fn crop(n: usize, h: usize, w: usize, pitch: usize, step: usize, plane: &[f32], bias: &[f32], onto: Onto<'_>, to: &mut [f32]) = crop_body
}

#[inline(always)]
fn crop_body<S: Simd>(
    n: usize,
    h: usize,
    w: usize,
    pitch: usize,
    step: usize,
    plane: &[f32],
    bias: &[f32],
    onto: Onto<'_>,
    to: &mut [f32],
) {
    assert!(n == 0 || h == 0 || plane.len() >= (h - 1) * pitch + (n - 1) * step + w);
    assert!(to.len() >= n * h * w);
    let rest = w % S::LANES;
    let base = match onto {
        Onto::Nothing => std::ptr::null(),
        Onto::Itself => to.as_ptr(),
        Onto::Map(map) => {
            assert!(map.len() >= n * h * w);
            map.as_ptr()
        }
    };
    for j in 0..n {
        let b = S::splat(if bias.len() == 1 { bias[0] } else { bias[j] });
        for y in 0..h {
            let at = (j * h + y) * w;
            // SAFETY: `w` floats of each slice, checked above; the base is read before the same place is written.
            unsafe {
                let (src, dst, base) = (plane.as_ptr().add(y * pitch + j * step), to.as_mut_ptr().add(at), base.wrapping_add(at));
                let mut k = 0;
                while k + S::LANES <= w {
                    let v = S::add(S::load(src.add(k)), b);
                    S::store(dst.add(k), if matches!(onto, Onto::Nothing) { v } else { S::add(v, S::load(base.add(k))) });
                    k += S::LANES;
                }
                if rest > 0 {
                    let v = S::add(S::load_part(src.add(k), rest), b);
                    let v = if matches!(onto, Onto::Nothing) { v } else { S::add(v, S::load_part(base.add(k), rest)) };
                    S::store_part(dst.add(k), v, rest);
                }
            }
        }
    }
}
