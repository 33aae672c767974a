//! Structured pruning: what of a network can go, and the smaller network with the weights that stay.
//!
//! A unit lies inside a block, where neither the residual stream nor a skip connection sees it: whole norm groups of a residual
//! block's inner channels (outputs of its first convolution, inputs of its second), or heads of an attention. Norm groups that stay
//! keep their channels and so their statistics. Channels stay multiples of four, as GPU kernels want them.
//!
//! [`prune`] rewrites configuration and graph, and gives for each parameter of the smaller network its place in the larger one:
//! weights, averages and an optimiser's moments are all [`select`]ed by that one list.

use super::{Graph, NetworkConfig, NodeId, Op, Param};
use crate::error::{Error, Result};

/// Channels that a unit is a multiple of.
const ALIGN: usize = 4;
/// Fewest inner channels that stay.
const LEAST: usize = 8;

/// What a block's units are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Norm groups between a residual block's convolutions.
    Residual,
    /// Attention heads.
    Attention,
}

impl Kind {
    /// Parameters that hold a block's inner channels, and along which axis.
    fn parts(self) -> &'static [(&'static str, usize)] {
        match self {
            Kind::Residual => &[
                ("conv1.weight", 0),
                ("conv1.bias", 0),
                ("time_emb_proj.weight", 0),
                ("time_emb_proj.bias", 0),
                ("norm2.weight", 0),
                ("norm2.bias", 0),
                ("conv2.weight", 1),
            ],
            Kind::Attention => &[
                ("to_q.weight", 0),
                ("to_q.bias", 0),
                ("to_k.weight", 0),
                ("to_k.bias", 0),
                ("to_v.weight", 0),
                ("to_v.bias", 0),
                ("to_out.0.weight", 1),
            ],
        }
    }
}

/// A block that can be pruned.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Its name in diffusers, such as `down_blocks.0.resnets.0`.
    pub name: String,
    /// What its units are.
    pub kind: Kind,
    /// Units that it has.
    pub units: usize,
    /// Channels of a unit.
    pub unit: usize,
    /// Fewest units that stay.
    pub least: usize,
    /// Multiply-accumulates that go with each unit, exactly: a network's cost is affine in its blocks' units.
    pub unit_macs: u64,
    /// Channels, height and width of what the block gives.
    pub output: [usize; 3],
}

impl Block {
    /// Inner channels of so many units.
    pub fn channels(&self, units: usize) -> usize {
        units * self.unit
    }

    /// Elements of theta that go with one unit.
    ///
    /// # Errors
    /// [`Error::Config`] if the graph has no such block.
    pub fn elements(&self, graph: &Graph, unit: usize) -> Result<Vec<usize>> {
        let parts = self.kind.parts().iter();
        let lists = parts.map(|&(end, axis)| Ok(gather(param(graph, &format!("{}.{end}", self.name))?, axis, self, &[unit])));
        Ok(lists.collect::<Result<Vec<_>>>()?.concat())
    }
}

/// The blocks of a network that can be pruned, in the order of its parameters.
pub fn blocks(graph: &Graph) -> Vec<Block> {
    let of = |p: &Param| match p.name.strip_suffix(".norm2.weight") {
        Some(name) => residual(graph, name),
        None => attention(graph, p.name.strip_suffix(".to_q.weight")?),
    };
    graph.params.iter().filter_map(of).collect()
}

/// The node that holds a parameter.
fn node(graph: &Graph, name: &str) -> Option<NodeId> {
    let id = graph.params.iter().position(|p| p.name == name)?;
    graph.nodes.iter().position(|n| n.params.contains(&id))
}

fn residual(graph: &Graph, name: &str) -> Option<Block> {
    let at = |end: &str| node(graph, &format!("{name}.{end}"));
    let (first, norm, second) = (at("conv1.weight")?, at("norm2.weight")?, at("conv2.weight")?);
    let Op::GroupNorm { groups, .. } = graph.nodes[norm].op else { return None };
    let width = graph.nodes[norm].shape[0];
    // Norm groups that go together, so that what stays is a multiple of ALIGN channels.
    let joined = (1..=groups).find(|n| groups.is_multiple_of(*n) && (n * width / groups).is_multiple_of(ALIGN))?;
    let inside = [Some(first), at("time_emb_proj.weight"), Some(second)];
    Some(block(graph, name, Kind::Residual, groups / joined, width, second, inside.into_iter().flatten()))
}

fn attention(graph: &Graph, name: &str) -> Option<Block> {
    let at = |end: &str| node(graph, &format!("{name}.{end}"));
    let (q, k, v, out) = (at("to_q.weight")?, at("to_k.weight")?, at("to_v.weight")?, at("to_out.0.weight")?);
    let inner = *graph.nodes[out].inputs.first()?;
    let Op::Attention { heads } = graph.nodes[inner].op else { return None };
    let width = graph.nodes[inner].shape[0];
    let joined = (1..=heads).find(|n| heads.is_multiple_of(*n) && (n * width / heads).is_multiple_of(ALIGN))?;
    Some(block(graph, name, Kind::Attention, heads / joined, width, out, [q, k, v, inner, out].into_iter()))
}

fn block(graph: &Graph, name: &str, kind: Kind, units: usize, width: usize, output: NodeId, inside: impl Iterator<Item = NodeId>) -> Block {
    let unit = width / units;
    let unit_macs = inside.map(|id| graph.node_macs(id)).sum::<u64>() / units as u64;
    Block { name: name.into(), kind, units, unit, least: LEAST.div_ceil(unit).min(units), unit_macs, output: graph.nodes[output].shape }
}

/// Units that stay, for each of [`blocks`], in the order in which the smaller network holds them.
pub type Kept = Vec<Vec<usize>>;

/// A smaller network, and where its parameters are in the larger one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// Its configuration.
    pub config: NetworkConfig,
    /// Its graph.
    pub graph: Graph,
    /// Element i of its theta is element `index[i]` of the larger network's.
    pub index: Vec<usize>,
}

/// Keeps the named units of every block; all units in another order give the same network with its channels in that order.
///
/// # Errors
/// [`Error::Config`] if the lists do not fit the network's blocks, or it has none.
pub fn prune(config: &NetworkConfig, kept: &Kept) -> Result<Pruned> {
    let large = config.build()?;
    let blocks = blocks(&large);
    if kept.len() != blocks.len() {
        return Err(Error::config("kept", format!("{} blocks", kept.len()), format!("{}, one list for each block", blocks.len())));
    }
    let mut config = config.clone();
    for (block, units) in blocks.iter().zip(kept) {
        let mut sorted = units.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != units.len() || units.len() < block.least || sorted.last().is_some_and(|&u| u >= block.units) {
            let expected = format!("{} to {} different units below {}", block.least, block.units, block.units);
            return Err(Error::config(format!("kept.{}", block.name), format!("{units:?}"), expected));
        }
        if let NetworkConfig::Unet(c) = &mut config
            && units.len() < block.units
        {
            c.limbeck_inner_channels.insert(block.name.clone(), block.channels(units.len()));
        }
    }
    let graph = config.build()?;
    let mut index = Vec::with_capacity(graph.param_count());
    for p in &graph.params {
        let from = param(&large, &p.name)?;
        let cut = blocks.iter().zip(kept).find_map(|(block, units)| {
            let end = p.name.strip_prefix(&block.name)?.strip_prefix('.')?;
            let axis = block.kind.parts().iter().find(|part| part.0 == end)?.1;
            Some((block, units, axis))
        });
        match cut {
            Some((block, units, axis)) => index.extend(gather(from, axis, block, units)),
            None => index.extend(from.range()),
        }
    }
    Ok(Pruned { config, graph, index })
}

fn param<'a>(graph: &'a Graph, name: &str) -> Result<&'a Param> {
    graph.param(name).ok_or_else(|| Error::config("parameter", name, "one of the network"))
}

/// Elements of a parameter that belong to some units of a block along one axis. A scale-shift projection has every channel twice.
fn gather(p: &Param, axis: usize, block: &Block, units: &[usize]) -> Vec<usize> {
    let (outer, n, inner): (usize, usize, usize) = (p.shape[..axis].iter().product(), p.shape[axis], p.shape[axis + 1..].iter().product());
    let width = block.channels(block.units);
    let channels =
        (0..n / width).flat_map(|half| units.iter().flat_map(move |u| (0..block.unit).map(move |c| half * width + u * block.unit + c)));
    let channels: Vec<usize> = channels.collect();
    let rows = (0..outer).flat_map(|o| channels.iter().map(move |c| p.offset + (o * n + c) * inner));
    rows.flat_map(|start| start..start + inner).collect()
}

/// Where a parameter lies in a larger one of the same name if it begins that one along every axis; none if it is larger in any.
pub fn prefix(large: &Param, small: &Param) -> Option<Vec<usize>> {
    let fits = large.shape.len() == small.shape.len() && large.shape.iter().zip(&small.shape).all(|(l, s)| l >= s);
    let mut index = vec![large.offset];
    let mut stride = large.len();
    for (l, s) in large.shape.iter().zip(&small.shape).take_while(|_| fits) {
        stride /= l;
        index = index.iter().flat_map(|&i| (0..*s).map(move |j| i + j * stride)).collect();
    }
    fits.then_some(index)
}

/// Values of a smaller network out of the larger one's: its theta, an average, an optimiser's moment.
pub fn select(values: &[f32], index: &[usize]) -> Vec<f32> {
    index.iter().map(|&i| values[i]).collect()
}

#[cfg(test)]
mod tests;
