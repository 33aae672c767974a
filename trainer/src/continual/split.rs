//! Which classes are learned when.

use limbeck_shared::rng::{self, Stream};

/// Stream of the classes' order.
const ORDER: Stream = Stream::Other(31_001);

/// The classes in an order that the seed decides (Fisher and Yates), cut into `tasks` parts whose sizes differ by one at most.
pub fn split(classes: usize, tasks: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..classes as u32).collect();
    for i in (1..classes).rev() {
        order.swap(i, rng::below(seed, ORDER, i as u64, i as u32 + 1) as usize);
    }
    (0..tasks).map(|n| order[n * classes / tasks..(n + 1) * classes / tasks].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn five_disjoint_pairs_of_ten_classes() {
        let mut firsts = HashSet::new();
        for seed in 0..50 {
            let parts = split(10, 5, seed);
            assert_eq!(parts, split(10, 5, seed));
            assert!(parts.len() == 5 && parts.iter().all(|p| p.len() == 2));
            let all: HashSet<u32> = parts.concat().into_iter().collect();
            assert_eq!(all, (0..10).collect());
            firsts.insert(parts[0].clone());
        }
        // 90 ordered pairs are possible; the seed decides.
        assert!(firsts.len() > 25, "{firsts:?}");
    }

    #[test]
    fn parts_differ_by_one_at_most() {
        let sizes: Vec<usize> = split(10, 4, 3).iter().map(Vec::len).collect();
        assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max(), sizes.iter().min()), (10, Some(&3), Some(&2)));
    }
}
