//! Budgets, and the widths that meet them.

use anyhow::{Result, bail};
use limbeck_shared::graph::Graph;
use limbeck_shared::graph::prune::{Block, blocks};

/// Largest part of a block's units that may go.
pub const MOST: f64 = 0.75;

/// Part of the base's multiply-accumulates for each of `n` groups from easy to hard, `m_i = i/N + (N - i)/N k`.
pub fn multipliers(n: usize, k: f64) -> Vec<f64> {
    (1..=n).map(|i| (i as f64 + (n - i) as f64 * k) / n as f64).collect()
}

/// A network's blocks and what they cost.
#[derive(Clone, Debug)]
pub struct Costs {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Multiply-accumulates of one call of the whole network for one image.
    pub macs: u64,
}

impl Costs {
    /// Of a network.
    ///
    /// # Errors
    /// If nothing of it can be pruned.
    pub fn new(graph: &Graph) -> Result<Costs> {
        let blocks = blocks(graph);
        if blocks.iter().all(|b| b.units <= b.least) {
            bail!("the network: found no block that can be pruned, expected a U-Net");
        }
        Ok(Costs { blocks, macs: graph.macs() })
    }

    /// Multiply-accumulates with so many units gone from each block.
    pub fn without(&self, gone: &[usize]) -> u64 {
        self.macs - self.blocks.iter().zip(gone).map(|(b, &n)| n as u64 * b.unit_macs).sum::<u64>()
    }

    /// Units of a block that may go.
    pub fn most(&self, block: usize) -> usize {
        let b = &self.blocks[block];
        ((MOST * b.units as f64) as usize).min(b.units - b.least)
    }

    /// Units that go from each block when ratios are multiplied by a common tau, the tau whose cost is nearest to `target`.
    ///
    /// As tau grows, block b loses its j-th unit at `tau = j / (r_b units_b)`: the cost falls with every such event, and bisection
    /// over the events finds the one at the target. A ratio of zero puts a block behind all others.
    ///
    /// # Errors
    /// If the ratios do not fit the blocks, or the target lies more than 2 % below the least that can be reached.
    pub fn project(&self, ratios: &[f64], target: u64) -> Result<Vec<usize>> {
        if ratios.len() != self.blocks.len() || ratios.iter().any(|r| !(0.0..=1.0).contains(r)) {
            bail!("ratios: found {ratios:?}, expected {} numbers from 0 to 1", self.blocks.len());
        }
        let mut events: Vec<(f64, usize)> = (0..ratios.len())
            .flat_map(|b| {
                let pace = ratios[b].max(1e-6) * self.blocks[b].units as f64;
                (1..=self.most(b)).map(move |j| (j as f64 / pace, b))
            })
            .collect();
        events.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let gone = |n: usize| {
            let mut gone = vec![0; ratios.len()];
            events[..n].iter().for_each(|e| gone[e.1] += 1);
            gone
        };
        let (mut low, mut high) = (0, events.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.without(&gone(middle)) <= target { high = middle } else { low = middle + 1 }
        }
        let over = |n: usize| self.without(&gone(n)).abs_diff(target);
        let best = if low > 0 && over(low - 1) < over(low) { low - 1 } else { low };
        let found = self.without(&gone(best));
        if found as f64 > 1.02 * target as f64 {
            bail!("`floor`: found a budget of {target} multiply-accumulates, expected at least {found}, all blocks pruned by {MOST}");
        }
        Ok(gone(best))
    }
}

/// Takes units in the order of importance for their cost until `remove` multiply-accumulates are gone; `units` are importance and
/// cost.
pub fn greedy(units: &[(f64, u64)], remove: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    let ratio = |i: usize| units[i].0 / units[i].1 as f64;
    order.sort_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
    let mut gone = 0;
    order
        .into_iter()
        .take_while(|&i| {
            let more = gone < remove;
            gone += units[i].1;
            more
        })
        .collect()
}
