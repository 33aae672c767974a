//! What must come out alike on every machine, run natively and on wasm32 (in node): random numbers to the bit, the CPU interpreter
//! against networks computed by diffusers in f64 (`tests/golden/make.py`), a bundle written, read back and drawn with.
//!
//! ```text
//! CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner \
//!     cargo test --release -p limbeck-shared --target wasm32-unknown-unknown --test wasm
//! ```

#[path = "../../tests/golden/networks.rs"]
mod networks;

use limbeck_shared::bundle::{self, GuidanceRange, ImageSpec, Meta, SamplerSpec, TrainingRecord};
use limbeck_shared::cpu;
use limbeck_shared::denoiser::{self, Net};
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::program::{self, Parameterization, Sampler};
use limbeck_shared::rng::{Stream, below, bits, normals, threefry2x32, uniforms};
use limbeck_shared::schedule::Schedule;
use networks::{Backend, Golden};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// FNV-1a over 32-bit words: one number for a long table.
fn hash(words: impl Iterator<Item = u32>) -> u64 {
    words.flat_map(u32::to_le_bytes).fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn threefry_known_answers() {
    // Random123's kat_vectors, threefry2x32 with 20 rounds.
    assert_eq!(threefry2x32([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
    assert_eq!(threefry2x32([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
    assert_eq!(threefry2x32([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
}

/// The first eight normals of image 41 of seed 2^40 + 7, and the hash of all draws of [`table`]; both from an independent
/// implementation in Python, whose logarithm, sine and cosine are the C library's.
const NORMALS: [u32; 8] = [0xbf85_5e1d, 0x3f22_f29b, 0x3ec7_5e30, 0x3f37_fd08, 0xbe84_b6ce, 0x3edb_35c1, 0xbeec_b249, 0xbf24_d889];
const TABLE: u64 = 0x41ad_b029_5528_bf97;

/// 64 images of 28 x 28 normals, as many uniforms, and bounded integers.
fn table() -> u64 {
    let mut z = vec![0.0f32; 784];
    let mut words = vec![];
    for image in 0..64 {
        normals(7, Stream::Sample(image as u32 % 3), image, &mut z);
        words.extend(z.iter().map(|v| v.to_bits()));
        uniforms(u64::MAX, Stream::Time, image, &mut z);
        words.extend(z.iter().map(|v| v.to_bits()));
        words.extend([below(3, Stream::Label, image, 10), bits(3, Stream::Order, image, 5)[1]]);
    }
    hash(words.into_iter())
}

#[test]
fn random_numbers_have_the_same_bits_everywhere() {
    let mut z = [0.0f32; 8];
    normals((1 << 40) + 7, Stream::Noise, 41, &mut z);
    assert_eq!(z.map(f32::to_bits), NORMALS, "{z:?}");
    assert_eq!(table(), TABLE);
}

#[test]
fn golden_networks() {
    for g in Golden::all() {
        let mut y = vec![0.0; g.x.len()];
        let net = cpu::Net::new(g.graph.clone(), g.theta.clone()).unwrap();
        net.forward(&g.x, 2, &g.times, &g.labels, &mut y).unwrap();
        g.judge(Backend::Cpu, &y).unwrap();
    }
}

/// A small class-conditional EDM model with the weights of its initialisation, made audible where those are zero.
fn small() -> (Meta, Vec<f32>) {
    let config = serde_json::json!({
        "_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 8, "num_class_embeds": 3,
    });
    let network: NetworkConfig = serde_json::from_value(config).unwrap();
    let mut theta = network.build().unwrap().init(3);
    let mut noise = vec![0.0; theta.len()];
    normals(5, Stream::Other(0), 0, &mut noise);
    theta.iter_mut().zip(noise).for_each(|(t, z)| *t += 0.02 * z);
    let meta = Meta {
        version: bundle::VERSION,
        name: "small".into(),
        networks: vec![network],
        parameterization: Parameterization::Edm { sigma_data: 0.5 },
        schedule: Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 },
        init_time: None,
        second_time: false,
        guidance_input: false,
        samplers: vec![SamplerSpec { sampler: Sampler::Heun, steps: vec![4], default_steps: 4 }],
        classes: vec!["zero".into(), "one".into()],
        null_label: Some(2),
        guidance: Some(GuidanceRange { min: 1.0, max: 4.0, default: 2.0, levels: None }),
        image: ImageSpec { channels: 1, height: 8, width: 8, range: [-1.0, 1.0] },
        training: TrainingRecord {
            method: "edm".into(),
            preset: "none".into(),
            teacher_sha256: None,
            images_seen: 0,
            seconds: 0.0,
            command: "none".into(),
            evaluation: Default::default(),
        },
        licence: "MIT".into(),
        router: None,
        golden: None,
    };
    (meta, theta)
}

/// The weights as the file holds them, in half precision, hashed.
const WEIGHTS: u64 = 0x4238_7b4b_1123_a2e3;
/// Every 16th pixel of two guided images, as the native interpreter drew them.
const PIXELS: [f32; 8] = [0.5143914, 2.5294013, -0.2706158, 0.15845786, -0.639681, 5.4795814, -0.60817564, 0.22689238];

#[test]
fn a_bundle_written_and_read_back_draws_the_same_images() {
    let (meta, theta) = small();
    let bytes = bundle::write(&meta, &[theta]).unwrap();
    let bundle = bundle::read(&bytes).unwrap();
    assert_eq!(bundle.meta, meta);
    assert_eq!(hash(bundle.f16_bits(0).unwrap().into_iter().map(u32::from)), WEIGHTS);
    let program = bundle.draw_program(None, None, None).unwrap();
    let lowered = denoiser::lower(&program, &bundle.spec()).unwrap();
    let net = cpu::Net::new(bundle.graphs[0].clone(), bundle.thetas[0].clone()).unwrap();
    let nets: [&dyn Net; 1] = [&net];
    let pixels = program::run(&lowered, &nets, 11, 0, &[0, 1], 2).unwrap();
    let found: Vec<f32> = pixels.iter().copied().step_by(16).collect();
    assert!(found.iter().zip(PIXELS).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
    // The second image alone, as a draw that begins there: the same noise to the bit, products in another order.
    let second = program::run(&lowered, &nets, 11, 1, &[1], 2).unwrap();
    let apart = second.iter().zip(&pixels[64..]).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-4, "{apart:e}");
}
