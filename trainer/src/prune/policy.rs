//! Who decides how much of each block goes: the paper's "proxy" as a trait.

use super::budget::{Costs, MOST, greedy};
use anyhow::Result;
use limbeck_shared::rng::{self, Stream};
use serde::{Deserialize, Serialize};

/// What a policy is told about a block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockState {
    /// Its name.
    pub id: String,
    /// `residual` or `attention`.
    pub kind: String,
    /// Channels, height and width of what it gives.
    pub output: [usize; 3],
    /// Inner channels.
    pub width: usize,
    /// Units of which the inner channels are made.
    pub units: usize,
    /// Units that may go.
    pub most: usize,
    /// Multiply-accumulates that go with each.
    pub unit_macs: u64,
    /// Taylor importance of each, in the order in which they go.
    pub taylor: Vec<f64>,
}

/// What a policy is told each round.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Number of the group, the noisiest 0.
    pub group: usize,
    /// Its ends as uniform time.
    pub range: [f64; 2],
    /// The same as signal-to-noise ratios, decibels.
    pub snr_db: [f64; 2],
    /// Multiply-accumulates of the base.
    pub macs: u64,
    /// And those to reach.
    pub target: u64,
    /// The round, from 0.
    pub round: usize,
    /// The blocks.
    pub blocks: Vec<BlockState>,
}

/// One entry of the memory bank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Pruning ratios as proposed.
    pub ratios: Vec<f64>,
    /// Units gone from each block, after the projection to the budget.
    pub gone: Vec<usize>,
    /// Multiply-accumulates that are left.
    pub macs: u64,
    /// Validation loss at once.
    pub before: f64,
    /// And after the short fine-tuning.
    pub after: f64,
}

/// A decision maker.
pub trait Policy {
    /// Rounds it takes of those on offer.
    fn rounds(&self, offered: usize) -> usize {
        offered
    }

    /// A pruning ratio from 0 to 1 for each block; only their proportions matter, as they are scaled to the budget.
    ///
    /// # Errors
    /// If it cannot answer.
    fn propose(&mut self, state: &State, memory: &[Attempt]) -> Result<Vec<f64>>;
}

/// Every block by the same ratio.
pub struct Uniform;

impl Policy for Uniform {
    fn rounds(&self, _offered: usize) -> usize {
        1
    }
    fn propose(&mut self, state: &State, _memory: &[Attempt]) -> Result<Vec<f64>> {
        Ok(vec![MOST; state.blocks.len()])
    }
}

/// Units in the order of importance for their cost, until the budget is met.
pub struct Taylor;

impl Policy for Taylor {
    fn rounds(&self, _offered: usize) -> usize {
        1
    }
    fn propose(&mut self, state: &State, _memory: &[Attempt]) -> Result<Vec<f64>> {
        let of = |b: usize| state.blocks[b].taylor.iter().take(state.blocks[b].most).map(move |&t| (b, t));
        let units: Vec<(usize, f64)> = (0..state.blocks.len()).flat_map(of).collect();
        let costs: Vec<(f64, u64)> = units.iter().map(|&(b, t)| (t, state.blocks[b].unit_macs)).collect();
        let mut gone = vec![0.0; state.blocks.len()];
        greedy(&costs, state.macs.saturating_sub(state.target)).into_iter().for_each(|i| gone[units[i].0] += 1.0);
        Ok(gone.iter().zip(&state.blocks).map(|(gone, b)| gone / b.units as f64).collect())
    }
}

/// Uniform, Taylor, two at random; then the best two so far recombined, block by block, and moved by normals of 0.1.
pub struct Evolve {
    /// Key of its random numbers.
    pub seed: u64,
}

impl Policy for Evolve {
    fn propose(&mut self, state: &State, memory: &[Attempt]) -> Result<Vec<f64>> {
        let n = state.blocks.len();
        let stream = |k| Stream::Other(1000 + 3 * state.group as u32 + k);
        let uniform = |k| {
            let mut u = vec![0f32; n];
            rng::uniforms(self.seed, stream(k), state.round as u64, &mut u);
            u
        };
        Ok(match (state.round, best_two(memory)) {
            (0, _) | (_, None) => Uniform.propose(state, memory)?,
            (1, _) => Taylor.propose(state, memory)?,
            (2 | 3, _) => uniform(0).iter().map(|&u| MOST * f64::from(u)).collect(),
            (_, Some([first, second])) => {
                let mut z = vec![0f32; n];
                rng::normals(self.seed, stream(1), state.round as u64, &mut z);
                let parent = |b: usize, u: f32| if u < 0.75 { first.ratios[b] } else { second.ratios[b] };
                let child = |(b, (&u, &z)): (usize, (&f32, &f32))| (parent(b, u) + 0.1 * f64::from(z)).clamp(0.0, MOST);
                uniform(2).iter().zip(&z).enumerate().map(child).collect()
            }
        })
    }
}

/// The entry with the smallest loss after fine-tuning; among equals the cheapest.
pub fn best(memory: &[Attempt]) -> Option<&Attempt> {
    memory.iter().min_by(|a, b| a.after.total_cmp(&b.after).then(a.macs.cmp(&b.macs)))
}

fn best_two(memory: &[Attempt]) -> Option<[&Attempt; 2]> {
    let first = best(memory)?;
    let others = memory.iter().filter(|a| a.ratios != first.ratios);
    let second = others.min_by(|a, b| a.after.total_cmp(&b.after)).unwrap_or(first);
    Some([first, second])
}

/// The state of a group at its first round; `taylor` is each unit's importance, in any order.
pub fn state(costs: &Costs, taylor: &[Vec<f64>], group: usize, range: [f64; 2], snr_db: [f64; 2], target: u64) -> State {
    let block = |(i, taylor): (usize, &Vec<f64>)| {
        let b = &costs.blocks[i];
        BlockState {
            id: b.name.clone(),
            kind: format!("{:?}", b.kind).to_lowercase(),
            output: b.output,
            width: b.channels(b.units),
            units: b.units,
            most: costs.most(i),
            unit_macs: b.unit_macs,
            taylor: taylor.clone(),
        }
    };
    State { group, range, snr_db, macs: costs.macs, target, round: 0, blocks: taylor.iter().enumerate().map(block).collect() }
}
