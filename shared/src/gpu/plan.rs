//! A graph as a list of dispatches with memory planned ahead.
//!
//! Upsampling and concatenation are not computed but read through (by convolutions and norms); layers that read one value are one
//! product; SiLU on a vector happens where linear layers read it; norms of small maps are computed by the convolutions that read
//! them ([`super::tiles`]). What is left are convolutions, the other norms, attention and a few vectors.

use super::arena::{Item, allocate};
use super::fuse::Fusion;
use super::kernels::Kernel;
use super::layout::quads;
use super::model::Net;
use super::tiles::{Occupancy, Rules, Tile};
use super::weights::Place;
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};

/// Memory a dispatch refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf {
    /// The network's own.
    Scratch(usize),
    /// The image that comes in.
    Input,
    /// The result.
    Output,
    /// The features of the k-th [`Op::TimeEmbed`] node (see [`NetPlan::features`]).
    Features(usize),
    /// The call's time inputs, padded to fours for each image.
    Times,
    /// The labels as floats, one after the other.
    Labels,
}

/// One word of a dispatch's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    /// A number.
    U(u32),
    /// A number.
    F(f32),
    /// An address: so many vec4s into this memory.
    At(Buf, u32),
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Kernel,
    /// Its parameters, in the order of the shader's `Params`.
    pub words: Vec<Word>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Multiply-accumulates.
    pub macs: u64,
}

/// A network for one batch size.
#[derive(Debug)]
pub struct NetPlan {
    /// What to run, in order.
    pub dispatches: Vec<Dispatch>,
    /// Where each scratch value lies, in vec4s.
    pub offsets: Vec<u32>,
    /// Scratch memory, in vec4s.
    pub scratch: u32,
    /// The time-embedding nodes, in the order of [`Buf::Features`].
    pub features: Vec<NodeId>,
}

/// Where a value lies: pixel r begins `col + r * row` vec4s into `buf`; `row` 0 is one vector for all images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub buf: Buf,
    pub col: u32,
    pub row: u32,
}

/// A value as its readers see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Plain(Operand),
    /// Channels of two maps, the first being whole vec4s.
    Concat(Operand, Operand),
    /// Every pixel twice in both directions.
    Upsampled(Operand),
    /// Another value normalised: whoever reads it does that.
    Normed,
}

/// Statistics of a convolution's result: where they lie, and the pixels of a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    pub at: Operand,
    pub rows: usize,
}

pub(super) struct Planner<'a> {
    pub graph: &'a Graph,
    pub fusion: &'a Fusion,
    pub places: &'a [Place],
    pub batch: usize,
    pub per_image: bool,
    pub tiles: Vec<Option<Tile>>,
    /// For each norm whether its readers compute it; for each convolution whether statistics are wanted, and those made.
    pub normed: Vec<bool>,
    pub told: Vec<bool>,
    pub stats: Vec<Option<Stats>>,
    pub values: Vec<Option<Value>>,
    pub dispatches: Vec<Dispatch>,
    pub items: Vec<Item>,
    pub features: Vec<NodeId>,
}

/// Plans a network for `batch` images. `per_image`: each image has its own times; else one set serves all.
///
/// # Errors
/// [`Error::Gpu`] if sizes exceed what addresses hold or an operation is used in a way no kernel covers.
pub fn plan(net: &Net, occupancy: Occupancy, batch: usize, per_image: bool) -> Result<NetPlan> {
    let (graph, fusion, n) = (&net.graph, &net.fusion, net.graph.nodes.len());
    let rules = Rules { graph, fusion, occupancy, batch };
    let (normed, told) = rules.norms();
    let conv = |i: NodeId| matches!(graph.nodes[i].op, Op::Conv2d { .. }) && fusion.live[i];
    let mut p = Planner {
        graph,
        fusion,
        places: &net.places,
        batch,
        per_image,
        tiles: (0..n).map(|i| conv(i).then(|| rules.tile(i))).collect(),
        normed,
        told,
        stats: vec![None; n],
        values: vec![None; n],
        dispatches: vec![],
        items: vec![],
        features: vec![],
    };
    for i in (0..graph.nodes.len()).filter(|&i| fusion.live[i] && !fusion.deferred[i]) {
        if p.values[i].is_none() {
            p.node(i)?;
        }
    }
    let [c, h, w] = graph.output_shape();
    match p.values[graph.output] {
        Some(Value::Plain(Operand { buf: Buf::Output, .. })) => {}
        _ => {
            let from = p.plain(graph.output);
            let to = Operand { buf: Buf::Output, col: 0, row: quads(c) as u32 };
            p.copy(graph.output, from, to, batch * h * w);
        }
    }
    let (offsets, scratch) = allocate(&p.items).ok_or_else(|| Error::Gpu("activations beyond 64 GiB".into()))?;
    Ok(NetPlan { dispatches: p.dispatches, offsets, scratch, features: p.features })
}

impl Planner<'_> {
    fn node(&mut self, i: NodeId) -> Result<()> {
        let node = &self.graph.nodes[i];
        let row = quads(node.shape[0]) as u32;
        match &node.op {
            Op::Input => self.set(i, Operand { buf: Buf::Input, col: 0, row }),
            Op::TimeEmbed { .. } => {
                let buf = Buf::Features(self.features.len());
                self.features.push(i);
                self.set(i, Operand { buf, col: 0, row: if self.per_image { row } else { 0 } });
            }
            Op::LabelEmbed { .. } => self.label(i),
            Op::Linear { .. } => self.linear(i, None),
            Op::Conv2d { .. } => self.conv(i)?,
            Op::GroupNorm { .. } if self.normed[i] => self.values[i] = Some(Value::Normed),
            Op::GroupNorm { .. } => self.norm(i),
            Op::Attention { .. } => self.attention(i),
            Op::Upsample2x => match self.values[node.inputs[0]] {
                Some(Value::Plain(o)) => self.values[i] = Some(Value::Upsampled(o)),
                _ => self.map(i),
            },
            Op::Concat => {
                let (a, b) = (self.plain(node.inputs[0]), self.plain(node.inputs[1]));
                if self.graph.nodes[node.inputs[0]].shape[0].is_multiple_of(4) && a.row != 0 && b.row != 0 {
                    self.values[i] = Some(Value::Concat(a, b));
                } else {
                    self.map(i);
                }
            }
            Op::Add => match self.fusion.absorbed[i] {
                Some(linear) => self.linear(linear, Some(i)),
                None => self.map(i),
            },
            // A vector's SiLU is left to its readers; `plain` computes it for those that are not linear layers.
            Op::Silu if node.shape[1] * node.shape[2] == 1 => {}
            Op::Silu | Op::DivideByTime { .. } | Op::MeanPool => self.map(i),
            Op::Dropout { .. } | Op::SpaceToDepth { .. } | Op::DepthToSpace { .. } => self.map(i),
        }
        Ok(())
    }

    pub fn set(&mut self, i: NodeId, o: Operand) {
        self.values[i] = Some(Value::Plain(o));
    }

    /// Pixels of all images of node `i`'s value.
    pub fn pixels(&self, i: NodeId) -> usize {
        let [_, h, w] = self.graph.nodes[i].shape;
        self.batch * h * w
    }

    /// Memory for `rows` pixels of `row` vec4s.
    pub fn alloc(&mut self, rows: usize, row: usize) -> Operand {
        let now = self.dispatches.len();
        self.items.push(Item { size: u32::try_from(rows.saturating_mul(row)).unwrap_or(u32::MAX), first: now, last: now });
        Operand { buf: Buf::Scratch(self.items.len() - 1), col: 0, row: row as u32 }
    }

    /// Memory for node `i`: the result's own if it is the output.
    pub fn result(&mut self, i: NodeId) -> Operand {
        let row = quads(self.graph.nodes[i].shape[0]);
        let o = match i == self.graph.output {
            true => Operand { buf: Buf::Output, col: 0, row: row as u32 },
            false => self.alloc(self.pixels(i), row),
        };
        self.set(i, o);
        o
    }

    /// The address of an operand of the dispatch that is pushed next.
    pub fn at(&mut self, o: Operand) -> Word {
        let word = Word::At(o.buf, o.col);
        self.keep(&[word]);
        word
    }

    /// The next dispatch needs these addresses too.
    pub fn keep(&mut self, words: &[Word]) {
        for word in words {
            if let Word::At(Buf::Scratch(k), _) = word {
                self.items[*k].last = self.dispatches.len();
            }
        }
    }

    pub fn push(&mut self, kernel: Kernel, words: Vec<Word>, groups: [usize; 3], macs: u64) {
        let groups = groups.map(|g| g.min(u32::MAX as usize) as u32);
        self.dispatches.push(Dispatch { kernel, words, groups, macs });
    }

    /// Node `i` as pixels in memory; computes views that are not.
    pub fn plain(&mut self, i: NodeId) -> Operand {
        if self.values[i].is_none() || !matches!(self.values[i], Some(Value::Plain(_))) {
            self.map(i);
        }
        match self.values[i] {
            Some(Value::Plain(o)) => o,
            _ => unreachable!("`map` leaves a plain value"),
        }
    }

    /// The input of a convolution or norm: two sources (twice the same for one), the vec4s of the first, whether upsampled.
    pub fn source(&mut self, i: NodeId, upsampling: bool) -> (Operand, Operand, u32, bool) {
        let width = quads(self.graph.nodes[i].shape[0]) as u32;
        match self.values[i] {
            Some(Value::Normed) => self.source(self.graph.nodes[i].inputs[0], false),
            Some(Value::Concat(a, b)) => {
                let first = self.graph.nodes[self.graph.nodes[i].inputs[0]].shape[0];
                (a, b, quads(first) as u32, false)
            }
            Some(Value::Upsampled(o)) if upsampling => (o, o, width, true),
            _ => {
                let o = self.plain(i);
                (o, o, width, false)
            }
        }
    }

    /// One vector for all images?
    pub fn shared(&self, o: Operand) -> bool {
        o.row == 0
    }
}
