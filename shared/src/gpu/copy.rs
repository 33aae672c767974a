//! The dispatches of the small operations, all of them [`Kernel::Map`].

use super::dispatch::{spread, u};
use super::kernels::Kernel;
use super::layout::quads;
use super::plan::{Buf, Operand, Planner, Word};
use crate::graph::{NodeId, Op};
use Word::U;

/// `map.wgsl`'s modes.
#[derive(Clone, Copy)]
enum Mode {
    Copy,
    Silu,
    Add,
    Divide,
    Label,
    Concat,
    Upsample,
    SpaceToDepth,
    DepthToSpace,
    Mean,
}

impl Planner<'_> {
    /// Copies `rows` pixels.
    pub fn copy(&mut self, i: NodeId, from: Operand, to: Operand, rows: usize) {
        let row = quads(self.graph.nodes[i].shape[0]);
        self.small(i, Mode::Copy, from, (from, 0), to, rows, row);
    }

    /// A row of the label table.
    pub fn label(&mut self, i: NodeId) {
        let labels = Operand { buf: Buf::Labels, col: 0, row: 0 };
        let dst = self.result(i);
        let table = self.places[i].weight as usize;
        self.small(i, Mode::Label, dst, (labels, table), dst, self.batch, dst.row as usize);
    }

    /// Every other operation; also what views stand for, where a reader needs it in memory.
    pub fn map(&mut self, i: NodeId) {
        let graph = self.graph;
        let node = &graph.nodes[i];
        let (mode, block) = match node.op {
            Op::Silu => (Mode::Silu, 0),
            Op::Add => (Mode::Add, 0),
            Op::Concat => (Mode::Concat, 0),
            Op::Upsample2x => (Mode::Upsample, 2),
            Op::Dropout { .. } => (Mode::SpaceToDepth, 1),
            Op::SpaceToDepth { block } => (Mode::SpaceToDepth, block),
            Op::DepthToSpace { block } => (Mode::DepthToSpace, block),
            Op::MeanPool => (Mode::Mean, 0),
            Op::DivideByTime { slot } => (Mode::Divide, slot),
            _ => unreachable!("`{}` has a kernel of its own", node.op.name()),
        };
        let a = self.plain(node.inputs[0]);
        let b = match node.op {
            Op::DivideByTime { .. } => {
                let row = if self.per_image { quads(graph.times) as u32 } else { 0 };
                Operand { buf: Buf::Times, col: 0, row }
            }
            _ => node.inputs.get(1).map_or(a, |&j| self.plain(j)),
        };
        let shared = self.shared(a) && self.shared(b);
        let row = quads(node.shape[0]);
        let (dst, rows) = match shared {
            false => (self.result(i), self.pixels(i)),
            true => (self.alloc(1, row), 1),
        };
        self.small(i, mode, a, (b, block), dst, rows, row);
        if shared {
            self.set(i, Operand { row: 0, ..dst });
        }
    }

    fn small(&mut self, i: NodeId, mode: Mode, a: Operand, second: (Operand, usize), dst: Operand, rows: usize, row: usize) {
        let node = &self.graph.nodes[i];
        let [channels, h, w] = node.shape;
        let from = node.inputs.first().map_or(node.shape, |&j| self.graph.nodes[j].shape);
        let (b, block) = second;
        let words = vec![
            U(mode as u32),
            u(rows),
            u(h),
            u(w),
            u(channels),
            u(row),
            self.at(dst),
            U(dst.row),
            self.at(a),
            U(a.row),
            u(from[0]),
            u(from[1]),
            u(from[2]),
            self.at(b),
            U(b.row),
            u(block),
        ];
        self.push(Kernel::Map, words, spread(rows * row), 0);
    }
}
