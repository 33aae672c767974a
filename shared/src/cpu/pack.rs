//! Convolution weights as the kernels read them, laid out once a call for all chunks and threads.

use super::conv::{Geometry, half, single, winograd};
use super::forward::geometry;
use super::{Exec, Pool, Precision, for_each_lane};
use crate::graph::{Graph, Op};
use std::sync::Arc;

/// What weights are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// A forward pass in training, the next one having others.
    Forward = 0,
    Backward = 1,
    /// Forward passes for good: transforming them pays.
    Inference = 2,
}

impl Direction {
    const ALL: [Direction; 3] = [Direction::Forward, Direction::Backward, Direction::Inference];
}

/// Where each node's packed weights lie, by direction, in words of four bytes.
pub(super) struct Places {
    begin: Vec<[usize; 3]>,
    len: [usize; 3],
}

/// Words that one convolution needs.
fn size(g: &Geometry, precision: Precision, direction: Direction) -> usize {
    match (precision, direction) {
        (Precision::F32, Direction::Inference) if winograd::suits(g) => winograd::packed_len(g),
        (Precision::F32, Direction::Forward | Direction::Inference) => single::packed_forward_len(g),
        (Precision::F32, Direction::Backward) => single::packed_backward_len(g),
        (Precision::Bf16(parts), Direction::Forward | Direction::Inference) => half::packed_forward_len(parts, g),
        (Precision::Bf16(parts), Direction::Backward) => half::packed_backward_len(parts, g),
    }
}

impl Places {
    pub(super) fn new(graph: &Graph, precision: Precision) -> Places {
        let (mut begin, mut len) = (vec![[0; 3]; graph.nodes.len()], [0; 3]);
        for (id, node) in graph.nodes.iter().enumerate() {
            if let Op::Conv2d { .. } = node.op {
                begin[id] = len;
                for direction in Direction::ALL {
                    // Each begins on a cache line, as the tile unit likes it.
                    len[direction as usize] += size(&geometry(graph, node, 1), precision, direction).next_multiple_of(16);
                }
            }
        }
        Places { begin, len }
    }
}

/// The weights of all convolutions in one direction.
pub(super) struct Packed {
    words: Vec<f32>,
    /// First word on a cache line.
    line: usize,
    direction: Direction,
    pool: Arc<Pool>,
}

impl Packed {
    /// Whether the forward pass finds its weights transformed where [`winograd`] suits.
    pub(super) fn for_good(&self) -> bool {
        self.direction == Direction::Inference
    }
    /// One node's weights in f32.
    pub(super) fn single(&self, exec: &Exec, id: usize) -> &[f32] {
        &self.words[self.line + exec.places.begin[id][self.direction as usize]..]
    }
    /// One node's weights as pairs of bf16.
    pub(super) fn half(&self, exec: &Exec, id: usize) -> &[u32] {
        bytemuck::cast_slice(self.single(exec, id))
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.words));
    }
}

impl Exec {
    /// Lays the weights out.
    pub(super) fn pack(&self, theta: &[f32], direction: Direction) -> Packed {
        let mut words = self.pool.take(self.places.len[direction as usize] + 16);
        let line = words.as_ptr().align_offset(64).min(16);
        let mut rest = &mut words[line..];
        let mut jobs = vec![];
        for node in &self.graph.nodes {
            if let Op::Conv2d { .. } = node.op {
                let g = geometry(&self.graph, node, 1);
                let len = size(&g, self.precision, direction);
                let (part, tail) = rest.split_at_mut(len.next_multiple_of(16));
                rest = tail;
                jobs.push((&mut part[..len], &theta[self.graph.params[node.params[0]].range()], g));
            }
        }
        for_each_lane(jobs, |(part, w, g)| match (self.precision, direction) {
            (Precision::F32, Direction::Inference) if winograd::suits(&g) => winograd::pack(&g, w, part),
            (Precision::F32, Direction::Forward | Direction::Inference) => single::pack_forward(&g, w, part),
            (Precision::F32, Direction::Backward) => single::pack_backward(&g, w, part),
            (Precision::Bf16(parts), Direction::Forward | Direction::Inference) => {
                half::pack_forward(parts, &g, w, bytemuck::cast_slice_mut(part))
            }
            (Precision::Bf16(parts), Direction::Backward) => half::pack_backward(parts, &g, w, bytemuck::cast_slice_mut(part)),
        });
        Packed { words, line, direction, pool: self.pool.clone() }
    }
}
