//! Where a program's values lie in the arena.

use super::arena::{Item, allocate};
use super::layout::{quads, time_features};
use super::model::Net;
use super::steps::{Action, Steps};
use crate::error::{Error, Result};
use crate::graph::{NodeId, Op};
use crate::program::Label;

/// vec4s of the labels at the arena's beginning: given then null labels without a gap, then null labels once more.
pub fn label_quads(batch: usize) -> usize {
    (2 * batch).div_ceil(4) + batch.div_ceil(4)
}

/// Where the labels of a call begin: for both kinds, or for one.
pub fn labels_at(batch: usize, first: Label, copies: usize) -> u32 {
    match (first, copies) {
        (Label::Null, 1) => (2 * batch).div_ceil(4) as u32,
        _ => 0,
    }
}

/// Appends times and their features, the same for all images; returns where the times begin, then where each feature vector does.
pub fn upload_times(net: &Net, features: &[NodeId], times: &[f32], contents: &mut Vec<f32>) -> Vec<u32> {
    let mut at = vec![(contents.len() / 4) as u32];
    contents.extend_from_slice(times);
    contents.resize(contents.len().next_multiple_of(4), 0.0);
    for &node in features {
        let op = &net.graph.nodes[node].op;
        let Op::TimeEmbed { slot, dim, .. } = op else { continue };
        let start = contents.len();
        at.push((start / 4) as u32);
        contents.resize(start + 4 * quads(*dim), 0.0);
        time_features(op, times[*slot], &net.frequencies[node], &mut contents[start..start + dim]);
    }
    at
}

/// Addresses in vec4s.
pub struct Memory {
    /// Of each value; without meaning for noise, which lies where it is uploaded.
    pub values: Vec<u32>,
    /// Of the input's copies, for actions that need them.
    pub twice: Vec<Option<u32>>,
    /// Of the networks' own memory.
    pub scratch: u32,
    /// All of it.
    pub total: u32,
}

impl Memory {
    /// Places values of `size` vec4s and the networks' `scratch`.
    ///
    /// # Errors
    /// [`Error::Gpu`] if addresses do not suffice.
    pub fn new(steps: &Steps, size: u32, scratch: u32) -> Result<Memory> {
        let end = steps.actions.len();
        let mut items = vec![Item { size: scratch, first: 0, last: end }];
        // What an action writes is one item: the outputs for two labels are two halves of one.
        let mut item_of: Vec<(usize, u32)> = vec![(0, 0); steps.noise.len()];
        let mut twice = vec![None; end];
        for (i, action) in steps.actions.iter().enumerate() {
            for v in action.reads().into_iter().filter(|v| steps.noise[*v].is_none()) {
                items[item_of[v].0].last = i;
            }
            let writes = action.writes();
            for (k, &v) in writes.iter().enumerate() {
                item_of[v] = (items.len(), (k as u32).saturating_mul(size));
            }
            if !writes.is_empty() {
                items.push(Item { size: size.saturating_mul(writes.len() as u32), first: i, last: i });
            }
            if let Action::Net { outs, .. } = action
                && outs.len() > 1
            {
                twice[i] = Some(items.len());
                items.push(Item { size: size.saturating_mul(outs.len() as u32), first: i, last: i });
            }
        }
        for &output in steps.outputs.iter().filter(|&&v| steps.noise[v].is_none()) {
            items[item_of[output].0].last = end;
        }
        let (offsets, total) = allocate(&items).ok_or_else(|| Error::Gpu("activations beyond 64 GiB".into()))?;
        Ok(Memory {
            values: item_of.iter().map(|&(item, half)| offsets[item] + half).collect(),
            twice: twice.into_iter().map(|t| t.map(|item: usize| offsets[item])).collect(),
            scratch: offsets[0],
            total,
        })
    }
}
