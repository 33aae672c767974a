//! SiD on Gaussian data, where teacher, fake score and generator are slopes.
//!
//! Data N(0, s^2), generator `x_g = g z`, teacher `A x` with `A = s^2 / (s^2 + sigma^2)`, best fake score `B x` with
//! `B = g^2 / (g^2 + sigma^2)`. Four pixels (z, eps) = (+-1, +-1) have the moments of independent standard normals, so that means
//! over them are exact expectations of anything quadratic.

use super::*;

/// One image of the four pixels: mean loss of a pixel, its gradient in g, and omega.
fn at(s: f64, g: f64, fake: f64, sigma: f64, alpha: f64, detached: bool) -> (f64, f64, f64) {
    let four = |v: [f32; 4]| Tensor::new(&v, &Device::Cpu).unwrap().reshape((1, 1, 2, 2)).unwrap();
    let (z, eps) = (four([1.0, 1.0, -1.0, -1.0]), four([1.0, -1.0, 1.0, -1.0]));
    let g = Var::new(&[[[[g as f32]]]], &Device::Cpu).unwrap();
    let x_g = z.broadcast_mul(&g).unwrap();
    let x = (&x_g + (eps * sigma).unwrap()).unwrap();
    let (teacher, fake) = ((&x * slope(s, sigma)).unwrap(), (&x * fake).unwrap());
    let answers = Answers { teacher, in_delta: fake.clone(), outside: fake };
    let answers = if detached { answers.detach() } else { answers };
    let mean = identity(&x_g, &answers, alpha).unwrap().mean_all().unwrap();
    let gradient = values(mean.backward().unwrap().get(&g).unwrap())[0];
    (values(&mean)[0], gradient, values(&weight(&x_g, &answers.teacher).unwrap())[0])
}

#[test]
fn nothing_moves_at_the_optimum() {
    for alpha in [0.5, 1.0, 1.2] {
        let (loss, gradient, _) = at(0.5, 0.5, slope(0.5, 1.0), 1.0, alpha, false);
        assert_eq!((loss, gradient), (0.0, 0.0));
    }
}

#[test]
fn the_score_identity_holds() {
    let (a, b) = (slope(0.5, 1.0), slope(0.3, 1.0));
    let square = (0.09 + 1.0) * (a - b) * (a - b);
    close(square, 0.015031, 1e-6);
    let loss = |alpha| at(0.5, 0.3, slope(0.3, 1.0), 1.0, alpha, false).0;
    close(loss(1.0), 0.0, 1e-8);
    close(loss(1.2), -0.2 * square, 1e-8);
    close(loss(0.0), square, 1e-8);
}

#[test]
fn gradients_are_the_closed_form() {
    let gradient = |s: f64, g: f64, sigma: f64, alpha, detached| at(s, g, slope(g, sigma), sigma, alpha, detached).1;
    close(gradient(0.5, 0.3, 1.0, 1.0, false), -0.06464, 1e-5);
    close(gradient(0.5, 0.3, 1.0, 1.2, false), -0.06630, 1e-5);
    close(gradient(0.5, 0.8, 0.7, 1.2, false), 0.14185, 1e-5);
    // Detached: -(A - B) g, whatever alpha; the full gradient is 2 sigma^2 / (g^2 + sigma^2) times as large at alpha 1.
    for alpha in [1.0, 1.2] {
        close(gradient(0.5, 0.3, 1.0, alpha, true), -0.03523, 1e-5);
    }
    let ratio = gradient(0.5, 0.3, 1.0, 1.0, false) / gradient(0.5, 0.3, 1.0, 1.0, true);
    close(ratio, 2.0 / 1.09, 1e-4);
}

#[test]
fn an_alpha_above_one_has_a_second_point_at_rest() {
    let (s, sigma, alpha) = (0.5, 1.0, 1.2);
    let a = slope(s, sigma);
    let b = a + (1.0 - a) / alpha;
    close(b, 0.86667, 1e-5);
    let g = (b * sigma * sigma / (1.0 - b)).sqrt();
    close(g, 2.5495, 1e-4);
    close(at(s, g, b, sigma, alpha, false).1, 0.0, 1e-5);
    close(at(s, 3.0, slope(3.0, sigma), sigma, alpha, false).1, -0.1680, 1e-4);
}

#[test]
fn descent_finds_the_data_or_runs_from_it() {
    let descend = |mut g: f64, alpha: f64| {
        let schedule = crate::method::teacher::SCHEDULE;
        for step in 0..4000 {
            let mut u = [0f32];
            rng::uniforms(1, Stream::Time, step, &mut u);
            let sigma = schedule.at_uniform(0.8 * f64::from(u[0]));
            let (_, gradient, omega) = at(0.5, g, slope(g, sigma), sigma, alpha, false);
            g -= 0.02 * omega * gradient;
        }
        g
    };
    close(descend(0.05, 1.0), 0.5, 1e-3);
    close(descend(3.0, 1.0), 0.5, 1e-3);
    let away = descend(3.0, 1.5);
    assert!(away > 3.0, "alpha 1.5 from 3: {away}");
}

#[test]
fn the_fake_score_learns_the_generators_denoiser() {
    let n = 40_000;
    let normals = |stream| Tensor::from_vec(noise(3, &(0..n as u64), [1, 1, 1], stream), (n, 1, 1, 1), &Device::Cpu).unwrap();
    for (g, sigma) in [(0.3, 1.0), (0.8, 0.2), (0.5, 5.0)] {
        let y = (normals(Stream::Noise) * g).unwrap();
        let x = (&y + (normals(Stream::Time) * sigma).unwrap()).unwrap();
        let b = Var::new(&[[[[0f32]]]], &Device::Cpu).unwrap();
        let loss = denoising(&x.broadcast_mul(&b).unwrap(), &y, &vec![sigma; n], 0.5).unwrap();
        // The loss is a parabola in b: its slope at 0 and its height there and at 1 give the minimum.
        let at_zero = values(loss.backward().unwrap().get(&b).unwrap())[0];
        let at_one = values(&denoising(&x, &y, &vec![sigma; n], 0.5).unwrap())[0];
        let curvature = 2.0 * (at_one - values(&loss)[0] - at_zero);
        close(-at_zero / curvature, slope(g, sigma), 3.0 / (n as f64).sqrt());
    }
    // lambda at sigma_data 0.5.
    let one = Tensor::ones((1, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
    for (sigma, lambda) in [(0.5, 8.0), (2.5, 4.16)] {
        close(values(&denoising(&one, &one.zeros_like().unwrap(), &[sigma], 0.5).unwrap())[0], lambda, 1e-5);
    }
}
