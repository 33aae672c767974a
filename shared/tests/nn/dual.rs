//! Forward-mode derivatives, and gradients through them: diffusers' numbers and finite differences.

use super::*;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::dual::{self, Dual};

/// Value and tangent for an image direction and the same rate in every time input.
fn run(graph: &Graph, params: &Params, x: &Tensor, v: Option<&Tensor>, call: &Call, rate: f32) -> Dual {
    let x = Dual { value: x.clone(), tangent: v.cloned() };
    dual::forward(graph, params, &x, &call.times, &vec![rate; call.times.len()], &call.labels).unwrap()
}

#[test]
fn golden_files() {
    for name in golden::NAMES {
        for (dtype, forward, through) in [(DType::F64, 1e-5, 1e-4), (DType::F32, 1e-4, 1e-3)] {
            let g = golden::load(name);
            let (graph, get, _) = golden::file(name);
            let params = stock::params_from_flat(&graph, &g.theta, dtype, &Device::Cpu).unwrap();
            let image = |key: &str| Tensor::from_vec(get(key), g.call.x_shape(&graph), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let (x, v) = (image("in.x"), image("in.v"));
            let in_time = run(&graph, &params, &x, None, &g.call, 1.0);
            let along_v = run(&graph, &params, &x, Some(&v), &g.call, 0.0);
            let (y, dt, dx) = (flat(&in_time.value), flat(&in_time.tangent().unwrap()), flat(&along_v.tangent().unwrap()));
            for (what, found, key) in [("y", &y, "out.y"), ("dy/dt", &dt, "out.dy_dt"), ("dy/dx v", &dx, "out.dy_dx_v")] {
                let e = error(found, &wide(&get(key)), 0.0);
                assert!(e < forward, "{name}, {dtype:?}: {what} off by {e:e}");
            }
            let both = flat(&run(&graph, &params, &x, Some(&v), &g.call, 1.0).tangent().unwrap());
            let sum: Vec<f64> = dt.iter().zip(&dx).map(|(a, b)| a + b).collect();
            assert!(error(&both, &sum, 0.0) < forward, "{name}: derivatives do not add up");

            let grads = in_time.tangent().unwrap().sqr().unwrap().mean_all().unwrap().backward().unwrap();
            let found = stock::flat_gradient(&graph, &grads, &params).unwrap();
            let expected: Vec<f64> = graph.params.iter().flat_map(|p| wide(&get(&format!("jgrad.{}", p.name)))).collect();
            let (e, param) = error_by_param(&graph, &found, &expected);
            assert!(e < through, "{name}, {dtype:?}: gradient of {param} through the derivative off by {e:e}");
        }
    }
}

/// Small networks that hold every operation between them.
fn networks() -> Vec<(&'static str, Graph)> {
    let unet = r#""_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 2, "out_channels": 2, "layers_per_block": 1,
        "norm_num_groups": 4, "block_out_channels": [8, 16], "attention_head_dim": 8,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]"#;
    let texts = [
        ("two times", format!(r#"{{{unet}, "num_class_embeds": 3, "limbeck_second_time": true, "limbeck_space_to_depth": 2}}"#)),
        ("scale and shift", format!(r#"{{{unet}, "resnet_time_scale_shift": "scale_shift"}}"#)),
        ("perceptron", r#"{"_class_name": "Mlp", "dim": 2, "hidden": 16, "layers": 2, "limbeck_second_time": true}"#.into()),
        ("classifier", r#"{"_class_name": "Classifier", "sample_size": 8, "in_channels": 1, "channels": [8, 8], "norm_num_groups": 4, "features": 8, "classes": 3}"#.into()),
    ];
    let mut all: Vec<_> =
        texts.into_iter().map(|(n, t)| (n, serde_json::from_str::<NetworkConfig>(&t).unwrap().build().unwrap())).collect();
    let mut divided = Net::new(2, [3, 3]);
    divided.g.times = 1;
    let a = divided.op(Op::Conv2d { out: 4, kernel: 3, stride: 1, pad: [1, 1], channel_bias: false, residual: false }, &[0]);
    let b = divided.op(Op::Silu, &[a]);
    divided.op(Op::DivideByTime { slot: 0 }, &[b]);
    all.push(("divided by time", divided.g));
    all
}

#[test]
fn differences() {
    for (name, graph) in networks() {
        let theta: Vec<f32> = graph.init(1).iter().zip(normal(3, graph.param_count())).map(|(t, n)| t + 0.1 * n).collect();
        let call = Call::random(&graph, 2);
        let params = stock::params_from_flat(&graph, &theta, DType::F64, &Device::Cpu).unwrap();
        let image = |v: &[f32]| Tensor::from_slice(v, call.x_shape(&graph), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let (x, v) = (image(&call.x), image(&normal(4, call.x.len())));
        let found = run(&graph, &params, &x, Some(&v), &call, 1.0);
        // Times are f32, so steps are powers of two and what rounding makes of them is part of the error.
        let at = |h: f64| {
            let times: Vec<f32> = call.times.iter().map(|t| t + h as f32).collect();
            let moved = (&x + (&v * h).unwrap()).unwrap();
            flat(&stock::forward(&graph, &params, &moved, &times, &call.labels).unwrap())
        };
        let h = (0.5f64).powi(11);
        let (near, far) = ([at(h), at(-h)], [at(2.0 * h), at(-2.0 * h)]);
        let slope: Vec<f64> =
            (0..near[0].len()).map(|i| (8.0 * (near[0][i] - near[1][i]) - (far[0][i] - far[1][i])) / (12.0 * h)).collect();
        let e = error(&flat(&found.tangent().unwrap()), &slope, 0.0);
        assert!(e < 2e-3, "{name}: derivative off by {e:e}");
        assert_eq!(flat(&found.value).len(), slope.len());
        let e = error(&flat(&found.value), &at(0.0), 0.0);
        assert!(e < 1e-12, "{name}: value off by {e:e}");

        // The gradient of a number made of the derivative, along itself.
        let number = |theta: &[f64]| {
            let one = |p: &limbeck_shared::graph::Param| {
                let t = Tensor::from_slice(&theta[p.range()], p.shape.as_slice(), &Device::Cpu).unwrap();
                (p.name.clone(), if p.fixed { t } else { Var::from_tensor(&t).unwrap().into_inner() })
            };
            let params: Params = graph.params.iter().map(one).collect();
            let tangent = run(&graph, &params, &x, Some(&v), &call, 1.0).tangent().unwrap();
            (tangent.sqr().unwrap().mean_all().unwrap(), params)
        };
        let (value, params) = number(&wide(&theta));
        let gradient = stock::flat_gradient(&graph, &value.backward().unwrap(), &params).unwrap();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let h = 1e-4;
        let along = |sign: f64| {
            let moved: Vec<f64> = theta.iter().zip(&gradient).map(|(&t, g)| f64::from(t) + sign * h * g / norm).collect();
            number(&moved).0.to_scalar::<f64>().unwrap()
        };
        let e = ((along(1.0) - along(-1.0)) / (2.0 * h) / norm - 1.0).abs();
        assert!(norm > 0.0 && e < 1e-4, "{name}: gradient through the derivative off by {e:e} (norm {norm:e})");
    }
}

#[test]
fn what_does_not_move_has_no_tangent() {
    let (_, graph) = networks().swap_remove(0);
    let call = Call::random(&graph, 2);
    let params = stock::params_from_flat(&graph, &graph.init(1), DType::F32, &Device::Cpu).unwrap();
    let x = Tensor::from_slice(&call.x, call.x_shape(&graph), &Device::Cpu).unwrap();
    assert!(run(&graph, &params, &x, None, &call, 0.0).tangent.is_none());
    let short = dual::forward(&graph, &params, &Dual::constant(x.clone()), &call.times, &call.times[1..], &call.labels);
    assert!(short.unwrap_err().to_string().contains("time rates"));
    let wrong = Dual { value: x.clone(), tangent: Some(x.narrow(0, 0, 1).unwrap()) };
    assert!(
        dual::forward(&graph, &params, &wrong, &call.times, &call.times, &call.labels).unwrap_err().to_string().contains("image direction")
    );
}
