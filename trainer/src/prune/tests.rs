//! Budgets, importance, policies and groups against tables and closed forms.

use super::budget::{Costs, MOST, greedy, multipliers};
use super::config::Grouping;
use super::external::External;
use super::policy::{Attempt, Evolve, Policy, State, Taylor, Uniform, state};
use super::{groups, probe, run, search::search};
use crate::config::resolve;
use limbeck_shared::graph::Graph;
use limbeck_shared::rng::{self, Stream};
use limbeck_shared::schedule::Schedule;

const DDPM: Schedule = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };

/// The shipped teacher's network.
fn graph() -> Graph {
    resolve("fashion-teacher", &[]).unwrap().network.unwrap().build().unwrap()
}

fn close(found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= within), "found {found:?}, expected {expected:?}");
}

fn randoms(k: u64, n: usize) -> Vec<f64> {
    let mut u = vec![0f32; n];
    rng::uniforms(6, Stream::Other(0), k, &mut u);
    u.into_iter().map(f64::from).collect()
}

#[test]
fn budgets_grow_with_difficulty() {
    let m = multipliers(5, 0.5);
    close(&m, &[0.6, 0.7, 0.8, 0.9, 1.0], 1e-12);
    close(&[m.iter().sum::<f64>() / 5.0], &[0.8], 1e-12);
    assert_eq!(multipliers(4, 1.0), [1.0; 4]);
    assert!(multipliers(8, 0.3).windows(2).all(|m| m[0] < m[1]));
}

#[test]
fn signal_to_noise_of_linear_betas() {
    let db: Vec<f64> = [0, 249, 499, 749, 999].iter().map(|&i| DDPM.snr_db(f64::from(i + 1) / 1000.0)).collect();
    close(&db, &[40.0, 0.42, -10.69, -24.73, -43.94], 0.006);
    assert!((1..1000).all(|i| DDPM.snr_db(f64::from(i) / 1000.0) > DDPM.snr_db(f64::from(i + 1) / 1000.0)));
}

#[test]
fn any_ratios_come_to_the_budget() {
    let costs = Costs::new(&graph()).unwrap();
    for k in 0..100 {
        let r: Vec<f64> = randoms(k, costs.blocks.len()).into_iter().map(|u| 0.05 + 0.7 * u).collect();
        let target = ((0.6 + 0.39 * randoms(k + 1000, 1)[0]) * costs.macs as f64) as u64;
        let gone = costs.project(&r, target).unwrap();
        let found = costs.without(&gone);
        assert!((found as f64 / target as f64 - 1.0).abs() < 0.02, "{k}: {found} for {target}");
        assert!(gone.iter().enumerate().all(|(b, &n)| n <= costs.most(b) && n as f64 <= MOST * costs.blocks[b].units as f64));
    }
    assert_eq!(costs.project(&vec![0.5; costs.blocks.len()], costs.macs).unwrap(), vec![0; costs.blocks.len()]);
    let e = costs.project(&vec![1.0; costs.blocks.len()], costs.macs / 5).unwrap_err().to_string();
    assert!(e.contains("`floor`"), "{e}");
    assert!(costs.project(&[0.5], costs.macs).is_err());
}

#[test]
fn importance_of_a_quadratic_is_known() {
    // L = 1/2 sum (w - w*)^2: the gradient is w - w*, and a unit's importance sum |w (w - w*)|.
    let graph = graph();
    let (mut w, mut best) = (vec![0f32; graph.param_count()], vec![0f32; graph.param_count()]);
    rng::normals(1, Stream::Other(0), 0, &mut w);
    rng::normals(2, Stream::Other(0), 0, &mut best);
    let blocks = limbeck_shared::graph::prune::blocks(&graph);
    // The last unit of every block is where it should be: no gradient.
    for b in &blocks {
        b.elements(&graph, b.units - 1).unwrap().into_iter().for_each(|i| best[i] = w[i]);
    }
    let gradient: Vec<f32> = w.iter().zip(&best).map(|(w, b)| w - b).collect();
    let importance = probe::taylor(&graph, &w, &gradient).unwrap();
    let p = graph.param("mid_block.resnets.0.norm2.bias").unwrap();
    let (b, block) = blocks.iter().enumerate().find(|(_, b)| b.name == "mid_block.resnets.0").unwrap();
    assert!(block.elements(&graph, 2).unwrap().contains(&(p.offset + 2 * block.unit)));
    let expected: f64 = block.elements(&graph, 2).unwrap().iter().map(|&i| f64::from(w[i] * (w[i] - best[i])).abs()).sum();
    assert!((importance[b][2] - expected).abs() < 1e-6 * expected);
    for order in run::order(&importance).iter().zip(&blocks) {
        assert_eq!(*order.0.last().unwrap(), order.1.units - 1, "what has no gradient goes first");
    }
}

#[test]
fn greedy_is_not_the_optimum() {
    let units = [(3.0, 3), (2.0, 1), (0.5, 1)];
    assert_eq!(greedy(&units, 2), [2, 0], "ratios 1, 2 and 0.5");
    let lost = |taken: &[usize]| taken.iter().map(|&i| units[i].0).sum::<f64>();
    let subsets = (0..8u32).map(|s| (0..3).filter(|i| s >> i & 1 == 1).collect::<Vec<usize>>());
    let enough = subsets.filter(|s| s.iter().map(|&i| units[i].1).sum::<u64>() >= 2);
    let best = enough.min_by(|a, b| lost(a).total_cmp(&lost(b))).unwrap();
    assert_eq!((lost(&greedy(&units, 2)), lost(&best), best), (3.5, 2.5, vec![1, 2]));
    assert!(greedy(&units, 0).is_empty());
}

/// A surrogate: the loss is quadratic in the part gone of each block, with its least far from uniform.
fn surrogate(policy: &mut dyn Policy, rounds: usize, memory: &mut Vec<Attempt>) -> f64 {
    let costs = Costs::new(&graph()).unwrap();
    let wish = randoms(77, costs.blocks.len());
    let taylor: Vec<Vec<f64>> = costs.blocks.iter().map(|b| randoms(b.unit_macs, b.units)).collect();
    let state = state(&costs, &taylor, 1, [0.5, 0.75], [-20.0, -5.0], (0.7 * costs.macs as f64) as u64);
    let mut measure = |gone: &[usize]| {
        let parts = gone.iter().zip(&costs.blocks).map(|(&n, b)| n as f64 / b.units as f64);
        let loss = parts.zip(&wish).map(|(r, w)| (r - MOST * w).powi(2)).sum::<f64>();
        Ok([2.0 * loss, loss])
    };
    search(policy, &costs, &state, rounds, memory, &mut measure, |_| Ok(())).unwrap();
    memory.iter().map(|a| a.after).fold(f64::INFINITY, f64::min)
}

#[test]
fn evolution_with_a_memory_beats_uniform_and_goes_on_where_it_was() {
    let uniform = surrogate(&mut Uniform, 16, &mut vec![]);
    let mut memory = vec![];
    let evolved = surrogate(&mut Evolve { seed: 0 }, 16, &mut memory);
    assert_eq!(memory.len(), 16);
    assert!(evolved < 0.9 * uniform, "{evolved} against {uniform}");
    let mut interrupted = memory[..7].to_vec();
    surrogate(&mut Evolve { seed: 0 }, 16, &mut interrupted);
    assert_eq!(interrupted, memory);
    let best: Vec<f64> = (1..=16).map(|n| memory[..n].iter().map(|a| a.after).fold(f64::INFINITY, f64::min)).collect();
    assert!(best.windows(2).all(|b| b[1] <= b[0]) && best[15] < best[3], "it learns after its first rounds");
}

#[test]
fn the_taylor_policy_takes_what_greedy_takes() {
    let mut memory = vec![];
    surrogate(&mut Taylor, 16, &mut memory);
    assert_eq!(memory.len(), 1, "one round");
    let costs = Costs::new(&graph()).unwrap();
    let units: f64 = memory[0].ratios.iter().zip(&costs.blocks).map(|(r, b)| r * b.units as f64).sum();
    // The nearest cost to the budget: greedy's set, or one unit less.
    let gone: usize = memory[0].gone.iter().sum();
    assert!(units - gone as f64 <= 1.0 + 1e-9 && gone as f64 <= units + 1e-9);
}

#[test]
fn another_program_decides_line_by_line() {
    let sh = |script: &str| External::start(&["sh".into(), "-c".into(), script.into()]).unwrap();
    let mut memory = vec![];
    let n = Costs::new(&graph()).unwrap().blocks.len();
    let answer = format!("[{}]", vec!["0.5"; n].join(","));
    // It counts the attempts it is told of.
    let script = format!("while read -r line; do case $line in *target*) echo '{answer}';; *) echo '[]';; esac; done");
    surrogate(&mut sh(&script), 2, &mut memory);
    assert_eq!(memory.len(), 2);
    assert_eq!(memory[0].ratios, vec![0.5; n]);
    let costs = Costs::new(&graph()).unwrap();
    let taylor: Vec<Vec<f64>> = costs.blocks.iter().map(|b| vec![1.0; b.units]).collect();
    let state: State = state(&costs, &taylor, 0, [0.0, 1.0], [0.0, 1.0], costs.macs);
    let refused = |script: &str| format!("{:#}", sh(script).propose(&state, &[]).unwrap_err());
    assert!(refused("read -r line; echo '[2]'").contains("expected a JSON array of 12 numbers"));
    assert!(refused("read -r line; exit 0").contains("the end of its output"));
    assert!(External::start(&["/no/such/program".into()]).err().unwrap().to_string().contains("/no/such/program"));
}

#[test]
fn cuts_lie_where_gradients_change() {
    let edges = [0, 6, 17, 25, 32];
    let group = |i: usize| edges[1..].iter().filter(|&&e| i >= e).count();
    let s: Vec<Vec<f64>> = (0..32).map(|i| (0..32).map(|j| if group(i) == group(j) { 0.9 } else { 0.1 }).collect()).collect();
    assert_eq!(groups::cut(&s, 4), edges[1..4]);
    assert!(groups::cut(&s, 1).is_empty());
    let ranges = groups::ranges(Grouping::Gradient, &DDPM, [0.001, 1.0], 4, &s, &[]);
    assert_eq!(ranges, [[25.0 / 32.0, 1.0], [17.0 / 32.0, 25.0 / 32.0], [6.0 / 32.0, 17.0 / 32.0], [0.0, 6.0 / 32.0]]);
}

#[test]
fn groups_of_equal_parts() {
    assert_eq!(groups::ranges(Grouping::Equal, &DDPM, [0.001, 1.0], 2, &[], &[]), [[0.5, 1.0], [0.0, 0.5]]);
    let snr = groups::ranges(Grouping::Snr, &DDPM, [0.001, 1.0], 4, &[], &[]);
    let edges: Vec<f64> = snr[..3].iter().map(|r| DDPM.snr_db(r[0])).collect();
    let step = (40.0 + 43.94) / 4.0;
    close(&edges, &[40.0 - 3.0 * step, 40.0 - 2.0 * step, 40.0 - step], 0.02);
    // Halfway between the steps of a student.
    let steps = groups::ranges(Grouping::Steps, &DDPM, [0.001, 1.0], 3, &[], &[0.6, 0.4, 0.2]);
    close(&steps.concat(), &[0.5, 1.0, 0.3, 0.5, 0.0, 0.3], 1e-12);
    assert_eq!(groups::ranks(&[0.3, 0.1, 0.3, 0.2]), [2, 0, 3, 1]);
}

#[test]
fn a_sketch_keeps_angles() {
    let draw = |k| {
        let mut v = vec![0f32; 100_000];
        rng::normals(k, Stream::Other(0), 0, &mut v);
        v
    };
    let (a, b) = (draw(1), draw(2));
    let between: Vec<f32> = a.iter().zip(&b).map(|(a, b)| 0.6 * a + 0.8 * b).collect();
    let s = groups::similarity(&[&a, &b, &between].map(|v| groups::sketch(v, 5)));
    // Errors are of the order 1 / sqrt(4096).
    close(&[s[0][0], s[0][1], s[0][2], s[1][2]], &[1.0, 0.0, 0.6, 0.8], 0.06);
}
