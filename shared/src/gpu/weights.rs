//! A network's parameters in the order in which the kernels read them.

use super::WeightStorage;
use super::fuse::Fusion;
use super::layout::quads;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op, ParamId};

/// Where a node's parameters begin, in vec4s: the product's weights (or a table, or norm weights), and the biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Weights.
    pub weight: u32,
    /// Biases.
    pub bias: u32,
}

/// All parameters of one network, packed.
#[derive(Debug)]
pub struct Packed {
    /// The buffer's contents.
    pub bytes: Vec<u8>,
    /// For each node that has parameters (the first of its siblings for products).
    pub places: Vec<Place>,
}

/// Packs theta for `graph`.
///
/// # Errors
/// [`Error::Call`] if theta has the wrong length; [`Error::Gpu`] names a parameter that half precision cannot hold.
pub fn pack(graph: &Graph, theta: &[f32], fusion: &Fusion, storage: WeightStorage) -> Result<Packed> {
    if theta.len() != graph.param_count() {
        return Err(Error::call("theta", theta.len(), format!("{} parameters", graph.param_count())));
    }
    let mut data: Vec<f32> = Vec::with_capacity(theta.len() + theta.len() / 4);
    let mut places = vec![Place::default(); graph.nodes.len()];
    let slice = |p: ParamId| &theta[graph.params[p].range()];
    for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| fusion.live[*i]) {
        let begin = |data: &Vec<f32>| (data.len() / 4) as u32;
        match &node.op {
            // A shortcut's weights follow those of the convolution that computes it.
            Op::Conv2d { .. } if fusion.deferred[i] => {}
            Op::Conv2d { .. } | Op::Linear { .. } if fusion.siblings[i][0] == i => {
                let weight = begin(&data);
                product(graph, theta, &fusion.siblings[i], &mut data);
                if let Some(j) = fusion.shortcut[i] {
                    product(graph, theta, &[j], &mut data);
                    places[j].bias = begin(&data);
                    padded(slice(graph.nodes[j].params[1]), &mut data);
                }
                let bias = begin(&data);
                fusion.siblings[i].iter().for_each(|&j| padded(slice(graph.nodes[j].params[1]), &mut data));
                places[i] = Place { weight, bias };
            }
            Op::GroupNorm { .. } => {
                let weight = begin(&data);
                padded(slice(node.params[0]), &mut data);
                let bias = begin(&data);
                padded(slice(node.params[1]), &mut data);
                places[i] = Place { weight, bias };
            }
            Op::LabelEmbed { dim, .. } => {
                places[i] = Place { weight: begin(&data), bias: 0 };
                slice(node.params[0]).chunks_exact(*dim).for_each(|row| padded(row, &mut data));
            }
            _ => {}
        }
    }
    if data.is_empty() {
        data.resize(4, 0.0); // a binding may not be empty
    }
    if storage == WeightStorage::F16 {
        for p in &graph.params {
            if let Some(v) = theta[p.range()].iter().find(|v| v.is_finite() && !half::f16::from_f32(**v).is_finite()) {
                return Err(Error::Gpu(format!("parameter `{}` holds {v}, beyond half precision", p.name)));
            }
        }
    }
    let bytes = match storage {
        WeightStorage::F32 => bytemuck::cast_slice(&data).to_vec(),
        WeightStorage::F16 => data.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
    };
    Ok(Packed { bytes, places })
}

fn padded(row: &[f32], data: &mut Vec<f32>) {
    data.extend_from_slice(row);
    data.resize(data.len().next_multiple_of(4), 0.0);
}

/// `[tap][input channel, padded][output channel of each sibling, padded]`.
fn product(graph: &Graph, theta: &[f32], siblings: &[NodeId], data: &mut Vec<f32>) {
    let first = &graph.nodes[siblings[0]];
    let channels = graph.nodes[first.inputs[0]].shape[0];
    let taps = match first.op {
        Op::Conv2d { kernel, .. } => kernel * kernel,
        _ => 1,
    };
    let outs: Vec<usize> = siblings.iter().map(|&j| graph.nodes[j].shape[0]).collect();
    let row: usize = outs.iter().map(|&o| 4 * quads(o)).sum();
    let start = data.len();
    data.resize(start + taps * 4 * quads(channels) * row, 0.0);
    let mut column = 0;
    for (&j, &out) in siblings.iter().zip(&outs) {
        let weight = &theta[graph.params[graph.nodes[j].params[0]].range()];
        for o in 0..out {
            for c in 0..channels {
                for tap in 0..taps {
                    let at = start + (tap * 4 * quads(channels) + c) * row + column + o;
                    data[at] = weight[(o * channels + c) * taps + tap];
                }
            }
        }
        column += 4 * quads(out);
    }
}
