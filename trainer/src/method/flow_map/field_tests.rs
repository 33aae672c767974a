//! The fields against what they are made of: an EDM denoiser, finite differences, every parameterisation's own formula.

use super::field::{Derivative, NetField, Teacher};
use super::residual::Field;
use crate::device::device;
use crate::method::{edm_x0, extend, noise, per_image, tensor, with_second_time};
use candle_core::Tensor;
use limbeck_shared::bundle::{self, Bundle};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::{ModelSpec, Parameterization};
use limbeck_shared::graph::{Graph, NetworkConfig};
use limbeck_shared::nn::Network;
use limbeck_shared::nn::dual::Dual;
use limbeck_shared::program::Guidance;
use limbeck_shared::rng::Stream;
use limbeck_shared::schedule::Schedule;
use std::sync::Arc;

const SHAPE: [usize; 3] = [1, 8, 8];
const SIGMA_DATA: f64 = 0.7;

fn unet() -> NetworkConfig {
    let json = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 4,
    });
    serde_json::from_value(json).unwrap()
}

/// Weights without a zero among them, so that every path carries something.
pub(super) fn weights(graph: &Graph) -> Vec<f32> {
    let mut noise = vec![0.0; graph.param_count()];
    limbeck_shared::rng::normals(8, Stream::Other(90), 0, &mut noise);
    graph.init(2).iter().zip(noise).map(|(w, z)| w + 0.1 * z).collect()
}

fn images(n: u64, key: u64) -> Tensor {
    tensor(noise(key, &(0..n), SHAPE, Stream::Noise), n as usize, SHAPE).unwrap()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// `|a - b| / |b|`.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (flat(a), flat(b));
    let off: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    (off / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

fn spec(parameterization: Parameterization, schedule: Schedule) -> ModelSpec {
    let second_time = parameterization.is_flow_map();
    ModelSpec { schedule, parameterization, second_time, guidance_input: false, null_label: false, init_time: None }
}

fn flow_map_spec(edm: bool) -> ModelSpec {
    let parameterization = match edm {
        true => Parameterization::EdmFlowMap { sigma_data: SIGMA_DATA },
        false => Parameterization::FlowMap { sigma_data: SIGMA_DATA },
    };
    spec(parameterization, Schedule::Flow { base_std: SIGMA_DATA })
}

#[test]
fn a_warm_start_is_the_teachers_velocity_at_every_pair_of_times() {
    let one_time = unet().build().unwrap();
    let theta = weights(&one_time);
    let two_times = with_second_time(&unet(), false).unwrap().build().unwrap();
    let start = extend(&one_time, &theta, &two_times);
    let denoiser = Network::frozen(Arc::new(Exec::new(one_time).unwrap()), &theta, device()).unwrap();
    let net = Network::frozen(Arc::new(Exec::new(two_times).unwrap()), &start, device()).unwrap();
    let (s, labels) = ([0.02, 0.3, 0.5, 0.9], [0, 1, 2, 3]);
    let x = images(4, 1);
    // x / s = x1 + sigma eps
    let sigma = s.map(|s: f64| SIGMA_DATA * (1.0 - s) / s);
    let scaled = x.broadcast_div(&per_image(s).unwrap()).unwrap();
    let x0 = edm_x0(&denoiser, SIGMA_DATA, &scaled, &sigma, &labels).unwrap();
    let expected = (x0 - &x).unwrap().broadcast_div(&per_image(s.map(|s| 1.0 - s)).unwrap()).unwrap();
    let field = NetField { net: &net, average: None, spec: &flow_map_spec(true), derivative: Derivative::Exact, labels: &labels };
    for t in [s, [0.4, 0.7, 0.9, 1.0]] {
        let off = apart(&field.at(&s, &t, &x).unwrap(), &expected);
        assert!(off < 1e-5, "{off}");
    }
}

/// Exact derivative and central difference on a random network, in every direction. The bound is f32's rounding of the difference;
/// the exact one is held to finite differences in f64 where it is made (`shared/tests/nn/dual.rs`).
#[test]
fn exact_derivatives_match_differences() {
    let graph = with_second_time(&unet(), false).unwrap().build().unwrap();
    let theta = weights(&graph);
    let net = Network::frozen(Arc::new(Exec::new(graph).unwrap()), &theta, device()).unwrap();
    let (s, t, labels) = ([0.2, 0.5, 0.8], [0.6, 0.95, 0.85], [3, 0, 1]);
    let (x, direction) = (images(3, 2), images(3, 3));
    for edm in [false, true] {
        let spec = flow_map_spec(edm);
        let field = |derivative| NetField { net: &net, average: None, spec: &spec, derivative, labels: &labels };
        for (moves, rates) in [(false, [0.0, 1.0]), (false, [1.0, 0.0]), (true, [0.0, 0.0]), (true, [1.0, 0.5])] {
            let x = Dual { value: x.clone(), tangent: moves.then(|| direction.clone()) };
            let exact = field(Derivative::Exact).dual(&s, &t, &x, rates).unwrap();
            let close = field(Derivative::Difference).dual(&s, &t, &x, rates).unwrap();
            let (value, tangent) = (apart(&close.value, &exact.value), apart(&close.tangent().unwrap(), &exact.tangent().unwrap()));
            assert!(value < 1e-3 && tangent < 2e-3, "edm {edm}, {rates:?}, x moves {moves}: {value:.1e}, {tangent:.1e}");
        }
    }
}

/// A bundle with one network.
fn teacher(spec: ModelSpec) -> Bundle {
    let network = if spec.second_time { with_second_time(&unet(), false).unwrap() } else { unet() };
    let theta = weights(&network.build().unwrap());
    let shape = limbeck_shared::bundle::ImageSpec { channels: 1, height: 8, width: 8, range: [-1.0, 1.0] };
    let steps = if spec.second_time { vec![1, 2] } else { vec![] };
    let sampler = if spec.second_time { limbeck_shared::program::Sampler::FlowMap } else { limbeck_shared::program::Sampler::Ddim };
    let meta = bundle::Meta {
        version: bundle::VERSION,
        name: "teacher".into(),
        networks: vec![network],
        parameterization: spec.parameterization,
        schedule: spec.schedule,
        init_time: None,
        second_time: spec.second_time,
        guidance_input: false,
        samplers: vec![bundle::SamplerSpec { sampler, steps, default_steps: 2 }],
        classes: (0..4).map(|i| i.to_string()).collect(),
        null_label: None,
        guidance: None,
        image: shape,
        training: bundle::TrainingRecord::new("edm", "teacher"),
        licence: "MIT".into(),
        router: None,
        golden: None,
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    crate::export::write(meta, &[theta], file.path()).unwrap();
    crate::train::read_bundle(file.path()).unwrap()
}

/// The velocity from the raw network by each parameterisation's definition, at the time of the same noise ratio.
fn by_definition(bundle: &Bundle, at: f64, s: f64, x: &Tensor, labels: &[u32]) -> Tensor {
    let spec = bundle.meta.spec();
    let net = Network::frozen(Arc::new(Exec::new(bundle.graphs[0].clone()).unwrap()), &bundle.thetas[0], device()).unwrap();
    let (alpha, sigma) = (spec.schedule.alpha(at), spec.schedule.sigma(at));
    let theirs = (x * (alpha / s)).unwrap();
    let time = match spec.schedule {
        Schedule::DdpmLinear { steps, .. } => at * f64::from(steps) - 1.0,
        _ => 1000.0 * at,
    };
    let y = net.forward(&theirs, &vec![time as f32; labels.len()], labels).unwrap();
    let x0 = match spec.parameterization {
        Parameterization::X0 => y,
        Parameterization::Eps => ((theirs - (y * sigma).unwrap()).unwrap() / alpha).unwrap(),
        Parameterization::V => ((theirs * alpha).unwrap() - (y * sigma).unwrap()).unwrap(),
        _ => unreachable!(),
    };
    ((x0 - x).unwrap() / (1.0 - s)).unwrap()
}

#[test]
fn teachers_of_every_parameterization_give_their_velocity() {
    let ddpm = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };
    let labels = [1, 2, 3];
    let x = images(3, 5);
    for (parameterization, schedule) in
        [(Parameterization::Eps, ddpm), (Parameterization::X0, ddpm), (Parameterization::V, Schedule::Cosine)]
    {
        let bundle = teacher(spec(parameterization, schedule));
        let teacher = Teacher::new(&bundle, 1.0.into(), Precision::F32).unwrap();
        for s in [0.2, 0.6, 0.95] {
            // The schedule's time by bisection on its noise ratio.
            let (mut low, mut high) = (1e-6, 1.0 - 1e-6);
            for _ in 0..80 {
                let middle = 0.5 * (low + high);
                let ratio = schedule.sigma(middle) / schedule.alpha(middle);
                if ratio < (1.0 - s) * SIGMA_DATA / s { low = middle } else { high = middle }
            }
            let found = teacher.velocity(SIGMA_DATA, &[s; 3], &[s; 3], &x, &labels).unwrap();
            let off = apart(&found, &by_definition(&bundle, low, s, &x, &labels));
            assert!(off < 2e-4, "{parameterization:?}, {schedule:?}, s = {s}: {off:.1e}");
        }
    }
    // A flow map is asked for its own jump, and on the diagonal for its velocity.
    let spec = flow_map_spec(false);
    let bundle = self::teacher(spec.clone());
    let teacher = Teacher::new(&bundle, 1.0.into(), Precision::F32).unwrap();
    let net = Network::frozen(Arc::new(Exec::new(bundle.graphs[0].clone()).unwrap()), &bundle.thetas[0], device()).unwrap();
    let field = NetField { net: &net, average: None, spec: &spec, derivative: Derivative::Exact, labels: &labels };
    for (s, t) in [(0.25, 0.5), (0.5, 0.5), (0.0, 1.0)] {
        let found = teacher.velocity(SIGMA_DATA, &[s; 3], &[t; 3], &x, &labels).unwrap();
        assert!(apart(&found, &field.at(&[s; 3], &[t; 3], &x).unwrap()) < 1e-5, "{s} to {t}");
    }
    assert!(Teacher::new(&bundle, 2.0.into(), Precision::F32).is_err(), "there is no null label to guide with");
}

#[test]
fn a_teacher_guides_at_its_levels_alone() {
    let mut bundle = teacher(spec(Parameterization::V, Schedule::Cosine));
    bundle.meta.classes.truncate(3);
    bundle.meta.null_label = Some(3);
    let (s, x) = ([0.2, 0.6, 0.95], images(3, 5));
    let ratio = (1.0 - s[1]) * SIGMA_DATA / s[1];
    let velocity = |guidance: Guidance, labels: &[u32]| {
        let teacher = Teacher::new(&bundle, guidance, Precision::F32).unwrap();
        teacher.velocity(SIGMA_DATA, &s, &s, &x, labels).unwrap()
    };
    let (labels, nulls) = ([0, 1, 2], [3, 3, 3]);
    let (plain, without) = (velocity(1.0.into(), &labels), velocity(1.0.into(), &nulls));
    let everywhere = (&without + ((&plain - &without).unwrap() * 2.0).unwrap()).unwrap();
    assert!(apart(&velocity(2.0.into(), &labels), &everywhere) < 1e-5);
    let some = velocity(Guidance { weight: 2.0, levels: Some([0.9 * ratio, 1.1 * ratio]) }, &labels);
    for (k, expected) in [&plain, &everywhere, &plain].into_iter().enumerate() {
        let of = |t: &Tensor| t.narrow(0, k, 1).unwrap();
        assert!(apart(&of(&some), &of(expected)) < 1e-5, "image {k}");
    }
}
