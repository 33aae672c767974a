//! Weights, targets, gradients and drift, against closed forms.

use super::*;
use crate::data::{DataSpec, InMemory, Toy};
use crate::method::Pass;
use crate::method::noise;
use limbeck_shared::bundle;
use limbeck_shared::denoiser::{Denoiser, Parameterization};
use limbeck_shared::program::{Label, Program, build, run_closed_form};
use limbeck_shared::rng;
use limbeck_shared::schedule::Schedule;

const ZERO_SNR: Schedule = Schedule::DdpmZeroSnr { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}

fn points() -> NetworkConfig {
    serde_json::from_value(serde_json::json!({"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2})).unwrap()
}

/// A model after a first task, its weights moved so that no part of it is idle.
fn teacher(beginning: Beginning) -> Bundle {
    let config = ContinualConfig { beginning, clip: false, arm: Arm::FineTune, ..Default::default() };
    let first = Continual::new(&config, Some(&points()), None, "points", Precision::F32).unwrap();
    let mut theta = first.networks(1).unwrap().remove(0).theta;
    let mut jitter = vec![0f32; theta.len()];
    rng::normals(7, Stream::Other(0), 0, &mut jitter);
    theta.iter_mut().zip(&jitter).for_each(|(t, j)| *t += 0.1 * j);
    bundle::read(&bundle::write(&first.meta(None).unwrap(), &[theta]).unwrap()).unwrap()
}

fn task(arm: Arm, n: usize, lambda: Option<f64>) -> ContinualConfig {
    ContinualConfig { arm, task: n, lambda, teacher_steps: 4, clip: false, ..Default::default() }
}

fn method(config: &ContinualConfig, teacher: &Bundle) -> Continual {
    Continual::new(config, None, Some(teacher), "points", Precision::F32).unwrap()
}

fn data() -> Box<dyn Dataset> {
    crate::data::open(&DataSpec::Toy { toy: Toy::Checkerboard {}, count: 1000, seed: 0 }, crate::data::Split::Train).unwrap()
}

/// The loss of a method with these weights on 64 images, and its gradient.
fn loss_at(method: &Continual, theta: &[f32]) -> (Loss, Vec<f32>) {
    let net = Network::trained(method.exec.clone(), theta, device()).unwrap();
    let data = data();
    let nets = [net];
    let pass = Pass { seed: 3, first: 0, images: 0..64, nets: &nets, average: None, data: Some(data.as_ref()) };
    let loss = method.loss(0, &pass).unwrap();
    let grads = loss.value.backward().unwrap();
    // Nothing but the student's own parameters is a variable, the teacher's least of all.
    assert!(!method.previous.as_ref().is_some_and(|p| p.teacher.theta().track_op()));
    let grad = grads.get(nets[0].theta()).unwrap().to_vec1().unwrap();
    (loss, grad)
}

fn term(loss: &Loss, name: &str) -> f64 {
    loss.terms.iter().find(|t| t.0 == name).unwrap().1
}

#[test]
fn weights_of_a_task() {
    let weights = |n| task(Arm::Distillation, n, Some(3.0)).weights();
    assert_eq!(weights(1), [1.0, 0.0]);
    assert_eq!(weights(2), [0.5, 1.5]);
    close(weights(5)[0], 0.2, 1e-15);
    close(weights(5)[1], 2.4, 1e-15);
    close(task(Arm::Distillation, 5, None).weights()[1], 0.8 * 0.75, 1e-15);
    assert_eq!(task(Arm::Joint, 5, Some(3.0)).weights(), [1.0, 0.0]);
}

#[test]
fn a_student_that_is_the_teacher_has_nothing_to_distill() {
    for beginning in [Beginning::Eps, Beginning::EpsZeroSnr, Beginning::Edm { sigma_data: 0.7 }] {
        let teacher = teacher(beginning);
        for arm in [Arm::Distillation, Arm::Gaussian, Arm::Lwf, Arm::Partial] {
            // Of the weights, all but one part in a million on the replay: its gradient is the loss's.
            let m = method(&task(arm, 2, Some(1e6)), &teacher);
            let (loss, grad) = loss_at(&m, &teacher.thetas[0]);
            assert_eq!(term(&loss, "replay"), 0.0, "{arm:?}");
            let (_, current) = loss_at(&method(&task(arm, 2, Some(0.0)), &teacher), &teacher.thetas[0]);
            let off = grad.iter().zip(&current).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-6 && current.iter().any(|g| g.abs() > 1e-4), "{arm:?}: {off}");
        }
        let (loss, _) = loss_at(&method(&task(Arm::Replay, 2, None), &teacher), &teacher.thetas[0]);
        assert!(term(&loss, "replay") > 0.01);
    }
}

#[test]
fn without_lambda_the_gradient_is_fine_tunings() {
    let teacher = teacher(Beginning::Eps);
    let theta: Vec<f32> = teacher.thetas[0].iter().map(|v| v * 1.01).collect();
    let (_, naive) = loss_at(&method(&task(Arm::FineTune, 4, None), &teacher), &theta);
    let (_, scaled) = loss_at(&method(&task(Arm::Distillation, 4, Some(0.0)), &teacher), &theta);
    assert!(naive.iter().zip(&scaled).all(|(a, b)| (a / 4.0 - b).abs() < 1e-7 + 1e-5 * a.abs()));
}

#[test]
fn the_loss_is_the_weighted_sum_of_both_halves() {
    let teacher = teacher(Beginning::EpsZeroSnr);
    let theta: Vec<f32> = teacher.thetas[0].iter().map(|v| v * 1.05).collect();
    for arm in [Arm::Replay, Arm::Distillation, Arm::Gaussian, Arm::Lwf, Arm::Partial] {
        let (loss, _) = loss_at(&method(&task(arm, 5, Some(0.5)), &teacher), &theta);
        let value = f64::from(loss.value.to_scalar::<f32>().unwrap());
        close(value, 0.2 * term(&loss, "current") + 0.4 * term(&loss, "replay"), 1e-6 * value);
        assert!(term(&loss, "replay") > 1e-6, "{arm:?}");
    }
}

#[test]
fn a_task_leaves_its_teacher_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.safetensors");
    let before = teacher(Beginning::Eps);
    let bytes = bundle::write(&before.meta, &before.thetas).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    let config = crate::config::resolve(
        "continual",
        &["batch=32", "images=320", "method.task=2", "method.clip=false", "data={kind='toy',toy={shape='mixture'}}"].map(String::from),
    )
    .unwrap();
    let setup = crate::train::Setup::new(crate::config::RunConfig { teacher: Some(file.clone()), ..config }).unwrap();
    let mut state = setup.fresh();
    assert_eq!(state.nets[0].theta, before.thetas[0]);
    for _ in 0..10 {
        setup.step(&mut state).unwrap();
    }
    assert_ne!(state.nets[0].theta, before.thetas[0]);
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn micro_batches_draw_the_same_replay() {
    let teacher = teacher(Beginning::Eps);
    for arm in [Arm::Distillation, Arm::Partial] {
        let m = method(&task(arm, 3, None), &teacher);
        let net = [Network::trained(m.exec.clone(), &teacher.thetas[0], device()).unwrap()];
        let data = data();
        let drawn = |images| {
            let pass = Pass { seed: 3, first: 0, images, nets: &net, average: None, data: Some(data.as_ref()) };
            let current = m.current(&pass).unwrap().0;
            m.replayed(&pass, &current).unwrap().unwrap().0.x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(drawn(0..8), [drawn(0..3), drawn(3..8)].concat(), "{arm:?}");
    }
}

#[test]
fn a_pool_comes_again_with_other_noise() {
    let teacher = teacher(Beginning::Eps);
    let noised = |pool, images| {
        let m = method(&ContinualConfig { pool, ..task(Arm::Distillation, 3, None) }, &teacher);
        let net = [Network::trained(m.exec.clone(), &teacher.thetas[0], device()).unwrap()];
        let data = data();
        let pass = Pass { seed: 3, first: 0, images, nets: &net, average: None, data: Some(data.as_ref()) };
        let current = m.current(&pass).unwrap().0;
        let (x, t) = m.replayed(&pass, &current).unwrap().map(|(n, _)| (n.x, n.t)).unwrap();
        // x0 = (x_t - sigma eps) / alpha
        let eps = normals(3, &pass.images, [2, 1, 1], Stream::Other(REPLAY + 1)).unwrap();
        let of = |f: fn(&Schedule, f64) -> f64| crate::method::per_image(t.iter().map(|&t| f(&m.spec.schedule, t))).unwrap();
        let x0 = (x - eps.broadcast_mul(&of(Schedule::sigma)).unwrap()).unwrap().broadcast_div(&of(Schedule::alpha)).unwrap();
        (x0.flatten_all().unwrap().to_vec1::<f32>().unwrap(), t)
    };
    let (pooled, times) = noised(Some(4), 0..10);
    let (fresh, _) = noised(None, 0..4);
    for (k, x0) in pooled.chunks_exact(2).enumerate() {
        let drawn = &fresh[2 * (k % 4)..][..2];
        // The smallest alpha here is 0.006.
        x0.iter().zip(drawn).for_each(|(a, b)| close(f64::from(*a), f64::from(*b), 2e-3));
    }
    assert_ne!(times[..4], times[4..8]);
}

/// Data `N(0, v)` whose exact denoiser is linear.
struct Linear(f64);

impl Denoiser for Linear {
    fn x0(&self, x: &[f32], t: f64, _: Label, out: &mut [f32]) {
        let (a, s) = (ZERO_SNR.alpha(t), ZERO_SNR.sigma(t));
        let slope = a * self.0 / (a * a * self.0 + s * s);
        out.iter_mut().zip(x).for_each(|(o, x)| *o = slope as f32 * x);
    }
}

/// Variance of what the exact model of data `N(0, v)` draws.
fn drawn_variance(program: &Program, v: f64) -> f64 {
    let drawn = run_closed_form(program, &Linear(v), 1, &mut |_, out| out.fill(1.0)).unwrap();
    f64::from(drawn[0]).powi(2)
}

#[test]
fn drift() {
    let spec = ModelSpec {
        schedule: ZERO_SNR,
        parameterization: Parameterization::X0,
        second_time: false,
        guidance_input: false,
        null_label: false,
        init_time: None,
    };
    // A model fitted to replay alone is the exact model of what was drawn: its variance shrinks with every task.
    for (steps, expected) in
        [(2, [0.0702, 0.0004, 0.0, 0.0]), (10, [0.6859, 0.4516, 0.2795, 0.1569]), (100, [0.9632, 0.9275, 0.8928, 0.8590])]
    {
        let program = build(Sampler::Ddim, &spec, steps, 1.0).unwrap();
        let mut v = 1.0;
        for want in expected {
            v = drawn_variance(&program, v);
            close(v, want, 1e-3);
        }
    }
}

/// `n` pixels of `N(0, variance)`.
fn pixels(n: usize, variance: f64, stream: u32) -> Tensor {
    let mut v = vec![0f32; n];
    rng::normals(5, Stream::Other(stream), 0, &mut v);
    (Tensor::from_vec(v, (n, 1, 1, 1), device()).unwrap() * variance.sqrt()).unwrap()
}

#[test]
fn slopes_of_the_mixed_objective() {
    // alpha_bar 0.5, new data of variance 0.25, replay of 0.07, n = 2, lambda = 1; the teacher's slope is of data of variance 1.
    let spec = ModelSpec {
        schedule: Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 },
        parameterization: Parameterization::Eps,
        second_time: false,
        guidance_input: false,
        null_label: false,
        init_time: None,
    };
    let (n, t, old) = (100_000, spec.schedule.time_of_ratio(1.0), 0.5f64.sqrt());
    let noised =
        |variance, stream| Noised::new(&spec, &pixels(n, variance, stream), &pixels(n, 1.0, stream + 1), vec![t; n], vec![]).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / n as f64;
    let ((new, new_target), (replay, eps)) = (noised(0.25, 1), noised(0.07, 3));
    let (x, xr) = (flat(&new.x), flat(&replay.x));
    let [wc, wr] = task(Arm::Distillation, 2, Some(1.0)).weights();
    let slope = |target: &[f32]| (wc * sum(&x, &flat(&new_target)) + wr * sum(&xr, target)) / (wc * sum(&x, &x) + wr * sum(&xr, &xr));
    let distilled: Vec<f32> = xr.iter().map(|x| old as f32 * x).collect();
    close(slope(&distilled), 0.935697, 0.01);
    close(slope(&flat(&eps)), 1.219150, 0.01);
    close(sum(&x, &flat(&new_target)) / sum(&x, &x), 1.131371, 0.01);
}

#[test]
fn new_classes_leave_old_answers_as_they_were() {
    let config = serde_json::json!({"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2, "num_class_embeds": 3});
    let mut meta = teacher(Beginning::Edm { sigma_data: 0.7 }).meta;
    meta.networks = vec![serde_json::from_value(config).unwrap()];
    (meta.classes, meta.null_label) = (vec!["cat".into(), "dog".into()], Some(2));
    let graph = meta.networks[0].build().unwrap();
    let old = bundle::read(&bundle::write(&meta, &[graph.init(4)]).unwrap()).unwrap();
    let config = ContinualConfig { classes: vec!["dog".into(), "owl".into()], ..task(Arm::Distillation, 2, None) };
    let m = method(&config, &old);
    assert_eq!((m.meta.classes.join(" "), m.meta.null_label), ("cat dog owl".into(), Some(3)));
    let theta = m.networks(0).unwrap().remove(0).theta;
    let student = Network::frozen(m.exec.clone(), &theta, device()).unwrap();
    let x = noise(1, &(0..4), [2, 1, 1], Stream::Noise);
    let asked = |net: &Network, labels: Vec<u32>| {
        let noised = Noised { x: tensor(x.clone(), 4, [2, 1, 1]).unwrap(), t: vec![0.5, 1.0, 2.0, 3.0], labels };
        noised.asked(net, &m.spec).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let before = asked(&m.previous.as_ref().unwrap().teacher, vec![0, 1, 2, 2]);
    assert_eq!(before, asked(&student, vec![0, 1, 3, 2]), "cat, dog, none, and owl, which begins as none");
    // Distillation has old labels and the null label on both sides, whose rows lie elsewhere.
    let images = InMemory::new([2, 1, 1], vec![0, 99, 200, 255], vec![1, 0], vec!["dog".into(), "owl".into()]).unwrap();
    let nets = [student];
    let pass = Pass { seed: 3, first: 0, images: 0..200, nets: &nets, average: None, data: Some(&images) };
    let (current, _) = m.current(&pass).unwrap();
    assert!([1, 2, 3].iter().all(|l| current.labels.contains(l)) && !current.labels.contains(&0));
    let (replayed, target) = m.replayed(&pass, &current).unwrap().unwrap();
    assert!([0, 1, 3].iter().all(|l| replayed.labels.contains(l)) && !replayed.labels.contains(&2));
    assert_eq!(mse(&replayed.asked(&nets[0], &m.spec).unwrap(), &target).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let teacher = teacher(Beginning::Eps);
    let refused = |config: ContinualConfig, network: Option<&NetworkConfig>, teacher: Option<&Bundle>| {
        format!("{:#}", Continual::new(&config, network, teacher, "x", Precision::F32).err().unwrap())
    };
    assert!(refused(task(Arm::Replay, 2, None), Some(&points()), None).contains("`teacher`: found none, expected the model after task 1"));
    assert!(refused(task(Arm::Replay, 1, None), None, None).contains("`network`"));
    assert!(refused(task(Arm::Replay, 1, None), None, Some(&teacher)).contains("`method.task`: found 1"));
    assert!(refused(task(Arm::Replay, 2, Some(-1.0)), None, Some(&teacher)).contains("`method.lambda`: found -1"));
    assert!(refused(ContinualConfig { teacher_steps: 0, ..task(Arm::Replay, 2, None) }, None, Some(&teacher)).contains("teacher_steps"));
}
