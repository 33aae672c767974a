//! Static memory: where each value lies, decided once.

/// A value that needs memory: its size and the first and last moment at which it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Size, in vec4s.
    pub size: u32,
    /// When it is written.
    pub first: usize,
    /// When it is last read (at least `first`).
    pub last: usize,
}

/// Offsets such that values in use at one moment do not overlap, and the total, in vec4s; `None` if that exceeds `u32`.
///
/// Largest first, each at the lowest offset where it fits: near the optimum for networks, whose large values are few.
pub fn allocate(items: &[Item]) -> Option<(Vec<u32>, u32)> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(items[i].size), items[i].first, i));
    let mut offsets = vec![0u32; items.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(items.len());
    let mut total = 0u32;
    for i in order {
        let item = items[i];
        let mut busy: Vec<(u32, u32)> = placed
            .iter()
            .filter(|&&j| items[j].first <= item.last && item.first <= items[j].last)
            .map(|&j| (offsets[j], offsets[j] + items[j].size))
            .collect();
        busy.sort_unstable();
        let mut at = 0u32;
        for (start, end) in busy {
            if at.checked_add(item.size)? <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        total = total.max(at.checked_add(item.size)?);
        placed.push(i);
    }
    Some((offsets, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap(items: &[Item], offsets: &[u32]) -> bool {
        (0..items.len()).any(|i| {
            (0..i).any(|j| {
                let (a, b) = (items[i], items[j]);
                let time = a.first <= b.last && b.first <= a.last;
                time && offsets[i] < offsets[j] + b.size && offsets[j] < offsets[i] + a.size
            })
        })
    }

    #[test]
    fn live_values_never_overlap() {
        let mut state = 1u32;
        let mut next = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        for _ in 0..50 {
            let items: Vec<Item> = (0..40)
                .map(|_| {
                    let first = next(60) as usize;
                    Item { size: 1 + next(100), first, last: first + next(12) as usize }
                })
                .collect();
            let (offsets, total) = allocate(&items).unwrap();
            assert!(!overlap(&items, &offsets));
            assert!(items.iter().zip(&offsets).all(|(i, o)| o + i.size <= total));
        }
    }

    #[test]
    fn memory_is_used_again() {
        let chain: Vec<Item> = (0..10).map(|i| Item { size: 8, first: i, last: i + 1 }).collect();
        assert_eq!(allocate(&chain).unwrap().1, 16);
    }

    #[test]
    fn a_total_beyond_u32_is_refused() {
        let item = Item { size: u32::MAX / 2 + 1, first: 0, last: 0 };
        assert_eq!(allocate(&[item, item]), None);
    }
}
