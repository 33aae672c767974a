//! Each operation alone, at shapes that do not suit the kernels, against its definition.

use super::super::plan::plan;
use super::super::{Engine, Kernel, Occupancy, WeightStorage, block_on};
use super::{engine, engines, normals, reference, relative, theta};
use crate::graph::{Graph, Init, NodeId, Op, Shape, TimeFeatures};

/// A small network under construction.
struct Net(Graph);

impl Net {
    fn new(input: Shape) -> Net {
        Net(Graph::new(input))
    }
    fn add(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        let shape = |i: usize| self.0.nodes[inputs[i]].shape;
        let shapes: Vec<Vec<usize>> = match &op {
            Op::Linear { out } => vec![vec![*out, shape(0).iter().product()], vec![*out]],
            Op::Conv2d { out, kernel, .. } => vec![vec![*out, shape(0)[0], *kernel, *kernel], vec![*out]],
            Op::GroupNorm { .. } => vec![vec![shape(0)[0]]; 2],
            Op::LabelEmbed { classes, dim } => vec![vec![*classes, *dim]],
            Op::TimeEmbed { dim, features: TimeFeatures::Fourier { .. }, .. } => vec![vec![*dim / 2]],
            _ => vec![],
        };
        let params: Vec<usize> =
            shapes.iter().map(|s| self.0.add_param(format!("p{}", self.0.params.len()), s, Init::FanIn(s[1..].iter().product()))).collect();
        let id = self.0.add(op, inputs, &params).unwrap();
        self.0.output = id;
        id
    }
    fn conv(&mut self, x: NodeId, out: usize, kernel: usize, stride: usize, pad: [usize; 2]) -> NodeId {
        self.add(Op::Conv2d { out, kernel, stride, pad, channel_bias: false, residual: false }, &[x])
    }
    fn norm(&mut self, x: NodeId, groups: usize, silu: bool) -> NodeId {
        self.add(Op::GroupNorm { groups, eps: 1e-5, scale_shift: false, silu }, &[x])
    }
    fn time(&mut self, slot: usize, dim: usize) -> NodeId {
        self.0.times = self.0.times.max(slot + 1);
        let features = TimeFeatures::Positional { flip_sin_to_cos: true, freq_shift: 0.0, scale: 1.0 };
        self.add(Op::TimeEmbed { slot, dim, features }, &[])
    }
}

/// The engines' answer for `n` images is the definition's, within 2e-5 of the largest value.
fn check(engines: &[Engine], name: &str, net: &Net, n: usize) {
    let graph = &net.0;
    let theta = theta(graph, 3);
    let pixels: usize = graph.input_shape().iter().product();
    let x = normals(7, n * pixels);
    let times: Vec<f32> = (0..n * graph.times).map(|i| 0.3 + 1.7 * i as f32).collect();
    let labels: Vec<u32> = (0..n).map(|i| (i * 5 + 1) as u32 % graph.classes.max(1) as u32).collect();
    let want: Vec<f32> = (0..n)
        .flat_map(|i| {
            let times = &times[i * graph.times..][..graph.times];
            reference::forward(graph, &theta, &x[i * pixels..][..pixels], times, labels[i] as usize)
        })
        .collect();
    for engine in engines {
        let model = engine.load(std::slice::from_ref(graph), std::slice::from_ref(&theta)).unwrap();
        let mut plan = model.forward_plan(0, n).unwrap();
        let got = block_on(plan.forward(&x, &times, &labels)).unwrap();
        let error = relative(&got, &want);
        println!("{name}, {:?}: {error:.1e}", engine.occupancy());
        assert!(error < 2e-5, "{name}, {:?}: {error}", engine.occupancy());
    }
}

#[test]
fn convolutions() {
    let engines = engines(WeightStorage::F16);
    for (c, out, edge, n) in [(3, 5, 6, 1), (1, 16, 9, 3), (20, 7, 5, 2), (36, 33, 8, 1), (8, 68, 17, 12), (16, 72, 32, 18)] {
        for (kernel, stride, pad) in [(1, 1, [0, 0]), (3, 1, [1, 1]), (3, 2, [1, 1]), (3, 2, [0, 1]), (3, 1, [0, 0]), (3, 1, [1, 0])] {
            if n > 4 && (kernel, stride) != (3, 1) {
                continue;
            }
            let mut net = Net::new([c, edge, edge - 1]);
            net.conv(0, out, kernel, stride, pad);
            check(&engines, &format!("conv {c}->{out} at {edge}, kernel {kernel}, stride {stride}, pad {pad:?}, {n} images"), &net, n);
        }
    }
}

/// Few tiles and a long sum, so that workgroups share it: with everything an epilogue adds, a second input, statistics for the norm
/// that follows and a norm before; and first and last layers of many pixels, which have kernels of their own.
#[test]
fn convolutions_of_unusual_shape() {
    let wide = &engines(WeightStorage::F16)[..1];
    let kernels = |net: &Net, n: usize| {
        let model = wide[0].load(std::slice::from_ref(&net.0), &[theta(&net.0, 3)]).unwrap();
        plan(model.net(0).unwrap(), Occupancy::Wide, n, true).unwrap().dispatches.iter().map(|d| d.kernel).collect::<Vec<_>>()
    };
    let mut net = Net::new([4, 4, 4]);
    let t = net.time(0, 8);
    let bias = net.add(Op::Linear { out: 72 }, &[t]);
    let x = net.conv(0, 256, 3, 1, [1, 1]);
    let short = net.conv(x, 72, 1, 1, [0, 0]);
    let x = net.norm(x, 32, true);
    let x = net.add(Op::Conv2d { out: 72, kernel: 3, stride: 1, pad: [1, 1], channel_bias: true, residual: true }, &[x, bias, short]);
    let x = net.norm(x, 18, true);
    net.conv(x, 5, 3, 1, [1, 1]);
    for n in [1, 3] {
        assert_eq!(kernels(&net, n).iter().filter(|k| **k == Kernel::ConvSum).count(), 1, "{n} images");
        check(wide, "a sum in parts", &net, n);
    }
    let mut net = Net::new([3, 41, 40]);
    let x = net.conv(0, 20, 3, 1, [1, 1]);
    let x = net.norm(x, 5, true);
    net.conv(x, 3, 3, 1, [1, 1]);
    for n in [1, 3] {
        let used = kernels(&net, n);
        assert!(used.contains(&Kernel::ConvStem) && used.contains(&Kernel::ConvHead) == (n == 3), "{used:?}");
        check(wide, "stem and head", &net, n);
    }
}

#[test]
fn convolution_epilogue_and_sources() {
    let engines = engines(WeightStorage::F16);
    for c in [4, 6] {
        let mut net = Net::new([c, 6, 4]);
        let t = net.time(0, 8);
        let bias = net.add(Op::Linear { out: 9 }, &[t]);
        let a = net.conv(0, 9, 1, 1, [0, 0]);
        let b = net.add(Op::Conv2d { out: 9, kernel: 3, stride: 1, pad: [1, 1], channel_bias: true, residual: true }, &[0, bias, a]);
        let cat = net.add(Op::Concat, &[0, b]);
        let normed = net.norm(cat, 1, true);
        let short = net.conv(cat, 6, 1, 1, [0, 0]);
        let y = net.add(Op::Conv2d { out: 6, kernel: 3, stride: 1, pad: [1, 1], channel_bias: false, residual: true }, &[normed, short]);
        let up = net.add(Op::Upsample2x, &[y]);
        let z = net.conv(up, 5, 3, 1, [1, 1]);
        net.norm(z, 5, false);
        check(&engines, &format!("residual block on {c} channels"), &net, 3);
        // Views that are results have to be made.
        net.0.output = up;
        check(&engines, "an upsampled result", &net, 2);
        net.0.output = cat;
        check(&engines, "a concatenated result", &net, 2);
        net.0.output = 0;
        check(&engines, "the input as the result", &net, 2);
    }
}

#[test]
fn norms() {
    let engines = engines(WeightStorage::F16);
    for (c, groups, h, w) in [
        (12, 4, 5, 3),
        (24, 4, 7, 7),
        (32, 32, 4, 4),
        (6, 3, 3, 5),
        (64, 8, 16, 16),
        (10, 2, 6, 6),
        (6, 2, 4, 4),
        (16, 4, 33, 32),
        (40, 2, 12, 9),
        (7, 7, 2, 2),
    ] {
        for silu in [false, true] {
            let mut net = Net::new([c, h, w]);
            net.norm(0, groups, silu);
            check(&engines, &format!("norm of {c} channels in {groups} groups at {h}x{w}"), &net, 3);
            let mut net = Net::new([c, h, w]);
            let t = net.time(0, 8);
            let v = net.add(Op::Linear { out: 2 * c }, &[t]);
            net.add(Op::GroupNorm { groups, eps: 1e-6, scale_shift: true, silu }, &[0, v]);
            check(&engines, &format!("scaled norm of {c} channels in {groups} groups at {h}x{w}"), &net, 2);
        }
    }
}

#[test]
fn a_norm_far_from_zero_keeps_its_digits() {
    // Mean 100, deviation 1: a one-pass variance in f32 would lose the digits that matter here.
    let engine = engine(WeightStorage::F32);
    let mut net = Net::new([8, 32, 32]);
    net.norm(0, 2, false);
    let theta = theta(&net.0, 3);
    let x: Vec<f32> = normals(8, 8 * 1024).iter().map(|v| v + 100.0).collect();
    let want = reference::forward(&net.0, &theta, &x, &[], 0);
    let mut plan = engine.load(std::slice::from_ref(&net.0), &[theta]).unwrap().forward_plan(0, 1).unwrap();
    let error = relative(&block_on(plan.forward(&x, &[], &[])).unwrap(), &want);
    assert!(error < 1e-4, "{error}");
}

#[test]
fn norms_inside_convolutions() {
    // Statistics of tiles put together: groups of every kind, two sources, several images, a map that tiles do not divide.
    let engines = engines(WeightStorage::F16);
    for (c, groups, skip, silu) in [(16, 16, 16, true), (16, 8, 16, false), (32, 4, 16, true), (24, 2, 24, true), (200, 5, 40, true)] {
        for (h, w) in [(7, 7), (9, 5)] {
            let mut net = Net::new([4, h, w]);
            let t = net.time(0, 8);
            let scale = net.add(Op::Linear { out: 2 * c }, &[t]);
            let a = net.conv(0, c, 3, 1, [1, 1]);
            let b = net.conv(0, skip, 3, 1, [1, 1]);
            let y = net.add(Op::GroupNorm { groups, eps: 1e-6, scale_shift: true, silu }, &[a, scale]);
            let y = net.conv(y, c, 3, 1, [1, 1]);
            let cat = net.add(Op::Concat, &[y, b]);
            let y = net.norm(cat, groups, silu);
            net.add(Op::Conv2d { out: 8, kernel: 3, stride: 1, pad: [1, 1], channel_bias: false, residual: false }, &[y]);
            check(&engines, &format!("norms of {c} and {skip} channels in {groups} groups inside convolutions at {h}x{w}"), &net, 3);
        }
    }
    // Mean 100, deviation about 1, as in the norm's own test.
    for engine in self::engines(WeightStorage::F32) {
        let mut net = Net::new([8, 12, 12]);
        let a = net.conv(0, 8, 1, 1, [0, 0]);
        let y = net.norm(a, 2, false);
        net.conv(y, 8, 1, 1, [0, 0]);
        let mut theta = theta(&net.0, 3);
        let bias = net.0.params[net.0.nodes[a].params[1]].range();
        theta[bias].iter_mut().for_each(|b| *b += 100.0);
        let x = normals(8, 8 * 144);
        let want = reference::forward(&net.0, &theta, &x, &[], 0);
        let mut plan = engine.load(std::slice::from_ref(&net.0), &[theta]).unwrap().forward_plan(0, 1).unwrap();
        assert_eq!(plan.dispatches(), 2);
        let error = relative(&block_on(plan.forward(&x, &[], &[])).unwrap(), &want);
        assert!(error < 1e-4, "{error}");
    }
}

#[test]
fn attention() {
    let engines = engines(WeightStorage::F16);
    for (c, heads, h, w) in
        [(8, 1, 3, 3), (16, 2, 6, 6), (24, 3, 7, 7), (128, 1, 5, 4), (72, 1, 8, 8), (12, 4, 5, 5), (10, 2, 4, 4), (64, 2, 16, 16)]
    {
        let mut net = Net::new([c, h, w]);
        let parts: Vec<usize> = (0..3).map(|_| net.conv(0, c, 1, 1, [0, 0])).collect();
        net.add(Op::Attention { heads }, &parts);
        check(&engines, &format!("attention, {heads} heads on {c} channels at {h}x{w}"), &net, 2);
    }
}

#[test]
fn vectors() {
    let engines = engines(WeightStorage::F16);
    let mut net = Net::new([5, 1, 1]);
    net.0.classes = 7;
    let (t, s) = (net.time(0, 10), net.time(1, 6));
    let a = net.add(Op::Linear { out: 18 }, &[t]);
    let a = net.add(Op::Silu, &[a]);
    let a = net.add(Op::Linear { out: 70 }, &[a]);
    let label = net.add(Op::LabelEmbed { classes: 7, dim: 70 }, &[]);
    let a = net.add(Op::Add, &[a, label]);
    let b = net.add(Op::Linear { out: 70 }, &[s]);
    let a = net.add(Op::Add, &[a, b]);
    let e = net.add(Op::Silu, &[a]);
    let x = net.add(Op::Linear { out: 9 }, &[0]);
    let u = net.add(Op::Linear { out: 9 }, &[e]);
    let v = net.add(Op::Linear { out: 6 }, &[e]);
    let x = net.add(Op::Add, &[x, u]);
    let x = net.add(Op::Silu, &[x]);
    let x = net.add(Op::Concat, &[x, v]);
    let x = net.add(Op::DivideByTime { slot: 1 }, &[x]);
    net.add(Op::Add, &[x, x]);
    check(&engines, "vectors", &net, 9);
    net.0.output = e;
    check(&engines, "a vector that is only times and labels", &net, 5);
    let frequencies = TimeFeatures::Fourier { flip_sin_to_cos: false };
    let mut net = Net::new([4, 3, 3]);
    net.0.times = 1;
    net.add(Op::TimeEmbed { slot: 0, dim: 14, features: frequencies }, &[]);
    check(&engines, "Fourier features", &net, 3);
}

#[test]
fn moves() {
    let engines = engines(WeightStorage::F16);
    for (c, block, h, w) in [(3, 2, 6, 4), (1, 4, 8, 8), (5, 3, 3, 6)] {
        let mut net = Net::new([c, h, w]);
        let x = net.add(Op::SpaceToDepth { block }, &[0]);
        check(&engines, "space to depth", &net, 2);
        let x = net.conv(x, 2 * block * block, 3, 1, [1, 1]);
        net.add(Op::DepthToSpace { block }, &[x]);
        check(&engines, "depth to space", &net, 2);
        let x = net.add(Op::Silu, &[0]);
        let x = net.add(Op::Add, &[x, 0]);
        let x = net.add(Op::MeanPool, &[x]);
        net.add(Op::Linear { out: 3 }, &[x]);
        check(&engines, "mean", &net, 3);
    }
}

#[test]
fn what_half_precision_cannot_hold_is_refused() {
    let engine = engine(WeightStorage::F16);
    let mut net = Net::new([2, 2, 2]);
    net.conv(0, 2, 1, 1, [0, 0]);
    let mut theta = theta(&net.0, 3);
    theta[1] = 70_000.0;
    let error = engine.load(std::slice::from_ref(&net.0), &[theta.clone()]).err().unwrap().to_string();
    assert!(error.contains("p0") && error.contains("70000"), "{error}");
    theta.pop();
    assert!(engine.load(std::slice::from_ref(&net.0), &[theta]).is_err());
}

#[test]
fn sources_are_core_wgsl() {
    for kernel in Kernel::ALL {
        for storage in [WeightStorage::F16, WeightStorage::F32] {
            let source = kernel.source(storage);
            let bad = |line: &str| ["enable ", "requires ", "diagnostic", "%"].iter().any(|p| line.starts_with(p)) || line.contains('$');
            assert!(!source.lines().any(bad), "{}", kernel.name());
            if let Ok(dir) = std::env::var("LIMBECK_WGSL_DIR") {
                std::fs::write(format!("{dir}/{}_{storage:?}.wgsl", kernel.name()), source).unwrap();
            }
        }
    }
}
