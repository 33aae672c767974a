//! Deals work out to threads: whoever is free takes the next item, so that a core which others disturb delays nobody by more
//! than the item it holds, and yet every sum is taken in one order.

use std::collections::VecDeque;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::Mutex;

/// Items that share a state (a sum, say) and are worked on one after another, in order.
struct Queue<T, S> {
    items: VecDeque<T>,
    /// None while a thread works on an item.
    state: Option<S>,
}

/// The next item: from the longest queue that no thread is at.
fn next<T, S>(queues: &mut [Queue<T, S>]) -> Option<(usize, T, S)> {
    let free = queues.iter().enumerate().filter(|(_, q)| q.state.is_some() && !q.items.is_empty());
    // The first of the longest, as `max_by_key` gives the last.
    let (at, _) = free.rev().max_by_key(|(_, q)| q.items.len())?;
    let queue = &mut queues[at];
    Some((at, queue.items.pop_front()?, queue.state.take()?))
}

/// Calls `work(scratch, item, state)` for every item and returns the states. Item `i` meets state `i % states.len()`, after
/// the items before it that meet the same, whatever the number of threads. With one state more than there are threads no
/// thread waits before the last items. Each thread makes its scratch once and hands it back.
pub(super) fn deal<T: Send, S: Send, W>(
    items: Vec<T>,
    states: Vec<S>,
    scratch: impl Fn() -> W + Sync,
    done: impl Fn(W) + Sync,
    work: impl Fn(&mut W, T, &mut S) + Sync,
) -> Vec<S> {
    let mut queues: Vec<_> = states.into_iter().map(|s| Queue { items: VecDeque::new(), state: Some(s) }).collect();
    let count = queues.len();
    items.into_iter().enumerate().for_each(|(i, item)| queues[i % count].items.push_back(item));

    #[cfg(not(target_arch = "wasm32"))]
    let queues = {
        use rayon::prelude::*;
        let shared = Mutex::new(queues);
        let lock = || shared.lock().unwrap_or_else(|e| e.into_inner());
        (0..super::threads()).into_par_iter().with_max_len(1).for_each(|_| {
            let mut own = scratch();
            loop {
                let Some((at, item, mut state)) = next(&mut lock()) else { break };
                work(&mut own, item, &mut state);
                lock()[at].state = Some(state);
            }
            done(own);
        });
        shared.into_inner().unwrap_or_else(|e| e.into_inner())
    };
    #[cfg(target_arch = "wasm32")]
    {
        let mut own = scratch();
        while let Some((at, item, mut state)) = next(&mut queues) {
            work(&mut own, item, &mut state);
            queues[at].state = Some(state);
        }
        done(own);
    }
    queues.into_iter().filter_map(|q| q.state).collect()
}

#[cfg(test)]
mod tests {
    use super::deal;

    /// Uneven work, many times over: every state must have seen its items, all of them and in order.
    #[test]
    fn each_state_meets_its_items_in_order() {
        for (items, states) in [(0, 3), (1, 3), (7, 3), (40, 3), (40, 40), (9, 1)] {
            for round in 0..20usize {
                let spin = |i: usize| (0..(i * 7919 + round * 104_729) % 5000).fold(0usize, |a, b| a.wrapping_add(b * b));
                let found = deal(
                    (0..items).collect(),
                    vec![vec![]; states],
                    || 0,
                    |_| (),
                    |own, i: usize, seen: &mut Vec<usize>| {
                        *own += std::hint::black_box(spin(i));
                        seen.push(i);
                    },
                );
                let expected: Vec<Vec<usize>> = (0..states).map(|s| (s..items).step_by(states).collect()).collect();
                assert_eq!(found, expected, "{items} items, {states} states");
            }
        }
    }
}
