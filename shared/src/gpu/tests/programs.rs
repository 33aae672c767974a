//! Whole sampler programs against the same programs walked with networks in f64.

use super::super::{Engine, Options, WeightStorage, block_on};
use super::{engine, engines, normals, reference, relative, theta};
use crate::denoiser::{Lowered, Net, Step, lower, lower_keeping};
use crate::error::Result;
use crate::graph::{Graph, NetworkConfig};
use crate::program::{self, Label, ModelSpec, Parameterization, Sampler};
use crate::schedule::Schedule;

/// A network by its definition.
struct Oracle<'a>(&'a Graph, &'a [f32]);

impl Net for Oracle<'_> {
    fn shape(&self) -> [usize; 3] {
        self.0.input_shape()
    }
    fn eval(&self, x: &[f32], n: usize, times: &[f32], labels: &[u32], out: &mut [f32]) -> Result<()> {
        let pixels = x.len() / n;
        for (i, (x, out)) in x.chunks(pixels).zip(out.chunks_mut(pixels)).enumerate() {
            out.copy_from_slice(&reference::forward(self.0, self.1, x, times, labels[i] as usize));
        }
        Ok(())
    }
}

fn unet(extra: serde_json::Value) -> Graph {
    let mut config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
        "block_out_channels": [8, 12], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 4,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value::<NetworkConfig>(config).unwrap().build().unwrap()
}

fn spec(schedule: Schedule, parameterization: Parameterization) -> ModelSpec {
    ModelSpec { schedule, parameterization, second_time: false, guidance_input: false, null_label: true, init_time: None }
}

/// EDM, Heun, guidance from two calls: 5 steps of network, combination and labels of both kinds.
fn guided_heun() -> (Graph, Lowered) {
    let graph = unet(serde_json::json!({"num_class_embeds": 6}));
    let schedule = Schedule::Edm { sigma_min: 0.01, sigma_max: 20.0, rho: 7.0 };
    let spec = spec(schedule, Parameterization::Edm { sigma_data: 0.5 });
    let lowered = lower(&program::build(Sampler::Heun, &spec, 3, 1.7).unwrap(), &spec).unwrap();
    (graph, lowered)
}

fn compare(engine: &Engine, name: &str, graph: &Graph, lowered: &Lowered, labels: &[u32], null: u32) {
    let theta = theta(graph, 5);
    let oracle = Oracle(graph, &theta);
    let want = program::run(lowered, &[&oracle], 42, 9, labels, null).unwrap();
    let model = engine.load(std::slice::from_ref(graph), std::slice::from_ref(&theta)).unwrap();
    let mut plan = model.plan(lowered, labels.len()).unwrap();
    let got = block_on(plan.sample(42, 9, labels, null)).unwrap();
    let error = relative(&got, &want);
    println!("{name}: {error:.1e}, {} dispatches", plan.dispatches());
    assert!(error < 1e-4, "{name}: {error}");
}

#[test]
fn programs_agree_with_the_walk() {
    for engine in engines(WeightStorage::F16) {
        agree(&engine);
    }
}

fn agree(engine: &Engine) {
    let (graph, lowered) = guided_heun();
    compare(engine, "guided Heun on EDM", &graph, &lowered, &[0, 3, 4], 5);
    let mut reversed = lowered.clone();
    for step in &mut reversed.steps {
        if let Step::Net(e) = step {
            e.label = if e.label == Label::Null { Label::Given } else { Label::Null };
        }
    }
    compare(engine, "the same with labels exchanged", &graph, &reversed, &[0, 3, 4], 5);
    compare(engine, "the same call by call", &graph, &lowered, &[0, 3, 4, 1, 2, 5, 0, 1, 2], 5);

    let graph = unet(serde_json::json!({"resnet_time_scale_shift": "scale_shift", "limbeck_space_to_depth": 2}));
    let ddpm = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };
    let ways =
        [(Sampler::Ddim, Parameterization::Eps), (Sampler::DdimClipped, Parameterization::Eps), (Sampler::Renoise, Parameterization::V)];
    for (sampler, parameterization) in ways {
        let spec = spec(ddpm, parameterization);
        let lowered = lower(&program::build(sampler, &spec, 4, 1.0).unwrap(), &spec).unwrap();
        compare(engine, &format!("{sampler:?} on DDPM"), &graph, &lowered, &[0, 0], 0);
    }
}

#[test]
fn a_second_run_makes_nothing_and_repeats_every_bit() {
    let (graph, lowered) = guided_heun();
    let theta = theta(&graph, 5);
    for engine in engines(WeightStorage::F16) {
        let model = engine.load(std::slice::from_ref(&graph), std::slice::from_ref(&theta)).unwrap();
        let mut plan = model.plan(&lowered, 3).unwrap();
        let planned = engine.counters();
        let first = block_on(plan.sample(1, 0, &[0, 1, 2], 5)).unwrap();
        let between = engine.counters();
        let other = block_on(plan.sample(2, 0, &[0, 1, 2], 5)).unwrap();
        let again = block_on(plan.sample(1, 0, &[0, 1, 2], 5)).unwrap();
        let after = engine.counters();
        assert_eq!(first, again);
        assert_ne!(first, other);
        let made = |c: super::super::Counters| [c.pipelines, c.buffers, c.bind_groups];
        assert_eq!(made(planned), made(after), "buffers, bind groups and pipelines belong to planning");
        assert_eq!(made(planned)[1..], [4, 1], "weights, activations, result, parameters; one bind group");
        assert!(planned.pipelines <= 25);
        let runs = |c: super::super::Counters| [c.submits, c.passes, c.readbacks, c.dispatches / plan.dispatches() as u64];
        assert_eq!(runs(planned), [0; 4]);
        assert_eq!(runs(between), [1; 4]);
        assert_eq!(runs(after), [3; 4]);
    }
}

#[test]
fn images_do_not_depend_on_the_batch() {
    let engine = engine(WeightStorage::F16);
    let (graph, lowered) = guided_heun();
    let model = engine.load(std::slice::from_ref(&graph), &[theta(&graph, 5)]).unwrap();
    let three = block_on(model.plan(&lowered, 3).unwrap().sample(1, 4, &[3, 1, 2], 5)).unwrap();
    let one = block_on(model.plan(&lowered, 1).unwrap().sample(1, 6, &[2], 5)).unwrap();
    let error = relative(&one, &three[2 * one.len()..]);
    assert!(error < 1e-4, "{error}");
}

#[test]
fn a_long_program_may_take_several_submits() {
    let (graph, lowered) = guided_heun();
    let theta = theta(&graph, 5);
    let mut images = vec![];
    for macs_per_submit in [u64::MAX, graph.macs()] {
        let options = Options { macs_per_submit, ..Options::default() };
        let engine = block_on(Engine::new(options)).unwrap();
        let model = engine.load(std::slice::from_ref(&graph), std::slice::from_ref(&theta)).unwrap();
        images.push(block_on(model.plan(&lowered, 2).unwrap().sample(1, 0, &[0, 1], 5)).unwrap());
        let calls = lowered.steps.iter().filter(|s| matches!(s, Step::Net(_))).count() as u64;
        let submits = engine.counters().submits;
        assert!(if macs_per_submit == u64::MAX { submits == 1 } else { submits >= calls }, "{submits}");
    }
    assert_eq!(images[0], images[1]);
}

#[test]
fn states_on_the_way_are_kept() {
    let engine = engine(WeightStorage::F32);
    let (graph, plain) = guided_heun();
    let schedule = Schedule::Edm { sigma_min: 0.01, sigma_max: 20.0, rho: 7.0 };
    let spec = spec(schedule, Parameterization::Edm { sigma_data: 0.5 });
    let program = program::build(Sampler::Heun, &spec, 3, 1.7).unwrap();
    let moments = program::moments(&program);
    let keep: Vec<_> = moments.iter().flat_map(|m| [program::Keep { scale: 0.25, ..m.state }, m.answer]).collect();
    assert_eq!(keep.len(), 6);
    let lowered = lower_keeping(&program, &spec, &keep).unwrap();
    compare(&engine, "guided heun with its states", &graph, &lowered, &[1, 4], 5);
    // The images are those of the plain program, bit for bit, and the first state is the scaled noise.
    let theta = theta(&graph, 5);
    let model = engine.load(std::slice::from_ref(&graph), std::slice::from_ref(&theta)).unwrap();
    let draw = |lowered| block_on(model.plan(lowered, 2).unwrap().sample(42, 9, &[1, 4], 5)).unwrap();
    let (kept, want) = (draw(&lowered), draw(&plain));
    assert_eq!(kept.len(), 7 * want.len());
    assert_eq!(kept[..want.len()], want);
    let mut noise = vec![0.0; want.len() / 2];
    crate::rng::normals(42, crate::rng::Stream::Sample(0), 9, &mut noise);
    for (state, z) in kept[want.len()..].iter().zip(&noise) {
        assert!((state - 0.25 * 20.0 * z).abs() < 1e-4, "{state} for {z}");
    }
    let beyond = program::Keep { after: 999, ..keep[0] };
    assert!(lower_keeping(&program, &spec, &[beyond]).is_err());
}

#[test]
fn several_networks_share_a_program() {
    // Two networks of different weights, alternating: each call must read its own.
    let engine = engine(WeightStorage::F16);
    let (graph, mut lowered) = guided_heun();
    let mut turn = 0;
    for step in &mut lowered.steps {
        if let Step::Net(e) = step {
            e.net = turn % 2;
            turn += 1;
        }
    }
    let thetas = [theta(&graph, 5), theta(&graph, 6)];
    let (a, b) = (Oracle(&graph, &thetas[0]), Oracle(&graph, &thetas[1]));
    let want = program::run(&lowered, &[&a, &b], 1, 0, &[0, 1], 5).unwrap();
    let model = engine.load(&[graph.clone(), graph.clone()], &thetas).unwrap();
    let got = block_on(model.plan(&lowered, 2).unwrap().sample(1, 0, &[0, 1], 5)).unwrap();
    let error = relative(&got, &want);
    assert!(error < 1e-4, "{error}");
}

#[test]
fn combinations_of_many_registers() {
    let engine = engine(WeightStorage::F16);
    let graph = unet(serde_json::json!({}));
    let noises = 13;
    let mut steps: Vec<Step> = (0..noises).map(|r| Step::Noise { dst: r, stream: r as u32 }).collect();
    let terms: Vec<(f32, usize)> = (0..noises).map(|r| (0.5 - 0.1 * r as f32, r)).collect();
    steps.push(Step::Combine { dst: noises, terms });
    let lowered = Lowered { registers: noises + 1, steps, output: noises, kept: vec![] };
    compare(&engine, "a combination of 13", &graph, &lowered, &[0; 5], 0);
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let engine = engine(WeightStorage::F16);
    let (graph, lowered) = guided_heun();
    let model = engine.load(std::slice::from_ref(&graph), &[theta(&graph, 5)]).unwrap();
    let mut plan = model.plan(&lowered, 2).unwrap();
    let noise = normals(0, 2 * 192);
    assert!(block_on(plan.run(&[&noise], &[0, 1], 5)).is_ok());
    for (noise, labels, null) in
        [(&noise[1..], vec![0, 1], 5), (&noise[..], vec![0], 5), (&noise[..], vec![0, 6], 5), (&noise[..], vec![0, 1], 6)]
    {
        assert!(block_on(plan.run(&[noise], &labels, null)).is_err());
    }
    assert!(block_on(plan.run(&[] as &[Vec<f32>], &[0, 1], 5)).is_err());
    assert!(model.plan(&lowered, 0).is_err());
    // More than a binding holds: refused before anything is made.
    let large = unet(serde_json::json!({"num_class_embeds": 6, "sample_size": 64}));
    let large = engine.load(std::slice::from_ref(&large), &[theta(&large, 5)]).unwrap();
    for batch in [256, 4096] {
        let error = large.plan(&lowered, batch).err().unwrap().to_string();
        assert!(error.contains("134217728"), "{error}");
        assert!(large.forward_plan(0, batch).is_err());
    }
    let most = large.largest_batch(&lowered, 256).unwrap();
    assert!(most > 1 && most < 256 && large.plan(&lowered, most + 1).is_err());
    assert!(large.plan(&lowered, most).is_ok());
    assert_eq!(model.largest_batch(&lowered, 7).unwrap(), 7);
    let mut wrong = lowered.clone();
    wrong.output = 100;
    assert!(model.plan(&wrong, 1).is_err());
    let mut wrong = lowered;
    wrong.steps.iter_mut().for_each(|s| {
        if let Step::Net(e) = s {
            e.net = 1
        }
    });
    assert!(model.plan(&wrong, 1).is_err());
}

/// A routed program: Heun's calls on networks of two widths, one pruned out of the other.
#[test]
fn a_program_on_networks_of_several_widths() {
    use crate::graph::prune::{blocks, prune, select};
    use crate::program::Router;
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
        "block_out_channels": [16, 24], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 6,
    });
    let config: NetworkConfig = serde_json::from_value(config).unwrap();
    let wide = config.build().unwrap();
    let kept = blocks(&wide).iter().map(|b| (1..b.units).collect()).collect();
    let pruned = prune(&config, &kept).unwrap();
    let thetas = [theta(&wide, 5), select(&theta(&wide, 5), &pruned.index)];
    let schedule = Schedule::Edm { sigma_min: 0.01, sigma_max: 20.0, rho: 7.0 };
    let spec = spec(schedule, Parameterization::Edm { sigma_data: 0.5 });
    let program =
        Router { edges: vec![0.0], nets: vec![1, 0] }.route(program::build(Sampler::Heun, &spec, 4, 1.7).unwrap(), &schedule).unwrap();
    let lowered = lower(&program, &spec).unwrap();
    let oracles = [Oracle(&wide, &thetas[0]), Oracle(&pruned.graph, &thetas[1])];
    let nets: Vec<&dyn Net> = oracles.iter().map(|o| o as &dyn Net).collect();
    let want = program::run(&lowered, &nets, 42, 0, &[1, 4], 5).unwrap();
    let model = engine(WeightStorage::F16).load(&[wide.clone(), pruned.graph.clone()], &thetas).unwrap();
    let got = block_on(model.plan(&lowered, 2).unwrap().sample(42, 0, &[1, 4], 5)).unwrap();
    assert!(relative(&got, &want) < 1e-4, "{}", relative(&got, &want));
}
