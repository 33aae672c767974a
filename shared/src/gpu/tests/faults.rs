//! What a device cannot or does not do right ends in an error that says so, before anything is drawn.

use super::super::{Engine, Options, WeightStorage, block_on};
use super::timings::peer;
use super::{engines, theta};
use crate::graph::Graph;

fn open(buffer_limit: u64) -> crate::Result<Engine> {
    block_on(Engine::new(Options { buffer_limit: Some(buffer_limit), ..Options::default() }))
}

fn small() -> Graph {
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 3,
        "limbeck_second_time": true,
    });
    serde_json::from_value::<crate::graph::NetworkConfig>(config).unwrap().build().unwrap()
}

#[test]
fn a_sound_adapter_passes_and_a_wrong_one_is_named() {
    let graph = small();
    let (right, wrong) = (theta(&graph, 5), theta(&graph, 6));
    for engine in engines(WeightStorage::F16) {
        let load = |theta: &[f32]| engine.load(std::slice::from_ref(&graph), &[theta.to_vec()]).unwrap();
        for images in [1, 20] {
            // The device computes with other weights than the CPU: as good as a driver that garbles them.
            let error = block_on(load(&right).verify(std::slice::from_ref(&wrong), images)).unwrap_err().to_string();
            assert!(error.contains("wrong values") && error.contains("network 0"), "{error}");
            let model = load(&right);
            block_on(model.verify(std::slice::from_ref(&right), images)).unwrap();
            // As long as no kernel is new it is not asked again.
            let asked = engine.counters().submits;
            block_on(model.verify(std::slice::from_ref(&right), images)).unwrap();
            assert_eq!(engine.counters().submits, asked);
        }
        let mut broken = right.clone();
        broken.iter_mut().take(40).for_each(|v| *v = f32::NAN);
        let error = block_on(load(&broken).verify(std::slice::from_ref(&right), 1)).unwrap_err().to_string();
        assert!(error.contains("wrong values"), "{error}");
        assert!(block_on(load(&right).verify(&[], 1)).is_err());
    }
}

#[test]
fn limits_that_do_not_suffice_are_refused_in_words() {
    let error = open(u64::MAX / 4).err().expect("no adapter offers so much").to_string();
    assert!(error.contains("no device on"), "{error}");
    // Too small for the weights, then for the activations of many images.
    let graph = peer("reference");
    let weights = [theta(&graph, 5)];
    let error = open(1 << 20).unwrap().load(std::slice::from_ref(&graph), &weights).err().unwrap().to_string();
    assert!(error.contains("weights") && error.contains("1048576"), "{error}");
    let model = open(8 << 20).unwrap().load(std::slice::from_ref(&graph), &weights).unwrap();
    assert!(model.forward_plan(0, 1).is_ok());
    let error = model.forward_plan(0, 100).err().unwrap().to_string();
    assert!(error.contains("8388608"), "{error}");
}
