//! A sampler is data: a short program of four instructions on registers, each register one batch of images.
//!
//! [`build`] turns (sampler, model, steps, guidance) into a [`Program`] of `Eval`, `Combine`, `Clip` and `Noise`;
//! [`crate::denoiser::lower`] replaces every `Eval` by a raw network call between two `Combine`s; [`run()`] walks the result on
//! the CPU, and the GPU records it into one submit.

mod guidance;
mod path;
mod route;
mod run;
mod samplers;
#[cfg(test)]
mod tests;

pub use crate::denoiser::{ModelSpec, Parameterization};
pub use guidance::Guidance;
pub use path::{Keep, Moment, moments};
pub use route::Router;
pub use run::{NoiseSource, run, run_closed_form, run_from};
pub use samplers::{MAX_STEPS, Sampler, build};

use crate::error::{Error, Result};
use crate::rng::STREAMS;

/// Index of a register. Each holds one batch of images.
pub type Reg = usize;

/// The most registers a program may have: a bound for interpreters that place them all in one arena.
pub const MAX_REGISTERS: usize = 16;
/// The most terms of one `Combine`: a bound for kernels.
pub const MAX_TERMS: usize = 4;

/// Which label a network call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// The image's own.
    Given,
    /// The null label, for the unconditional answer.
    Null,
}

/// A question to a network, in terms of what is wanted and not of how the network was parameterised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eval {
    /// Where the answer goes; not `src`.
    pub dst: Reg,
    /// The noisy image.
    pub src: Reg,
    /// Which network.
    pub net: usize,
    /// Schedule time of `src`.
    pub t: f64,
    /// `None`: the answer is x0. `Some`: the flow map to that time, or BOOT's signal there (as flow time: 1 is the image).
    pub target: Option<f64>,
    /// Which label.
    pub label: Label,
    /// The guidance weight, for networks that take it as an input.
    pub guidance: Option<f64>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq)]
pub enum Instr {
    /// A network call.
    Eval(Eval),
    /// `dst = sum of coefficient * register`.
    Combine {
        /// Where the sum goes; none of the terms.
        dst: Reg,
        /// Coefficients and registers, at least one and at most [`MAX_TERMS`].
        terms: Vec<(f64, Reg)>,
    },
    /// `dst = src`, every value moved into `[-limit, limit]`.
    Clip {
        /// Where it goes; not `src`.
        dst: Reg,
        /// What is clipped.
        src: Reg,
        /// Above 0.
        limit: f64,
    },
    /// `dst =` standard normals of [`crate::rng::Stream::Sample`]`(stream)`; image k of a run draws with index `first_index + k`.
    Noise {
        /// Where the noise goes.
        dst: Reg,
        /// Which stream.
        stream: u32,
    },
}

/// A sampler's program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Number of registers.
    pub registers: usize,
    /// The instructions in order.
    pub instrs: Vec<Instr>,
    /// The register that holds the images at the end.
    pub output: Reg,
}

impl Program {
    /// Number of network calls.
    pub fn evals(&self) -> usize {
        self.instrs.iter().filter(|i| matches!(i, Instr::Eval(_))).count()
    }

    /// Number of networks the program refers to: one more than the largest index.
    pub fn networks(&self) -> usize {
        self.instrs.iter().map(|i| if let Instr::Eval(e) = i { e.net + 1 } else { 0 }).max().unwrap_or(0)
    }

    /// Multiply-accumulates for one image: every call on its own network of `graphs`.
    pub fn cost(&self, graphs: &[crate::graph::Graph]) -> u64 {
        let of = |i: &Instr| if let Instr::Eval(e) = i { graphs.get(e.net).map_or(0, |g| g.macs()) } else { 0 };
        self.instrs.iter().map(of).sum()
    }

    /// Checks what interpreters rely on: registers in range and written before they are read, no instruction that reads the
    /// register it writes, finite numbers, bounds on registers and terms.
    ///
    /// # Errors
    /// [`Error::Config`] with the first instruction that breaks a rule.
    pub fn validate(&self) -> Result<()> {
        if self.registers == 0 || self.registers > MAX_REGISTERS {
            return Err(Error::config("program.registers", self.registers, format!("1 to {MAX_REGISTERS}")));
        }
        let mut written = [false; MAX_REGISTERS];
        for (i, instr) in self.instrs.iter().enumerate() {
            let fail = |found: String, expected: &str| Err(Error::config(format!("program.instrs[{i}]"), found, expected));
            let (dst, reads): (Reg, Vec<Reg>) = match instr {
                Instr::Eval(e) => (e.dst, vec![e.src]),
                Instr::Combine { dst, terms } => (*dst, terms.iter().map(|t| t.1).collect()),
                Instr::Clip { dst, src, .. } => (*dst, vec![*src]),
                Instr::Noise { dst, .. } => (*dst, vec![]),
            };
            if dst >= self.registers {
                return fail(format!("register {dst}"), "a register of the program");
            }
            if reads.contains(&dst) {
                return fail(format!("register {dst} read and written"), "another register to write to");
            }
            if let Some(r) = reads.iter().find(|&&r| r >= self.registers || !written[r]) {
                return fail(format!("register {r} read"), "a register that an earlier instruction wrote");
            }
            match instr {
                Instr::Eval(e) => {
                    if let Some(v) = [Some(e.t), e.target, e.guidance].into_iter().flatten().find(|v| !v.is_finite()) {
                        return fail(v.to_string(), "finite times and guidance");
                    }
                }
                Instr::Combine { terms, .. } => {
                    if terms.is_empty() || terms.len() > MAX_TERMS {
                        return fail(format!("{} terms", terms.len()), "1 to 4 terms");
                    }
                    if let Some((c, _)) = terms.iter().find(|(c, _)| !c.is_finite()) {
                        return fail(format!("coefficient {c}"), "a finite coefficient");
                    }
                }
                Instr::Clip { limit, .. } => {
                    if !(limit.is_finite() && *limit > 0.0) {
                        return fail(format!("limit {limit}"), "a finite number above 0");
                    }
                }
                Instr::Noise { stream, .. } => {
                    if *stream >= STREAMS {
                        return fail(format!("stream {stream}"), "a stream below 2^28");
                    }
                }
            }
            written[dst] = true;
        }
        if self.output >= self.registers || !written[self.output] {
            return Err(Error::config("program.output", self.output, "a register that an instruction wrote"));
        }
        Ok(())
    }
}
