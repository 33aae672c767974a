//! Of how many dispatches one evaluation is made, and how long it takes. What is asserted are the counts; times are printed (`NETS`
//! and `BATCHES` name others than the reference network's, 1 and 16):
//!
//! ```text
//! cargo test --release -p limbeck-shared --features wgpu-native --lib -- --ignored --nocapture timings
//! ```

use super::super::forward::ForwardPlan;
use super::super::{Engine, Kernel, WeightStorage, block_on};
use super::{engines, normals, theta};
use crate::graph::{Graph, NetworkConfig};
use std::time::Instant;

/// A network of `tests/peers/configs`.
pub fn peer(name: &str) -> Graph {
    let path = format!("{}/../tests/peers/configs/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str::<NetworkConfig>(&text).unwrap().build().unwrap()
}

/// Milliseconds of processor time that this process has used, all threads together; 0 where the system does not tell.
fn processor_ms() -> f64 {
    // Times are the 12th and 13th field after the name, in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    fields.take(2).filter_map(|v| v.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// A network's plan, and its evaluation on some input.
fn planned(engine: &Engine, graph: &Graph, batch: usize) -> (ForwardPlan, impl Fn(&mut ForwardPlan)) {
    let plan = engine.load(std::slice::from_ref(graph), &[theta(graph, 5)]).unwrap().forward_plan(0, batch).unwrap();
    let x = normals(3, batch * graph.input_shape().iter().product::<usize>());
    let (times, labels) = (vec![0.7; batch * graph.times], vec![1; if graph.classes > 0 { batch } else { 0 }]);
    (plan, move |plan| {
        block_on(plan.forward(&x, &times, &labels)).unwrap();
    })
}

/// Wall milliseconds of each of `rounds` evaluations, sorted, the mean of their processor time, and their dispatches.
fn evaluate(engine: &Engine, graph: &Graph, batch: usize, rounds: usize) -> (Vec<f64>, f64, usize) {
    let (mut plan, run) = planned(engine, graph, batch);
    run(&mut plan);
    let used = processor_ms();
    let mut ms: Vec<f64> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            run(&mut plan);
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    ms.sort_by(f64::total_cmp);
    (ms, (processor_ms() - used) / rounds as f64, plan.dispatches())
}

#[test]
fn an_evaluation_takes_few_dispatches_and_pipelines() {
    for engine in engines(WeightStorage::F16) {
        for (name, batch, most) in [("reference", 1, 70), ("reference", 2, 70), ("space-to-depth", 1, 45), ("rgb32", 1, 55)] {
            let graph = peer(name);
            let model = engine.load(std::slice::from_ref(&graph), &[theta(&graph, 5)]).unwrap();
            let dispatches = model.forward_plan(0, batch).unwrap().dispatches();
            println!("{name} b{batch}, {:?}: {dispatches} dispatches", engine.occupancy());
            assert!(dispatches <= most, "{name} b{batch}, {:?}: {dispatches} dispatches", engine.occupancy());
        }
        assert!(engine.counters().pipelines <= 25);
    }
    assert!(Kernel::ALL.len() <= 25);
}

/// Milliseconds of each kernel on an adapter that is a CPU, its dispatches one after the other, each the best of five. What [`timings`]
/// says of `NETS` and `BATCHES` holds; `EACH=1` prints every dispatch.
#[test]
#[ignore = "takes minutes and asserts nothing"]
fn profile() {
    let [_, narrow] = engines(WeightStorage::F16);
    for (name, batch) in cases() {
        let graph = peer(&name);
        let (mut plan, run) = planned(&narrow, &graph, batch);
        run(&mut plan);
        let mut sums = std::collections::BTreeMap::new();
        for (kernel, groups, ms) in plan.profile(5) {
            let sum = sums.entry(kernel.name()).or_insert((0, 0.0));
            *sum = (sum.0 + 1, sum.1 + ms);
            if std::env::var_os("EACH").is_some() {
                println!("{} {groups:?} {ms:.2}", kernel.name());
            }
        }
        println!("{name} b{batch}: {:.1} ms", sums.values().map(|s| s.1).sum::<f64>());
        for (kernel, (count, ms)) in sums {
            println!("  {kernel}: {ms:.1} ms in {count}");
        }
    }
}

/// `NETS` by `BATCHES`.
fn cases() -> Vec<(String, usize)> {
    let list = |key: &str, usual: &str| std::env::var(key).unwrap_or(usual.into()).split(',').map(String::from).collect::<Vec<_>>();
    let batches = list("BATCHES", "1,16");
    list("NETS", "reference").iter().flat_map(|n| batches.iter().map(|b| (n.clone(), b.parse().unwrap()))).collect()
}

#[test]
#[ignore = "takes minutes and asserts nothing"]
fn timings() {
    for (name, batch) in cases() {
        for engine in engines(WeightStorage::F16) {
            let (ms, processor, dispatches) = evaluate(&engine, &peer(&name), batch, if batch == 1 { 9 } else { 3 });
            let (median, best) = (ms[ms.len() / 2], ms[0]);
            println!(
                "{name} b{batch}, {:?}: {median:.1} ms, best {best:.1}, processor {processor:.0}, {dispatches} dispatches",
                engine.occupancy()
            );
        }
    }
}
