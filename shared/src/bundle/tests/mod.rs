mod arbitrary;
mod damage;
mod routed;

use super::*;
use crate::Error;
use crate::graph::classifier::ClassifierConfig;
use crate::graph::mlp::MlpConfig;
use half::f16;
use serde_json::{Value, json};

/// A U-Net of a few thousand weights with three classes and a null label.
fn unet() -> Meta {
    let config = json!({
        "_class_name": "UNet2DModel", "_diffusers_version": "0.35.0", "sample_size": 4, "in_channels": 1, "out_channels": 1,
        "layers_per_block": 1, "block_out_channels": [4, 8], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 2, "attention_head_dim": 4, "num_class_embeds": 4
    });
    Meta {
        version: VERSION,
        name: "tiny".into(),
        networks: vec![serde_json::from_value(config).unwrap()],
        parameterization: Parameterization::Edm { sigma_data: 0.5 },
        schedule: Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 },
        init_time: None,
        second_time: false,
        guidance_input: false,
        samplers: vec![
            SamplerSpec { sampler: Sampler::Heun, steps: vec![4, 18], default_steps: 18 },
            SamplerSpec { sampler: Sampler::Ddim, steps: vec![], default_steps: 10 },
        ],
        classes: vec!["shirt".into(), "shoe".into(), "bag".into()],
        null_label: Some(3),
        guidance: Some(GuidanceRange { min: 0.0, max: 4.0, default: 1.5, levels: None }),
        image: ImageSpec { channels: 1, height: 4, width: 4, range: [-1.0, 1.0] },
        training: TrainingRecord {
            method: "edm".into(),
            preset: "tiny".into(),
            teacher_sha256: Some("0123456789abcdef".repeat(4)),
            images_seen: u64::MAX,
            seconds: 12.5,
            command: "limbeck train tiny \"quoted\" \u{e9}".into(),
            evaluation: BTreeMap::from([("fd".into(), json!(3.25)), ("free".into(), json!({ "form": [1, null] }))]),
        },
        licence: "MIT".into(),
        router: None,
        golden: Some(Golden { seed: 7, label: Some(1), sampler: Sampler::Heun, steps: 4, guidance: 1.0, pixels: vec![0.1; 16] }),
    }
}

/// Two unconditional perceptrons on points.
fn mlp() -> Meta {
    let network = NetworkConfig::Mlp(MlpConfig {
        dim: 2,
        hidden: 8,
        layers: 2,
        num_class_embeds: None,
        limbeck_second_time: false,
        limbeck_guidance_input: false,
    });
    Meta {
        networks: vec![network.clone(), network],
        classes: vec![],
        null_label: None,
        guidance: None,
        image: ImageSpec { channels: 2, height: 1, width: 1, range: [-4.0, 4.0] },
        golden: None,
        ..unet()
    }
}

fn classifier() -> Meta {
    let config = ClassifierConfig { sample_size: 4, in_channels: 1, channels: vec![4, 8], norm_num_groups: 2, features: 6, classes: 3 };
    Meta { networks: vec![NetworkConfig::Classifier(config)], samplers: vec![], null_label: None, guidance: None, golden: None, ..unet() }
}

/// Weights that half precision holds exactly.
fn weights(meta: &Meta) -> Vec<Vec<f32>> {
    let exact = |k: usize, g: &Graph| (0..g.param_count()).map(|i| ((i * 37 + k) % 512) as f32 / 256.0 - 1.0).collect();
    meta.networks.iter().enumerate().map(|(k, n)| exact(k, &n.build().unwrap())).collect()
}

fn file(meta: &Meta) -> Vec<u8> {
    write(meta, &weights(meta)).unwrap()
}

/// The file with its header edited as JSON, the metadata entries as JSON too.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    for key in ["limbeck", "config"] {
        let entry = &mut header["__metadata__"][key];
        *entry = serde_json::from_str(entry.as_str().unwrap()).unwrap();
    }
    edit(&mut header);
    for key in ["limbeck", "config"] {
        if let Some(entry) = header["__metadata__"].get_mut(key) {
            *entry = entry.to_string().into();
        }
    }
    joined(&header.to_string(), &bytes[8 + n..])
}

fn joined(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn round_trip() {
    for meta in [unet(), mlp(), classifier()] {
        let thetas = weights(&meta);
        let bytes = write(&meta, &thetas).unwrap();
        assert_eq!(bytes, write(&meta, &thetas).unwrap(), "the same bundle gives the same bytes");
        let bundle = read(&bytes).unwrap();
        assert_eq!(bundle.meta, meta);
        assert_eq!(bundle.thetas, thetas);
        for (graph, network) in bundle.graphs.iter().zip(&meta.networks) {
            assert_eq!(*graph, network.build().unwrap());
        }
        let bits = bundle.f16_bits(0).unwrap();
        assert!(bits.iter().zip(&thetas[0]).all(|(b, v)| f16::from_bits(*b).to_f32() == *v));
    }
}

#[test]
fn other_tools_find_the_network() {
    let meta = mlp();
    let bytes = file(&meta);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let theta = &weights(&meta)[1];
    let p = meta.networks[1].build().unwrap().param("output.weight").unwrap().clone();
    let view = tensors.tensor("net1.output.weight").unwrap();
    assert_eq!((view.dtype(), view.shape()), (safetensors::Dtype::F16, &p.shape[..]));
    let first = f16::from_le_bytes([view.data()[0], view.data()[1]]).to_f32();
    assert_eq!(first, theta[p.offset]);
    assert!(tensors.tensor("output.weight").is_ok());
    let (n, info) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let entries = info.metadata().clone().unwrap();
    assert_eq!(entries["format"], "pt");
    assert_eq!(serde_json::from_str::<NetworkConfig>(&entries["config"]).unwrap(), meta.networks[0]);
    assert_eq!((8 + n) % 8, 0, "tensors are aligned");
}

#[test]
fn sha256_is_the_files() {
    // FIPS 180-4's empty-message digest pins the algorithm; the file's own digest is computed the same way.
    assert_eq!(read::sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let bytes = file(&mlp());
    let bundle = read(&bytes).unwrap();
    assert_eq!(bundle.sha256, read::sha256(&bytes));
    let other = edited(&bytes, |h| h["__metadata__"]["limbeck"]["name"] = "other".into());
    assert_ne!(read(&other).unwrap().sha256, bundle.sha256);
}

#[test]
fn f32_weights_are_read_as_they_are() {
    let meta = mlp();
    let thetas: Vec<Vec<f32>> = weights(&meta).iter().map(|t| t.iter().map(|v| v * 0.1 + 1e-3).collect()).collect();
    let data: Vec<u8> = thetas.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let bytes = edited(&file(&meta), |h| {
        for (name, t) in h.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__") {
            t["dtype"] = "F32".into();
            for i in 0..2 {
                t["data_offsets"][i] = (2 * t["data_offsets"][i].as_u64().expect(name)).into();
            }
        }
    });
    let n = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(read(&[&bytes[..n], &data[..]].concat()).unwrap().thetas, thetas);
}

#[test]
fn programs_and_what_is_refused() {
    let bundle = read(&file(&unet())).unwrap();
    assert_eq!(bundle.meta.resolve(None, None, None), Ok((Sampler::Heun, 18, 1.5.into())));
    assert_eq!(bundle.meta.resolve(Some(Sampler::Ddim), None, Some(0.0.into())), Ok((Sampler::Ddim, 10, 0.0.into())));
    let program = bundle.draw_program(None, Some(4), Some(1.0.into())).unwrap();
    assert_eq!(program.evals(), 7);
    assert_eq!(bundle.draw_program(Some(Sampler::Ddim), Some(999), Some(1.0.into())).unwrap().evals(), 999);
    let supported = "heun with 4, 18 steps; ddim with 1 to 1000 steps";
    let refused = |sampler, steps, w| match bundle.draw_program(sampler, steps, w) {
        Err(Error::Bundle(e)) => e,
        other => panic!("{other:?}"),
    };
    let error = |what, found: &str, supported: &str| BundleError::Unsupported { what, found: found.into(), supported: supported.into() };
    assert_eq!(refused(Some(Sampler::Renoise), None, None), error("sampler", "renoise", supported));
    assert_eq!(refused(None, Some(5), None), error("steps", "5 with heun", supported));
    assert_eq!(refused(Some(Sampler::Ddim), Some(0), None), error("steps", "0 with ddim", supported));
    assert_eq!(refused(Some(Sampler::Ddim), Some(1001), None), error("steps", "1001 with ddim", supported));
    for w in [4.5, -0.1, f64::NAN] {
        assert_eq!(refused(None, None, Some(w.into())), error("guidance", &w.to_string(), "guidance 0 to 4"));
    }
    // The model's levels, unless the request has its own.
    let range = GuidanceRange { min: 0.0, max: 4.0, default: 1.5, levels: Some([0.3, 2.0]) };
    let meta = read(&file(&Meta { guidance: Some(range), ..unet() })).unwrap().meta;
    let levels = |guidance| meta.resolve(None, None, guidance).unwrap().2.levels;
    assert_eq!([levels(None), levels(Some(3.0.into()))], [Some([0.3, 2.0]); 2]);
    assert_eq!(levels(Some("3@1..2".parse().unwrap())), Some([1.0, 2.0]));
    let plain = read(&file(&mlp())).unwrap().meta;
    assert_eq!(plain.resolve(None, None, None).unwrap().2, 1.0.into());
    assert_eq!(plain.resolve(None, None, Some(2.0.into())).unwrap_err(), error("guidance", "2", "no guidance (weight 1)"));
    let features = read(&file(&classifier())).unwrap();
    assert_eq!(refused_by(&features), error("sampler", "any", "none: it is a classifier"));
}

fn refused_by(bundle: &Bundle) -> BundleError {
    bundle.meta.resolve(None, None, None).unwrap_err()
}
