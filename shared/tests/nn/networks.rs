//! Whole networks: the fast path against candle's own operations, frozen networks, threads, runs, and what a bad batch leaves.

use super::*;
use limbeck_shared::cpu::Precision;
use limbeck_shared::cpu::conv::half::Parts;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::Network;
use std::sync::Arc;

/// The network of the speed measurements, one for colour, one with a space-to-depth stem and all inputs, a perceptron and a
/// classifier.
fn configs() -> Vec<(&'static str, NetworkConfig)> {
    let unet = |size: usize, channels: usize, more: &str| {
        format!(
            r#"{{"_class_name": "UNet2DModel", "sample_size": {size}, "in_channels": {channels}, "out_channels": {channels},
            "layers_per_block": 2, "attention_head_dim": 32, "norm_num_groups": 8, {more},
            "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}}"#
        )
    };
    let blocks = r#""block_out_channels": [32, 64, 64]"#;
    let texts = [
        ("28x28", unet(28, 1, &format!(r#"{blocks}, "num_class_embeds": 10"#))),
        ("32x32", unet(32, 3, &format!(r#"{blocks}, "downsample_padding": 0, "resnet_time_scale_shift": "scale_shift", "time_embedding_type": "fourier""#))),
        ("stem", unet(32, 3, &format!(r#"{blocks}, "limbeck_space_to_depth": 2, "limbeck_second_time": true, "limbeck_guidance_input": true"#))),
        ("perceptron", r#"{"_class_name": "Mlp", "dim": 2, "hidden": 64, "layers": 3, "num_class_embeds": 4, "limbeck_second_time": true}"#.into()),
        ("classifier", r#"{"_class_name": "Classifier", "sample_size": 28, "in_channels": 1, "channels": [16, 32, 32], "norm_num_groups": 8, "features": 32, "classes": 10}"#.into()),
    ];
    texts.into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}")))).collect()
}

/// The networks of the trainer's presets. Their `[network]` tables are flat and their values read the same in TOML and JSON.
fn presets() -> Vec<(String, NetworkConfig)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../trainer/presets");
    let mut found = vec![];
    for file in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}")) {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Some((_, table)) = text.split_once("\n[network]\n") else { continue };
        let lines = table.lines().take_while(|l| !l.starts_with('[')).map(|l| l.split('#').next().unwrap_or_default());
        let keys: Vec<String> = lines.filter_map(|l| l.split_once('=')).map(|(k, v)| format!("\"{}\": {v}", k.trim())).collect();
        let json = format!("{{{}}}", keys.join(", "));
        let config = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{}: {e}\n{json}", path.display()));
        found.push((path.file_stem().unwrap().to_string_lossy().into_owned(), config));
    }
    assert!(!found.is_empty(), "no preset with a network in {folder}");
    found
}

/// Initial values moved off zero, where half of a network's gradients vanish.
fn perturbed(graph: &Graph) -> Vec<f32> {
    let mut theta = graph.init(5);
    theta.iter_mut().zip(normal(4, graph.param_count())).for_each(|(t, r)| *t += 0.05 * r);
    theta
}

#[test]
fn fast_path_agrees_with_candle() {
    for (name, config) in configs() {
        let graph = config.build().unwrap();
        let (theta, exec) = (perturbed(&graph), Exec::new(graph).unwrap());
        let call = Call::random(exec.graph(), 3);
        let stock = by_stock(exec.graph(), &theta, &call, DType::F64);
        assert_close(name, exec.graph(), &by_cpu(&exec, &theta, &call), &stock, 1e-4, 1e-3);
        #[cfg(feature = "cudnn")]
        for (precision, y, gradient) in [(Precision::F32, 1e-4, 1e-3), (Precision::Bf16(Parts::One), 1e-2, 3e-2)] {
            let exec = Arc::new(Exec::with_precision(config.build().unwrap(), precision).unwrap());
            card::check(name, &exec, &theta, &call, &stock, y, gradient);
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    for (name, config) in configs().into_iter().map(|(n, c)| (n.to_string(), c)).chain(presets()) {
        let graph = config.build().unwrap();
        let (theta, exec) = (perturbed(&graph), Exec::new(graph).unwrap());
        let call = Call::random(exec.graph(), 4);
        let answer = by_cpu(&exec, &theta, &call);
        let largest = |v: &[f64]| v.iter().fold(0f64, |m, v| m.max(v.abs()));
        let scale = largest(&answer.dtheta);
        for p in &exec.graph().params {
            let own = largest(&answer.dtheta[p.range()]) / scale;
            if p.fixed {
                assert_eq!(own, 0.0, "{name}: {} is not trained", p.name);
            } else if p.name.ends_with("to_k.bias") {
                // Shifts all scores of a query alike, which the softmax does not see.
                assert!(own < 1e-5, "{name}: {} has the gradient {own:e}", p.name);
            } else {
                assert!(own > 1e-5, "{name}: {} has the gradient {own:e}", p.name);
            }
        }
        assert!(largest(&answer.dx) > 0.0, "{name}");
    }
}

#[test]
fn a_frozen_network_passes_its_gradient_on() {
    // As in distillation: a student's output through a frozen teacher.
    let (_, config) = configs().swap_remove(0);
    let graph = config.build().unwrap();
    let exec = Arc::new(Exec::new(graph.clone()).unwrap());
    let (student, teacher) = (graph.init(1), perturbed(&graph));
    let student: Vec<f32> = student.iter().zip(&teacher).map(|(a, b)| a + 0.5 * b).collect();
    let call = Call::random(&graph, 2);
    let x = Tensor::from_slice(&call.x, call.x_shape(&graph), &Device::Cpu).unwrap();

    let net = Network::trained(exec.clone(), &student, &Device::Cpu).unwrap();
    let frozen = Network::frozen(exec.clone(), &teacher, &Device::Cpu).unwrap();
    let inner = net.forward(&x, &call.times, &call.labels).unwrap();
    // The student's value has two readers, the teacher and the loss itself.
    let outer = frozen.forward(&inner, &call.times, &call.labels).unwrap();
    let loss = ((outer * call.dy(&graph, DType::F32)).unwrap() + inner.sqr().unwrap()).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    assert!(grads.get(frozen.theta()).is_none());
    // Two images: forward through both, backward with weights through the student (2 passes), without through the teacher (1).
    assert_eq!(exec.passes(), 2 * (1 + 1 + 2 + 1));
    let found = flat(grads.get(net.theta()).unwrap());
    // A detached copy of a trained network is frozen too.
    let cut = net.detached().forward(&x, &call.times, &call.labels).unwrap();
    assert!(!cut.track_op());

    let params = stock::params_from_flat(&graph, &student, DType::F64, &Device::Cpu).unwrap();
    let constant = stock::frozen(&stock::params_from_flat(&graph, &teacher, DType::F64, &Device::Cpu).unwrap());
    let inner = stock::forward(&graph, &params, &x.to_dtype(DType::F64).unwrap(), &call.times, &call.labels).unwrap();
    let loss = (stock_loss(&graph, &constant, &inner, &call) + inner.sqr().unwrap().sum_all().unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    assert!(constant.values().all(|p| !p.track_op()));
    let (e, name) = error_by_param(&graph, &found, &stock::flat_gradient(&graph, &grads, &params).unwrap());
    assert!(e < 1e-3, "gradient of {name} off by {e:e}");
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Every arithmetic, and how far a sum in another order may move a result: in bf16 the last bit of a rounded value may tip.
const PRECISIONS: [(Precision, f64); 3] =
    [(Precision::F32, 1e-5), (Precision::Bf16(Parts::Two), 1e-4), (Precision::Bf16(Parts::One), 2e-2)];

#[test]
fn fast_path_does_not_depend_on_threads_or_runs() {
    for (name, config) in configs() {
        let graph = config.build().unwrap();
        let theta = perturbed(&graph);
        let call = Call::random(&graph, 5);
        let run = |threads: usize, exec: &Exec| with_threads(threads, || by_cpu(exec, &theta, &call));
        for (precision, within) in PRECISIONS {
            let fresh = || Exec::with_precision(graph.clone(), precision).unwrap();
            let one = run(1, &fresh());
            for threads in [1, 2, 3] {
                let exec = fresh();
                let (first, again, other) = (run(threads, &exec), run(threads, &exec), run(threads, &fresh()));
                let what = format!("{name}, {threads} threads, {precision:?}");
                assert_close(&what, &graph, &first, &one, within, within);
                for a in [&again, &other] {
                    assert!(a.y == first.y && a.dx == first.dx && a.dtheta == first.dtheta, "{what}: two runs differ");
                }
            }
        }
    }
}

#[test]
fn a_batch_of_nan_leaves_nothing_behind() {
    // Training skips a step whose gradient is not finite; buffers kept between calls must not carry it into the next.
    for (name, config) in configs() {
        let graph = config.build().unwrap();
        let theta = perturbed(&graph);
        let call = Call::random(&graph, 5);
        for (precision, _) in PRECISIONS {
            let exec = || Exec::with_precision(graph.clone(), precision).unwrap();
            let fresh = by_cpu(&exec(), &theta, &call);
            let exec = exec();
            let bad = Call { x: vec![f32::NAN; call.x.len()], ..Call::random(&graph, 5) };
            let broken = by_cpu(&exec, &vec![f32::NAN; theta.len()], &bad);
            assert!(broken.y.iter().all(|v| v.is_nan()), "{name}");
            let after = by_cpu(&exec, &theta, &call);
            assert!(after.y == fresh.y && after.dx == fresh.dx && after.dtheta == fresh.dtheta, "{name}: NaN of an earlier batch shows");
        }
    }
}

#[test]
fn a_call_that_does_not_fit_is_refused() {
    let (_, config) = configs().swap_remove(0);
    let graph = config.build().unwrap();
    let theta = perturbed(&graph);
    let params = stock::params_from_flat(&graph, &theta, DType::F32, &Device::Cpu).unwrap();
    let net = Network::trained(Arc::new(Exec::new(graph.clone()).unwrap()), &theta, &Device::Cpu).unwrap();
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let good = tensor(&[2, 1, 28, 28]);
    let cases: [(&Tensor, &[f32], &[u32]); 6] = [
        (&good, &[0.1], &[1, 2]),
        (&good, &[0.1, 0.2], &[1]),
        (&good, &[0.1, 0.2], &[1, 10]),
        (&tensor(&[2, 1, 28, 14]), &[0.1, 0.2], &[1, 2]),
        (&tensor(&[2, 1, 14, 56]), &[0.1, 0.2], &[1, 2]),
        (&tensor(&[2, 784]), &[0.1, 0.2], &[1, 2]),
    ];
    for (x, times, labels) in cases {
        assert!(stock::forward(&graph, &params, x, times, labels).is_err(), "{:?} {times:?} {labels:?}", x.dims());
        assert!(net.forward(x, times, labels).is_err(), "{:?} {times:?} {labels:?}", x.dims());
    }
    assert!(net.forward(&good, &[0.1, 0.2], &[1, 2]).is_ok());
    assert!(stock::params_from_flat(&graph, &theta[1..], DType::F32, &Device::Cpu).is_err());
    let mut missing = params.clone();
    missing.remove("conv_in.bias");
    assert!(stock::forward(&graph, &missing, &good, &[0.1, 0.2], &[1, 2]).is_err());
}

#[test]
fn points_have_two_dimensions() {
    let (_, config) = configs().swap_remove(3);
    let graph = config.build().unwrap();
    let theta = perturbed(&graph);
    let call = Call::random(&graph, 9);
    let x = Tensor::from_slice(&call.x, (9, 2), &Device::Cpu).unwrap();
    let params = stock::params_from_flat(&graph, &theta, DType::F32, &Device::Cpu).unwrap();
    let stock = stock::forward(&graph, &params, &x, &call.times, &call.labels).unwrap();
    let net = Network::frozen(Arc::new(Exec::new(graph).unwrap()), &theta, &Device::Cpu).unwrap();
    let fast = net.forward(&x, &call.times, &call.labels).unwrap();
    assert_eq!((stock.dims(), fast.dims()), (&[9, 2][..], &[9, 2][..]));
    let e = error(&flat(&fast), &flat(&stock), 0.0);
    assert!(e < 1e-5, "off by {e:e}");
}
