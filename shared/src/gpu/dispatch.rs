//! The dispatches of single operations: which kernel, which parameters, how many workgroups.

use super::fuse::linear_source;
use super::kernels::Kernel;
use super::layout::quads;
use super::plan::{Operand, Planner, Word};
use crate::graph::{NodeId, Op};
use Word::{F, U};

/// Most workgroups along one dimension under WebGPU's default limits.
pub(super) const MAX_GROUPS: usize = 65_535;

/// Workgroups of 64 threads for `n` elements, over two dimensions where one does not suffice.
pub fn spread(n: usize) -> [usize; 3] {
    let groups = n.div_ceil(64);
    let x = groups.min(MAX_GROUPS);
    [x, groups.div_ceil(x.max(1)), 1]
}

pub(super) fn yes(b: bool) -> Word {
    U(u32::from(b))
}

pub(super) fn u(n: usize) -> Word {
    U(n as u32)
}

impl Planner<'_> {
    /// A layer (with its siblings) on a vector; `add`: the addition it computes too.
    pub fn linear(&mut self, i: NodeId, add: Option<NodeId>) {
        let graph = self.graph;
        let group = &self.fusion.siblings[i];
        let (source, silu) = linear_source(graph, graph.nodes[i].inputs[0]);
        let x = self.plain(source);
        let cin = quads(graph.nodes[source].shape[0]);
        let addend = add.map(|a| {
            let other = graph.nodes[a].inputs.iter().copied().find(|&j| j != i).unwrap_or(i);
            self.plain(other)
        });
        let width: usize = group.iter().map(|&j| quads(graph.nodes[j].shape[0])).sum();
        let shared = self.shared(x) && addend.is_none_or(|a| self.shared(a));
        let rows = if shared { 1 } else { self.batch };
        let target = add.unwrap_or(i);
        let dst = match group.len() == 1 && !shared {
            true => self.result(target),
            false => {
                let mut dst = self.alloc(rows, width);
                let row = if shared { 0 } else { dst.row };
                for &j in group {
                    self.set(if group.len() == 1 { target } else { j }, Operand { row, ..dst });
                    dst.col += quads(graph.nodes[j].shape[0]) as u32;
                }
                Operand { col: 0, ..dst }
            }
        };
        let place = self.places[i];
        let extra = addend.unwrap_or(x);
        let words = vec![
            u(cin),
            u(width),
            self.at(x),
            U(x.row),
            yes(silu),
            U(place.weight),
            U(place.bias),
            self.at(dst),
            U(dst.row),
            yes(addend.is_some()),
            self.at(extra),
            U(extra.row),
        ];
        let macs = group.iter().map(|&j| graph.node_macs(j)).sum::<u64>() * rows as u64;
        self.push(Kernel::Linear, words, [width.div_ceil(16), rows, 1], macs);
    }

    /// GroupNorm.
    pub fn norm(&mut self, i: NodeId) {
        let node = &self.graph.nodes[i];
        let Op::GroupNorm { groups, eps, scale_shift, silu } = node.op else { return };
        let [channels, h, w] = node.shape;
        let (a, b, split, _) = self.source(node.inputs[0], false);
        let scale = match scale_shift {
            true => Some(self.plain(node.inputs[1])),
            false => None,
        };
        let group = channels / groups;
        let (kernel, block) = match group {
            1 | 2 => (Kernel::Norm64, 1),
            _ if group % 4 == 0 => (Kernel::Norm64, group / 4),
            _ => (Kernel::NormAny, group / if group % 2 == 0 { 2 } else { 1 }),
        };
        let kernel = match kernel {
            Kernel::Norm64 if h * w * block > 256 => Kernel::Norm256,
            kernel => kernel,
        };
        let dst = self.result(i);
        let place = self.places[i];
        let ss = scale.unwrap_or(dst);
        let words = vec![
            u(h * w),
            u(channels),
            u(group),
            u(block),
            u(quads(channels)),
            U(split),
            self.at(a),
            U(a.row),
            self.at(b),
            U(b.row),
            U(place.weight),
            U(place.bias),
            self.at(dst),
            U(dst.row),
            F(eps as f32),
            yes(silu),
            yes(scale.is_some()),
            self.at(ss),
            U(ss.row),
        ];
        self.push(kernel, words, [quads(channels).div_ceil(block), self.batch, 1], 0);
    }

    /// Attention.
    pub fn attention(&mut self, i: NodeId) {
        let node = &self.graph.nodes[i];
        let Op::Attention { heads } = node.op else { return };
        let [channels, h, w] = node.shape;
        let (q, k, v) = (self.plain(node.inputs[0]), self.plain(node.inputs[1]), self.plain(node.inputs[2]));
        let dst = self.result(i);
        let (head, pixels, row) = (channels / heads, h * w, quads(channels));
        let chunks = (head / 4).div_ceil(16).max(1);
        let words = vec![
            u(pixels),
            u(channels),
            u(head),
            u(row),
            F((1.0 / (head as f64).sqrt()) as f32),
            self.at(q),
            U(q.row),
            self.at(k),
            U(k.row),
            self.at(v),
            U(v.row),
            self.at(dst),
            U(dst.row),
            u(chunks),
        ];
        let (kernel, groups) = match head % 4 {
            0 => (Kernel::Attention, [pixels.div_ceil(16), heads * chunks, self.batch]),
            _ => (Kernel::AttentionAny, [(pixels * row).div_ceil(64), 1, self.batch]),
        };
        let macs = self.graph.node_macs(i) * self.batch as u64;
        self.push(kernel, words, groups, macs);
    }
}
