//! The state of a run: everything that decides what the next step does, in one file, replaced atomically.

use crate::optim::Adam;
use anyhow::{Context, Result, bail};
use limbeck_shared::graph::prune;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetState {
    /// Name, as the method calls it.
    pub name: String,
    /// Current weights.
    pub theta: Vec<f32>,
    /// Averaged weights; empty for a network that is not averaged.
    pub ema: Vec<f32>,
    /// The optimiser.
    pub adam: Adam,
}

impl NetState {
    /// The state of a smaller network whose element i is element `index[i]` of this one's ([`limbeck_shared::graph::prune`]): it goes
    /// on exactly as those elements would have here.
    pub fn select(&self, index: &[usize]) -> NetState {
        let of = |v: &Vec<f32>| if v.is_empty() { vec![] } else { prune::select(v, index) };
        let adam = Adam { m: of(&self.adam.m), v: of(&self.adam.v), ..self.adam.clone() };
        NetState { name: self.name.clone(), theta: of(&self.theta), ema: of(&self.ema), adam }
    }
}

/// A run at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Images seen.
    pub images_seen: u64,
    /// Seconds of training so far.
    pub seconds: f64,
    /// Steps left out because a gradient was not finite.
    pub skipped: u64,
    /// The trained networks.
    pub nets: Vec<NetState>,
    /// Of the steps since the last line of `stats.jsonl`, so that a resumed run writes the line of an undisturbed one.
    pub sums: Sums,
}

/// Sums over some steps of what each reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Number of steps.
    pub steps: u64,
    /// Names and sums, in the order of the report.
    pub terms: Vec<(String, f64)>,
}

impl Sums {
    /// Adds one step's report.
    pub fn add(&mut self, report: &[(&str, f64)]) {
        self.steps += 1;
        for &(name, v) in report {
            match self.terms.iter_mut().find(|t| t.0 == name) {
                Some(term) => term.1 += v,
                None => self.terms.push((name.to_string(), v)),
            }
        }
    }

    /// Means over the steps; the sums start anew.
    pub fn take_means(&mut self) -> Vec<(String, f64)> {
        let Sums { steps, terms } = std::mem::take(self);
        terms.into_iter().map(|(name, v)| (name, v / steps as f64)).collect()
    }

    /// As text that keeps every bit.
    fn encode(&self) -> Result<String> {
        let terms: Vec<_> = self.terms.iter().map(|(name, v)| (name, v.to_bits())).collect();
        Ok(serde_json::to_string(&(self.steps, terms))?)
    }

    fn decode(text: &str) -> Result<Sums> {
        let (steps, terms): (u64, Vec<(String, u64)>) = serde_json::from_str(text).with_context(|| format!("`sums`: found {text}"))?;
        Ok(Sums { steps, terms: terms.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect() })
    }
}

/// Version of the file.
const VERSION: &str = "1";

fn bytes(v: &[f32]) -> &[u8] {
    bytemuck::cast_slice(v)
}

/// Path of the state in a run directory.
pub fn path(run: &Path) -> PathBuf {
    run.join("state.safetensors")
}

/// Writes the state: into a temporary file beside it, flushed to the disk, then renamed.
///
/// # Errors
/// Names the file that could not be written.
pub fn save(run: &Path, state: &State) -> Result<()> {
    let mut meta = HashMap::new();
    meta.insert("limbeck_state".to_string(), VERSION.to_string());
    meta.insert("images_seen".into(), state.images_seen.to_string());
    meta.insert("seconds".into(), state.seconds.to_bits().to_string());
    meta.insert("skipped".into(), state.skipped.to_string());
    meta.insert("sums".into(), state.sums.encode()?);
    let mut views = vec![];
    for net in &state.nets {
        meta.insert(format!("{}.steps", net.name), net.adam.steps.to_string());
        for (part, v) in [("theta", &net.theta), ("ema", &net.ema), ("m", &net.adam.m), ("v", &net.adam.v)] {
            views.push((format!("{}.{part}", net.name), TensorView::new(Dtype::F32, vec![v.len()], bytes(v))?));
        }
    }
    let data = safetensors::serialize(views, Some(meta))?;
    crate::log::write_whole(&path(run), &data)
}

/// Reads the state of a run directory, if there is one; `names` are the networks' names and lengths, and whether they are averaged.
///
/// # Errors
/// Names the file, and what of it is damaged.
pub fn load(run: &Path, names: &[(&str, usize, bool)]) -> Result<Option<State>> {
    let path = path(run);
    if !path.exists() {
        return Ok(None);
    }
    let data = std::fs::read(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    parse(&data, names)
        .with_context(|| format!("`{}` is no state of this run; remove the run directory to start anew", path.display()))
        .map(Some)
}

fn parse(data: &[u8], names: &[(&str, usize, bool)]) -> Result<State> {
    let (_, header) = safetensors::SafeTensors::read_metadata(data)?;
    let meta = header.metadata().clone().unwrap_or_default();
    let file = safetensors::SafeTensors::deserialize(data)?;
    let get = |key: &str| meta.get(key).with_context(|| format!("found no key `{key}`"));
    let number = |key: &str| -> Result<u64> { get(key)?.parse().with_context(|| format!("`{key}` is no number")) };
    if get("limbeck_state")? != VERSION {
        bail!("`limbeck_state`: found {}, expected {VERSION}", get("limbeck_state")?);
    }
    let mut nets = vec![];
    for &(name, len, averaged) in names {
        let part = |part: &str| -> Result<Vec<f32>> {
            let len = if part == "ema" && !averaged { 0 } else { len };
            let key = format!("{name}.{part}");
            let t = file.tensor(&key).with_context(|| format!("found no tensor `{key}`"))?;
            if t.dtype() != Dtype::F32 || t.shape() != [len] {
                bail!("`{key}`: found {:?} {:?}, expected F32 [{len}]", t.dtype(), t.shape());
            }
            Ok(t.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let adam = Adam { m: part("m")?, v: part("v")?, steps: number(&format!("{name}.steps"))? };
        nets.push(NetState { name: name.to_string(), theta: part("theta")?, ema: part("ema")?, adam });
    }
    Ok(State {
        images_seen: number("images_seen")?,
        seconds: f64::from_bits(number("seconds")?),
        skipped: number("skipped")?,
        nets,
        // States written before sums were kept have none.
        sums: meta.get("sums").map_or(Ok(Sums::default()), |text| Sums::decode(text))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let adam = Adam { m: vec![0.1, f32::MIN_POSITIVE], v: vec![1e-30, 2.0], steps: 7 };
        let nets = vec![NetState { name: "student".into(), theta: vec![1.0, -0.0], ema: vec![3.0, 4.0], adam }];
        let mut sums = Sums::default();
        sums.add(&[("loss", 0.1), ("grad_norm", f64::NEG_INFINITY)]);
        sums.add(&[("loss", 0.2), ("grad_norm", 1.0)]);
        State { images_seen: 1234, seconds: 0.1 + 0.2, skipped: 1, nets, sums }
    }

    #[test]
    fn a_state_survives_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path(), &[("student", 2, true)]).unwrap().is_none());
        save(dir.path(), &state()).unwrap();
        assert_eq!(load(dir.path(), &[("student", 2, true)]).unwrap().unwrap(), state());
    }

    #[test]
    fn a_pruned_state_goes_on_as_its_elements_would_have() {
        let (index, config) = ([4, 0, 2], crate::config::OptimizerConfig::default());
        let start: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
        let mut large = NetState { name: "n".into(), theta: start.clone(), ema: start, adam: Adam::new(6) };
        let step = |net: &mut NetState, grad: &[f32]| net.adam.step(&config, 0.1, 0.5, grad, &mut net.theta, &mut net.ema, 0.9);
        let grad: Vec<f32> = (0..6).map(|i| (i as f32).sin()).collect();
        step(&mut large, &grad);
        let mut small = large.select(&index);
        step(&mut large, &grad);
        step(&mut small, &prune::select(&grad, &index));
        assert_eq!(small, large.select(&index));
        assert_ne!(small.adam.m, large.adam.m[..3]);
    }

    #[test]
    fn sums_become_means() {
        let mut sums = state().sums;
        assert_eq!(sums.take_means(), [("loss".to_string(), (0.1 + 0.2) / 2.0), ("grad_norm".to_string(), f64::NEG_INFINITY)]);
        assert_eq!(sums, Sums::default());
    }

    #[test]
    fn a_state_of_another_network_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &state()).unwrap();
        let e = format!("{:#}", load(dir.path(), &[("student", 3, true)]).unwrap_err());
        assert!(e.contains("student.m") && e.contains("[3]"), "{e}");
        let file = path(dir.path());
        let half = std::fs::read(&file).unwrap();
        std::fs::write(&file, &half[..half.len() / 2]).unwrap();
        assert!(load(dir.path(), &[("student", 2, true)]).is_err());
    }
}
