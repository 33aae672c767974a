//! SiD on small random networks, and what its tests share.

mod adversarial;
mod closed_form;

use super::*;
use crate::config::EmaConfig;
use crate::method::teacher::{Teacher, TeacherConfig};
use candle_core::{Device, Var};
use limbeck_shared::bundle;
use limbeck_shared::denoiser::ModelSpec;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::program::{self, Label};

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn close(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "found {found}, expected {expected} within {within}");
}

/// Slope of the best denoiser of N(0, s^2) at noise sigma.
fn slope(s: f64, sigma: f64) -> f64 {
    s * s / (s * s + sigma * sigma)
}

/// A perceptron teacher on points with three classes and a null label.
fn teacher() -> Bundle {
    let network = serde_json::json!({"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2, "num_class_embeds": 4});
    let network: NetworkConfig = serde_json::from_value(network).unwrap();
    let theta = network.build().unwrap().init(3);
    let config = TeacherConfig { sigma_data: 0.5, p_mean: -1.2, p_std: 1.2, label_dropout: 0.1, guidance_levels: None };
    let meta = Teacher::new(&config, &network, "teacher", Precision::F32).unwrap().meta(None).unwrap();
    bundle::read(&bundle::write(&meta, &[theta]).unwrap()).unwrap()
}

fn sid(config: &SidConfig) -> Sid {
    Sid::new(config, &teacher(), "student", Precision::F32).unwrap()
}

/// Weights moved away from the teacher's.
fn moved(s: &Sid, which: u64) -> Vec<f32> {
    let mut by = vec![0f32; s.start.len()];
    rng::normals(4, Stream::Init, which, &mut by);
    s.start.iter().zip(by).map(|(t, b)| t + 0.1 * b).collect()
}

fn nets(s: &Sid, generator: &[f32], fake: &[f32]) -> [Network; 2] {
    [(&s.generator, generator), (&s.fake, fake)].map(|(e, theta)| Network::trained(e.clone(), theta, &Device::Cpu).unwrap())
}

fn pass<'a>(images: std::ops::Range<u64>, nets: &'a [Network]) -> Pass<'a> {
    Pass { seed: 2, first: images.start, images, nets, average: None, data: None }
}

#[test]
fn a_generator_may_start_as_another_student() {
    let one = sid(&SidConfig::default());
    let theta = moved(&one, 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bundle::write(&one.meta(None).unwrap(), std::slice::from_ref(&theta)).unwrap()).unwrap();
    let four = |file: &std::path::Path| {
        Sid::new(&SidConfig { steps: 4, start: Some(file.into()), ..Default::default() }, &teacher(), "student", Precision::F32)
    };
    let written = crate::train::read_bundle(file.path()).unwrap().thetas[0].clone();
    let nets = four(file.path()).unwrap().networks(0).unwrap();
    assert_eq!((&nets[0].theta, &nets[1].theta), (&written, &teacher().thetas[0]), "the generator's, the fake score's");
    // The teacher is no student of itself.
    std::fs::write(file.path(), bundle::write(&teacher().meta, &[theta]).unwrap()).unwrap();
    let e = four(file.path()).err().unwrap().to_string();
    assert!(e.contains("`method.start`: found `teacher`, a student of none"), "{e}");
    assert!(format!("{:#}", four("nowhere".as_ref()).err().unwrap()).contains("`method.start`"));
}

#[test]
fn levels_fall_linearly_in_the_grids_time() {
    for (steps, expected) in [(1, &[2.5][..]), (2, &[2.5, 0.1690]), (3, &[2.5, 0.4676, 0.0514]), (4, &[2.5, 0.7394, 0.1690, 0.0260])] {
        let s = sid(&SidConfig { steps, ..Default::default() });
        for (k, level) in expected.iter().enumerate() {
            close(s.levels[k], *level, 5e-5);
        }
    }
    let schedule = crate::method::teacher::SCHEDULE;
    for (u, sigma) in [(0.25, 0.16975), (0.5, 2.51522), (0.8, 24.4083)] {
        close(schedule.at_uniform(u), sigma, 1e-4);
    }
    close(schedule.uniform_of(2.5), 0.499322, 1e-6);
}

/// The denoiser `slopes(sigma) x`.
struct Slopes<F>(F);

impl<F: Fn(f64) -> f64> limbeck_shared::denoiser::Denoiser for Slopes<F> {
    fn x0(&self, x: &[f32], t: f64, _: Label, out: &mut [f32]) {
        out.iter_mut().zip(x).for_each(|(o, x)| *o = (self.0(t) * f64::from(*x)) as f32);
    }
}

#[test]
fn chains_of_slopes_have_the_closed_forms_spread() {
    let s = sid(&SidConfig { steps: 4, ..Default::default() });
    let spec: ModelSpec = s.meta.spec();
    let spread = |steps, slopes: &dyn Fn(f64) -> f64| {
        let program = program::build(Sampler::Renoise, &spec, steps, 1.0).unwrap();
        let mut noise = |stream: u32, out: &mut [f32]| rng::normals(8, Stream::Sample(stream), 0, out);
        let drawn = program::run_closed_form(&program, &Slopes(slopes), 100_000, &mut noise).unwrap();
        (drawn.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / drawn.len() as f64).sqrt()
    };
    // The chain that keeps the data's variance: s / sigma_1 at first, then the root of the teacher's slope.
    let best = |sigma: f64| if sigma == 2.5 { 0.2 } else { slope(0.5, sigma).sqrt() };
    for (k, c) in [(1, 0.2), (2, 0.560189), (3, 0.947350), (4, 0.998653)] {
        close(best(s.levels[k - 1]), c, 1e-4);
    }
    close(spread(4, &best), 0.5, 5e-3);
    // The teacher's own slopes, to which the generator is initialised; each length by the levels of its own K.
    close(spread(1, &|sigma| slope(0.5, sigma)), 0.09615, 1e-3);
    close(spread(4, &|sigma| slope(0.5, sigma)), 0.25963, 3e-3);
}

#[test]
fn training_and_sampling_walk_the_same_chain() {
    let s = sid(&SidConfig { steps: 4, matching: Matching::PerImage, ..Default::default() });
    let (theta, n) = (moved(&s, 0), 64);
    let nets = nets(&s, &theta, &s.start);
    let pass = pass(0..n, &nets);
    let d = Draws { seed: 2, phase: 1 };
    let (labels, at) = (s.labels(&pass, d), s.matched(&pass));
    assert!((1..=4).all(|k| at.contains(&k)), "{at:?}");
    let (input, levels) = s.chain(&nets[0], &pass, d, &at, &labels).unwrap();
    let found = values(&s.x0(&nets[0], &input, &levels, &labels).unwrap());
    // By hand, one image after another.
    for (i, &k) in at.iter().enumerate() {
        let image = i as u64..i as u64 + 1;
        let mut x = Tensor::zeros((1, 2, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        for step in 1..=k {
            let eps = tensor(noise(2, &image, [2, 1, 1], d.chain(step)), 1, [2, 1, 1]).unwrap();
            let level = s.levels[step - 1];
            x = s.x0(&nets[0], &(x + (eps * level).unwrap()).unwrap(), &[level], &labels[i..=i]).unwrap();
        }
        for (f, e) in found[2 * i..].iter().zip(values(&x)) {
            close(*f, e, 1e-5);
        }
    }
    for (matching, all) in [(Matching::Uniform, false), (Matching::Final, true)] {
        let s = sid(&SidConfig { steps: 4, matching, ..Default::default() });
        let at = s.matched(&pass);
        assert!(at.iter().all(|k| *k == at[0]) && (!all || at[0] == 4), "{matching:?}: {at:?}");
    }
}

#[test]
fn guidance_is_linear_in_kappa() {
    let s = sid(&SidConfig::default());
    let net = &s.teacher;
    let x = tensor(noise(2, &(0..6), [2, 1, 1], Stream::Noise), 6, [2, 1, 1]).unwrap();
    let labels = [0, 1, 2, 0, 1, 2];
    let by = |kappa| values(&s.guided(net, &x, &[0.7; 6], &labels, kappa).unwrap());
    let (with, without) = (values(&s.x0(net, &x, &[0.7; 6], &labels).unwrap()), values(&s.x0(net, &x, &[0.7; 6], &[3; 6]).unwrap()));
    assert_eq!((by(1.0), by(0.0)), (with.clone(), without.clone()));
    assert!(with.iter().zip(&without).any(|(a, b)| (a - b).abs() > 1e-3));
    for kappa in [-1.0, 2.5] {
        for ((found, w), o) in by(kappa).iter().zip(&with).zip(&without) {
            close(*found, o + kappa * (w - o), 1e-5);
        }
    }
    let kappas = [(Guidance::None, [1.0; 4]), (Guidance::Lsg(2.0), [2.0; 4]), (Guidance::ZeroCfg, [0.0, 0.0, 0.0, 1.0])];
    for (strategy, expected) in kappas.into_iter().chain([(Guidance::AntiCfg(1.0), [1.0, -1.0, -1.0, 1.0])]) {
        assert_eq!(strategy.kappas(), expected);
    }
}

#[test]
fn a_fake_score_that_is_the_teacher_leaves_the_generator_alone() {
    for alpha in [1.0, 1.2] {
        let s = sid(&SidConfig { alpha, steps: 2, ..Default::default() });
        let gradient = |fake: &[f32]| {
            let nets = nets(&s, &moved(&s, 0), fake);
            let loss = s.loss(1, &pass(0..32, &nets)).unwrap();
            let gradient = values(loss.value.backward().unwrap().get(nets[0].theta()).unwrap());
            (values(&loss.value)[0], gradient.iter().map(|g| g * g).sum::<f64>().sqrt())
        };
        let ((loss, none), (_, some)) = (gradient(&s.start), gradient(&moved(&s, 1)));
        // What the two networks send back cancels to the last rounding.
        assert!(loss == 0.0 && none < 1e-6 * some, "{loss} {none} {some}");
    }
}

#[test]
fn gradients_reach_the_generator_through_every_network_and_no_other_weights() {
    for (alpha, guidance) in [(1.0, Guidance::None), (1.2, Guidance::Lsg(2.0)), (1.2, Guidance::AntiCfg(1.0))] {
        let s = sid(&SidConfig { alpha, guidance, ..Default::default() });
        let (theta, fake) = (moved(&s, 0), moved(&s, 1));
        let networks = nets(&s, &theta, &fake);
        let images = 0..128;
        let Terms { per_pixel, omega, .. } = s.generator_terms(&pass(images.clone(), &networks)).unwrap();
        let value = per_pixel.broadcast_mul(&omega).unwrap().mean_all().unwrap();
        let gradient = value.backward().unwrap();
        assert!(gradient.get(networks[1].theta()).is_none() && gradient.get(s.teacher.theta()).is_none());
        let gradient = values(gradient.get(networks[0].theta()).unwrap());
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        // Along the gradient, with the same draws and the same omega.
        let h = 1e-2;
        let along = |sign: f64| {
            let theta: Vec<f32> = theta.iter().zip(&gradient).map(|(t, g)| t + (sign * h * g / norm) as f32).collect();
            let networks = nets(&s, &theta, &fake);
            let per_pixel = s.generator_terms(&pass(images.clone(), &networks)).unwrap().per_pixel;
            values(&per_pixel).iter().zip(values(&omega).iter().flat_map(|w| [w, w])).map(|(p, w)| p * w).sum::<f64>() / 256.0
        };
        close((along(1.0) - along(-1.0)) / (2.0 * h) / norm, 1.0, 2e-3);

        let loss = s.loss(0, &pass(images.clone(), &networks)).unwrap();
        let gradient = loss.value.backward().unwrap();
        assert!(loss.nets == [1] && gradient.get(networks[0].theta()).is_none() && gradient.get(networks[1].theta()).is_some());
    }
}

#[test]
fn every_image_brings_its_own_draws() {
    let s = sid(&SidConfig { steps: 4, ..Default::default() });
    let nets = nets(&s, &moved(&s, 0), &moved(&s, 1));
    for phase in 0..2 {
        let part = |images| values(&s.loss(phase, &Pass { first: 40, ..pass(images, &nets) }).unwrap().value)[0];
        let whole = part(40..72);
        close((part(40..56) + part(56..72)) / 2.0, whole, 1e-4 * whole.abs());
    }
}

#[test]
fn the_average_is_the_papers() {
    let ema = EmaConfig { half_life: 500_000, ramp: 0.05 };
    close(ema.keep(100_000_000, 256), 0.99964517, 1e-8);
    // 5 % of the images seen, while that is less.
    close(ema.keep(1_000_000, 256), 0.5f64.powf(256.0 / 50_000.0), 1e-12);
}

#[test]
fn settings_that_cannot_be_are_named() {
    let default = SidConfig::default;
    let wrong = [
        (SidConfig { steps: 0, ..default() }, "method.steps"),
        (SidConfig { sigma_init: 100.0, ..default() }, "method.sigma_init"),
        (SidConfig { t_max: 0.0, ..default() }, "method.t_max"),
        (SidConfig { label_dropout: 1.0, ..default() }, "method.label_dropout"),
        (SidConfig { alpha: f64::NAN, ..default() }, "alpha NaN"),
        (SidConfig { guidance: Guidance::Lsg(f64::INFINITY), ..default() }, "method.guidance"),
    ];
    for (config, key) in wrong {
        let e =
            Sid::new(&config, &teacher(), "student", Precision::F32).err().unwrap_or_else(|| panic!("{config:?} was accepted")).to_string();
        assert!(e.contains(key), "{e}");
    }
    let s = sid(&SidConfig { steps: 4, ..default() });
    assert_eq!(s.meta.samplers[0].steps, [1, 2, 4]);
    let student = bundle::read(&bundle::write(&s.meta, std::slice::from_ref(&s.start)).unwrap()).unwrap();
    assert_eq!(student.meta.training.teacher_sha256, Some(teacher().sha256));
}

#[test]
fn an_iteration_costs_what_the_paper_says() {
    // Fake score: generator forward 1, fake score forward 1, backward with weights 2. Generator: 3, and 2 through each network.
    let s = sid(&SidConfig { steps: 1, ..Default::default() });
    let nets = nets(&s, &moved(&s, 0), &moved(&s, 1));
    let cost = || [s.generator.passes(), s.fake.passes(), s.teacher.exec().passes()];
    let mut before = cost();
    for (phase, expected) in [(0, [1, 3, 0]), (1, [3, 2, 2])] {
        s.loss(phase, &pass(0..16, &nets)).unwrap().value.backward().unwrap();
        let now = cost();
        let spent: Vec<u64> = now.iter().zip(before).map(|(a, b)| (a - b) / 16).collect();
        assert_eq!(spent, expected, "phase {phase}");
        before = now;
    }
}
