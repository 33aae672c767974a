//! Closed forms on Gaussian data: `x0 ~ N(0, 1)`, `x1 ~ N(2, 0.5^2)`, linear interpolant; and a one-parameter field.

use super::residual::{Condition, Field, Point, Stop, residual};
use crate::method::{noise, per_image, uniform};
use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use limbeck_shared::nn::dual::Dual;
use limbeck_shared::rng::Stream;

const MU: f64 = 2.0;
const C: f64 = 0.5;
const ALL: [Condition; 5] = [Condition::Lsd, Condition::Esd, Condition::PsdU, Condition::PsdM, Condition::MeanFlow];

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "found {found}, expected {expected} within {within}");
}

fn variance(t: f64) -> f64 {
    (1.0 - t).powi(2) + (t * C).powi(2)
}

/// `v_{s,t}(x) = MU + slope(s, t) (x - s MU)`.
fn slope(s: f64, t: f64) -> f64 {
    if (t - s).abs() < 1e-9 {
        return (t * C * C - (1.0 - t)) / variance(t);
    }
    ((variance(t) / variance(s)).sqrt() - 1.0) / (t - s)
}

/// The exact flow map's velocity.
struct Exact;

impl Exact {
    fn affine(&self, s: &[f64], of: impl Fn(usize) -> (f64, f64), x: &Tensor) -> Result<Tensor> {
        let terms: Vec<_> = (0..s.len()).map(of).collect();
        Ok(x.broadcast_mul(&per_image(terms.iter().map(|t| t.0))?)?.broadcast_add(&per_image(terms.iter().map(|t| t.1))?)?)
    }
}

impl Field for Exact {
    fn at(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        self.affine(s, |i| (slope(s[i], t[i]), MU - slope(s[i], t[i]) * s[i] * MU), x)
    }
    fn constant(&self, s: &[f64], t: &[f64], x: &Tensor) -> Result<Tensor> {
        self.at(s, t, x)
    }
    fn dual(&self, s: &[f64], t: &[f64], x: &Dual, [ds, dt]: [f32; 2]) -> Result<Dual> {
        let (ds, dt, h) = (f64::from(ds), f64::from(dt), 1e-5);
        let rate = |i: usize| (slope(s[i] + h * ds, t[i] + h * dt) - slope(s[i] - h * ds, t[i] - h * dt)) / (2.0 * h);
        let mut tangent = self.affine(s, |i| (rate(i), -rate(i) * s[i] * MU - slope(s[i], t[i]) * ds * MU), &x.value)?;
        if let Some(d) = &x.tangent {
            tangent = (tangent + d.broadcast_mul(&per_image((0..s.len()).map(|i| slope(s[i], t[i])))?)?)?;
        }
        Ok(Dual { value: self.at(s, t, &x.value)?, tangent: Some(tangent) })
    }
}

#[test]
fn the_exact_map_leaves_no_residual() {
    let images = 0..200;
    let (a, b) = (uniform(1, &images, Stream::Time), uniform(2, &images, Stream::Time));
    let (s, t): (Vec<f64>, Vec<f64>) = a.iter().zip(&b).map(|(a, b)| (0.98 * a.min(*b), 0.98 * a.max(*b) + 0.02)).unzip();
    let gamma = uniform(3, &images, Stream::Time);
    let x = (Tensor::from_vec(noise(1, &images, [2, 1, 1], Stream::Noise), (200, 2, 1, 1), &Device::Cpu).unwrap() * 1.5).unwrap();
    // MeanFlow's fixed point has the mean velocity at x in place of the sample's.
    let velocity = Exact.at(&s, &s, &x).unwrap();
    for condition in ALL {
        for stop in [Stop::Published, Stop::Convex, Stop::None] {
            let point = Point { s: &s, t: &t, gamma: &gamma, x: &x, velocity: &velocity, step: 0.1 };
            let r = values(&residual(condition, stop, &Exact, None, &point).unwrap());
            let worst = r.iter().fold(0f64, |m, v| m.max(v.abs()));
            assert!(worst < 2e-4, "{condition:?}, {stop:?}: {worst}");
        }
        // A frozen teacher with the exact velocity says the same.
        let teacher = |s: &[f64], t: &[f64], x: &Tensor| Exact.at(s, t, x);
        let point = Point { s: &s, t: &t, gamma: &gamma, x: &x, velocity: &velocity, step: 0.1 };
        let r = values(&residual(condition, Stop::Published, &Exact, Some(&teacher), &point).unwrap());
        assert!(r.iter().all(|v| v.abs() < 2e-4), "{condition:?} with a teacher");
    }
}

#[test]
fn reference_values() {
    let one = |v: f64| Tensor::new(&[[[[v as f32]]]], &Device::Cpu).unwrap();
    let map = |s: f64, t: f64, x: f64| x + (t - s) * values(&Exact.at(&[s], &[t], &one(x)).unwrap())[0];
    close(map(0.0, 1.0, 1.0), 2.5, 1e-6);
    close(map(0.0, 0.5, 1.0), 1.559017, 1e-6);
    close(map(0.25, 0.75, 0.3), 1.381450, 1e-6);
    close(map(0.2, 0.7, 0.9), 1.685886, 1e-6);
    for (t, k) in [(0.0, -1.0), (0.5, -1.2), (1.0, 1.0)] {
        close(slope(t, t), k, 1e-12);
    }
    let by = |rates: [f32; 2]| values(&Exact.dual(&[0.2], &[0.7], &Dual::constant(one(0.9)), rates).unwrap().tangent().unwrap())[0];
    let v = values(&Exact.at(&[0.2], &[0.7], &one(0.9)).unwrap())[0];
    close(v, 1.571772, 1e-6);
    close(v + 0.5 * by([0.0, 1.0]), 1.831832, 1e-5);
    close(-v + 0.5 * by([1.0, 0.0]), -0.813675, 1e-5);
}

/// `v_{s,t}(x) = theta x`.
struct Toy(Var);

impl Field for Toy {
    fn at(&self, _: &[f64], _: &[f64], x: &Tensor) -> Result<Tensor> {
        Ok(x.broadcast_mul(&self.0)?)
    }
    fn constant(&self, _: &[f64], _: &[f64], x: &Tensor) -> Result<Tensor> {
        Ok(x.detach().broadcast_mul(&self.0.detach())?)
    }
    fn dual(&self, s: &[f64], t: &[f64], x: &Dual, _: [f32; 2]) -> Result<Dual> {
        let tangent = x.tangent.as_ref().map(|d| self.at(s, t, d)).transpose()?;
        Ok(Dual { value: self.at(s, t, &x.value)?, tangent })
    }
}

#[test]
fn gradients_stop_where_the_paper_says() {
    // theta .5, x 2, t - s .4: loss and its gradient in theta.
    let at = |condition, stop, gamma: f64| {
        let toy = Toy(Var::new(&[[[[0.5f32]]]], &Device::Cpu).unwrap());
        let x = Tensor::new(&[[[[2f32]]]], &Device::Cpu).unwrap();
        let point = Point { s: &[0.3], t: &[0.7], gamma: &[gamma], x: &x, velocity: &x, step: 0.1 };
        let loss = residual(condition, stop, &toy, None, &point).unwrap().sqr().unwrap().sum_all().unwrap();
        (f64::from(loss.to_scalar::<f32>().unwrap()), values(loss.backward().unwrap().get(&toy.0).unwrap())[0])
    };
    let table = [
        (Condition::Lsd, 0.5, 0.04, [-0.8, -0.8, 0.32]),
        (Condition::PsdM, 0.5, 0.0025, [-0.2, -0.2, 0.02]),
        (Condition::PsdU, 0.25, 0.00140625, [-0.15, -0.15, 0.01125]),
        (Condition::Esd, 0.5, 0.04, [-0.8, -0.64, 0.32]),
    ];
    for (condition, gamma, loss, gradients) in table {
        for (stop, gradient) in [Stop::Published, Stop::Convex, Stop::None].into_iter().zip(gradients) {
            let found = at(condition, stop, gamma);
            close(found.0, loss, 1e-7);
            close(found.1, gradient, 1e-6);
        }
    }
    // PSD-U in the middle is PSD-M.
    assert_eq!(at(Condition::PsdU, Stop::Published, 0.5), at(Condition::PsdM, Stop::Published, 0.5));
}

fn one(v: f64) -> Tensor {
    Tensor::new(&[[[[v as f32]]]], &Device::Cpu).unwrap()
}

/// `X_{s,t}(x)`.
fn map(s: f64, t: f64, x: f64) -> f64 {
    t * MU + (variance(t) / variance(s)).sqrt() * (x - s * MU)
}

/// `b_t(x)`.
fn velocity(t: f64, x: f64) -> f64 {
    MU + slope(t, t) * (x - t * MU)
}

fn sibling(condition: Condition, [s, t]: [f64; 2], x: f64, step: f64, teacher: bool) -> f64 {
    let x_tensor = one(x);
    let own = one(velocity(s, x));
    let frozen = |s: &[f64], t: &[f64], x: &Tensor| Exact.at(s, t, x);
    let point = Point { s: &[s], t: &[t], gamma: &[0.5], x: &x_tensor, velocity: &own, step };
    values(&residual(condition, Stop::Published, &Exact, if teacher { Some(&frozen) } else { None }, &point).unwrap())[0]
}

#[test]
fn shortcuts_of_the_exact_map_leave_no_residual_above_the_grid() {
    for (s, t) in [(0.0, 1.0), (0.5, 1.0), (0.25, 0.5)] {
        close(sibling(Condition::Shortcut, [s, t], 0.8, 0.125, false), 0.0, 1e-6);
    }
    // One step of the grid stands for two Euler half steps.
    let (s, h, x) = (0.5, 0.125, 0.8);
    let first = velocity(s, x);
    let second = velocity(s + h / 2.0, x + h / 2.0 * first);
    let expected = (map(s, s + h, x) - x) / h - 0.5 * (first + second);
    assert!(expected.abs() > 1e-3);
    close(sibling(Condition::Shortcut, [s, s + h], x, h, false), expected, 1e-5);
}

#[test]
fn consistency_of_the_exact_map_errs_by_one_euler_step() {
    let (s, x) = (0.25, 0.8);
    for teacher in [false, true] {
        let mut last = f64::INFINITY;
        for step in [0.25, 0.125, 0.0625] {
            let moved = x + step * velocity(s, x);
            let expected = (map(s, 1.0, x) - map(s + step, 1.0, moved)) / (1.0 - s);
            let found = sibling(Condition::Consistency, [s, 1.0], x, step, teacher);
            close(found, expected, 1e-5);
            // Second order in the step, so that the map is the fixed point of ever finer grids.
            assert!(found.abs() < 0.3 * last, "step {step}: {found} after {last}");
            last = found.abs();
        }
    }
    // The last step ends at the data: its target is the sample's velocity.
    close(sibling(Condition::Consistency, [0.75, 1.0], x, 0.25, false), (map(0.75, 1.0, x) - x) / 0.25 - velocity(0.75, x), 1e-5);
}

#[test]
fn progressive_distillation_joins_two_steps_of_the_teacher() {
    close(sibling(Condition::Progressive, [0.25, 0.5], 0.8, 0.25, true), 0.0, 1e-6);
    let x = one(0.8);
    let euler = |s: &[f64], _: &[f64], x: &Tensor| Exact.at(s, s, x);
    let point = Point { s: &[0.25], t: &[0.5], gamma: &[0.5], x: &x, velocity: &x, step: 0.25 };
    let found = values(&residual(Condition::Progressive, Stop::Published, &Exact, Some(&euler), &point).unwrap())[0];
    let half = 0.8 + 0.125 * velocity(0.25, 0.8);
    let end = half + 0.125 * velocity(0.375, half);
    close(found, (map(0.25, 0.5, 0.8) - end) / 0.25, 1e-5);
    assert!(residual(Condition::Progressive, Stop::Published, &Exact, None, &point).is_err());
}

/// C1.2: even the exact velocity leaves `d sigma_0^2 c^2 / V_t` on the diagonal, 0.8 at t = 1/2 and `pi sigma_0 c / 2` on average.
#[test]
fn the_diagonals_minimum_is_the_samples_variance() {
    let n = 200_000;
    let images = 0..n as u64;
    let (x0, z) = (noise(1, &images, [1, 1, 1], Stream::Noise), noise(2, &images, [1, 1, 1], Stream::Noise));
    let mean_at = |t: &dyn Fn(usize) -> f64| {
        let square = |i: usize| {
            let (x0, x1) = (f64::from(x0[i]), MU + C * f64::from(z[i]));
            let x = (1.0 - t(i)) * x0 + t(i) * x1;
            (velocity(t(i), x) - (x1 - x0)).powi(2)
        };
        (0..n).map(square).sum::<f64>() / n as f64
    };
    let uniform = uniform(3, &images, Stream::Time);
    close(mean_at(&|_| 0.5), 0.8, 0.012);
    close(mean_at(&|i| uniform[i]), std::f64::consts::PI * C / 2.0, 0.012);
}
