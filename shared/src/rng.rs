//! The only source of randomness: a counter-based generator with the same bits on every machine.
//!
//! Threefry2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). A draw is
//! named by (seed, stream, index): what it is for, and which image it belongs to. No state is carried from draw to draw, so image
//! k gets the same numbers at any batch size, on any device and after any interruption. Normals are Box and Muller's with `libm`,
//! which computes in software and therefore alike on native and wasm32.

/// What a draw is for. Streams never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Initial weights; the index is the parameter's.
    Init,
    /// Order of the training images; the index is the epoch's, or an image's.
    Order,
    /// Labels and label dropout in training.
    Label,
    /// Diffusion times in training.
    Time,
    /// Noise in training.
    Noise,
    /// The k-th noise instruction of a sampler program.
    Sample(u32),
    /// The k-th purpose of an evaluation.
    Eval(u32),
    /// Anything else.
    Other(u32),
}

/// How many values the argument of a numbered stream can take.
pub const STREAMS: u32 = 1 << 28;

impl Stream {
    /// The stream's number. Families lie in ranges of [`STREAMS`] numbers; an argument beyond is reduced modulo that.
    pub fn id(self) -> u32 {
        match self {
            Stream::Init => 0,
            Stream::Order => 1,
            Stream::Label => 2,
            Stream::Time => 3,
            Stream::Noise => 4,
            Stream::Sample(k) => STREAMS + k % STREAMS,
            Stream::Eval(k) => 2 * STREAMS + k % STREAMS,
            Stream::Other(k) => 3 * STREAMS + k % STREAMS,
        }
    }
}

/// Threefry2x32 with 20 rounds: encrypts the counter with the key.
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    // The third key word is the parity of the first two (the constant is Skein's).
    let k = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(k[0]), counter[1].wrapping_add(k[1])];
    for group in 0..5usize {
        for r in ROTATIONS[group % 2] {
            x[0] = x[0].wrapping_add(x[1]);
            x[1] = x[1].rotate_left(r) ^ x[0];
        }
        let n = group + 1;
        x[0] = x[0].wrapping_add(k[n % 3]);
        x[1] = x[1].wrapping_add(k[(n + 1) % 3]).wrapping_add(n as u32);
    }
    x
}

/// The key of one draw. Seed, stream and index are 160 bits and a key has 64, so they are folded in by two encryptions.
fn key(seed: u64, stream: Stream, index: u64) -> [u32; 2] {
    let halves = |v: u64| [v as u32, (v >> 32) as u32];
    let stream_key = threefry2x32(halves(seed), [stream.id(), 0]);
    threefry2x32(stream_key, halves(index))
}

/// Two random words: block `block` of the draw (seed, stream, index).
pub fn bits(seed: u64, stream: Stream, index: u64, block: u32) -> [u32; 2] {
    threefry2x32(key(seed, stream, index), [block, 0])
}

/// Fills `out` with uniforms on `[0, 1)` of 24 bits each. A prefix of a longer draw is the shorter draw.
pub fn uniforms(seed: u64, stream: Stream, index: u64, out: &mut [f32]) {
    let key = key(seed, stream, index);
    for (block, pair) in out.chunks_mut(2).enumerate() {
        let words = threefry2x32(key, [block as u32, 0]);
        for (o, w) in pair.iter_mut().zip(words) {
            *o = (w >> 8) as f32 * (1.0 / 16_777_216.0);
        }
    }
}

/// Fills `out` with standard normals (Box and Muller 1958, in f64). A prefix of a longer draw is the shorter draw.
pub fn normals(seed: u64, stream: Stream, index: u64, out: &mut [f32]) {
    let key = key(seed, stream, index);
    for (block, pair) in out.chunks_mut(2).enumerate() {
        let words = threefry2x32(key, [block as u32, 0]);
        for (o, z) in pair.iter_mut().zip(box_muller(words)) {
            *o = z as f32;
        }
    }
}

/// Two independent standard normals from two words. The radius reads `(0, 1]`, so its logarithm is finite.
fn box_muller(words: [u32; 2]) -> [f64; 2] {
    const SCALE: f64 = 1.0 / 4_294_967_296.0;
    let radius = libm::sqrt(-2.0 * libm::log((f64::from(words[0]) + 1.0) * SCALE));
    let (sin, cos) = libm::sincos(core::f64::consts::TAU * (f64::from(words[1]) * SCALE));
    [radius * cos, radius * sin]
}

/// A uniform integer in `0..n` without bias (Lemire 2019); 0 if `n` is 0.
pub fn below(seed: u64, stream: Stream, index: u64, n: u32) -> u32 {
    let key = key(seed, stream, index);
    let threshold = n.wrapping_neg().checked_rem(n).unwrap_or(0);
    let mut block = 0u32;
    loop {
        for word in threefry2x32(key, [block, 0]) {
            let product = u64::from(word) * u64::from(n);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
        block = block.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn known_answers() {
        // Random123's kat_vectors, threefry2x32 with 20 rounds.
        assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry2x32([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }

    #[test]
    fn streams_are_distinct() {
        let all = [
            Stream::Init,
            Stream::Order,
            Stream::Label,
            Stream::Time,
            Stream::Noise,
            Stream::Sample(0),
            Stream::Sample(STREAMS - 1),
            Stream::Eval(0),
            Stream::Eval(STREAMS - 1),
            Stream::Other(0),
            Stream::Other(STREAMS - 1),
        ];
        let ids: std::collections::BTreeSet<u32> = all.iter().map(|s| s.id()).collect();
        assert_eq!(ids.len(), all.len());
        // Neighbours in every part of the name differ.
        let base = bits(7, Stream::Noise, 3, 0);
        for other in [bits(8, Stream::Noise, 3, 0), bits(7 << 32, Stream::Noise, 3, 0), bits(7, Stream::Time, 3, 0)] {
            assert_ne!(base, other);
        }
        for other in [bits(7, Stream::Noise, 4, 0), bits(7, Stream::Noise, 3 << 32, 0), bits(7, Stream::Noise, 3, 1)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn prefixes_agree() {
        let (mut long, mut short) = ([0.0f32; 9], [0.0f32; 4]);
        normals(1, Stream::Sample(2), 5, &mut long);
        normals(1, Stream::Sample(2), 5, &mut short);
        assert_eq!(long[..4], short);
        uniforms(1, Stream::Sample(2), 5, &mut long);
        uniforms(1, Stream::Sample(2), 5, &mut short);
        assert_eq!(long[..4], short);
        let words = bits(1, Stream::Sample(2), 5, 1);
        assert_eq!(long[2], (words[0] >> 8) as f32 / 16_777_216.0);
    }

    #[test]
    fn moments() {
        let n = 100_000;
        let mut z = vec![0.0f32; n];
        normals(42, Stream::Noise, 0, &mut z);
        let moment = |k: i32| z.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
        // Four standard errors of each moment of a normal.
        let se = 4.0 / (n as f64).sqrt();
        assert!(moment(1).abs() < se);
        assert!((moment(2) - 1.0).abs() < se * 2f64.sqrt());
        assert!(moment(3).abs() < se * 15f64.sqrt());
        assert!((moment(4) - 3.0).abs() < se * 96f64.sqrt());
        let pairs = z.chunks(2).map(|p| f64::from(p[0] * p[1])).sum::<f64>() / (n / 2) as f64;
        assert!(pairs.abs() < se * 2f64.sqrt());
        uniforms(42, Stream::Noise, 1, &mut z);
        assert!(z.iter().all(|&u| (0.0..1.0).contains(&u)));
        let mean = z.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < se / 12f64.sqrt());
    }

    #[test]
    fn extremes_are_finite() {
        for words in [[0, 0], [u32::MAX, u32::MAX], [0, u32::MAX], [u32::MAX, 0]] {
            assert!(box_muller(words).iter().all(|z| z.is_finite() && z.abs() < 6.7));
        }
    }

    #[test]
    fn below_covers_its_range_evenly() {
        assert_eq!(below(0, Stream::Label, 0, 0), 0);
        assert_eq!(below(0, Stream::Label, 0, 1), 0);
        let mut counts = [0usize; 10];
        for i in 0..20_000 {
            counts[below(3, Stream::Label, i, 10) as usize] += 1;
        }
        // 2000 expected, standard deviation 42.4.
        assert!(counts.iter().all(|&c| c.abs_diff(2000) < 190), "{counts:?}");
        assert!((0..2000).all(|i| below(3, Stream::Label, i, u32::MAX) < u32::MAX));
    }

    /// The exact bits of a few normals, from an independent implementation: what every platform must reproduce.
    #[test]
    fn same_bits_everywhere() {
        let mut z = [0.0f32; 4];
        normals(123, Stream::Sample(0), 7, &mut z);
        let bits: Vec<u32> = z.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, GOLDEN, "{z:?}");
    }
    const GOLDEN: [u32; 4] = [3_207_725_886, 1_066_309_467, 1_014_307_738, 3_221_576_478];
}
