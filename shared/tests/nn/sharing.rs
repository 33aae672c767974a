//! Values with several readers, or none: where gradients are summed, in whichever order their parts come.

use super::ops::check;
use super::*;

/// Adds nodes that read one value and returns one of its shape.
type Reader = fn(&mut Net, usize) -> usize;

#[test]
fn values_with_several_readers() {
    // Two readers of each kind that adds to a gradient another reader began, in both orders.
    let size = [4, 6];
    let readers: [(&str, Reader); 9] = [
        ("silu", |n, x| n.op(Op::Silu, &[x])),
        ("group_norm", |n, x| n.op(Op::GroupNorm { groups: 2, eps: 1e-3, scale_shift: false, silu: true }, &[x])),
        ("conv 3x3", |n, x| n.conv(x, 4, 3)),
        ("conv 1x1", |n, x| n.conv(x, 4, 1)),
        ("upsample", |n, x| {
            let up = n.op(Op::Upsample2x, &[x]);
            n.op(Op::Conv2d { out: 4, kernel: 3, stride: 2, pad: [0, 1], channel_bias: false, residual: false }, &[up])
        }),
        ("down", |n, x| {
            let down = n.op(Op::Conv2d { out: 4, kernel: 3, stride: 2, pad: [1, 1], channel_bias: false, residual: false }, &[x]);
            n.op(Op::Upsample2x, &[down])
        }),
        ("blocks", |n, x| {
            let deep = n.op(Op::SpaceToDepth { block: 2 }, &[x]);
            let other = n.op(Op::Silu, &[deep]);
            let sum = n.op(Op::Add, &[deep, other]);
            n.op(Op::DepthToSpace { block: 2 }, &[sum])
        }),
        ("pool", |n, x| {
            let pooled = n.op(Op::MeanPool, &[x]);
            let vector = n.op(Op::Linear { out: 4 }, &[pooled]);
            n.op(Op::Conv2d { out: 4, kernel: 3, stride: 1, pad: [1, 1], channel_bias: true, residual: false }, &[x, vector])
        }),
        ("attention", |n, x| {
            let k = n.op(Op::Silu, &[x]);
            let v = n.conv(x, 4, 1);
            n.op(Op::Attention { heads: 2 }, &[x, k, v])
        }),
    ];
    for (a, first) in &readers {
        for (b, second) in &readers {
            let mut net = Net::new(4, size);
            let x = net.conv(0, 4, 1);
            let (a_out, b_out) = (first(&mut net, x), second(&mut net, x));
            net.op(Op::Add, &[a_out, b_out]);
            check(&format!("{a} and {b} of one value"), net.g);
        }
    }
}

#[test]
fn one_value_twice_in_one_operation() {
    for size in [[5, 7], [1, 1]] {
        for op in [Op::Add, Op::Concat] {
            let mut net = Net::new(3, size);
            let x = net.op(Op::Silu, &[0]);
            net.op(op.clone(), &[x, x]);
            check(&format!("{} of a value and itself", op.name()), net.g);
        }
        for kernel in [1, 3] {
            let conv = |channel_bias, residual| Op::Conv2d { out: 3, kernel, stride: 1, pad: [kernel / 2; 2], channel_bias, residual };
            let mut net = Net::new(3, size);
            let x = net.op(Op::Silu, &[0]);
            net.op(conv(false, true), &[x, x]);
            check(&format!("conv2d {kernel}x{kernel} onto its own input"), net.g);
            if size == [1, 1] {
                let mut net = Net::new(3, size);
                let x = net.op(Op::Silu, &[0]);
                net.op(conv(true, true), &[x, x, x]);
                check(&format!("conv2d {kernel}x{kernel} of one pixel three times"), net.g);
            }
        }
    }
}

#[test]
fn parts_that_do_not_touch() {
    let mut net = Net::new(3, [3, 5]);
    let x = net.conv(0, 3, 3);
    net.conv(0, 7, 3);
    net.g.output = x;
    check("a branch nobody reads", net.g);

    let mut net = Net::new(3, [3, 5]);
    let label = net.op(Op::LabelEmbed { classes: 4, dim: 5 }, &[]);
    net.g.classes = 4;
    net.op(Op::Linear { out: 2 }, &[label]);
    let exec = Exec::new(net.g).unwrap();
    let theta = normal(3, exec.graph().param_count());
    let call = Call::random(exec.graph(), 7);
    let stock = by_stock(exec.graph(), &theta, &call, DType::F64);
    assert_close("an image nobody reads", exec.graph(), &by_cpu(&exec, &theta, &call), &stock, 1e-5, 1e-4);
    let (_, tape) = exec.forward(&theta, &call.x, call.n, call.cond(), Keep::ForInput).unwrap();
    let frozen = exec.backward(&theta, &tape, &call.dy, true, false).unwrap();
    assert!(frozen.dx.unwrap().iter().all(|&v| v == 0.0));

    check("the image itself", Graph::new([3, 3, 5]));
}
