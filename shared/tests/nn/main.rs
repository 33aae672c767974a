//! Networks on candle tensors: candle's own operations against diffusers' numbers and finite differences, the CPU interpreter
//! against candle's own operations.
#![cfg(feature = "candle")]

#[cfg(feature = "cudnn")]
mod card;
mod dropout;
mod dual;
mod golden;
mod isa;
mod networks;
mod ops;
mod sharing;

use candle_core::{DType, Device, Tensor, Var};
use limbeck_shared::cpu::{Cond, Exec, Keep};
use limbeck_shared::graph::{Graph, Init, Op, TimeFeatures};
use limbeck_shared::nn::stock::{self, Params};
use limbeck_shared::rng::{Stream, normals, uniforms};

/// Standard normal values; `which` tells draws of one test apart.
fn normal(which: u64, len: usize) -> Vec<f32> {
    let mut v = vec![0.0; len];
    normals(7, Stream::Other(11), which, &mut v);
    v
}

/// One call of a network and a direction of its output.
struct Call {
    n: usize,
    x: Vec<f32>,
    times: Vec<f32>,
    labels: Vec<u32>,
    dy: Vec<f32>,
}

impl Call {
    fn random(graph: &Graph, n: usize) -> Call {
        let mut times = vec![0.0; n * graph.times];
        uniforms(7, Stream::Time, 0, &mut times);
        times.iter_mut().for_each(|t| *t += 0.1);
        Call {
            n,
            x: normal(0, n * graph.input_shape().iter().product::<usize>()),
            times,
            labels: (0..n).filter(|_| graph.classes > 0).map(|i| (i * 5 % graph.classes) as u32).collect(),
            dy: normal(1, n * graph.output_shape().iter().product::<usize>()),
        }
    }
    fn cond(&self) -> Cond<'_> {
        Cond { times: &self.times, labels: &self.labels, dropout: None }
    }
    fn x_shape(&self, graph: &Graph) -> (usize, usize, usize, usize) {
        let [c, h, w] = graph.input_shape();
        (self.n, c, h, w)
    }
    fn dy(&self, graph: &Graph, dtype: DType) -> Tensor {
        let [c, h, w] = graph.output_shape();
        Tensor::from_slice(&self.dy, (self.n, c, h, w), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }
}

/// Output, input gradient and parameter gradient.
struct Answer {
    y: Vec<f64>,
    dx: Vec<f64>,
    dtheta: Vec<f64>,
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| f64::from(v)).collect()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// `sum(dy * network)` with candle's own operations.
fn stock_loss(graph: &Graph, params: &Params, x: &Tensor, call: &Call) -> Tensor {
    let y = stock::forward(graph, params, x, &call.times, &call.labels).unwrap();
    (y * call.dy(graph, x.dtype())).unwrap().sum_all().unwrap()
}

/// Output and gradients with candle's own operations and candle's tape.
fn by_stock(graph: &Graph, theta: &[f32], call: &Call, dtype: DType) -> Answer {
    let params = stock::params_from_flat(graph, theta, dtype, &Device::Cpu).unwrap();
    let x = Tensor::from_slice(&call.x, call.x_shape(graph), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let y = stock::forward(graph, &params, &x, &call.times, &call.labels).unwrap();
    let grads = (&y * call.dy(graph, dtype)).unwrap().sum_all().unwrap().backward().unwrap();
    let dx = grads.get(&x).map_or(vec![0.0; call.x.len()], flat);
    Answer { y: flat(&y), dx, dtheta: stock::flat_gradient(graph, &grads, &params).unwrap() }
}

/// Output and gradients of the CPU interpreter.
fn by_cpu(exec: &Exec, theta: &[f32], call: &Call) -> Answer {
    let (y, tape) = exec.forward(theta, &call.x, call.n, call.cond(), Keep::ForAll).unwrap();
    let g = exec.backward(theta, &tape, &call.dy, true, true).unwrap();
    Answer { y: wide(&y), dx: wide(&g.dx.unwrap()), dtheta: wide(&g.dtheta.unwrap()) }
}

/// Largest difference on the scale of the largest expected value, or of `floor` if that is larger.
fn error(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(floor.max(1e-30), |m, v| m.max(v.abs()));
    // A NaN must not pass for a small difference.
    found.iter().zip(expected).fold(0.0, |m: f64, (a, b)| if (a - b).is_nan() { f64::INFINITY } else { m.max((a - b).abs()) }) / scale
}

/// Parameter by parameter. A gradient that is 0 in exact arithmetic (a key's bias shifts all scores of a row alike) is rounding
/// in every implementation: it is measured on a tenth of the scale of the largest gradient, others at least on a thousandth.
fn error_by_param<'a>(graph: &'a Graph, found: &[f64], expected: &[f64]) -> (f64, &'a str) {
    let largest = |v: &[f64]| v.iter().fold(0f64, |m, v| m.max(v.abs()));
    let all = largest(expected);
    let of = |p: &'a limbeck_shared::graph::Param| {
        let own = &expected[p.range()];
        let floor = if largest(own) < 1e-9 * all { 0.1 * all } else { 1e-3 * all };
        (error(&found[p.range()], own, floor), p.name.as_str())
    };
    graph.params.iter().map(of).fold((0.0, ""), |worst, e| if e.0 > worst.0 { e } else { worst })
}

fn assert_close(what: &str, graph: &Graph, found: &Answer, expected: &Answer, y: f64, gradient: f64) {
    let e = error(&found.y, &expected.y, 0.0);
    assert!(e < y, "{what}: output off by {e:e}");
    let e = error(&found.dx, &expected.dx, 0.0);
    assert!(e < gradient, "{what}: input gradient off by {e:e}");
    let (e, name) = error_by_param(graph, &found.dtheta, &expected.dtheta);
    assert!(e < gradient, "{what}: gradient of {name} off by {e:e}");
}

/// A step in all of `x` and theta: along the gradient and across it, so that the derivative is not a difference of large numbers.
struct Direction {
    dx: Vec<f64>,
    dtheta: Vec<f64>,
}

impl Direction {
    fn near(graph: &Graph, a: &Answer) -> Direction {
        let norm = a.dx.iter().chain(&a.dtheta).map(|v| v * v).sum::<f64>().sqrt();
        let random = normal(2, a.dx.len() + a.dtheta.len());
        let size = (random.len() as f64).sqrt();
        let mix = |(v, r): (&f64, &f32)| v / norm + f64::from(*r) / size;
        let dx = a.dx.iter().zip(&random).map(mix).collect();
        let mut dtheta: Vec<f64> = a.dtheta.iter().zip(&random[a.dx.len()..]).map(mix).collect();
        for p in graph.params.iter().filter(|p| p.fixed) {
            dtheta[p.range()].fill(0.0);
        }
        Direction { dx, dtheta }
    }
    /// The derivative an answer's gradients give.
    fn dot(&self, a: &Answer) -> f64 {
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        sum(&self.dx, &a.dx) + sum(&self.dtheta, &a.dtheta)
    }
    /// The derivative by central differences in f64.
    fn difference(&self, graph: &Graph, theta: &[f32], call: &Call) -> f64 {
        let at = |h: f64| {
            let step = |v: &[f32], d: &[f64]| v.iter().zip(d).map(|(&v, d)| f64::from(v) + h * d).collect::<Vec<f64>>();
            let x = Tensor::from_vec(step(&call.x, &self.dx), call.x_shape(graph), &Device::Cpu).unwrap();
            let moved = step(theta, &self.dtheta);
            let one = |p: &limbeck_shared::graph::Param| {
                (p.name.clone(), Tensor::from_slice(&moved[p.range()], p.shape.as_slice(), &Device::Cpu).unwrap())
            };
            let params: Params = graph.params.iter().map(one).collect();
            stock_loss(graph, &params, &x, call).to_scalar::<f64>().unwrap()
        };
        // Fourth order: f' = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h.
        let h = 1e-3;
        (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
    }
}

/// A graph under construction, with parameters named by node.
struct Net {
    g: Graph,
}

impl Net {
    fn new(c: usize, [h, w]: [usize; 2]) -> Net {
        Net { g: Graph::new([c, h, w]) }
    }
    fn op(&mut self, op: Op, inputs: &[usize]) -> usize {
        let params: Vec<usize> = self.shapes(&op, inputs).into_iter().map(|(name, shape)| self.param(name, &shape)).collect();
        let id = self.g.add(op, inputs, &params).unwrap();
        self.g.output = id;
        id
    }
    fn shapes(&self, op: &Op, inputs: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
        let c = inputs.first().map_or(0, |&i| self.g.nodes[i].shape[0]);
        match *op {
            Op::Linear { out } => vec![("weight", vec![out, c]), ("bias", vec![out])],
            Op::Conv2d { out, kernel, .. } => vec![("weight", vec![out, c, kernel, kernel]), ("bias", vec![out])],
            Op::GroupNorm { .. } => vec![("weight", vec![c]), ("bias", vec![c])],
            Op::LabelEmbed { classes, dim } => vec![("weight", vec![classes, dim])],
            Op::TimeEmbed { dim, features: TimeFeatures::Fourier { .. }, .. } => vec![("frequencies", vec![dim / 2])],
            _ => vec![],
        }
    }
    fn param(&mut self, name: &str, shape: &[usize]) -> usize {
        let id = self.g.add_param(format!("{}.{name}", self.g.nodes.len()), shape, Init::Zeros);
        self.g.params[id].fixed = name == "frequencies";
        id
    }
    fn conv(&mut self, x: usize, out: usize, kernel: usize) -> usize {
        let pad = kernel / 2;
        self.op(Op::Conv2d { out, kernel, stride: 1, pad: [pad, pad], channel_bias: false, residual: false }, &[x])
    }
}
