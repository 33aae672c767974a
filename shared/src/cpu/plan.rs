//! Where every value and every gradient of a chunk lives: one arena, offsets found once.

use crate::graph::{Graph, Op};

/// What a forward pass keeps for a later backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: values are overwritten as soon as they have been read.
    Nothing,
    /// What the input's gradient needs (frozen networks): inputs of norms, activations and attention.
    ForInput,
    /// What all parameters' gradients need: also inputs of convolutions and linear layers.
    ForAll,
}

/// Offsets in an arena, in floats per image of the chunk; a value with offset `o` of a chunk of `n` images begins at `o * n`.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Per node; `usize::MAX` if the node has no place.
    pub offsets: Vec<usize>,
    /// Floats per image.
    pub len: usize,
}

/// One value's claim: size, and the first and last step at which it is used.
struct Claim {
    node: usize,
    size: usize,
    birth: usize,
    death: usize,
}

fn place(nodes: usize, mut claims: Vec<Claim>) -> Layout {
    let mut offsets = vec![usize::MAX; nodes];
    let mut len = 0;
    let mut live: Vec<(usize, usize, usize)> = vec![];
    claims.sort_by_key(|c| c.birth);
    for claim in claims {
        live.retain(|&(_, _, death)| death >= claim.birth);
        live.sort_unstable();
        let mut at = 0;
        for &(begin, end, _) in &live {
            if begin >= at + claim.size {
                break;
            }
            at = at.max(end);
        }
        live.push((at, at + claim.size, claim.death));
        offsets[claim.node] = at;
        len = len.max(at + claim.size);
    }
    Layout { offsets, len }
}

fn size(graph: &Graph, id: usize) -> usize {
    graph.nodes[id].shape.iter().product::<usize>().next_multiple_of(16)
}

/// Nodes that depend on what is differentiated: the input image, the parameters, or both.
pub fn needs_gradient(graph: &Graph, input: bool, params: bool) -> Vec<bool> {
    let mut needs = vec![false; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        let own = params && node.params.iter().any(|&p| !graph.params[p].fixed);
        let root = input && matches!(node.op, Op::Input);
        needs[id] = own || root || node.inputs.iter().any(|&i| needs[i]);
    }
    needs
}

/// Layout of the forward values.
pub fn forward(graph: &Graph, keep: Keep) -> Layout {
    let last = graph.nodes.len();
    let mut death: Vec<usize> = (0..last).collect();
    let needs = needs_gradient(graph, true, keep == Keep::ForAll);
    for (id, node) in graph.nodes.iter().enumerate() {
        let kept = needs[id]
            && match (&node.op, keep) {
                (_, Keep::Nothing) => false,
                (Op::GroupNorm { .. } | Op::Silu | Op::Attention { .. }, _) => true,
                (Op::Conv2d { .. } | Op::Linear { .. }, Keep::ForAll) => true,
                _ => false,
            };
        // Of a convolution's inputs only the first is read again; a norm's second input (scale and shift) is.
        for (i, &input) in node.inputs.iter().enumerate() {
            let read_again = kept && (i == 0 || !matches!(node.op, Op::Conv2d { .. }));
            death[input] = death[input].max(if read_again { last } else { id });
        }
    }
    for id in std::iter::once(graph.output).chain(graph.features) {
        death[id] = last;
    }
    let claims = (0..last).map(|node| Claim { node, size: size(graph, node), birth: node, death: death[node] }).collect();
    place(last, claims)
}

/// Where gradients live and which writer comes first.
#[derive(Clone, Debug)]
pub struct Backward {
    /// Offsets of the gradients.
    pub layout: Layout,
    /// Nodes that get a gradient.
    pub needs: Vec<bool>,
    /// Per node and input: add to the input's gradient (true) or be the first to write it.
    pub add: Vec<Vec<bool>>,
}

/// Plan of a backward pass for the gradients asked for.
pub fn backward(graph: &Graph, input: bool, params: bool) -> Backward {
    let last = graph.nodes.len() - 1;
    let mut needs = needs_gradient(graph, input, params);
    for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Attention { .. })) {
        // The three gradients come together; one that nobody asked for ends at its node.
        if node.inputs.iter().any(|&i| needs[i]) {
            node.inputs.iter().for_each(|&i| needs[i] = true);
        }
    }
    let mut written = vec![false; graph.nodes.len()];
    let mut birth = vec![usize::MAX; graph.nodes.len()];
    let mut add = vec![vec![]; graph.nodes.len()];
    written[graph.output] = true;
    birth[graph.output] = 0;
    for id in (0..=last).rev() {
        // A node that nothing read (the classifier's unused branch, say) has no gradient to pass on.
        let live = needs[id] && written[id];
        for &i in &graph.nodes[id].inputs {
            add[id].push(written[i]);
            if live && needs[i] && !written[i] {
                written[i] = true;
                birth[i] = last - id;
            }
        }
    }
    let needs: Vec<bool> = (0..=last).map(|i| needs[i] && written[i]).collect();
    let claims =
        (0..=last).filter(|&i| needs[i]).map(|i| Claim { node: i, size: size(graph, i), birth: birth[i], death: last - i }).collect();
    Backward { layout: place(last + 1, claims), needs, add }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{NetworkConfig, mlp::MlpConfig};

    fn graph() -> Graph {
        NetworkConfig::Mlp(MlpConfig {
            dim: 2,
            hidden: 32,
            layers: 3,
            num_class_embeds: Some(4),
            limbeck_second_time: true,
            limbeck_guidance_input: false,
        })
        .build()
        .unwrap()
    }

    #[test]
    fn no_value_is_overwritten_before_its_last_reader() {
        let g = graph();
        let layout = forward(&g, Keep::Nothing);
        for (reader, node) in g.nodes.iter().enumerate() {
            for &i in &node.inputs {
                let own = layout.offsets[i]..layout.offsets[i] + size(&g, i);
                for between in i + 1..=reader {
                    let other = layout.offsets[between]..layout.offsets[between] + size(&g, between);
                    assert!(other.end <= own.start || own.end <= other.start, "{between} lies over {i}, which {reader} reads");
                }
            }
        }
        assert!(layout.len < forward(&g, Keep::ForAll).len);
    }

    #[test]
    fn a_frozen_network_passes_gradients_only_where_the_image_went() {
        let g = graph();
        let frozen = backward(&g, true, false);
        for (id, node) in g.nodes.iter().enumerate() {
            if matches!(node.op, Op::TimeEmbed { .. } | Op::LabelEmbed { .. }) {
                assert!(!frozen.needs[id]);
            }
        }
        assert!(frozen.needs[0]);
        let full = backward(&g, false, true);
        assert!(!full.needs[0]);
        assert!(frozen.layout.len <= full.layout.len);
    }
}
