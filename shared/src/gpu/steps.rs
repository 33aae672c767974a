//! A lowered program in terms of values instead of registers: each is written once.
//!
//! Combinations that repeat are made once, and two calls that differ only in their label (guidance asks for both) may become one
//! call on twice the images: half the dispatches, and a better filled device.

use crate::denoiser::{Lowered, Step};
use crate::error::{Error, Result};
use crate::program::Label;

/// Index of a value.
pub type Value = usize;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The k-th noise.
    Noise(usize),
    /// `dst = sum of coefficient * value`.
    Combine {
        /// The sum.
        dst: Value,
        /// Coefficients and values.
        terms: Vec<(f32, Value)>,
    },
    /// `dst = src` within `[-limit, limit]`.
    Clip {
        /// The result.
        dst: Value,
        /// What is clipped.
        src: Value,
        /// Above 0.
        limit: f32,
    },
    /// A network call for one or two labels.
    Net {
        /// Which network.
        net: usize,
        /// Its times.
        times: Vec<f32>,
        /// Its input.
        src: Value,
        /// A value and its label for each copy of the input; of two, the given label's is first.
        outs: Vec<(Value, Label)>,
    },
}

/// The program.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// In order.
    pub actions: Vec<Action>,
    /// For each value the noise it is, if it is noise.
    pub noise: Vec<Option<usize>>,
    /// The stream of each noise.
    pub streams: Vec<u32>,
    /// The results: the images, then what is kept besides.
    pub outputs: Vec<Value>,
}

impl Action {
    /// The values it writes.
    pub fn writes(&self) -> Vec<Value> {
        match self {
            Action::Noise(_) => vec![],
            Action::Combine { dst, .. } | Action::Clip { dst, .. } => vec![*dst],
            Action::Net { outs, .. } => outs.iter().map(|o| o.0).collect(),
        }
    }
    /// The values it reads.
    pub fn reads(&self) -> Vec<Value> {
        match self {
            Action::Noise(_) => vec![],
            Action::Combine { terms, .. } => terms.iter().map(|t| t.1).collect(),
            Action::Net { src, .. } | Action::Clip { src, .. } => vec![*src],
        }
    }
}

/// Rewrites `lowered`; `pairs`: calls that differ only in their label become one.
///
/// # Errors
/// [`Error::Call`] names a register that is read before it is written, or is none of the program's.
pub fn steps(lowered: &Lowered, pairs: bool) -> Result<Steps> {
    let mut s = Steps { actions: vec![], noise: vec![], streams: vec![], outputs: vec![] };
    let mut current: Vec<Option<Value>> = vec![None; lowered.registers];
    let read = |current: &[Option<Value>], r: usize| {
        current.get(r).copied().flatten().ok_or_else(|| Error::call("register", r, "one that was written"))
    };
    for step in &lowered.steps {
        let fresh = s.noise.len();
        let mut noise = None;
        let (dst, value) = match step {
            Step::Noise { dst, stream } => {
                noise = Some(s.streams.len());
                s.actions.push(Action::Noise(s.streams.len()));
                s.streams.push(*stream);
                (*dst, fresh)
            }
            Step::Combine { dst, terms } => {
                let terms = terms.iter().map(|&(c, r)| Ok((c, read(&current, r)?))).collect::<Result<Vec<_>>>()?;
                let known = s.actions.iter().find_map(|a| match a {
                    Action::Combine { dst, terms: other } if *other == terms => Some(*dst),
                    _ => None,
                });
                if known.is_none() {
                    s.actions.push(Action::Combine { dst: fresh, terms });
                }
                (*dst, known.unwrap_or(fresh))
            }
            Step::Clip { dst, src, limit } => {
                s.actions.push(Action::Clip { dst: fresh, src: read(&current, *src)?, limit: *limit });
                (*dst, fresh)
            }
            Step::Net(e) => {
                let input = read(&current, e.src)?;
                let partner = s.actions.iter_mut().find_map(|a| match a {
                    Action::Net { net, times, src, outs } if (*net, &*times, *src) == (e.net, &e.times, input) => {
                        (pairs && outs.len() == 1 && outs[0].1 != e.label).then_some(outs)
                    }
                    _ => None,
                });
                match partner {
                    Some(outs) => {
                        outs.push((fresh, e.label));
                        outs.sort_by_key(|o| o.1 == Label::Null);
                    }
                    None => {
                        let outs = vec![(fresh, e.label)];
                        s.actions.push(Action::Net { net: e.net, times: e.times.clone(), src: input, outs });
                    }
                }
                (e.dst, fresh)
            }
        };
        if value == fresh {
            s.noise.push(noise);
        }
        let register = current.get_mut(dst);
        *register.ok_or_else(|| Error::call("register", dst, format!("below {}", lowered.registers)))? = Some(value);
    }
    let wanted = std::iter::once(&lowered.output).chain(&lowered.kept);
    s.outputs = wanted.map(|&r| read(&current, r)).collect::<Result<_>>()?;
    Ok(s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denoiser::NetEval;

    #[test]
    fn guidance_becomes_one_call() {
        let net = |dst, label| Step::Net(NetEval { dst, src: 2, net: 0, times: vec![0.5], label });
        let scale = Step::Combine { dst: 2, terms: vec![(0.25, 0)] };
        let steps_in = vec![
            Step::Noise { dst: 0, stream: 0 },
            scale.clone(),
            net(1, Label::Given),
            scale,
            net(3, Label::Null),
            Step::Combine { dst: 0, terms: vec![(2.0, 1), (-1.0, 3)] },
        ];
        let lowered = Lowered { registers: 4, steps: steps_in, output: 0, kept: vec![] };
        let s = steps(&lowered, true).unwrap();
        let outs = vec![(2, Label::Given), (3, Label::Null)];
        let want = [
            Action::Noise(0),
            Action::Combine { dst: 1, terms: vec![(0.25, 0)] },
            Action::Net { net: 0, times: vec![0.5], src: 1, outs },
            Action::Combine { dst: 4, terms: vec![(2.0, 2), (-1.0, 3)] },
        ];
        assert_eq!(s.actions, want);
        assert_eq!(s.outputs, [4]);
        assert_eq!(steps(&lowered, false).unwrap().actions.len(), 5);
        let mut reversed = lowered.clone();
        reversed.steps[2] = net(1, Label::Null);
        reversed.steps[4] = net(3, Label::Given);
        let Action::Net { outs, .. } = &steps(&reversed, true).unwrap().actions[2] else { panic!("a call") };
        assert_eq!(outs, &[(3, Label::Given), (2, Label::Null)]);
        let unwritten = Lowered { output: 3, steps: vec![], ..lowered };
        assert!(steps(&unwritten, true).is_err());
    }
}
