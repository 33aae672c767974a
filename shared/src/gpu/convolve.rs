//! The dispatches of convolutions.

use super::dispatch::{MAX_GROUPS, u, yes};
use super::kernels::Kernel;
use super::layout::quads;
use super::plan::{Operand, Planner, Stats, Value, Word};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use Word::{F, U};

impl Planner<'_> {
    /// A convolution (with its siblings).
    pub fn conv(&mut self, i: NodeId) -> Result<()> {
        let graph = self.graph;
        let node = &graph.nodes[i];
        let Op::Conv2d { kernel, stride, pad, channel_bias, residual, .. } = node.op else { return Ok(()) };
        let group = &self.fusion.siblings[i];
        let [channels, h, w] = graph.nodes[node.inputs[0]].shape;
        let [_, out_h, out_w] = node.shape;
        let (a, b, split, up) = self.source(node.inputs[0], true);
        let bias = match channel_bias {
            true => Some(self.plain(node.inputs[1])),
            false => None,
        };
        let shortcut = self.fusion.shortcut[i];
        let rest = match residual && shortcut.is_none() {
            true => Some(self.plain(node.inputs[node.inputs.len() - 1])),
            false => None,
        };
        let tail = shortcut.map(|j| {
            let input = graph.nodes[j].inputs[0];
            (self.source(input, false), quads(graph.nodes[input].shape[0]), self.places[j].bias)
        });
        let width: usize = group.iter().map(|&j| quads(graph.nodes[j].shape[0])).sum();
        let (pixels, image) = (self.pixels(i), out_h * out_w);
        let normed = matches!(self.values[node.inputs[0]], Some(Value::Normed));
        let tile = self.tiles[i].ok_or_else(|| Error::Gpu(format!("node {i} has no kernel")))?;
        // One image's statistics are nobody else's.
        let span = if normed || self.told[i] { image } else { pixels };
        let tiles = span.div_ceil(tile.rows);
        let dst = match group.len() == 1 {
            true => self.result(i),
            false => {
                let mut dst = self.alloc(pixels, width);
                for &j in group {
                    self.set(j, dst);
                    dst.col += quads(graph.nodes[j].shape[0]) as u32;
                }
                Operand { col: 0, ..dst }
            }
        };
        let place = self.places[i];
        let (cb, rs) = (bias.unwrap_or(dst), rest.unwrap_or(dst));
        let ((ta, tb, tail_split, _), tail_width, tail_bias) = tail.unwrap_or(((dst, dst, 0, false), 0, 0));
        let mut words = vec![
            u(pixels),
            u(out_h),
            u(out_w),
            u(h),
            u(w),
            yes(up),
            u(stride),
            u(pad[0]),
            u(kernel),
            u(quads(channels)),
            U(split),
            self.at(a),
            U(a.row),
            self.at(b),
            U(b.row),
            u(width),
            U(place.weight),
            U(place.bias),
            self.at(dst),
            U(dst.row),
            yes(bias.is_some()),
            self.at(cb),
            U(cb.row),
            yes(rest.is_some()),
            self.at(rs),
            U(rs.row),
            u(tail_width),
            U(tail_split),
            self.at(ta),
            U(ta.row),
            self.at(tb),
            U(tb.row),
            U(tail_bias),
            u(span),
            u(tiles),
        ];
        words.extend(self.normed_input(node.inputs[0], dst));
        let tiles = tiles * (pixels / span);
        words.extend(match self.told[i] {
            true => {
                let at = self.alloc(2 * tiles, width);
                self.stats[i] = Some(Stats { at, rows: tile.rows });
                [U(1), self.at(at)]
            }
            false => [U(0), self.at(dst)],
        });
        let partial = match tile.parts {
            1 => dst,
            parts => self.alloc(parts * pixels, width),
        };
        words.extend([u(tile.parts), self.at(partial)]);
        let macs = group.iter().chain(&shortcut).map(|&j| graph.node_macs(j)).sum::<u64>() * self.batch as u64;
        let groups = [tiles, width.div_ceil(tile.columns), tile.parts];
        if groups[0] > MAX_GROUPS {
            return Err(Error::Gpu(format!("a convolution onto {pixels} pixels; fewer images at a time would fit")));
        }
        if tile.parts > 1 {
            self.push(tile.kernel, words.clone(), groups, macs);
            self.keep(&words);
            self.push(Kernel::ConvSum, words, [groups[0], groups[1], 1], 0);
        } else {
            self.push(tile.kernel, words, groups, macs);
        }
        Ok(())
    }

    /// What a convolution has to know of its input's norm; `none` is any operand.
    fn normed_input(&mut self, input: NodeId, none: Operand) -> Vec<Word> {
        let node = &self.graph.nodes[input];
        let (Op::GroupNorm { groups, eps, scale_shift, silu }, Some(Value::Normed)) = (&node.op, self.values[input]) else {
            let at = self.at(none);
            return vec![U(0), U(0), U(0), F(0.0), U(0), U(0), U(0), at, U(0), U(0), at, U(1), at, U(1)];
        };
        let source = node.inputs[0];
        let makers = match self.values[source] {
            Some(Value::Concat(..)) => [self.graph.nodes[source].inputs[0], self.graph.nodes[source].inputs[1]],
            _ => [source; 2],
        };
        let none = Stats { at: none, rows: 1 };
        let [a, b] = makers.map(|j| self.stats[j].unwrap_or(none));
        let scale = if *scale_shift { self.plain(node.inputs[1]) } else { none.at };
        let [channels, h, w] = node.shape;
        let place = self.places[input];
        vec![
            U(1),
            yes(*silu),
            u(channels / groups),
            F(*eps as f32),
            U(place.weight),
            U(place.bias),
            yes(*scale_shift),
            self.at(scale),
            U(scale.row),
            u(h * w),
            self.at(a.at),
            u(a.rows),
            self.at(b.at),
            u(b.rows),
        ]
    }
}
