//! The exponential and what is made of it, in arithmetic that compilers turn into vectors.

/// `exp(x)` to within 2 units in the last place for finite results, branch-free so that loops over it vectorise.
/// Below -87 it gives 0's neighbourhood, above 88 the largest finite values.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Range reduction x = n ln2 + r with ln2 in two parts, then the minimax polynomial of Cephes' expf.
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to an integer held in the low mantissa bits; `round` would be a call on plain x86-64.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let scale = f32::from_bits(((shifted.to_bits() as i32).wrapping_sub(0x4b40_0000).wrapping_add(127) as u32) << 23);
    y * scale
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_matches_libm() {
        let mut worst = 0f64;
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let exact = (x as f64).exp();
            worst = worst.max(((super::exp(x) as f64 - exact) / exact).abs());
        }
        assert!(worst < 2.5e-7, "relative error {worst:e}");
    }

    #[test]
    fn sigmoid_saturates() {
        assert_eq!(super::sigmoid(200.0), 1.0);
        assert!(super::sigmoid(-200.0) < 1e-37);
        assert_eq!(super::sigmoid(0.0), 0.5);
    }
}
