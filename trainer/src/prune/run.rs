//! From a base to a routed bundle: plan, search, fine-tuning, export. What is done is kept in the run directory and not done again.

use super::budget::{Costs, multipliers};
use super::config::{Difficulty, Grouping, PolicyKind, PruneConfig};
use super::external::External;
use super::policy::{Attempt, Evolve, Policy, Taylor, Uniform, state};
use super::probe::{Probe, frozen, taylor};
use super::{edges, groups, search};
use crate::config::{MethodConfig, RunConfig};
use crate::data::{self, Dataset, Split};
use crate::device::device;
use crate::export;
use crate::log::write_whole;
use crate::method::tdc::{self, GroupConfig, TdcConfig, check_base, span, steps};
use crate::train::{self, Outcome, Setup};
use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::Bundle;
use limbeck_shared::cpu::Exec;
use limbeck_shared::graph::prune::{Kept, prune, select};
use limbeck_shared::nn::Network;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Noise levels at which gradients are compared.
const LEVELS: usize = 32;
/// Pruning of all blocks by which sensitivity is measured.
const SENSITIVITY: f64 = 0.3;

/// What is to be pruned, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// The base.
    pub model: PathBuf,
    /// How.
    pub config: PruneConfig,
    /// The run directory.
    pub run: PathBuf,
    /// The bundle to write; `routed.safetensors` in the run directory if none.
    pub out: Option<PathBuf>,
    /// The command line, for the record.
    pub command: String,
}

/// What is known before anything is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The base's SHA-256.
    pub base: String,
    /// Ranges of uniform time, the noisiest first.
    pub ranges: Vec<[f64; 2]>,
    /// Rank of each group from easy to hard.
    pub ranks: Vec<usize>,
    /// Multiply-accumulates for each.
    pub targets: Vec<u64>,
    /// Importance by group, block and unit.
    pub importance: Vec<Vec<Vec<f64>>>,
    /// Each group's units by block, those first that go last.
    pub orders: Vec<Kept>,
    /// The memory bank of each group.
    pub memory: Vec<Vec<Attempt>>,
    /// Units gone of each block, once a group's search is done.
    pub gone: Vec<Option<Vec<usize>>>,
}

/// The base with what is measured on it.
struct Base<'a> {
    bundle: &'a Bundle,
    config: &'a PruneConfig,
    costs: Costs,
    train: Box<dyn Dataset>,
    test: Box<dyn Dataset>,
}

impl<'a> Base<'a> {
    fn new(bundle: &'a Bundle, config: &'a PruneConfig) -> Result<Base<'a>> {
        check_base(bundle)?;
        let (train, test) = (data::open(&config.data, Split::Train)?, data::open(&config.data, Split::Test)?);
        Ok(Base { bundle, config, costs: Costs::new(&bundle.graphs[0])?, train, test })
    }

    fn exec(&self) -> Result<Arc<Exec>> {
        Ok(Arc::new(Exec::with_precision(self.bundle.graphs[0].clone(), self.config.precision.resolve())?))
    }

    /// The gradient of the base's loss over a range.
    fn gradient(&self, exec: &Arc<Exec>, range: [f64; 2], count: usize) -> Result<Vec<f32>> {
        Probe::new(&self.bundle.meta, &*self.train, range, count, self.config.seed, 0)?.gradient(exec, &self.bundle.thetas[0])
    }

    /// The questions by which networks of a group are compared.
    fn validation(&self, range: [f64; 2]) -> Result<Probe> {
        Probe::new(&self.bundle.meta, &*self.test, range, self.config.probe, self.config.seed, 1)
    }

    fn network(&self, kept: &Kept) -> Result<Network> {
        let pruned = prune(&self.bundle.meta.networks[0], kept)?;
        frozen(&pruned.config, &select(&self.bundle.thetas[0], &pruned.index), self.config.precision.resolve())
    }

    fn plan(&self) -> Result<Plan> {
        let (c, schedule) = (self.config, &self.bundle.meta.schedule);
        let exec = self.exec()?;
        let similarity = if c.grouping == Grouping::Gradient {
            let level = |i: usize| [i as f64 / LEVELS as f64, (i + 1) as f64 / LEVELS as f64];
            let sketch = |i| Ok(groups::sketch(&self.gradient(&exec, level(i), (c.probe / 8).max(1))?, c.seed));
            groups::similarity(&(0..LEVELS).map(sketch).collect::<Result<Vec<_>>>()?)
        } else {
            vec![]
        };
        let steps = steps(&self.bundle.meta);
        if c.grouping == Grouping::Steps && steps.len() != c.groups {
            let found = if steps.is_empty() { "a diffusion model".into() } else { format!("a student of {} steps", steps.len()) };
            bail!("`grouping`: found steps for {found} and {} groups, expected a student and a group for each of its steps", c.groups);
        }
        let ranges = groups::ranges(c.grouping, schedule, span(schedule), c.groups, &similarity, &steps);
        let importance =
            ranges.iter().map(|&range| taylor(&self.bundle.graphs[0], &self.bundle.thetas[0], &self.gradient(&exec, range, c.probe)?));
        let importance: Vec<Vec<Vec<f64>>> = importance.collect::<Result<_>>()?;
        let orders: Vec<Kept> = match c.separate {
            true => importance.iter().map(|group| order(group)).collect(),
            false => vec![order(&joint(&importance)); c.groups],
        };
        let ranks = match c.difficulty {
            Difficulty::Snr => (0..c.groups).collect(),
            Difficulty::Sensitivity => groups::ranks(&self.sensitivity(&ranges, &orders)?),
        };
        let parts = multipliers(c.groups, c.floor);
        let targets = ranks.iter().map(|&rank| (parts[rank] * self.costs.macs as f64).round() as u64).collect();
        let (memory, gone) = (vec![vec![]; c.groups], vec![None; c.groups]);
        Ok(Plan { base: self.bundle.sha256.clone(), ranges, ranks, targets, importance, orders, memory, gone })
    }

    /// By how much each group's loss rises when all blocks lose 30 %.
    fn sensitivity(&self, ranges: &[[f64; 2]], orders: &[Kept]) -> Result<Vec<f64>> {
        let gone: Vec<usize> = self.costs.blocks.iter().map(|b| (SENSITIVITY * b.units as f64).round() as usize).collect();
        let gone: Vec<usize> = gone.iter().enumerate().map(|(b, &n)| n.min(self.costs.most(b))).collect();
        let whole = self.network(&kept(&orders[0], &vec![0; gone.len()]))?;
        let rise = |(range, order): (&[f64; 2], &Kept)| {
            let probe = self.validation(*range)?;
            Ok(probe.loss(&self.network(&kept(order, &gone))?)? / probe.loss(&whole)? - 1.0)
        };
        ranges.iter().zip(orders).map(rise).collect()
    }

    /// Loss of the pruned base on a group, at once and after the short fine-tuning.
    fn measure(&self, request: &Request, probe: &Probe, group: GroupConfig) -> Result<[f64; 2]> {
        let before = probe.loss(&self.network(&group.kept)?)?;
        let c = self.config;
        let mut config = run_config(request, vec![group], None);
        (config.batch, config.images) = ((c.batch / c.groups).max(1), c.short.max(1));
        config.optimizer.warmup = config.optimizer.warmup.min(c.short / 10);
        let setup = Setup::new(config)?;
        let mut state = setup.fresh();
        while state.images_seen < c.short {
            if train::stopping() {
                bail!("stopped; the same command goes on with this round");
            }
            setup.step(&mut state)?;
        }
        let net = Network::frozen(setup.networks()[0].exec.clone(), &state.nets[0].theta, device())?;
        Ok([before, probe.loss(&net)?])
    }

    /// Asks the policy for every group that has not been searched yet.
    fn search(&self, request: &Request, plan: &mut Plan, save: &dyn Fn(&Plan) -> Result<()>) -> Result<()> {
        for g in 0..plan.ranges.len() {
            if plan.gone[g].is_some() {
                continue;
            }
            let (range, target) = (plan.ranges[g], plan.targets[g]);
            let gone = if target >= self.costs.macs {
                vec![0; self.costs.blocks.len()]
            } else {
                let probe = self.validation(range)?;
                let order = plan.orders[g].clone();
                let mut measure = |gone: &[usize]| {
                    let found = self.measure(request, &probe, GroupConfig { range, kept: kept(&order, gone) })?;
                    eprintln!(
                        "group {}: units gone {gone:?}, loss {:.5} at once, {:.5} after {} images",
                        g + 1,
                        found[0],
                        found[1],
                        self.config.short
                    );
                    Ok(found)
                };
                let mut memory = std::mem::take(&mut plan.memory[g]);
                let state = state(&self.costs, &leaving(&plan.importance[g], &order), g, range, self.snr(range), target);
                let remember = |memory: &[Attempt]| {
                    plan.memory[g] = memory.to_vec();
                    save(plan)
                };
                let mut policy = policy(self.config)?;
                search::search(&mut *policy, &self.costs, &state, self.config.rounds, &mut memory, &mut measure, remember)?
            };
            plan.gone[g] = Some(gone);
            save(plan)?;
        }
        Ok(())
    }

    /// A range as signal-to-noise ratios.
    fn snr(&self, range: [f64; 2]) -> [f64; 2] {
        let schedule = &self.bundle.meta.schedule;
        let [low, high] = span(schedule);
        range.map(|u| schedule.snr_db(schedule.at_uniform(u.clamp(low, high))))
    }
}

/// What `--dry-run` tells: the plan, in words.
///
/// # Errors
/// If the base or the data cannot be used.
pub fn plan(model: &Path, config: &PruneConfig) -> Result<String> {
    let bundle = train::read_bundle(model)?;
    let base = Base::new(&bundle, config)?;
    super::report::table(&bundle, &base.costs, &base.plan()?)
}

/// Prunes, fine-tunes and exports; none if a signal stopped it.
///
/// # Errors
/// Names the file or key that does not fit; a run directory of other settings is refused.
pub fn run(request: &Request) -> Result<Option<PathBuf>> {
    let (c, dir) = (&request.config, &request.run);
    std::fs::create_dir_all(dir).with_context(|| format!("`{}` cannot be made", dir.display()))?;
    same_settings(c, dir)?;
    let bundle = train::read_bundle(&request.model)?;
    let base = Base::new(&bundle, c)?;
    let path = dir.join("search.json");
    let save = |plan: &Plan| write_whole(&path, &serde_json::to_vec_pretty(plan)?);
    let mut plan = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("`{}`", path.display()))?,
        Err(_) => base.plan()?,
    };
    if plan.base != bundle.sha256 {
        bail!("`{}`: found a search on {}, expected one on {}; use another --run", path.display(), plan.base, bundle.sha256);
    }
    save(&plan)?;
    base.search(request, &mut plan, &save)?;

    let groups = plan.ranges.iter().zip(&plan.orders).zip(plan.gone.iter().flatten());
    let groups = groups.map(|((&range, order), gone)| GroupConfig { range, kept: kept(order, gone) }).collect();
    let config = run_config(request, groups, (!c.separate).then(|| plan.orders[0].clone()));
    write_whole(&dir.join("plan.toml"), toml::to_string(&config)?.as_bytes())?;
    let (setup, run) = (Setup::new(config)?, dir.join("train"));
    let out = request.out.clone().unwrap_or_else(|| dir.join("routed.safetensors"));
    let done = setup.load(&run)?.images_seen >= setup.config().images;
    if train::train(&setup, &run, &request.command)? == Outcome::Stopped {
        return Ok(None);
    }
    if done && out.exists() {
        // What was recorded in it since stays.
        return Ok(Some(out));
    }
    train::export_run(&setup, &run, &out, &request.command)?;
    let routed = train::read_bundle(&out)?;
    export::add_evaluation(&out, [("edges".into(), edges::measure(&routed, &*base.test, c.probe, c.seed)?)])?;
    Ok(Some(out))
}

fn policy(c: &PruneConfig) -> Result<Box<dyn Policy>> {
    Ok(match c.policy {
        PolicyKind::Uniform => Box::new(Uniform),
        PolicyKind::Taylor => Box::new(Taylor),
        PolicyKind::Evolve => Box::new(Evolve { seed: c.seed }),
        PolicyKind::External => Box::new(External::start(&c.command)?),
    })
}

/// The run that fine-tunes groups.
fn run_config(request: &Request, groups: Vec<GroupConfig>, order: Option<Kept>) -> RunConfig {
    let c = &request.config;
    let label_dropout = tdc::label_dropout();
    RunConfig {
        name: c.name.clone(),
        method: MethodConfig::Tdc(TdcConfig { overlap: c.overlap, label_dropout, scratch: c.scratch, target: c.target, order, groups }),
        seed: c.seed,
        batch: c.batch,
        micro_batch: 0,
        precision: c.precision,
        images: c.images,
        teacher: Some(request.model.clone()),
        network: None,
        data: Some(c.data.clone()),
        optimizer: c.optimizer.clone(),
        ema: c.ema.clone(),
        log: c.log.clone(),
    }
}

/// Importance over all groups, each group's scaled to a sum of 1.
fn joint(importance: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let mut sum: Vec<Vec<f64>> = importance[0].iter().map(|block| vec![0.0; block.len()]).collect();
    for group in importance {
        let whole = group.iter().flatten().sum::<f64>().max(f64::MIN_POSITIVE);
        sum.iter_mut().flatten().zip(group.iter().flatten()).for_each(|(s, i)| *s += i / whole);
    }
    sum
}

/// Units of every block by falling importance.
pub(super) fn order(importance: &[Vec<f64>]) -> Kept {
    let sorted = |block: &Vec<f64>| {
        let mut units: Vec<usize> = (0..block.len()).collect();
        units.sort_by(|&a, &b| block[b].total_cmp(&block[a]));
        units
    };
    importance.iter().map(sorted).collect()
}

/// Importance of every block's units in the order in which they go.
fn leaving(importance: &[Vec<f64>], order: &Kept) -> Vec<Vec<f64>> {
    importance.iter().zip(order).map(|(block, order)| order.iter().rev().map(|&u| block[u]).collect()).collect()
}

/// What stays of an order when so many units of each block go.
fn kept(order: &Kept, gone: &[usize]) -> Kept {
    order.iter().zip(gone).map(|(units, gone)| units[..units.len() - gone].to_vec()).collect()
}

/// Saves the settings, or checks that the directory's are the same.
fn same_settings(config: &PruneConfig, dir: &Path) -> Result<()> {
    let (path, text) = (dir.join("prune.toml"), toml::to_string(config)?);
    match std::fs::read_to_string(&path) {
        Ok(found) if toml::from_str::<PruneConfig>(&found).ok().as_ref() != Some(config) => {
            let differs = found.lines().zip(text.lines()).find(|(a, b)| a != b).unwrap_or(("a shorter or longer file", "the other"));
            bail!("`{}` is of another run: found `{}`, expected `{}`; use another --run", path.display(), differs.0, differs.1)
        }
        Ok(_) => Ok(()),
        Err(_) => write_whole(&path, text.as_bytes()),
    }
}
