//! Which network answers at which noise level.

use super::{Instr, Program};
use crate::error::{Error, Result};
use crate::schedule::Schedule;
use serde::Serialize;

/// Groups of noise levels, each with its network (Li et al., arXiv 2312.13307): a threshold on `ln(sigma / alpha)` between two
/// groups. Data of a bundle; [`Router::route`] writes it into a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Router {
    /// `ln(sigma / alpha)` between one group and the next, falling.
    pub edges: Vec<f64>,
    /// The network of each group, the noisiest group first; one more than there are edges.
    pub nets: Vec<usize>,
}

impl Router {
    /// The group of a noise level `ln(sigma / alpha)`, the noisiest 0; a level on an edge belongs to the noisier side.
    pub fn group(&self, level: f64) -> usize {
        self.edges.iter().filter(|&&edge| level < edge).count()
    }

    /// The program with every `Eval` on the network of its input's noise level: Heun's second call may be on the next group's.
    ///
    /// # Errors
    /// [`Error::Config`] if a group has no network.
    pub fn route(&self, mut program: Program, schedule: &Schedule) -> Result<Program> {
        for instr in &mut program.instrs {
            if let Instr::Eval(e) = instr {
                let group = self.group(libm::log(schedule.noise_ratio(e.t)));
                let found =
                    || Error::config("router.nets", format!("{} networks", self.nets.len()), format!("{} groups'", self.edges.len() + 1));
                e.net = *self.nets.get(group).ok_or_else(found)?;
            }
        }
        Ok(program)
    }
}
