//! Which noise levels belong together, and which groups are hard.

use super::config::Grouping;
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;

/// Length of a gradient's sketch.
pub const SKETCH: usize = 4096;

/// `n` ranges of uniform time, the noisiest first, that together are [0, 1]. Cutting by gradients needs `similarity` of reference
/// levels that divide [0, 1] evenly, the cleanest first ([`cut`]); cutting between a student's steps needs `steps`, the noisiest first.
pub fn ranges(grouping: Grouping, schedule: &Schedule, span: [f64; 2], n: usize, similarity: &[Vec<f64>], steps: &[f64]) -> Vec<[f64; 2]> {
    let inner: Vec<f64> = match grouping {
        Grouping::Equal => (1..n).map(|i| i as f64 / n as f64).collect(),
        Grouping::Snr => {
            let db = span.map(|u| schedule.snr_db(schedule.at_uniform(u)));
            let time = |db: f64| schedule.time_of_ratio(10f64.powf(-db / 20.0));
            (1..n).map(|i| schedule.uniform_of(time(db[0] + (db[1] - db[0]) * i as f64 / n as f64))).collect()
        }
        Grouping::Steps => steps.windows(2).rev().map(|s| (s[0] + s[1]) / 2.0).collect(),
        Grouping::Gradient => cut(similarity, n).into_iter().map(|i| i as f64 / similarity.len() as f64).collect(),
    };
    let ends: Vec<f64> = std::iter::once(0.0).chain(inner).chain([1.0]).collect();
    ends.windows(2).rev().map(|e| [e[0], e[1]]).collect()
}

/// The `n - 1` cuts of reference levels into contiguous groups with the largest sum of mean similarity within a group, by dynamic
/// programming. A group has at least half its even share of levels: of a single level the mean would be 1, better than of any other.
pub fn cut(similarity: &[Vec<f64>], n: usize) -> Vec<usize> {
    let levels = similarity.len();
    let least = (levels / (2 * n)).max(1);
    let mean = |a: usize, b: usize| {
        let rows = similarity[a..b].iter().map(|row| row[a..b].iter().sum::<f64>());
        rows.sum::<f64>() / ((b - a) * (b - a)) as f64
    };
    // best[k][b]: the best sum of k groups over levels 0..b, and where the last begins.
    let mut best = vec![vec![(f64::NEG_INFINITY, 0); levels + 1]; n + 1];
    best[0][0] = (0.0, 0);
    for k in 1..=n {
        for b in least..=levels {
            for a in 0..=b - least {
                let sum = best[k - 1][a].0 + mean(a, b);
                if sum > best[k][b].0 {
                    best[k][b] = (sum, a);
                }
            }
        }
    }
    let (mut cuts, mut b) = (vec![], levels);
    for k in (1..=n).rev() {
        b = best[k][b].1;
        cuts.push(b);
    }
    cuts.pop();
    cuts.reverse();
    cuts
}

/// A gradient in [`SKETCH`] numbers that keep its angles: every element with a random sign in a random place.
pub fn sketch(gradient: &[f32], seed: u64) -> Vec<f64> {
    let mut out = vec![0.0; SKETCH];
    for (block, values) in gradient.chunks(1 << 16).enumerate() {
        for (i, &g) in values.iter().enumerate() {
            let [place, sign] = rng::bits(seed, Stream::Other(77), block as u64, i as u32);
            out[place as usize % SKETCH] += if sign & 1 == 0 { f64::from(g) } else { -f64::from(g) };
        }
    }
    out
}

/// Cosines between sketches.
pub fn similarity(sketches: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms: Vec<f64> = sketches.iter().map(|s| dot(s, s).sqrt().max(1e-300)).collect();
    let row = |i: usize| (0..sketches.len()).map(|j| dot(&sketches[i], &sketches[j]) / (norms[i] * norms[j])).collect();
    (0..sketches.len()).map(row).collect()
}

/// Each group's place among all from easy (0) to hard, by rising `hardness`; equals in the order given.
pub fn ranks(hardness: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..hardness.len()).collect();
    order.sort_by(|&a, &b| hardness[a].total_cmp(&hardness[b]));
    (0..hardness.len()).map(|g| order.iter().position(|&o| o == g).unwrap_or(0)).collect()
}
