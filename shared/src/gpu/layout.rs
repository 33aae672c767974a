//! What the CPU prepares: maps in the kernels' layout, and the features of times.

use crate::graph::{Op, Shape};

/// vec4s that hold `channels`.
pub fn quads(channels: usize) -> usize {
    channels.div_ceil(4)
}

/// vec4s of one image's map.
pub fn map_quads(shape: Shape) -> usize {
    shape[1] * shape[2] * quads(shape[0])
}

/// `[n, c, h, w]` to `[n, h, w, c padded to fours]`; the padding becomes zero.
pub fn pack(src: &[f32], shape: Shape, dst: &mut [f32]) {
    let [c, h, w] = shape;
    let (pixels, row) = (h * w, 4 * quads(c));
    for (image, out) in src.chunks_exact(c * pixels).zip(dst.chunks_exact_mut(row * pixels)) {
        for (pixel, out) in out.chunks_exact_mut(row).enumerate() {
            for (channel, v) in out.iter_mut().enumerate() {
                *v = if channel < c { image[channel * pixels + pixel] } else { 0.0 };
            }
        }
    }
}

/// The inverse of [`pack`].
pub fn unpack(src: &[f32], shape: Shape, dst: &mut [f32]) {
    let [c, h, w] = shape;
    let (pixels, row) = (h * w, 4 * quads(c));
    for (image, out) in src.chunks_exact(row * pixels).zip(dst.chunks_exact_mut(c * pixels)) {
        for (channel, out) in out.chunks_exact_mut(pixels).enumerate() {
            for (pixel, v) in out.iter_mut().enumerate() {
                *v = image[pixel * row + channel];
            }
        }
    }
}

/// Features of time `t` for a [`Op::TimeEmbed`] node; `frequencies`: the node's stored ones, if it has them. On the CPU, since a
/// GPU's sine of an argument near 1000 is good to a few digits only.
pub fn time_features(op: &Op, t: f32, frequencies: &[f32], dst: &mut [f32]) {
    if let Op::TimeEmbed { dim, features, .. } = op {
        crate::cpu::time_features(t, *dim, features, frequencies, |i, v| dst[i] = v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpack_undoes_pack() {
        let shape = [5, 2, 3];
        let src: Vec<f32> = (0..2 * 30).map(|i| i as f32 + 1.0).collect();
        let mut packed = vec![f32::NAN; 2 * 6 * 8];
        pack(&src, shape, &mut packed);
        assert_eq!(packed[..8], [1.0, 7.0, 13.0, 19.0, 25.0, 0.0, 0.0, 0.0]);
        assert_eq!(packed[8], 2.0);
        let mut back = vec![0.0; src.len()];
        unpack(&packed, shape, &mut back);
        assert_eq!(src, back);
    }
}
