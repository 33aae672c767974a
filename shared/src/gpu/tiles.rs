//! Which kernel a convolution takes, and which norms need no dispatch of their own because of it.

use super::fuse::Fusion;
use super::kernels::Kernel;
use super::layout::quads;
use crate::graph::{Graph, NodeId, Op};

/// What an adapter wants of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occupancy {
    /// Workgroups enough for many cores; a read of workgroup memory costs next to nothing.
    Wide,
    /// A CPU's few cores pass for a GPU: two workgroups fill it, and every access to memory, workgroup memory too, is some hundred
    /// instructions: large register tiles and no workgroup memory, whatever that does to the number of workgroups.
    Narrow,
}

/// A convolution's kernel and the part of the result that one of its workgroups makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub kernel: Kernel,
    /// Pixels.
    pub rows: usize,
    /// vec4s of channels.
    pub columns: usize,
    /// Workgroups that share its inner dimension.
    pub parts: usize,
}

impl Tile {
    /// Whether the kernel can normalise what it reads, and say of what it writes what a norm needs. Where large tiles fill a device
    /// the arithmetic counts, not the dispatches: a norm of its own then computes each SiLU once instead of with every tap.
    pub fn norms(self) -> bool {
        !matches!(self.kernel, Kernel::ConvLarge | Kernel::ConvMedium)
    }
}

/// Most vec4s of channels that a kernel can normalise.
const MOST_QUADS: usize = 64;

/// Among how many workgroups a tile's `steps` are shared when there are only so many `tiles`. A second pass costs a dispatch, about
/// as much as a dozen steps, which has to come back: long sums only, and not more workgroups than fill a device.
fn parts(steps: usize, tiles: usize) -> usize {
    if steps < 24 { 1 } else { (64 / tiles.max(1)).min(steps / 8).max(1) }
}

/// Decides for a network on one number of images.
pub struct Rules<'a> {
    pub graph: &'a Graph,
    pub fusion: &'a Fusion,
    pub occupancy: Occupancy,
    pub batch: usize,
}

impl Rules<'_> {
    /// The kernel of convolution `i` (with its siblings): large tiles do the most work for each fetch, but only if there are enough
    /// of them to fill a device.
    pub fn tile(&self, i: NodeId) -> Tile {
        let node = &self.graph.nodes[i];
        let edge = if let Op::Conv2d { kernel, .. } = node.op { kernel } else { 1 };
        let [_, h, w] = node.shape;
        let deep = quads(self.graph.nodes[node.inputs[0]].shape[0]);
        let width: usize = self.fusion.siblings[i].iter().map(|&j| quads(self.graph.nodes[j].shape[0])).sum();
        let tile = |kernel, rows, columns| Tile { kernel, rows, columns, parts: 1 };
        let (large, medium) = (tile(Kernel::ConvLarge, 64, 16), tile(Kernel::ConvMedium, 32, 8));
        let groups = |t: Tile| (self.batch * h * w).div_ceil(t.rows) * width.div_ceil(t.columns);
        match self.occupancy {
            Occupancy::Narrow => {
                // Whichever leaves fewer threads without pixels: maps are 7, 14, 28 or 8, 16, 32 wide.
                let waste = |rows: usize| (h * w).next_multiple_of(rows);
                if waste(56) < waste(64) { tile(Kernel::ConvDirect7, 56, 8) } else { tile(Kernel::ConvDirect8, 64, 8) }
            }
            Occupancy::Wide if deep == 1 => tile(Kernel::ConvStem, 64, 4),
            Occupancy::Wide if width == 1 && self.batch * h * w >= 4096 => tile(Kernel::ConvHead, 64, 1),
            Occupancy::Wide if width > 8 && groups(large) >= 256 => large,
            Occupancy::Wide if groups(medium) >= 96 => medium,
            Occupancy::Wide => {
                let small = tile(Kernel::ConvSmall, 16, 4);
                Tile { parts: parts((edge * edge * deep).div_ceil(16), groups(small)), ..small }
            }
        }
    }

    /// For each node: a norm that its readers compute as they read; a convolution whose statistics such a norm needs.
    pub fn norms(&self) -> (Vec<bool>, Vec<bool>) {
        let nodes = &self.graph.nodes;
        let (mut read, mut told) = (vec![false; nodes.len()], vec![false; nodes.len()]);
        for i in (0..nodes.len()).filter(|&i| self.fusion.live[i] && i != self.graph.output) {
            let Op::GroupNorm { groups, .. } = nodes[i].op else { continue };
            let (channels, input) = (nodes[i].shape[0], nodes[i].inputs[0]);
            // A concatenation stays a view as long as nobody needs it in memory.
            let view = nodes[input].op == Op::Concat && self.readers(input).all(|j| self.views(j, input));
            let makers = if view { nodes[input].inputs.clone() } else { vec![input] };
            let group = channels / groups;
            let whole = channels.is_multiple_of(4) && quads(channels) <= MOST_QUADS && (group <= 2 || group.is_multiple_of(4));
            if whole && makers.iter().all(|&j| self.tells(j)) && self.readers(i).all(|j| self.reads(j, i)) {
                read[i] = true;
                makers.iter().for_each(|&j| told[j] = true);
            }
        }
        (read, told)
    }

    fn readers(&self, i: NodeId) -> impl Iterator<Item = NodeId> {
        (i + 1..self.graph.nodes.len()).filter(move |&j| self.fusion.live[j] && self.graph.nodes[j].inputs.contains(&i))
    }

    /// A node that reads concatenation `i` where its parts lie.
    fn views(&self, j: NodeId, i: NodeId) -> bool {
        let node = &self.graph.nodes[j];
        matches!(node.op, Op::Conv2d { .. } | Op::GroupNorm { .. }) && node.inputs[0] == i && !node.inputs[1..].contains(&i)
    }

    /// A convolution that can give statistics of a result in memory of its own.
    fn tells(&self, j: NodeId) -> bool {
        let alone = self.fusion.siblings[j].len() == 1 && !self.fusion.deferred[j];
        matches!(self.graph.nodes[j].op, Op::Conv2d { .. })
            && alone
            && self.graph.nodes[j].shape[0].is_multiple_of(4)
            && self.tile(j).norms()
    }

    /// A convolution that can read norm `i` as its input, and reads it as nothing else.
    fn reads(&self, j: NodeId, i: NodeId) -> bool {
        let node = &self.graph.nodes[j];
        let only = node.inputs[0] == i && !node.inputs[1..].contains(&i);
        matches!(node.op, Op::Conv2d { .. }) && only && !self.fusion.deferred[j] && self.tile(j).norms()
    }
}
