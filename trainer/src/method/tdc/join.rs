//! One set of weights for networks of several widths.

use anyhow::{Context, Result};
use limbeck_shared::graph::prune::{Pruned, prefix, select};
use limbeck_shared::graph::{Graph, Param};

/// Norms, biases and time projections, which every group has for itself.
fn own(p: &Param) -> bool {
    !p.fixed && (p.shape.len() == 1 || p.name.contains(".time_emb_proj."))
}

/// One theta for networks, the widest first: its graph, its weights out of the base's, and where each network's parameters lie in it.
pub(super) fn join(nets: &[&Pruned], base: &[f32], share: bool) -> Result<(Graph, Vec<f32>, Vec<Vec<usize>>)> {
    let (mut graph, mut theta) = (nets[0].graph.clone(), select(base, &nets[0].index));
    let mut lists = vec![(0..theta.len()).collect::<Vec<usize>>()];
    for (k, net) in nets.iter().enumerate().skip(1) {
        let mut list = Vec::with_capacity(net.index.len());
        for p in &net.graph.params {
            if share && !own(p) {
                let begins = nets[0].graph.param(&p.name).and_then(|widest| prefix(widest, p));
                list.extend(
                    begins.with_context(|| format!("`{}`: found wider than in the widest group, expected at most as wide", p.name))?,
                );
            } else {
                let id = graph.add_param(format!("net{k}.{}", p.name), &p.shape, p.init);
                graph.params[id].fixed = p.fixed;
                list.extend(graph.params[id].range());
                theta.extend(net.index[p.range()].iter().map(|&i| base[i]));
            }
        }
        lists.push(list);
    }
    Ok((graph, theta, lists))
}
