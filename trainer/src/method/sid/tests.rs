//! SiD on Gaussian data, where teacher, fake score and generator are slopes, and on small random networks.
//!
//! Data N(0, s^2), generator `x_g = g z`, teacher `A x` with `A = s^2 / (s^2 + sigma^2)`, best fake score `B x` with
//! `B = g^2 / (g^2 + sigma^2)`. Four pixels (z, eps) = (+-1, +-1) have the moments of independent standard normals, so that means
//! over them are exact expectations of anything quadratic.

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
    Pass { seed: 2, first: images.start, images, nets, data: None }
}

#[test]
fn levels_fall_linearly_in_the_grids_time() {
    for (steps, expected) in [(1, &[2.5][..]), (2, &[2.5, 0.1690]), (3, &[2.5, 0.4676, 0.0514]), (4, &[2.5, 0.7394, 0.1690, 0.0260])] {
        let s = sid(&SidConfig { steps, ..Default::default() });
        for (k, level) in expected.iter().enumerate() {
            close(s.level(k + 1), *level, 5e-5);
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
        close(best(s.level(k)), c, 1e-4);
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
            let level = s.level(step);
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
fn the_best_discriminator_is_the_ratio_of_densities() {
    // Real N(0, s^2), drawn N(0, g^2), both with noise sigma: D*(x) = ln p_real(x) - ln p_drawn(x).
    let (s, g, sigma) = (0.5f64, 0.3f64, 1.0f64);
    let (vr, vd) = (s * s + sigma * sigma, g * g + sigma * sigma);
    let best = |x: f64| 0.5 * (vd / vr).ln() + 0.5 * x * x * (1.0 / vd - 1.0 / vr);
    for (x, expected) in [(0.0, -0.068483), (1.0, -0.009767), (2.0, 0.166379)] {
        close(best(x), expected, 1e-6);
        // There the cross-entropies, weighted by the densities, are at rest.
        let density = |v: f64| (-0.5 * x * x / v).exp() / v.sqrt();
        let slope = |yes: bool| {
            let logit = Var::new(&[best(x) as f32], &Device::Cpu).unwrap();
            values(bce(&logit, yes).unwrap().backward().unwrap().get(&logit).unwrap())[0]
        };
        close(density(vr) * slope(true) + density(vd) * slope(false), 0.0, 1e-7);
    }
    let at = |x: f32, yes| values(&bce(&Tensor::new(&[x], &Device::Cpu).unwrap(), yes).unwrap())[0];
    close(at(0.0, true), std::f64::consts::LN_2, 1e-6);
    close(at(0.0, false), std::f64::consts::LN_2, 1e-6);
    close(at(-10.0, true), 10.0000454, 1e-6);
    close(at(100.0, false), 100.0, 1e-4);
}

/// A small U-Net with an encoder, and images for it.
fn adversarial(config: Adversarial) -> (Sid, Box<dyn Dataset>, tempfile::TempDir) {
    let network = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "num_class_embeds": 3,
    });
    let network: NetworkConfig = serde_json::from_value(network).unwrap();
    let theta = network.build().unwrap().init(3);
    let edm = TeacherConfig { sigma_data: 0.5, p_mean: -1.2, p_std: 1.2, label_dropout: 0.1, guidance_levels: None };
    let dir = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        std::fs::create_dir(dir.path().join(class)).unwrap();
        for i in 0..6u8 {
            image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x * 30) as u8 ^ (y as u8 * i)]))
                .save(dir.path().join(class).join(format!("{i}.png")))
                .unwrap();
        }
    }
    let data = crate::data::open(&crate::data::DataSpec::Folder { dir: dir.path().into() }, crate::data::Split::Train).unwrap();
    let meta = Teacher::new(&edm, &network, "teacher", Precision::F32).unwrap().meta(Some(data.as_ref())).unwrap();
    let teacher = bundle::read(&bundle::write(&meta, &[theta]).unwrap()).unwrap();
    let config = SidConfig { adversarial: Some(config), ..Default::default() };
    (Sid::new(&config, &teacher, "student", Precision::F32).unwrap(), data, dir)
}

#[test]
fn the_adversarial_term_comes_in_three_phases() {
    let (s, data, _dir) = adversarial(Adversarial { freeze: 100, begin: 200, ..Default::default() });
    assert!(s.needs_data() && s.active(0, 0) && !s.active(1, 99) && s.active(1, 100));
    let nets = nets(&s, &moved(&s, 0), &moved(&s, 1));
    let at = |first| Pass { data: Some(data.as_ref()), ..pass(first..first + 8, &nets) };
    let terms = |loss: &Loss| loss.terms.iter().map(|t| t.0).collect::<Vec<_>>();
    let (early, late) = (s.loss(1, &at(192)).unwrap(), s.loss(1, &at(200)).unwrap());
    assert_eq!((terms(&early), terms(&late)), (vec![], vec!["fooled"]));
    let fake = s.loss(0, &at(0)).unwrap();
    assert_eq!(terms(&fake), ["discriminator"]);
    // The term's gradients reach the generator, and in the other phase the fake score; never both.
    for (loss, own, other) in [(&late, 0, 1), (&fake, 1, 0)] {
        let gradient = loss.value.backward().unwrap();
        assert!(gradient.get(nets[other].theta()).is_none());
        assert!(values(gradient.get(nets[own].theta()).unwrap()).iter().any(|g| *g != 0.0));
    }
}

#[test]
fn the_discriminator_is_half_of_the_fake_score() {
    let (s, data, _dir) = adversarial(Adversarial { images: 4, ..Default::default() });
    let nets = nets(&s, &s.start, &moved(&s, 1));
    let x = tensor(noise(2, &(0..3), [1, 8, 8], Stream::Noise), 3, [1, 8, 8]).unwrap();
    let logits = s.logits(&nets[1], &x, &[0.5; 3], &[0, 1, 0]).unwrap();
    assert_eq!(logits.dims(), [3, 1, 4, 4]);
    let gradient = logits.sum_all().unwrap().backward().unwrap();
    let gradient = values(gradient.get(nets[1].theta()).unwrap());
    let graph = s.fake.graph();
    let touched =
        |name: &str| graph.params.iter().filter(|p| p.name.starts_with(name)).any(|p| gradient[p.range()].iter().any(|g| *g != 0.0));
    assert!(touched("conv_in") && touched("down_blocks.1") && !touched("mid_block") && !touched("up_blocks") && !touched("conv_out"));
    // Only the first four images are used.
    let with = Pass { data: Some(data.as_ref()), ..pass(0..64, &nets) };
    let picks = crate::method::picks(&with, 4);
    let mut expected = vec![0f32; 64 * picks.len()];
    expected.chunks_exact_mut(64).zip(&picks).for_each(|(x, &pick)| data.image(pick, x));
    assert_eq!(real(&with, [1, 8, 8], 4).unwrap().x, expected);
    assert!(picks.iter().all(|p| *p < 4) && (0..4).all(|p| picks.contains(&p)));
    assert!(s.loss(0, &pass(0..4, &nets)).err().unwrap().to_string().contains("`data`"));
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
