//! The way between two noises.

/// Spherical interpolation (Shoemake 1985): writes into `out`, of the length of `a` and `b`, the noise a part `t` of the way from
/// `a` (0) to `b` (1). Standard normals of many dimensions all have nearly the same length; a straight line between two of them
/// would pass through shorter ones, which no network has seen.
pub fn slerp(a: &[f32], b: &[f32], t: f64, out: &mut [f32]) {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = libm::sqrt(dot(a, a) * dot(b, b));
    let angle = if lengths > 0.0 { libm::acos((dot(a, b) / lengths).clamp(-1.0, 1.0)) } else { 0.0 };
    let sine = libm::sin(angle);
    // Between parallel noises the straight line is as good, and finite.
    let [from, to] = if sine < 1e-6 { [1.0 - t, t] } else { [libm::sin((1.0 - t) * angle) / sine, libm::sin(t * angle) / sine] };
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = (from * f64::from(*a) + to * f64::from(*b)) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Stream, normals};

    fn noise(seed: u64) -> Vec<f32> {
        let mut out = vec![0.0; 784];
        normals(seed, Stream::Sample(0), 0, &mut out);
        out
    }

    #[test]
    fn begins_and_ends_exactly_and_keeps_its_length() {
        let (a, b, mut out) = (noise(1), noise(2), vec![0.0; 784]);
        slerp(&a, &b, 0.0, &mut out);
        assert_eq!(out, a);
        slerp(&a, &b, 1.0, &mut out);
        assert_eq!(out, b);
        let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for t in [0.25, 0.5, 0.75] {
            slerp(&a, &b, t, &mut out);
            let straight: Vec<f32> = a.iter().zip(&b).map(|(a, b)| ((1.0 - t) * f64::from(*a) + t * f64::from(*b)) as f32).collect();
            assert!((length(&out) / length(&a) - 1.0).abs() < 0.06, "{t}: {}", length(&out));
            assert!(length(&straight) < 0.85 * length(&a));
        }
    }

    #[test]
    fn quarter_circle_and_parallel() {
        let mut out = [0.0; 2];
        slerp(&[1.0, 0.0], &[0.0, 1.0], 1.0 / 3.0, &mut out);
        assert!((out[0] - 0.866_025_4).abs() < 1e-6 && (out[1] - 0.5).abs() < 1e-6, "{out:?}");
        slerp(&[1.0, 2.0], &[1.0, 2.0], 0.3, &mut out);
        assert!((out[0] - 1.0).abs() < 1e-6 && (out[1] - 2.0).abs() < 1e-6, "{out:?}");
        slerp(&[0.0, 0.0], &[0.0, 0.0], 0.5, &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }
}
