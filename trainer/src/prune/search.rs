//! Pruning as a decision over several rounds, with a memory bank.

use super::budget::Costs;
use super::policy::{Attempt, Policy, State, best};
use anyhow::{Context, Result};

/// Loss at once and after a short fine-tuning of the base without so many units of each block.
pub type Measure<'a> = dyn FnMut(&[usize]) -> Result<[f64; 2]> + 'a;

/// Asks the policy, brings its answer to the budget, measures, remembers; the best entry is what is kept. `memory` may hold rounds of
/// an earlier, interrupted search; `remember` is called after each new one.
///
/// # Errors
/// If the policy or the measurement fails, or the budget cannot be met.
pub fn search(
    policy: &mut dyn Policy,
    costs: &Costs,
    state: &State,
    rounds: usize,
    memory: &mut Vec<Attempt>,
    measure: &mut Measure<'_>,
    mut remember: impl FnMut(&[Attempt]) -> Result<()>,
) -> Result<Vec<usize>> {
    for round in memory.len()..policy.rounds(rounds) {
        let ratios = policy.propose(&State { round, ..state.clone() }, memory)?;
        let gone = costs.project(&ratios, state.target)?;
        // What was measured before gives the same again: all randomness is keyed.
        let known = memory.iter().find(|a| a.gone == gone).map(|a| [a.before, a.after]);
        let [before, after] = known.map_or_else(|| measure(&gone), Ok)?;
        memory.push(Attempt { ratios, macs: costs.without(&gone), gone, before, after });
        remember(memory)?;
    }
    Ok(best(memory).context("`rounds`: found 0, expected at least 1")?.gone.clone())
}
