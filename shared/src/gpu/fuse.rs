//! Which nodes of a graph become one dispatch. Independent of batch size and device.

use crate::graph::{Graph, NodeId, Op};
use std::collections::BTreeMap;

/// What to leave out, and what to do together.
#[derive(Debug)]
pub struct Fusion {
    /// Whether the output depends on the node.
    pub live: Vec<bool>,
    /// For a convolution or linear layer: all layers that read the same input in the same way and are computed in one product,
    /// itself included, in node order.
    pub siblings: Vec<Vec<NodeId>>,
    /// For an addition: the linear layer (one of its two inputs) that adds the other input itself.
    pub absorbed: Vec<Option<NodeId>>,
    /// For a convolution with a residual: the 1x1 convolution that makes it, which it computes too.
    pub shortcut: Vec<Option<NodeId>>,
    /// Whether another node computes this one.
    pub deferred: Vec<bool>,
}

/// What a linear layer really reads: (node, whether through a SiLU).
pub fn linear_source(graph: &Graph, input: NodeId) -> (NodeId, bool) {
    let node = &graph.nodes[input];
    match node.op {
        Op::Silu if node.shape[1] * node.shape[2] == 1 => (node.inputs[0], true),
        _ => (input, false),
    }
}

/// Decides.
pub fn fuse(graph: &Graph) -> Fusion {
    let n = graph.nodes.len();
    let mut live = vec![false; n];
    live[graph.output] = true;
    for i in (0..n).rev().filter(|&i| i <= graph.output) {
        if live[i] {
            graph.nodes[i].inputs.iter().for_each(|&j| live[j] = true);
        }
    }
    let mut uses = vec![0usize; n];
    for node in graph.nodes.iter().zip(&live).filter(|(_, live)| **live).map(|(node, _)| node) {
        node.inputs.iter().for_each(|&j| uses[j] += 1);
    }

    // Layers that read one value: the key tells apart what may not share a product.
    let mut groups: BTreeMap<(NodeId, bool, [usize; 4]), Vec<NodeId>> = BTreeMap::new();
    for i in (0..n).filter(|&i| live[i]) {
        let node = &graph.nodes[i];
        match &node.op {
            Op::Linear { .. } => {
                let (source, silu) = linear_source(graph, node.inputs[0]);
                groups.entry((source, silu, [0; 4])).or_default().push(i);
            }
            Op::Conv2d { kernel, stride, pad, channel_bias: false, residual: false, .. } => {
                groups.entry((node.inputs[0], false, [*kernel, *stride, pad[0], pad[1]])).or_default().push(i);
            }
            Op::Conv2d { .. } => {
                groups.insert((i, true, [usize::MAX; 4]), vec![i]);
            }
            _ => {}
        }
    }
    let mut siblings = vec![vec![]; n];
    for group in groups.values() {
        group.iter().for_each(|&i| siblings[i] = group.clone());
    }

    let mut absorbed = vec![None; n];
    let mut deferred = vec![false; n];
    for i in (0..n).filter(|&i| live[i] && graph.nodes[i].op == Op::Add) {
        let alone =
            |&j: &NodeId| matches!(graph.nodes[j].op, Op::Linear { .. }) && uses[j] == 1 && siblings[j].len() == 1 && j != graph.output;
        if let Some(&j) = graph.nodes[i].inputs.iter().find(|j| alone(j)) {
            absorbed[i] = Some(j);
            deferred[j] = true;
        }
    }
    let mut shortcut = vec![None; n];
    for i in (0..n).filter(|&i| live[i]) {
        let Op::Conv2d { residual: true, .. } = graph.nodes[i].op else { continue };
        let Some(&j) = graph.nodes[i].inputs.last() else { continue };
        let plain = matches!(graph.nodes[j].op, Op::Conv2d { kernel: 1, stride: 1, pad: [0, 0], channel_bias: false, residual: false, .. });
        if plain && uses[j] == 1 && siblings[j].len() == 1 && j != graph.output {
            shortcut[i] = Some(j);
            deferred[j] = true;
        }
    }
    Fusion { live, siblings, absorbed, shortcut, deferred }
}
