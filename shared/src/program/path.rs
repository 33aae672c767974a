//! The way of an image through a program: which states it goes through, and what the network says of each.

use super::{Eval, Instr, Program, Reg};

/// A register's content at one point of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// After how many of the program's instructions.
    pub after: usize,
    /// Which register.
    pub reg: Reg,
    /// Factor on its content.
    pub scale: f64,
}

/// One state on the way from noise to image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Schedule time of the state.
    pub t: f64,
    /// The state, unscaled.
    pub state: Keep,
    /// The network's answer to it, guidance included: x0, or, where a call has a target time, the image at that time.
    pub answer: Keep,
}

/// The states that a program asks its network about, noisiest first.
///
/// A method of higher order asks about trial states too (Heun: once at the time that it is about to reach). At each time the state
/// asked about last is the one that the sampler goes on from.
pub fn moments(program: &Program) -> Vec<Moment> {
    let mut found: Vec<Moment> = vec![];
    let mut at = 0;
    while let Some(instr) = program.instrs.get(at) {
        let begin = at;
        at += 1;
        let Instr::Eval(first) = instr else { continue };
        let mut answer = first.dst;
        // Guidance asks twice about one state and mixes the answers.
        if let (Some(Instr::Eval(second)), Some(Instr::Combine { dst, terms })) = (program.instrs.get(at), program.instrs.get(at + 1))
            && same_question(first, second)
            && terms.iter().all(|(_, r)| [first.dst, second.dst].contains(r))
        {
            answer = *dst;
            at += 2;
        }
        // What the sampler goes on with is the clipped answer.
        if let Some(Instr::Clip { dst, src, .. }) = program.instrs.get(at)
            && *src == answer
        {
            answer = *dst;
            at += 1;
        }
        let keep = |after, reg| Keep { after, reg, scale: 1.0 };
        let moment = Moment { t: first.t, state: keep(begin, first.src), answer: keep(at, answer) };
        match found.last_mut() {
            Some(last) if last.t == moment.t => *last = moment,
            _ => found.push(moment),
        }
    }
    found
}

fn same_question(a: &Eval, b: &Eval) -> bool {
    (a.src, a.net, a.t, a.target) == (b.src, b.net, b.t, b.target) && a.label != b.label
}
