//! Programs in terms of raw network calls: what interpreters walk.

use super::{Adapter, ModelSpec, adapter, time_inputs};
use crate::error::{Error, Result};
use crate::program::{Eval, Instr, Keep, Label, Program, Reg};

/// A network call of a lowered program.
#[derive(Clone, Debug, PartialEq)]
pub struct NetEval {
    /// Where the raw output goes.
    pub dst: Reg,
    /// The input, already scaled.
    pub src: Reg,
    /// Which network.
    pub net: usize,
    /// The network's time inputs in slot order: noise level, then target time and guidance where the network has them.
    pub times: Vec<f32>,
    /// Which label.
    pub label: Label,
}

/// One step of a lowered program.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A network call.
    Net(NetEval),
    /// `dst = sum of coefficient * register`; `dst` is none of the terms.
    Combine {
        /// Where the sum goes.
        dst: Reg,
        /// Coefficients and registers, at least one and at most [`crate::program::MAX_TERMS`].
        terms: Vec<(f32, Reg)>,
    },
    /// `dst = src`, every value moved into `[-limit, limit]`.
    Clip {
        /// Where it goes; not `src`.
        dst: Reg,
        /// What is clipped.
        src: Reg,
        /// Above 0.
        limit: f32,
    },
    /// `dst =` standard normals of stream [`crate::rng::Stream::Sample`]`(stream)`.
    Noise {
        /// Where the noise goes.
        dst: Reg,
        /// Which stream.
        stream: u32,
    },
}

/// A program in terms of raw network calls: what interpreters walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// Number of registers, each one batch of images.
    pub registers: usize,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The register that holds the images at the end.
    pub output: Reg,
    /// Registers whose contents are wanted as well, in the order in which they are given back; none for ordinary drawing.
    pub kept: Vec<Reg>,
}

/// Replaces every [`Eval`] by scaling, raw network call, and the combination that answers it.
///
/// # Errors
/// [`Error::Config`] if the program or the model is not valid, or a time has no conversion.
pub fn lower(program: &Program, spec: &ModelSpec) -> Result<Lowered> {
    lower_keeping(program, spec, &[])
}

/// As [`lower`], and copies contents of registers aside as the program comes by ([`crate::program::moments`] names those on an
/// image's way). What is drawn stays the same.
///
/// # Errors
/// As [`lower`]; [`Error::Config`] if something is to be kept that the program does not have.
pub fn lower_keeping(program: &Program, spec: &ModelSpec, keep: &[Keep]) -> Result<Lowered> {
    program.validate()?;
    spec.validate()?;
    let bad = |k: &&Keep| k.after > program.instrs.len() || k.reg >= program.registers || !k.scale.is_finite();
    if let Some(k) = keep.iter().find(bad) {
        return Err(Error::config("keep", format!("{k:?}"), "a register of the program, after one of its instructions"));
    }
    let (scaled, raw, first_kept) = (program.registers, program.registers + 1, program.registers + 2);
    let mut steps = Vec::with_capacity(3 * program.instrs.len() + keep.len());
    let put_aside = |after: usize, steps: &mut Vec<Step>| {
        let due = keep.iter().enumerate().filter(|(_, k)| k.after == after);
        steps.extend(due.map(|(i, k)| Step::Combine { dst: first_kept + i, terms: vec![(k.scale as f32, k.reg)] }));
    };
    for (i, instr) in program.instrs.iter().enumerate() {
        put_aside(i, &mut steps);
        match instr {
            Instr::Eval(eval) => lower_eval(eval, spec, scaled, raw, &mut steps)?,
            Instr::Combine { dst, terms } => {
                steps.push(Step::Combine { dst: *dst, terms: terms.iter().map(|&(c, r)| (c as f32, r)).collect() })
            }
            Instr::Clip { dst, src, limit } => steps.push(Step::Clip { dst: *dst, src: *src, limit: *limit as f32 }),
            Instr::Noise { dst, stream } => steps.push(Step::Noise { dst: *dst, stream: *stream }),
        }
    }
    put_aside(program.instrs.len(), &mut steps);
    let kept = (first_kept..first_kept + keep.len()).collect();
    Ok(Lowered { registers: first_kept + keep.len(), steps, output: program.output, kept })
}

fn lower_eval(eval: &Eval, spec: &ModelSpec, scaled: Reg, raw: Reg, steps: &mut Vec<Step>) -> Result<()> {
    let Adapter { c_in, c_skip, c_out } = adapter(spec, eval.t, eval.target)?;
    let times = time_inputs(spec, eval.t, eval.target, eval.guidance)?;
    let src = if c_in == 1.0 {
        eval.src
    } else {
        steps.push(Step::Combine { dst: scaled, terms: vec![(c_in as f32, eval.src)] });
        scaled
    };
    let direct = c_skip == 0.0 && c_out == 1.0;
    steps.push(Step::Net(NetEval { dst: if direct { eval.dst } else { raw }, src, net: eval.net, times, label: eval.label }));
    if !direct {
        let mut terms = vec![(c_out as f32, raw)];
        if c_skip != 0.0 {
            terms.insert(0, (c_skip as f32, eval.src));
        }
        steps.push(Step::Combine { dst: eval.dst, terms });
    }
    Ok(())
}
