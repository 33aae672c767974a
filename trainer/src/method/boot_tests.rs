//! BOOT on Gaussian data, where everything has a closed form, and on small random networks.

use super::*;
use crate::method::teacher::{Teacher, TeacherConfig};
use candle_core::Device;
use limbeck_shared::bundle;
use limbeck_shared::denoiser::lower;
use limbeck_shared::program;
use limbeck_shared::rng;
use limbeck_shared::schedule::Schedule;

/// Data N(mean, std^2) and noise N(0, base^2) in linear-flow time: `x_t = t y + (1 - t) base eps`.
#[derive(Clone, Copy)]
struct Gaussian {
    mean: f64,
    std: f64,
    base: f64,
}

impl Gaussian {
    fn variance(&self, t: f64) -> f64 {
        (t * self.std).powi(2) + ((1.0 - t) * self.base).powi(2)
    }

    /// E[x0 | x_t] where x_t has the signal `y`.
    fn x0(&self, y: f64, eps: f64, t: f64) -> f64 {
        let x = t * y + (1.0 - t) * self.base * eps;
        self.mean + t * self.std.powi(2) / self.variance(t) * (x - t * self.mean)
    }

    /// The signal at `t` of the exact trajectory from `eps`, `mean + eps (sqrt(V_t) - (1 - t) base) / t`.
    fn signal(&self, eps: f64, t: f64) -> f64 {
        self.mean + eps * t * self.std.powi(2) / (self.variance(t).sqrt() + (1.0 - t) * self.base)
    }

    /// One target for one image.
    fn target(&self, solver: Solver, y: f64, eps: f64, from: f64, to: f64) -> f64 {
        let f = |y: &Tensor, t: &[f64]| per_image([self.x0(values(y)[0], eps, t[0])]);
        values(&bootstrap(solver, &per_image([y]).unwrap(), &[from], &[to], f).unwrap())[0]
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected} within {tolerance}");
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The linear-flow time at which the ratio of noise to signal is the cosine schedule's at `t` (there 1 is noise). The signal ODE
/// knows times by this ratio alone.
fn cosine(t: f64) -> f64 {
    Schedule::Flow { base_std: 1.0 }.time_of_ratio(Schedule::Cosine.noise_ratio(t))
}

#[test]
fn a_target_is_one_solver_step() {
    let g = Gaussian { mean: 0.0, std: 0.5, base: 1.0 };
    for (delta, euler, heun) in [(0.1, -7.41e-3, -3.82e-4), (0.05, -1.94e-3, -4.31e-5), (0.025, -4.98e-4, -5.16e-6)] {
        let (from, to) = (cosine(0.6), cosine(0.6 - delta));
        let error = |solver| g.target(solver, g.signal(1.0, from), 1.0, from, to) - g.signal(1.0, to);
        close(error(Solver::Euler), euler, 6e-3 * euler.abs());
        close(error(Solver::Heun), heun, 6e-3 * heun.abs() + 6e-8);
    }
    // Towards the data the signal moves towards the teacher's answer.
    let (y, f) = (g.signal(1.0, 0.4), g.x0(g.signal(1.0, 0.4), 1.0, 0.4));
    let next = g.target(Solver::Euler, y, 1.0, 0.4, 0.5);
    assert!(f > y && next > y && next < f, "{y} {next} {f}");
}

/// A table of signals that every target is written into, as a student that fits them exactly would have it.
#[test]
fn a_perfect_student_is_the_teachers_solver() {
    let g = Gaussian { mean: 2.0, std: 0.5, base: 1.0 };
    let table = |solver, steps: usize, time: &dyn Fn(f64) -> f64| {
        (0..steps).fold(0.0, |y, i| g.target(solver, y, 1.0, time(i as f64 / steps as f64), time((i + 1) as f64 / steps as f64)))
    };
    for (steps, euler, heun, flow) in [
        (10, 2.428037, 2.464430, 0.430783),
        (25, 2.470054, 2.491336, 0.471201),
        (50, 2.484810, 2.497217, 0.485397),
        (100, 2.492348, 2.499143, 0.492645),
    ] {
        close(table(Solver::Euler, steps, &|u| cosine(1.0 - u)), euler, 5e-6);
        close(table(Solver::Heun, steps, &|u| cosine(1.0 - u)), heun, 5e-6);
        close(table(Solver::Euler, steps, &|t| t) - g.mean, flow, 5e-6);
    }
}

#[test]
fn the_target_is_the_velocity_form() {
    // v' = v + (h / t') (b - v) with y = e + v and the teacher's velocity b = (f - x) / (1 - t), for any teacher.
    for (t, h, v, e) in [(0.0, 0.04, 0.3, -1.0), (0.3, 0.1, 1.7, 0.4), (0.5, 0.5, -0.2, 2.0), (0.92, 0.05, 5.0, 0.1)] {
        let f = |x: f64| (3.0 * x).sin() + x * x;
        let x: f64 = e + t * v;
        let target = bootstrap(Solver::Euler, &per_image([e + v]).unwrap(), &[t], &[t + h], |_, _| per_image([f(x)])).unwrap();
        let b = (f(x) - x) / (1.0 - t);
        close(values(&target)[0], e + v + h / (t + h) * (b - v), 5e-6);
    }
}

#[test]
fn the_target_lies_between_signal_and_teacher() {
    let tiny = f64::from(f32::EPSILON) / 2.0;
    for solver in [Solver::Euler, Solver::Heun] {
        for (from, to) in [(0.0, tiny), (0.0, 0.5), (0.0, 1.0), (0.5, 1.0), (0.9, 1.0), (tiny, 0.1), (0.3, 0.3 + 1e-7), (1.0 - 1e-7, 1.0)] {
            let target =
                |y: f64, f: f64| values(&bootstrap(solver, &per_image([y]).unwrap(), &[from], &[to], |_, _| per_image([f])).unwrap())[0];
            let k = target(1.0, 0.0);
            assert!((0.0..=1.0).contains(&k), "kappa {k} from {from} to {to}");
            close(target(0.0, 1.0), 1.0 - k, 1e-6);
            close(target(-3.0, 5.0), -3.0 * k + 5.0 * (1.0 - k), 1e-5);
            if from == 0.0 || to == 1.0 {
                // Whatever the start was is forgotten, and the image is the teacher's last answer.
                assert_eq!(target(1e30, 0.25), 0.25);
            }
        }
    }
}

const SIGMA_DATA: f64 = 0.5;

/// A perceptron teacher on points with `classes` classes and a null label, or neither. With `zero` its weights are all 0, which is
/// the exact denoiser of N(0, SIGMA_DATA^2).
fn teacher(classes: usize, zero: bool) -> Bundle {
    let mut network = serde_json::json!({"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2});
    if classes > 0 {
        network["num_class_embeds"] = (classes + 1).into();
    }
    let network: limbeck_shared::graph::NetworkConfig = serde_json::from_value(network).unwrap();
    let graph = network.build().unwrap();
    let mut theta = graph.init(3);
    if zero {
        theta.fill(0.0);
    }
    let label_dropout = if classes > 0 { 0.1 } else { 0.0 };
    let config = TeacherConfig { sigma_data: SIGMA_DATA, p_mean: -1.2, p_std: 1.2, label_dropout, guidance_levels: None };
    let meta = Teacher::new(&config, &network, "teacher", Precision::F32).unwrap().meta(None).unwrap();
    bundle::read(&bundle::write(&meta, &[theta]).unwrap()).unwrap()
}

fn config(guidance: Option<[f64; 2]>) -> BootConfig {
    BootConfig { delta: 0.1, solver: Solver::Euler, boundary: 0.0, guidance, clip: 0.0 }
}

fn boot(teacher: &Bundle, config: &BootConfig) -> Boot {
    Boot::new(config, teacher, "student", Precision::F32).unwrap()
}

/// Standard normals `[n, 2, 1, 1]` as a sampler draws them with seed 9.
fn normals(n: usize) -> Tensor {
    tensor(noise(9, &(0..n as u64), [2, 1, 1], Stream::Sample(0)), n, [2, 1, 1]).unwrap()
}

/// A student in training: away from its start, the new inputs' layers included.
fn somewhere(b: &Boot) -> Vec<f32> {
    let mut jitter = vec![0f32; b.start.len()];
    rng::normals(4, Stream::Other(9), 0, &mut jitter);
    b.start.iter().zip(&jitter).map(|(t, j)| t + 0.1 * j).collect()
}

#[test]
fn the_teacher_is_asked_at_the_right_noise() {
    let b = boot(&teacher(0, true), &config(None));
    let g = Gaussian { mean: 0.0, std: SIGMA_DATA, base: SIGMA_DATA };
    let eps = normals(64);
    let y = (&eps * 0.3).unwrap();
    for t in [0.02, 0.1, 0.3, 0.5, 0.8, 0.97] {
        let found = values(&b.denoise(&eps, &y, &[t; 64], &[], &[]).unwrap());
        for (f, e) in found.iter().zip(values(&eps)) {
            close(*f, g.x0(0.3 * e, e, t), 1e-5);
        }
    }
    // Pure noise at sigma_max, whatever the signal; and at the clean end the signal itself.
    let far = values(&b.denoise(&eps, &(&y * 1e9).unwrap(), &[0.0; 64], &[], &[]).unwrap());
    let near = values(&b.denoise(&eps, &y, &[1.0; 64], &[], &[]).unwrap());
    for ((far, near), e) in far.iter().zip(&near).zip(values(&eps)) {
        close(*far, 80.0 * e * SIGMA_DATA.powi(2) / (80f64.powi(2) + SIGMA_DATA.powi(2)), 1e-6);
        close(*near, 0.3 * e, 0.003 * e.abs() + 1e-6);
    }
    // Each image of a batch at its own time.
    let times: Vec<f64> = (0..64).map(|i| f64::from(i) / 64.0).collect();
    let mixed = b.denoise(&eps, &y, &times, &[], &[]).unwrap();
    for i in [0, 7, 63] {
        let one = |t: &Tensor| t.narrow(0, i, 1).unwrap();
        let alone = b.denoise(&one(&eps), &one(&y), &times[i..=i], &[], &[]).unwrap();
        assert!(largest_difference(&one(&mixed), &alone) < 1e-6);
    }
}

/// Targets of a network teacher, one after another, are the sampler that a student is compared with.
#[test]
fn chained_targets_are_the_flow_euler_sampler() {
    for (classes, weight) in [(0, None), (3, None), (3, Some(2.5))] {
        let teacher = teacher(classes, false);
        let b = boot(&teacher, &config(weight.map(|w| [w, w])));
        let n = 30usize;
        let labels: Vec<u32> = if classes > 0 { (0..n as u32).map(|k| k % classes as u32).collect() } else { vec![] };
        let guidance = weight.map_or(vec![], |w| vec![w; n]);
        let (eps, steps) = (normals(n), 5);
        let mut y = eps.clone();
        for i in 0..steps {
            let time = |i: usize| vec![i as f64 / steps as f64; n];
            y = b.target(&eps, &y, &time(i), &time(i + 1), &labels, &guidance).unwrap();
        }
        let program = teacher.draw_program(Some(Sampler::FlowEuler), Some(steps), weight.map(Into::into)).unwrap();
        let net = limbeck_shared::cpu::Net::new(teacher.graphs[0].clone(), teacher.thetas[0].clone()).unwrap();
        let labels = if classes > 0 { labels } else { vec![0; n] };
        let drawn = program::run(&lower(&program, &teacher.spec()).unwrap(), &[&net], 9, 0, &labels, classes as u32).unwrap();
        let drawn = tensor(drawn, n, [2, 1, 1]).unwrap();
        assert!(largest_difference(&y, &drawn) < 2e-5, "{classes} classes, guidance {weight:?}: {}", largest_difference(&y, &drawn));
    }
}

#[test]
fn the_student_starts_as_the_teacher_on_pure_noise() {
    for guidance in [None, Some([1.0, 3.0])] {
        let b = boot(&teacher(3, false), &config(guidance));
        let student = Network::frozen(b.student.clone(), &b.start, &Device::Cpu).unwrap();
        let (eps, labels) = (normals(9), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        let f = b.denoise(&eps, &eps, &[0.0; 9], &labels, &[]).unwrap();
        assert!(values(&f).iter().any(|v| v.abs() > 0.01));
        for (t, w) in [(0.0, 1.0), (1e-6, 1.0), (0.1, 3.0), (0.5, 2.0), (1.0, 1.0)] {
            let weights = guidance.map_or(vec![], |_| vec![w; 9]);
            let y = b.signal(&student, &eps, &[t; 9], &labels, &weights).unwrap();
            assert!(largest_difference(&y, &f) < 1e-6, "t' = {t}: {}", largest_difference(&y, &f));
        }
        // So the boundary loss begins at 0.
        let b = boot(&teacher(3, false), &BootConfig { boundary: 1.0, ..config(None) });
        let nets = [Network::trained(b.student.clone(), &b.start, &Device::Cpu).unwrap()];
        let loss = b.loss(0, &Pass { seed: 0, first: 0, images: 0..64, nets: &nets, average: None, data: None }).unwrap();
        let term = |name| loss.terms.iter().find(|t| t.0 == name).unwrap().1;
        assert!(term("boundary") < 1e-12 && term("bootstrap") > 1e-6, "{:?}", loss.terms);
    }
}

/// The loss with the target's student held at `anchor`, from the same draws as [`Boot::loss`].
fn value(b: &Boot, theta: &[f32], anchor: &[f32], images: std::ops::Range<u64>) -> f64 {
    let net = |theta: &[f32]| Network::frozen(b.student.clone(), theta, &Device::Cpu).unwrap();
    let n = (images.end - images.start) as usize;
    let eps = tensor(noise(5, &images, [2, 1, 1], Stream::Noise), n, [2, 1, 1]).unwrap();
    let to: Vec<f64> = uniform(5, &images, Stream::Time).iter().map(|u| 1.0 - u).collect();
    let from: Vec<f64> = to.iter().map(|t| (t - b.config.delta).max(0.0)).collect();
    let y = b.signal(&net(anchor), &eps, &from, &[], &[]).unwrap();
    let target = values(&b.target(&eps, &y, &from, &to, &[], &[]).unwrap());
    let found = values(&b.signal(&net(theta), &eps, &to, &[], &[]).unwrap());
    found.iter().zip(&target).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / found.len() as f64
}

#[test]
fn no_gradient_flows_through_the_target() {
    for solver in [Solver::Euler, Solver::Heun] {
        let b = boot(&teacher(0, false), &BootConfig { solver, ..config(None) });
        let theta = somewhere(&b);
        let nets = [Network::trained(b.student.clone(), &theta, &Device::Cpu).unwrap()];
        let images = 0..256;
        let loss = b.loss(0, &Pass { seed: 5, first: 0, images: images.clone(), nets: &nets, average: None, data: None }).unwrap();
        let scalar = f64::from(loss.value.to_scalar::<f32>().unwrap());
        close(scalar, value(&b, &theta, &theta, images.clone()), 1e-5 * scalar);
        let gradient = loss.value.backward().unwrap().get(nets[0].theta()).unwrap().to_vec1::<f32>().unwrap();
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let h = 1e-2;
        let moved = |sign: f64| -> Vec<f32> { theta.iter().zip(&gradient).map(|(t, g)| t + (sign * h / norm) as f32 * g).collect() };
        let (up, down) = (moved(1.0), moved(-1.0));
        let slope = |up: f64, down: f64| (up - down) / (2.0 * h) / norm;
        let frozen = slope(value(&b, &up, &theta, images.clone()), value(&b, &down, &theta, images.clone()));
        let through = slope(value(&b, &up, &up, images.clone()), value(&b, &down, &down, images.clone()));
        println!("{solver:?}: gradient norm {norm}, slope along it {frozen} norms, with the target moving {through}");
        close(frozen, 1.0, 5e-3);
        assert!((through - 1.0).abs() > 0.1, "{through}");
    }
}

#[test]
fn every_image_brings_its_own_draws() {
    let b = boot(&teacher(3, false), &BootConfig { boundary: 0.0, ..config(Some([1.0, 3.0])) });
    let nets = [Network::trained(b.student.clone(), &somewhere(&b), &Device::Cpu).unwrap()];
    let loss = |images| {
        f64::from(
            b.loss(0, &Pass { seed: 1, first: 0, images, nets: &nets, average: None, data: None })
                .unwrap()
                .value
                .to_scalar::<f32>()
                .unwrap(),
        )
    };
    let whole = loss(40..72);
    close((loss(40..56) + loss(56..72)) / 2.0, whole, 1e-5 * whole);
    assert_ne!(loss(40..56), loss(56..72));
}

#[test]
fn the_teacher_is_clipped_and_guided() {
    let plain = boot(&teacher(3, false), &config(Some([0.0, 4.0])));
    let (eps, labels) = (normals(12), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
    let answer = |labels: &[u32], w: f64| plain.denoise(&eps, &eps, &[0.4; 12], labels, &[w; 12]).unwrap();
    let (with, without) = (answer(&labels, 1.0), answer(&labels, 0.0));
    assert!(largest_difference(&without, &answer(&[3; 12], 1.0)) < 1e-6, "weight 0 is the null label's answer");
    assert!(largest_difference(&with, &without) > 1e-3);
    let expected = (&without + ((with - &without).unwrap() * 2.5).unwrap()).unwrap();
    assert!(largest_difference(&answer(&labels, 2.5), &expected) < 1e-5);

    let clipped = boot(&teacher(3, false), &BootConfig { clip: 0.2, ..config(None) });
    let bounded = clipped.denoise(&eps, &eps, &[0.4; 12], &labels, &[]).unwrap();
    let free = plain.denoise(&eps, &eps, &[0.4; 12], &labels, &[]).unwrap();
    assert!(values(&free).iter().any(|v| v.abs() > 0.2));
    for (b, f) in values(&bounded).iter().zip(values(&free)) {
        close(*b, f.clamp(-0.2, 0.2), 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |teacher: &Bundle, c: BootConfig, word: &str| {
        let e = Boot::new(&c, teacher, "student", Precision::F32).err().unwrap_or_else(|| panic!("{c:?} was accepted")).to_string();
        assert!(e.contains(word), "{e}");
    };
    let (plain, labelled) = (teacher(0, false), teacher(3, false));
    for delta in [0.0, -0.1, 0.6, f64::NAN] {
        refused(&plain, BootConfig { delta, ..config(None) }, "`method.delta`");
    }
    refused(&plain, config(Some([1.0, 3.0])), "`method.guidance`");
    for range in [[3.0, 1.0], [-1.0, 2.0], [1.0, 1000.0], [f64::NAN, 2.0]] {
        refused(&labelled, config(Some(range)), "`method.guidance`");
    }
    for boundary in [-1.0, f64::NAN] {
        refused(&plain, BootConfig { boundary, ..config(None) }, "`method.boundary`");
    }
    let b = boot(&plain, &config(None));
    let student = bundle::read(&bundle::write(&b.meta, std::slice::from_ref(&b.start)).unwrap()).unwrap();
    refused(&student, config(None), "`teacher`: found a student");
    let mut other = plain.clone();
    other.meta.schedule = Schedule::Cosine;
    refused(&other, config(None), "expected an EDM model");
    // And what fits says where it comes from.
    assert_eq!(student.meta.training.teacher_sha256.as_deref(), Some(plain.sha256.as_str()));
    assert_eq!(student.draw_program(None, None, None).unwrap().evals(), 1);
}
