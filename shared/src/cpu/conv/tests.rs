use super::half::Parts;
use super::*;
use crate::rng::{self, Stream};

/// Normals rounded to bf16, so that both precisions compute the same products.
fn exact(len: usize, index: u64) -> Vec<f32> {
    let mut v = vec![0.0; len];
    rng::normals(5, Stream::Other(91), index, &mut v);
    v.iter().map(|&v| ::half::bf16::from_f32(v).to_f32()).collect()
}

/// `sum over taps` by its definition, for every (output pixel, input pixel, weight) that meet.
fn meet(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let pad = if g.kernel == 3 { g.before } else { 0 };
    for co in 0..g.c_out {
        for ci in 0..g.c_in {
            for (ky, kx) in (0..g.kernel).flat_map(|y| (0..g.kernel).map(move |x| (y, x))) {
                for j in 0..g.n {
                    for (oy, ox) in (0..g.oh).flat_map(|y| (0..g.ow).map(move |x| (y, x))) {
                        let (y, x) = (oy * g.stride + ky, ox * g.stride + kx);
                        if y >= pad && x >= pad && y - pad < g.h && x - pad < g.w {
                            let input = ((ci * g.n + j) * g.h + y - pad) * g.w + x - pad;
                            let output = ((co * g.n + j) * g.oh + oy) * g.ow + ox;
                            f(output, input, ((co * g.c_in + ci) * g.kernel + ky) * g.kernel + kx);
                        }
                    }
                }
            }
        }
    }
}

fn close(found: &[f32], exact: &[f64], what: &str) {
    let size = (exact.iter().map(|v| v * v).sum::<f64>() / exact.len() as f64).sqrt().max(1.0);
    for (i, (f, e)) in found.iter().zip(exact).enumerate() {
        assert!((f64::from(*f) - e).abs() < 2e-5 * size, "{what}[{i}]: {f} against {e}");
    }
}

fn check(g: Geometry) {
    let (x, w) = (exact(g.c_in * g.n * g.h * g.w, 0), exact(g.c_out * g.c_in * g.taps(), 1));
    let (dy, residual) = (exact(g.c_out * g.n * g.oh * g.ow, 2), exact(g.c_out * g.n * g.oh * g.ow, 3));
    let (bias, channel_bias, before) = (exact(g.c_out, 4), exact(g.c_out * g.n, 5), exact(x.len(), 6));
    let e = Epilogue { bias: &bias, channel_bias: Some(&channel_bias), residual: Some(&residual) };

    let area = g.oh * g.ow;
    let mut y: Vec<f64> = (0..dy.len()).map(|i| f64::from(bias[i / area / g.n] + channel_bias[i / area] + residual[i])).collect();
    let (mut dx, mut dw) = (vec![0f64; x.len()], vec![0f64; w.len()]);
    meet(&g, |o, i, k| {
        y[o] += f64::from(x[i]) * f64::from(w[k]);
        dx[i] += f64::from(dy[o]) * f64::from(w[k]);
        dw[k] += f64::from(dy[o]) * f64::from(x[i]);
    });
    let onto: Vec<f64> = dx.iter().zip(&before).map(|(d, b)| d + f64::from(*b)).collect();

    // Stale content must not matter, whatever it is.
    let mut s = Scratch { x: vec![f32::NAN; 7000], y: vec![f32::NAN; 7000], out: vec![f32::NAN; 7000], ..Default::default() };
    s.words = vec![0x7fc0_7fc0; 7000];
    s.tiles = vec![0x7fc0_7fc0; 7000];
    s.narrow = vec![0x7fc0; 7000];
    for parts in [None, Some(Parts::One), Some(Parts::Two)] {
        let name = parts.map_or("f32".into(), |p| format!("bf16, {p:?}"));
        let (mut found, mut found_dx, mut found_dw) = (vec![f32::NAN; y.len()], vec![f32::NAN; x.len()], vec![0f32; w.len()]);
        let (mut found_onto, mut found_again) = (before.clone(), vec![0f32; w.len()]);
        if let Some(parts) = parts {
            let mut forward = vec![0; half::packed_forward_len(parts, &g)];
            let mut back = vec![0; half::packed_backward_len(parts, &g)];
            half::pack_forward(parts, &g, &w, &mut forward);
            half::pack_backward(parts, &g, &w, &mut back);
            half::forward(parts, &g, &x, &forward, e, &mut found, &mut s);
            half::backward(parts, &g, &dy, Some((&mut found_dx, &back, false)), Some((&x, &mut found_dw)), &mut s);
            half::backward(parts, &g, &dy, Some((&mut found_onto, &back, true)), None, &mut s);
            half::backward(parts, &g, &dy, None, Some((&x, &mut found_again)), &mut s);
        } else {
            let (mut forward, mut back) = (vec![0.0; single::packed_forward_len(&g)], vec![0.0; single::packed_backward_len(&g)]);
            single::pack_forward(&g, &w, &mut forward);
            single::pack_backward(&g, &w, &mut back);
            single::forward(&g, &x, &forward, e, &mut found, &mut s);
            single::backward(&g, &dy, Some((&mut found_dx, &back, false)), Some((&x, &mut found_dw)), &mut s);
            single::backward(&g, &dy, Some((&mut found_onto, &back, true)), None, &mut s);
            single::backward(&g, &dy, None, Some((&x, &mut found_again)), &mut s);
        }
        close(&found, &y, &format!("{name} y of {g:?}"));
        if parts.is_none() && g.kernel == 3 && g.stride == 1 {
            let mut packed = vec![f32::NAN; winograd::packed_len(&g)];
            winograd::pack(&g, &w, &mut packed);
            found.fill(f32::NAN);
            winograd::forward(&g, &x, &packed, e, &mut found, &mut s);
            close(&found, &y, &format!("Winograd y of {g:?}"));
        }
        close(&found_dx, &dx, &format!("{name} dx of {g:?}"));
        close(&found_onto, &onto, &format!("{name} dx added of {g:?}"));
        close(&found_dw, &dw, &format!("{name} dw of {g:?}"));
        assert_eq!(found_dw, found_again, "{name} dw of {g:?} depends on what else is asked for");
    }
}

#[test]
fn every_precision_matches_the_definition() {
    let square = |n, c_in, c_out, h, stride, before| {
        let oh = (h + before + 1 - 3) / stride + 1;
        Geometry { n, c_in, c_out, h, w: h, oh, ow: oh, kernel: 3, stride, before }
    };
    for (n, c_in, c_out, h) in [(1, 1, 1, 5), (3, 4, 20, 7), (2, 33, 48, 4), (1, 64, 5, 14), (2, 3, 40, 17), (5, 96, 96, 14)] {
        check(square(n, c_in, c_out, h, 1, 1));
        check(square(n, c_in, c_out, h, 2, 1));
        check(square(n, c_in, c_out, h, 2, 0));
        check(Geometry::pointwise(n, c_in, c_out, h * h));
    }
}

#[test]
fn two_parts_come_close_to_f32() {
    let g = Geometry { n: 2, c_in: 40, c_out: 24, h: 9, w: 9, oh: 9, ow: 9, kernel: 3, stride: 1, before: 1 };
    let mut x = vec![0.0; g.c_in * g.n * 81];
    let (mut w, mut dy) = (vec![0.0; g.c_out * g.c_in * 9], vec![0.0; g.c_out * g.n * 81]);
    for (i, v) in [&mut x, &mut w, &mut dy].into_iter().enumerate() {
        rng::normals(6, Stream::Other(91), i as u64, v);
    }
    let (mut y, mut dx, mut dw) = (vec![0f64; dy.len()], vec![0f64; x.len()], vec![0f64; w.len()]);
    meet(&g, |o, i, k| {
        y[o] += f64::from(x[i]) * f64::from(w[k]);
        dx[i] += f64::from(dy[o]) * f64::from(w[k]);
        dw[k] += f64::from(dy[o]) * f64::from(x[i]);
    });
    let error = |parts| {
        let (mut forward, mut back) = (vec![0; half::packed_forward_len(parts, &g)], vec![0; half::packed_backward_len(parts, &g)]);
        half::pack_forward(parts, &g, &w, &mut forward);
        half::pack_backward(parts, &g, &w, &mut back);
        let (mut fy, mut fx, mut fw) = (vec![0.0; y.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        let e = Epilogue { bias: &[0.0; 24], channel_bias: None, residual: None };
        let s = &mut Scratch::default();
        half::forward(parts, &g, &x, &forward, e, &mut fy, s);
        half::backward(parts, &g, &dy, Some((&mut fx, &back, false)), Some((&x, &mut fw)), s);
        [(&y, &fy), (&dx, &fx), (&dw, &fw)].map(|(exact, found)| {
            let size: f64 = exact.iter().map(|v| v * v).sum();
            let off: f64 = exact.iter().zip(found).map(|(e, f)| (e - f64::from(*f)).powi(2)).sum();
            (off / size).sqrt()
        })
    };
    let (one, two) = (error(Parts::One), error(Parts::Two));
    assert!(one.iter().all(|&e| (1e-4..4e-3).contains(&e)), "one part: {one:?}");
    assert!(two.iter().all(|&e| e < 1e-5), "two parts: {two:?}");
}
