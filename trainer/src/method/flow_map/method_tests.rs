//! The method as the training loop asks it: which images train what, what it begins with, what its targets are taken from.

use super::field_tests::weights;
use super::{FlowMap, FlowMapConfig};
use crate::checkpoint::State;
use crate::config::{MethodConfig, RunConfig, resolve};
use crate::data::{self, Split};
use crate::device::device;
use crate::method::{Method, Pass, extend};
use crate::resident::Resident;
use crate::train::Setup;
use limbeck_shared::bundle;
use limbeck_shared::cpu::Precision;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::graph::mlp::MlpConfig;
use limbeck_shared::nn::Network;

fn toy(overrides: &[&str]) -> RunConfig {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    resolve("toy-flow-map", &overrides).unwrap()
}

fn settings(config: &RunConfig) -> &FlowMapConfig {
    let MethodConfig::FlowMap(c) = &config.method else { panic!("another method") };
    c
}

/// C1.7: `floor(0.75 M)` of M images are on the diagonal, however many passes an iteration has.
#[test]
fn the_diagonal_gets_its_part_of_every_iteration() {
    let config = toy(&[]);
    let method = FlowMap::new(settings(&config), config.network.as_ref(), None, "test", Precision::F32).unwrap();
    for (batch, pass) in [(1, 1), (7, 7), (64, 64), (64, 10), (1000, 300)] {
        let count = |first: u64| -> usize {
            let passes = (first..first + batch).step_by(pass as usize);
            let one = |at: u64| {
                let pass = Pass { seed: 0, first, images: at..(at + pass).min(first + batch), nets: &[], average: None, data: None };
                let (diagonal, off) = method.split(&pass);
                assert_eq!((diagonal.len() + off.len()) as u64, pass.images.end - pass.images.start);
                diagonal.len()
            };
            passes.map(one).sum()
        };
        for first in [0, 5 * batch] {
            assert_eq!(count(first), (0.75 * batch as f64) as usize, "batch {batch} in passes of {pass}");
        }
    }
}

/// C1.10: with zeros for its class table a conditional network learns what the unconditional one does, from the same images.
#[test]
fn without_its_classes_a_network_learns_like_an_unconditional_one() {
    let config = toy(&["network.hidden=16"]);
    let data = data::open(config.data.as_ref().unwrap(), Split::Train).unwrap();
    let with_classes = |classes: Option<usize>| {
        let Some(NetworkConfig::Mlp(mlp)) = config.network.clone() else { panic!("another network") };
        let network = NetworkConfig::Mlp(MlpConfig { num_class_embeds: classes, ..mlp });
        FlowMap::new(settings(&config), Some(&network), None, "test", Precision::F32).unwrap()
    };
    let learn = |method: &FlowMap, theta: &[f32]| -> (f32, Vec<f32>) {
        let nets = [Network::trained(method.exec.clone(), theta, device()).unwrap()];
        let pass = Pass { seed: 3, first: 0, images: 0..64, nets: &nets, average: None, data: Some(&*data) };
        let value = method.loss(0, &pass).unwrap().value;
        let gradient = value.backward().unwrap().get(nets[0].theta()).unwrap().to_vec1().unwrap();
        (value.to_scalar().unwrap(), gradient)
    };
    let (plain, conditional) = (with_classes(None), with_classes(Some(3)));
    let (small, large) = (plain.exec.graph(), conditional.exec.graph());
    let table = large.param("class_embedding.weight").unwrap();
    let theta = weights(small);
    let mut zeros_beside = extend(small, &theta, large);
    zeros_beside[table.range()].fill(0.0);
    let (value, gradient) = learn(&plain, &theta);
    let (same_value, larger) = learn(&conditional, &zeros_beside);
    assert!((value - same_value).abs() < 1e-6 * value.abs(), "{value} {same_value}");
    for p in &small.params {
        let q = large.param(&p.name).unwrap();
        for (a, b) in gradient[p.range()].iter().zip(&larger[q.range()]) {
            assert!((a - b).abs() < 1e-5 * (1.0 + a.abs()), "{}: {a} {b}", p.name);
        }
    }
    assert!(larger[table.range()].iter().any(|g| *g != 0.0), "the table learns");
}

#[test]
fn training_may_begin_with_another_flow_map() {
    let config = toy(&["network.hidden=16"]);
    let method = |c: &FlowMapConfig, hidden: usize| {
        let Some(NetworkConfig::Mlp(mlp)) = config.network.clone() else { panic!("another network") };
        FlowMap::new(c, Some(&NetworkConfig::Mlp(MlpConfig { hidden, ..mlp })), None, "test", Precision::F32)
    };
    let first = method(settings(&config), 16).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let theta = weights(first.exec.graph());
    std::fs::write(file.path(), bundle::write(&first.meta(None).unwrap(), &[theta]).unwrap()).unwrap();
    let from = |file: &std::path::Path| FlowMapConfig { start: Some(file.into()), ..settings(&config).clone() };
    let second = method(&from(file.path()), 16).unwrap();
    let written = crate::train::read_bundle(file.path()).unwrap().thetas[0].clone();
    assert_eq!(second.networks(0).unwrap()[0].theta, written);
    let e = method(&from(file.path()), 24).err().unwrap().to_string();
    assert!(e.contains("`method.start`: found `test`, FlowMap") && e.contains("this run's network"), "{e}");
    let e = method(&FlowMapConfig { sigma_data: 0.3, ..from(file.path()) }, 16).err().unwrap().to_string();
    assert!(e.contains("expected FlowMap { sigma_data: 0.3 }"), "{e}");
    let e = format!("{:#}", method(&from("nowhere".as_ref()), 16).err().unwrap());
    assert!(e.contains("`method.start`") && e.contains("nowhere"), "{e}");
}

/// An average that is the weights of the last step gives the training without one; an average of the start keeps the targets there.
#[test]
fn targets_are_those_of_the_average() {
    let setup = |averaged: bool, half_life: u64| {
        let keys = [
            "network.hidden=16",
            "method.condition=psd_m",
            "batch=64",
            "images=640",
            "ema.ramp=1e9",
            &format!("ema.half_life={half_life}"),
            &format!("method.averaged_targets={averaged}"),
        ];
        Setup::new(toy(&keys)).unwrap()
    };
    let after = |averaged: bool, half_life: u64| -> State {
        let setup = setup(averaged, half_life);
        let mut state = setup.fresh();
        for _ in 0..4 {
            setup.step(&mut state).unwrap();
        }
        state
    };
    let plain = after(false, 0);
    assert_eq!(plain.nets[0].theta, plain.nets[0].ema);
    assert_eq!(after(true, 0).nets, plain.nets);
    let (early, own) = (after(true, 1_000_000), after(false, 1_000_000));
    assert_eq!(own.nets[0].theta, plain.nets[0].theta);
    assert_ne!(early.nets[0].theta, own.nets[0].theta);
    // Weights that stay on their device take the same steps.
    let setup = setup(true, 1_000_000);
    let mut state = setup.fresh();
    let mut resident = Resident::new(&state, device()).unwrap();
    for _ in 0..4 {
        setup.step_resident(&mut state, &mut resident).unwrap();
    }
    resident.read_into(&mut state).unwrap();
    let worst = state.nets[0].theta.iter().zip(&early.nets[0].theta).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn settings_that_cannot_be_are_named() {
    for (keys, words) in [
        (&["method.longer=0.0"][..], "`method.longer`: found 0, expected a positive number"),
        (&["method.averaged_targets=true", "method.stop=none"], "`method.averaged_targets`: found true with stop none"),
    ] {
        let e = format!("{:#}", Setup::new(toy(keys)).err().unwrap());
        assert!(e.contains(words), "{keys:?}: {e}");
    }
}
