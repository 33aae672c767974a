//! Every operation by its definition, in f64, one image at a time: slow and plain.

use crate::graph::{Graph, Op, TimeFeatures};

type Map = Vec<f64>;

/// The graph's output for one image `[c, h, w]`.
pub fn forward(graph: &Graph, theta: &[f32], x: &[f32], times: &[f32], label: usize) -> Vec<f32> {
    let mut values: Vec<Map> = vec![];
    for node in &graph.nodes {
        let param = |i: usize| theta[graph.params[node.params[i]].range()].iter().map(|v| f64::from(*v)).collect::<Map>();
        let input = |i: usize| &values[node.inputs[i]];
        let shape = |i: usize| graph.nodes[node.inputs[i]].shape;
        let value: Map = match &node.op {
            Op::Input => x.iter().map(|v| f64::from(*v)).collect(),
            Op::TimeEmbed { slot, dim, features } => {
                let (t, half) = (f64::from(times[*slot]), *dim / 2);
                let angle = |i: usize| match features {
                    TimeFeatures::Positional { freq_shift, scale, .. } => {
                        t * scale * 10_000f64.powf(-(i as f64) / (half as f64 - freq_shift))
                    }
                    TimeFeatures::Fourier { .. } => std::f64::consts::TAU * param(0)[i] * t.ln(),
                };
                let (TimeFeatures::Positional { flip_sin_to_cos: flip, .. } | TimeFeatures::Fourier { flip_sin_to_cos: flip }) = features;
                (0..*dim).map(|i| if (i < half) == *flip { angle(i % half).cos() } else { angle(i % half).sin() }).collect()
            }
            Op::LabelEmbed { dim, .. } => param(0)[label * dim..][..*dim].to_vec(),
            Op::Linear { out } => {
                let (w, b, x) = (param(0), param(1), input(0));
                (0..*out).map(|o| b[o] + (0..x.len()).map(|i| w[o * x.len() + i] * x[i]).sum::<f64>()).collect()
            }
            Op::Silu => input(0).iter().map(|v| v / (1.0 + (-v).exp())).collect(),
            Op::Add => input(0).iter().zip(input(1)).map(|(a, b)| a + b).collect(),
            Op::GroupNorm { groups, eps, scale_shift, silu } => {
                let [c, h, w] = shape(0);
                let (weight, bias, x, n) = (param(0), param(1), input(0), h * w);
                let per = c / groups * n;
                (0..x.len())
                    .map(|i| {
                        let (ch, group) = (i / n, &x[i / per * per..][..per]);
                        let mean = group.iter().sum::<f64>() / per as f64;
                        let var = group.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / per as f64;
                        let mut y = (x[i] - mean) / (var + eps).sqrt() * weight[ch] + bias[ch];
                        if *scale_shift {
                            y = y * (1.0 + input(1)[ch]) + input(1)[c + ch];
                        }
                        if *silu { y / (1.0 + (-y).exp()) } else { y }
                    })
                    .collect()
            }
            Op::Conv2d { out, kernel, stride, pad, channel_bias, residual } => {
                let [c, h, w] = shape(0);
                let [_, oh, ow] = node.shape;
                let (weight, bias, x) = (param(0), param(1), input(0));
                let mut y = vec![];
                for (o, oy, ox) in (0..*out).flat_map(|o| (0..oh).flat_map(move |y| (0..ow).map(move |x| (o, y, x)))) {
                    let mut sum = bias[o] + if *channel_bias { input(1)[o] } else { 0.0 };
                    for (i, ky, kx) in (0..c).flat_map(|i| (0..*kernel).flat_map(move |y| (0..*kernel).map(move |x| (i, y, x)))) {
                        let (iy, ix) = ((oy * stride + ky).wrapping_sub(pad[0]), (ox * stride + kx).wrapping_sub(pad[0]));
                        if iy < h && ix < w {
                            sum += weight[((o * c + i) * kernel + ky) * kernel + kx] * x[(i * h + iy) * w + ix];
                        }
                    }
                    if *residual {
                        sum += input(node.inputs.len() - 1)[y.len()];
                    }
                    y.push(sum);
                }
                y
            }
            Op::Attention { heads } => {
                let [c, h, w] = shape(0);
                let (n, d) = (h * w, c / heads);
                let (q, k, v) = (input(0), input(1), input(2));
                let mut y = vec![0.0; c * n];
                for (head, i) in (0..*heads).flat_map(|a| (0..n).map(move |i| (a, i))) {
                    let score = |j: usize| (head * d..(head + 1) * d).map(|e| q[e * n + i] * k[e * n + j]).sum::<f64>() / (d as f64).sqrt();
                    let scores: Map = (0..n).map(score).collect();
                    let top = scores.iter().fold(f64::MIN, |m, s| m.max(*s));
                    let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                    for e in head * d..(head + 1) * d {
                        y[e * n + i] = (0..n).map(|j| (scores[j] - top).exp() / total * v[e * n + j]).sum();
                    }
                }
                y
            }
            Op::Concat => [input(0).as_slice(), input(1)].concat(),
            Op::Upsample2x | Op::SpaceToDepth { .. } | Op::DepthToSpace { .. } => {
                let ([_, h, w], [c, oh, ow]) = (shape(0), node.shape);
                let at = |c: usize, y: usize, x: usize| match &node.op {
                    Op::SpaceToDepth { block: b } => (c / (b * b), y * b + c / b % b, x * b + c % b),
                    Op::DepthToSpace { block: b } => ((c * b + y % b) * b + x % b, y / b, x / b),
                    _ => (c, y / 2, x / 2),
                };
                let cells = (0..c).flat_map(|c| (0..oh).flat_map(move |y| (0..ow).map(move |x| (c, y, x))));
                cells.map(|(c, y, x)| at(c, y, x)).map(|(c, y, x)| input(0)[(c * h + y) * w + x]).collect()
            }
            Op::Dropout { .. } => input(0).to_vec(),
            Op::MeanPool => input(0).chunks(input(0).len() / node.shape[0]).map(|c| c.iter().sum::<f64>() / c.len() as f64).collect(),
            Op::DivideByTime { slot } => input(0).iter().map(|v| v / f64::from(times[*slot])).collect(),
        };
        values.push(value);
    }
    values[graph.output].iter().map(|v| *v as f32).collect()
}
