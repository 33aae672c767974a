//! Operation by operation: small graphs, odd sizes, one and several chunks of images.

use super::*;
use limbeck_shared::nn::Network;
use std::sync::Arc;

/// Image counts: one, a few, and more than a chunk holds.
const COUNTS: [usize; 4] = [1, 3, 7, 33];
/// Map sizes: odd, even, a single pixel, and wider than the widest vector register.
const SIZES: [[usize; 2]; 4] = [[5, 7], [8, 6], [1, 1], [3, 19]];

/// Checks a graph with random parameters in every way there is to run it, for all counts.
pub fn check(what: &str, graph: Graph) {
    let theta = normal(3, graph.param_count());
    let exec = Arc::new(Exec::new(graph).unwrap());
    for n in COUNTS {
        let graph = exec.graph();
        let call = Call::random(graph, n);
        let what = format!("{what}, input {:?}, {n} images", graph.input_shape());
        let stock = by_stock(graph, &theta, &call, DType::F64);

        // The reference itself, against differences of its own output.
        let direction = Direction::near(graph, &stock);
        let exact = direction.difference(graph, &theta, &call);
        let e = (direction.dot(&stock) - exact).abs() / exact.abs();
        assert!(e < 1e-5, "{what}: candle's gradient and differences are {e:e} apart");

        let cpu = by_cpu(&exec, &theta, &call);
        assert_close(&what, graph, &cpu, &stock, 1e-5, 1e-4);
        let e = (direction.dot(&cpu) - exact).abs() / exact.abs();
        assert!(e < 1e-5, "{what}: the gradient and differences are {e:e} apart");

        #[cfg(feature = "cudnn")]
        card::check(&what, &exec, &theta, &call, &stock, 1e-5, 1e-4);

        // As one operation of candle's tape: everything tracked, only the parameters, only the image, nothing.
        let x = Tensor::from_slice(&call.x, call.x_shape(graph), &Device::Cpu).unwrap();
        let variable = Var::from_tensor(&x).unwrap();
        let (trained, frozen) =
            (Network::trained(exec.clone(), &theta, &Device::Cpu).unwrap(), Network::frozen(exec.clone(), &theta, &Device::Cpu).unwrap());
        for (network, x, with_theta, with_x) in [
            (&trained, variable.as_tensor(), true, true),
            (&trained, &x, true, false),
            (&frozen, variable.as_tensor(), false, true),
            (&frozen, &x, false, false),
        ] {
            let y = network.forward(x, &call.times, &call.labels).unwrap();
            assert_eq!(flat(&y), cpu.y, "{what}: theta {with_theta}, x {with_x}");
            let grads = (y * call.dy(graph, DType::F32)).unwrap().sum_all().unwrap().backward().unwrap();
            let found = |t: &Tensor| grads.get(t).map(flat);
            assert_eq!(found(network.theta()), with_theta.then(|| cpu.dtheta.clone()), "{what}: theta {with_theta}, x {with_x}");
            assert_eq!(found(x), with_x.then(|| cpu.dx.clone()), "{what}: theta {with_theta}, x {with_x}");
        }
    }
}

/// One operation on the image, at all sizes it accepts.
fn check_each_size(what: &str, channels: usize, op: Op) {
    let mut checked = 0;
    for size in SIZES {
        let mut net = Net::new(channels, size);
        if net.g.add(op.clone(), &[0], &[]).is_ok() {
            net = Net::new(channels, size);
            net.op(op.clone(), &[0]);
            check(what, net.g);
            checked += 1;
        }
    }
    assert!(checked > 0, "{what} fits no size");
}

#[test]
fn elementwise() {
    check_each_size("silu", 3, Op::Silu);
    for size in SIZES {
        let mut net = Net::new(3, size);
        let (a, b) = (net.op(Op::Silu, &[0]), net.conv(0, 3, 1));
        net.op(Op::Add, &[a, b]);
        check("add", net.g);
    }
}

#[test]
fn linear() {
    for (from, out) in [(1, 1), (5, 3), (17, 33)] {
        let mut net = Net::new(from, [1, 1]);
        net.op(Op::Linear { out }, &[0]);
        check("linear", net.g);
    }
}

#[test]
fn group_norm() {
    for (channels, groups) in [(6, 1), (6, 2), (6, 6)] {
        for (scale_shift, silu) in [(false, false), (false, true), (true, false), (true, true)] {
            for size in SIZES {
                if channels == groups && size == [1, 1] {
                    continue; // The variance of one number: all gradients are zero.
                }
                let mut net = Net::new(channels, size);
                let mut inputs = vec![0];
                if scale_shift {
                    let pooled = net.op(Op::MeanPool, &[0]);
                    inputs.push(net.op(Op::Linear { out: 2 * channels }, &[pooled]));
                }
                net.op(Op::GroupNorm { groups, eps: 1e-3, scale_shift, silu }, &inputs);
                check(&format!("group_norm, {groups} groups, scale_shift {scale_shift}, silu {silu}"), net.g);
            }
        }
    }
}

#[test]
fn convolution() {
    for (stride, pad) in [(1, [1, 1]), (2, [1, 1]), (2, [0, 1])] {
        for (channels, out) in [(1, 1), (3, 5), (5, 17)] {
            let op = Op::Conv2d { out, kernel: 3, stride, pad, channel_bias: false, residual: false };
            check_each_size(&format!("conv2d 3x3, stride {stride}, padding {pad:?}, {channels} to {out}"), channels, op);
        }
    }
    for (channels, out) in [(1, 1), (3, 5), (5, 17)] {
        let op = Op::Conv2d { out, kernel: 1, stride: 1, pad: [0, 0], channel_bias: false, residual: false };
        check_each_size(&format!("conv2d 1x1, {channels} to {out}"), channels, op);
    }
}

#[test]
fn convolution_with_bias_and_residual() {
    for (kernel, stride, pad) in [(3, 1, [1, 1]), (3, 2, [1, 1]), (3, 2, [0, 1]), (1, 1, [0, 0])] {
        for (channel_bias, residual) in [(true, false), (false, true), (true, true)] {
            for size in SIZES {
                if size == [1, 1] && pad == [0, 1] {
                    continue; // Smaller than the kernel.
                }
                let mut net = Net::new(3, size);
                let plain = |out| Op::Conv2d { out, kernel, stride, pad, channel_bias: false, residual: false };
                let mut inputs = vec![0];
                if channel_bias {
                    let pooled = net.op(Op::MeanPool, &[0]);
                    inputs.push(net.op(Op::Linear { out: 5 }, &[pooled]));
                }
                if residual {
                    inputs.push(net.op(plain(5), &[0]));
                }
                net.op(Op::Conv2d { out: 5, kernel, stride, pad, channel_bias, residual }, &inputs);
                check(
                    &format!(
                        "conv2d {kernel}x{kernel}, stride {stride}, padding {pad:?}, channel_bias {channel_bias}, residual {residual}"
                    ),
                    net.g,
                );
            }
        }
    }
}

#[test]
fn attention() {
    for (channels, heads) in [(1, 1), (6, 1), (6, 2), (6, 6)] {
        for size in SIZES {
            let mut net = Net::new(3, size);
            let qkv = [net.conv(0, channels, 1), net.conv(0, channels, 1), net.conv(0, channels, 1)];
            net.op(Op::Attention { heads }, &qkv);
            check(&format!("attention, {channels} channels, {heads} heads"), net.g);
        }
    }
    let mut net = Net::new(4, [3, 3]);
    net.op(Op::Attention { heads: 1 }, &[0, 0, 0]);
    assert!(Exec::new(net.g).is_err(), "an attention whose gradients could not be told apart was accepted");
}

#[test]
fn attention_of_which_only_the_queries_come_from_the_image() {
    let mut net = Net::new(3, [2, 2]);
    let q = net.conv(0, 6, 1);
    let label = net.op(Op::LabelEmbed { classes: 5, dim: 24 }, &[]);
    net.g.classes = 5;
    let values = net.op(Op::Linear { out: 24 }, &[label]);
    let (k, v) = (net.op(Op::DepthToSpace { block: 2 }, &[label]), net.op(Op::DepthToSpace { block: 2 }, &[values]));
    net.op(Op::Attention { heads: 2 }, &[q, k, v]);
    check("attention to the label", net.g);
}

#[test]
fn rearrangements() {
    check_each_size("upsample", 3, Op::Upsample2x);
    check_each_size("mean_pool", 3, Op::MeanPool);
    for block in [1, 2] {
        check_each_size("space_to_depth", 3, Op::SpaceToDepth { block });
        check_each_size("depth_to_space", 12, Op::DepthToSpace { block });
    }
    let mut net = Net::new(2, [9, 6]);
    net.op(Op::SpaceToDepth { block: 3 }, &[0]);
    net.conv(1, 18, 3);
    net.op(Op::DepthToSpace { block: 3 }, &[2]);
    check("space_to_depth and back", net.g);
    for size in SIZES {
        let mut net = Net::new(3, size);
        let (a, b) = (net.conv(0, 2, 1), net.op(Op::Silu, &[0]));
        net.op(Op::Concat, &[a, b]);
        check("concat", net.g);
    }
}

#[test]
fn conditions() {
    let positional = |flip_sin_to_cos, freq_shift, scale| TimeFeatures::Positional { flip_sin_to_cos, freq_shift, scale };
    let kinds = [
        positional(true, 0.0, 1000.0),
        positional(false, 1.0, 1.0),
        TimeFeatures::Fourier { flip_sin_to_cos: false },
        TimeFeatures::Fourier { flip_sin_to_cos: true },
    ];
    for features in kinds {
        for slot in [0, 1] {
            let what = format!("time_embed {features:?}, slot {slot}");
            let mut net = Net::new(3, [1, 1]);
            net.g.times = 2;
            let t = net.op(Op::TimeEmbed { slot, dim: 10, features: features.clone() }, &[]);
            let t = net.op(Op::Linear { out: 3 }, &[t]);
            net.op(Op::Add, &[0, t]);
            check(&what, net.g);
        }
    }
    let mut net = Net::new(3, [5, 7]);
    net.g.classes = 4;
    let label = net.op(Op::LabelEmbed { classes: 4, dim: 5 }, &[]);
    net.op(Op::Conv2d { out: 5, kernel: 1, stride: 1, pad: [0, 0], channel_bias: true, residual: false }, &[0, label]);
    check("label_embed", net.g);
    for slot in [0, 1] {
        let mut net = Net::new(3, [5, 7]);
        net.g.times = 2;
        net.op(Op::Silu, &[0]);
        net.op(Op::DivideByTime { slot }, &[1]);
        check("divide_by_time", net.g);
    }
}
