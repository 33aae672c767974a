//! BOOT's closed forms (Gu et al. 2023) on Gaussian data, and its teacher as a program.

use super::*;
use crate::schedule::{boot_kappa, flow_sigma};

const COSINE: Schedule = Schedule::Cosine;

/// The signal `(x_t - sigma eps) / alpha` on the exact trajectory from `x_1 = eps`, data as in [`gaussian`].
fn signal(eps: f64, t: f64) -> f64 {
    let (a, s) = (COSINE.alpha(t), COSINE.sigma(t));
    // (sqrt(v^2 + s^2) - s) / a, without the difference.
    2.0 + eps * a * 0.25 / ((a * a * 0.25 + s * s).sqrt() + s)
}

fn teacher(y: f64, eps: f64, t: f64) -> f64 {
    gaussian(COSINE).mean(COSINE.alpha(t) * y + COSINE.sigma(t) * eps, t, Label::Given)
}

/// One target of BOOT from `t` to `s`, with the teacher asked once (Euler) or twice (Heun, exponential form).
fn target(y: f64, eps: f64, t: f64, s: f64, heun: bool) -> f64 {
    let kappa = boot_kappa(&COSINE, s, t);
    let f = teacher(y, eps, t);
    let euler = (1.0 - kappa) * f + kappa * y;
    if heun { (1.0 - kappa) * 0.5 * (f + teacher(euler, eps, s)) + kappa * y } else { euler }
}

#[test]
fn signal_table() {
    for (t, y) in [(0.0, 2.5), (0.25, 2.235073), (0.5, 2.118034), (0.75, 2.051233), (0.9, 2.019767), (1.0, 2.0)] {
        close(signal(1.0, t), y, 5e-7);
    }
    // The boundary: the teacher at pure noise.
    close(teacher(0.0, 1.0, 1.0), signal(1.0, 1.0), 1e-12);
}

#[test]
fn signal_ode() {
    let slope = |t: f64| -COSINE.d_lambda(t) * (teacher(signal(1.0, t), 1.0, t) - signal(1.0, t));
    close(slope(0.6), -0.273232, 5e-7);
    for t in [0.2, 0.6, 0.8] {
        close(slope(t), (signal(1.0, t + 1e-5) - signal(1.0, t - 1e-5)) / 2e-5, 1e-8);
    }
}

#[test]
fn one_step_target_error() {
    let error = |delta: f64, heun| target(signal(1.0, 0.6), 1.0, 0.6, 0.6 - delta, heun) - signal(1.0, 0.6 - delta);
    for (delta, euler, heun) in [(0.1, -7.41e-3, -3.82e-4), (0.05, -1.94e-3, -4.31e-5), (0.025, -4.98e-4, -5.16e-6)] {
        close(error(delta, false), euler, 6e-3 * euler.abs());
        close(error(delta, true), heun, 6e-3 * heun.abs());
    }
}

#[test]
fn the_converged_student_is_ddim() {
    let spec = spec(COSINE, Parameterization::X0);
    for (steps, euler, heun) in [(10, 2.428037, 2.464430), (25, 2.470054, 2.491336), (50, 2.484810, 2.497217), (100, 2.492348, 2.499143)] {
        let tabular = |heun| {
            let grid = COSINE.grid(steps);
            grid.windows(2).fold(0.0, |y, w| target(y, 1.0, w[0], w[1], heun))
        };
        close(tabular(false), euler, 5e-7);
        close(tabular(true), heun, 5e-7);
        close(draw(&build(Sampler::Ddim, &spec, steps, 1.0).unwrap(), &gaussian(COSINE), 1.0), tabular(false), 3e-6);
    }
}

/// The update by kappa and the update in v-space are one: `v' = v + (h / t') (b(t, eps + t v) - v)`, `y = eps + v`.
#[test]
fn velocity_form_is_the_signal_form() {
    let g = gaussian(FLOW);
    for (t, h, v, eps) in [(0.0, 0.04, 0.3, -1.0), (0.3, 0.1, 1.7, 0.4), (0.5, 0.5, -0.2, 2.0), (0.92, 0.05, 5.0, 0.1)] {
        let x = eps + t * v;
        let f = g.mean(x, t, Label::Given);
        let b = (f - x) / (1.0 - t);
        let next: f64 = t + h;
        let kappa = boot_kappa(&FLOW, next, t);
        close((1.0 - kappa) * f + kappa * (eps + v), eps + v + h / next * (b - v), 1e-12);
    }
}

#[test]
fn flow_euler_is_the_teacher_of_boot() {
    // A huge sigma_max: pure noise is pure, and the table of the linear flow comes out (base 0.5 instead of 1 scales it).
    let edm = |sigma_max| Schedule::Edm { sigma_min: 0.002, sigma_max, rho: 7.0 };
    let spec_of = |s| spec(s, Parameterization::Edm { sigma_data: 0.5 });
    let base = Schedule::Flow { base_std: 0.5 };
    for steps in [1, 2, 10, 25] {
        let s = edm(1e5);
        let program = build(Sampler::FlowEuler, &spec_of(s), steps, 1.0).unwrap();
        assert_eq!(program.evals(), steps);
        let flow = build(Sampler::Ddim, &spec(base, Parameterization::X0), steps, 1.0).unwrap();
        close(draw(&program, &gaussian(s), 0.8), draw(&flow, &gaussian(base), 0.8), 2e-5);
    }
    // At sigma_max 80 exactly what the definition says: x_h = (1 - h) base eps + h y with y = D(80 eps, 80), then Euler in flow
    // time.
    let (steps, eps) = (25, 0.8f32);
    let (g, h) = (gaussian(EDM), 1.0 / 25.0);
    let e = f64::from(eps);
    let mut x = (1.0 - h) * 0.5 * e + h * g.mean(80.0 * e, 80.0, Label::Given);
    for i in 1..steps {
        let t = f64::from(i) * h;
        let f = g.mean(x / t, flow_sigma(0.5, 80.0, t), Label::Given);
        x += h * (f - x) / (1.0 - t);
    }
    let program = build(Sampler::FlowEuler, &spec_of(EDM), steps as usize, 1.0).unwrap();
    close(draw(&program, &g, eps), x, 3e-6);
    // DDIM on the EDM network over those noise levels is the same chain.
    let levels: Vec<f64> = (0..=steps).map(|i| flow_sigma(0.5, 80.0, f64::from(i) / f64::from(steps))).collect();
    assert!(levels.windows(2).all(|w| w[1] < w[0]) && levels[steps as usize] == 0.0);
    // One step is the teacher at pure noise: what a fresh student answers.
    let one = build(Sampler::FlowEuler, &spec_of(EDM), 1, 1.0).unwrap();
    close(draw(&one, &g, eps), draw(&build(Sampler::OneStep, &spec_of(EDM), 1, 1.0).unwrap(), &g, eps), 1e-7);
    // More steps than sigma_max resolves: the network is never asked beyond it.
    let many = build(Sampler::FlowEuler, &spec_of(EDM), 1000, 1.0).unwrap();
    assert!(many.instrs.iter().all(|i| !matches!(i, Instr::Eval(e) if e.t > 80.0 || e.t <= 0.0)));
    close(draw(&many, &g, 1.0), 2.5, 2e-2);
}
