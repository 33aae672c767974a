//! TDC on Gaussian data, where losses have closed forms, and on small networks.

use super::*;
use crate::config::resolve;
use limbeck_shared::bundle;
use limbeck_shared::cpu::Precision;
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::graph::Graph;
use limbeck_shared::graph::prune::{Kept, blocks};
use limbeck_shared::program::Instr;
use limbeck_shared::rng;

/// The shipped teacher's network with random weights, as a bundle.
fn base() -> Bundle {
    let config = resolve("fashion-teacher", &[]).unwrap();
    let setup = crate::method::build(&config, None).unwrap();
    let spec = &setup.networks(1).unwrap()[0];
    bundle::read(&bundle::write(&setup.meta(None).unwrap(), &[jittered(&spec.theta)]).unwrap()).unwrap()
}

fn jittered(theta: &[f32]) -> Vec<f32> {
    let mut noise = vec![0f32; theta.len()];
    rng::normals(9, Stream::Other(0), 0, &mut noise);
    theta.iter().zip(noise).map(|(v, e)| v + 0.02 * e).collect()
}

/// Four groups, each with `less` units of every block less than the next cleaner one, as far as they go.
fn config(graph: &Graph, less: usize, share: bool) -> TdcConfig {
    let order: Kept = blocks(graph).iter().map(|b| (0..b.units).rev().collect()).collect();
    let kept =
        |k: usize| blocks(graph).iter().zip(&order).map(|(b, o)| o[..b.units - (k * less).min(b.units - b.least)].to_vec()).collect();
    let group = |k: usize| GroupConfig { range: [k as f64 / 4.0, (k + 1) as f64 / 4.0], kept: kept(k) };
    let groups = (0..4).rev().map(group).collect();
    TdcConfig { overlap: 0.02, label_dropout: 0.1, scratch: false, target: Target::Data, order: share.then_some(order), groups }
}

fn method(base: &Bundle, config: &TdcConfig) -> Tdc {
    Tdc::new(config, base, "routed", 0, Precision::F32).unwrap()
}

#[test]
fn groups_start_as_the_base_and_share_its_kernels() {
    let base = base();
    let whole = method(&base, &config(&base.graphs[0], 0, false));
    let spec = &whole.networks(0).unwrap()[0];
    assert_eq!(spec.theta.len(), 4 * base.thetas[0].len(), "separate copies");
    for (_, theta) in whole.drawn(&spec.exec, &spec.theta) {
        let order: Kept = blocks(&base.graphs[0]).iter().map(|b| (0..b.units).rev().collect()).collect();
        let reordered = prune::prune(&base.meta.networks[0], &order).unwrap();
        assert_eq!(theta, select(&base.thetas[0], &reordered.index));
    }
    let shared = method(&base, &config(&base.graphs[0], 1, true));
    let spec = &shared.networks(0).unwrap()[0];
    // Every weight somewhere else, so that nothing is stored once by chance.
    let trained = jittered(&jittered(&spec.theta));
    let (_, thetas): (Vec<_>, Vec<_>) = shared.drawn(&spec.exec, &trained).into_iter().unzip();
    let meta = shared.meta(None).unwrap();
    let file = bundle::write(&meta, &thetas).unwrap();
    let plain = bundle::write(&base.meta, &base.thetas).unwrap();
    let ratio = file.len() as f64 / plain.len() as f64;
    assert!((1.1..1.5).contains(&ratio), "a routed bundle of {ratio} times the base's size");
    assert_eq!(meta.router.unwrap().nets, [3, 2, 1, 0]);
    assert_eq!(meta.training.teacher_sha256, Some(base.sha256));
}

/// The same weights as a student of four re-noised steps.
fn student() -> Bundle {
    let base = base();
    let sampler = limbeck_shared::bundle::SamplerSpec { sampler: Sampler::Renoise, steps: vec![1, 2, 4], default_steps: 4 };
    let meta = Meta { init_time: Some(2.515_22), samplers: vec![sampler], guidance: None, ..base.meta };
    bundle::read(&bundle::write(&meta, &base.thetas).unwrap()).unwrap()
}

#[test]
fn a_students_groups_learn_at_its_steps() {
    let student = student();
    assert!(steps(&base().meta).is_empty());
    // sigma = 2.51522 is the uniform time 0.5 on the grid of rho = 7.
    let times = steps(&student.meta);
    for (found, expected) in times.iter().zip([0.5, 0.375, 0.25, 0.125]) {
        assert!((found - expected).abs() < 1e-5, "{times:?}");
    }
    let mut config = config(&student.graphs[0], 1, true);
    let e = Tdc::new(&config, &student, "routed", 0, Precision::F32).err().unwrap().to_string();
    assert!(e.contains("student of 4 steps, expected base"), "{e}");
    config.target = Target::Base;
    for (group, range) in config.groups.iter_mut().zip([[0.4375, 1.0], [0.3125, 0.4375], [0.1875, 0.3125], [0.0, 0.1875]]) {
        group.range = range;
    }
    let routed = method(&student, &config);
    for (group, step) in config.groups.iter().zip(&times) {
        for u in [0.0, 0.5, 0.999] {
            assert_eq!(routed.time(group.range, u), student.meta.schedule.at_uniform(*step));
        }
    }
    // Each step's call names its group's network.
    let program = routed.meta(None).unwrap().draw_program(None, Some(4), None).unwrap();
    let net = |i: &Instr| if let Instr::Eval(e) = i { Some(e.net) } else { None };
    let nets: Vec<usize> = program.instrs.iter().filter_map(net).collect();
    assert_eq!(nets, [3, 2, 1, 0], "the widest network is the file's first");
}

#[test]
fn edges_are_noise_levels_of_the_ranges() {
    let base = base();
    let router = method(&base, &config(&base.graphs[0], 1, true)).meta(None).unwrap().router.unwrap();
    // Section 1 of Karras et al.: sigma(0.25) = 0.16975, sigma(0.5) = 2.51522 on the grid of rho = 7.
    assert!((router.edges[2].exp() - 0.16975).abs() < 1e-5);
    assert!((router.edges[1].exp() - 2.51522).abs() < 1e-5);
}

/// Twelve images of noise.
struct Noise;

impl Dataset for Noise {
    fn len(&self) -> usize {
        12
    }
    fn shape(&self) -> [usize; 3] {
        [1, 28, 28]
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn image(&self, i: usize, out: &mut [f32]) {
        rng::normals(2, Stream::Other(1), i as u64, out);
    }
    fn label(&self, i: usize) -> u32 {
        i as u32 % 10
    }
}

#[test]
fn gradients_of_shared_and_own_weights_are_the_finite_differences() {
    let base = base();
    let tdc = method(&base, &config(&base.graphs[0], 2, true));
    let spec = &tdc.networks(0).unwrap()[0];
    let loss = |theta: &[f32]| {
        let net = Network::trained(spec.exec.clone(), theta, device()).unwrap();
        let nets = [net];
        let pass = Pass { seed: 1, first: 0, images: 0..8, nets: &nets, average: None, data: Some(&Noise) };
        let value = tdc.loss(0, &pass).unwrap().value;
        let grad = value.backward().unwrap().get(nets[0].theta()).unwrap().to_vec1::<f32>().unwrap();
        (f64::from(value.to_scalar::<f32>().unwrap()), grad)
    };
    let (_, grad) = loss(&spec.theta);
    let graph = spec.exec.graph();
    for name in ["conv_in.weight", "conv_out.bias", "net3.conv_out.bias", "net1.mid_block.resnets.0.norm2.bias"] {
        let range = graph.param(name).unwrap().range();
        let i = range.clone().max_by(|&a, &b| grad[a].abs().total_cmp(&grad[b].abs())).unwrap();
        let h = 4e-3;
        let at = |d: f32| {
            let mut theta = spec.theta.clone();
            theta[i] += d;
            loss(&theta).0
        };
        let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
        let found = f64::from(grad[i]);
        assert!(found != 0.0 && (found - slope).abs() < 0.02 * slope.abs() + 1e-4, "{name}: {found}, finite difference {slope}");
    }
}

#[test]
fn unpruned_copies_answer_as_their_base_does() {
    let base = base();
    let loss = |target: Target, less: usize| {
        let m = method(&base, &TdcConfig { target, ..config(&base.graphs[0], less, true) });
        let spec = &m.networks(0).unwrap()[0];
        let nets = [Network::trained(spec.exec.clone(), &spec.theta, device()).unwrap()];
        let pass = Pass { seed: 1, first: 0, images: 0..8, nets: &nets, average: None, data: Some(&Noise) };
        f64::from(m.loss(0, &pass).unwrap().value.to_scalar::<f32>().unwrap())
    };
    // Units stand in another order, so sums have another one.
    assert!(loss(Target::Base, 0) < 1e-9 && loss(Target::Data, 0) > 0.1);
    assert!(loss(Target::Base, 1) > 1e-6);
}

#[test]
fn a_slope_for_each_group_beats_one_for_all_by_the_variance_within() {
    // Data N(0, s^2) and an eps network that is a slope: eps = a x has loss v_t (a - a_t)^2 + c_t at each time, v_t = E x^2.
    let (s, schedule) = (0.5f64, Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 });
    let spec = ModelSpec {
        schedule,
        parameterization: Parameterization::Eps,
        second_time: false,
        guidance_input: false,
        null_label: false,
        init_time: None,
    };
    let times: Vec<f64> = (0..64).map(|i| (f64::from(i) * 15.0 + 10.0) / 1000.0).collect();
    // Four pixels with the moments of independent normals: means over them are exact expectations.
    let x0: Vec<f32> = [1f32, 1.0, -1.0, -1.0].map(|z| s as f32 * z).repeat(64);
    let eps = [1f32, -1.0, 1.0, -1.0].repeat(64);
    let q = Questions::new(&spec, [1, 2, 2], &x0, &eps, &times, vec![]).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (x, y) = (flat(&q.input), flat(&q.target));
    assert!(y.iter().zip(&eps).all(|(y, e)| (y - e).abs() < 1e-3), "an eps network is asked for the noise");
    let fit = |range: std::ops::Range<usize>| {
        let pairs = || {
            x[4 * range.start..4 * range.end].iter().zip(&y[4 * range.start..4 * range.end]).map(|(x, y)| (f64::from(*x), f64::from(*y)))
        };
        let a = pairs().map(|(x, y)| x * y).sum::<f64>() / pairs().map(|(x, _)| x * x).sum::<f64>();
        pairs().map(|(x, y)| (a * x - y).powi(2)).sum::<f64>() / 4.0
    };
    let (mut weight, mut slope) = (vec![], vec![]);
    for &t in &times {
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let v = (alpha * s).powi(2) + sigma * sigma;
        weight.push(v);
        slope.push(sigma / v);
    }
    let variance = |r: std::ops::Range<usize>| {
        let w: f64 = weight[r.clone()].iter().sum();
        let mean = r.clone().map(|i| weight[i] * slope[i]).sum::<f64>() / w;
        r.map(|i| weight[i] * (slope[i] - mean).powi(2)).sum::<f64>()
    };
    let (one, four) = (fit(0..64), (0..4).map(|g| fit(16 * g..16 * (g + 1))).sum::<f64>());
    let expected = variance(0..64) - (0..4).map(|g| variance(16 * g..16 * (g + 1))).sum::<f64>();
    assert!(four < one && expected > 0.01, "{four} {one} {expected}");
    assert!((one - four - expected).abs() < 1e-3 * expected, "{} {expected}", one - four);
}

#[test]
fn training_times_reach_over_a_groups_ends_and_no_further() {
    let base = base();
    let tdc = method(&base, &config(&base.graphs[0], 1, true));
    let u = |range, at| base.meta.schedule.uniform_of(tdc.time(range, at));
    assert!((u([0.25, 0.5], 0.0) - 0.23).abs() < 1e-9 && (u([0.25, 0.5], 1.0) - 0.52).abs() < 1e-9);
    assert!(u([0.0, 0.25], 0.0).abs() < 1e-9 && (u([0.75, 1.0], 1.0) - 1.0).abs() < 1e-9);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let base = base();
    let refused = |edit: &dyn Fn(&mut TdcConfig)| {
        let mut c = config(&base.graphs[0], 1, true);
        edit(&mut c);
        Tdc::new(&c, &base, "routed", 0, Precision::F32).err().map(|e| format!("{e:#}")).unwrap()
    };
    assert!(refused(&|c| c.groups.clear()).contains("`method.groups`: found 0"));
    assert!(refused(&|c| c.groups[1].range[1] = 0.7).contains("`method.groups.1.range`"));
    assert!(refused(&|c| c.groups[2].kept[0].reverse()).contains("`method.groups.2.kept`"));
    assert!(refused(&|c| c.overlap = 0.7).contains("`method.overlap`"));
    let mut student = base.clone();
    student.meta.second_time = true;
    assert!(check_base(&student).unwrap_err().to_string().contains("expected one diffusion model"));
}
