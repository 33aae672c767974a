//! Settings of one task of a sequence.

use anyhow::{Result, bail};
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What keeps the classes of earlier tasks alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Nothing: the new images alone.
    FineTune,
    /// The real images of all tasks so far; the bound that no method without them is expected to pass.
    Joint,
    /// Generative replay: the student denoises images that the teacher drew.
    Replay,
    /// Generative distillation, the paper's: on images that the teacher drew the student answers what the teacher answers.
    #[default]
    Distillation,
    /// The same on pure noise at every time, nothing drawn.
    Gaussian,
    /// Learning without forgetting: the same on the new images.
    Lwf,
    /// The same on the states of the teacher's own trajectory, nothing noised again.
    Partial,
}

/// How a network that starts from nothing is parameterised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Beginning {
    /// The noise, on DDPM's linear betas from 1e-4 to 0.02 in 1000 steps (the paper's).
    #[default]
    Eps,
    /// The same with zero terminal SNR (the paper's schedule).
    EpsZeroSnr,
    /// EDM, whose students BOOT and SiD distill.
    Edm {
        /// Standard deviation of the data.
        sigma_data: f64,
    },
}

impl Beginning {
    /// Its parameterisation and schedule.
    pub fn parts(self) -> (Parameterization, Schedule) {
        let (beta_start, beta_end, steps) = (1e-4, 0.02, 1000);
        match self {
            Beginning::Eps => (Parameterization::Eps, Schedule::DdpmLinear { beta_start, beta_end, steps }),
            Beginning::EpsZeroSnr => (Parameterization::Eps, Schedule::DdpmZeroSnr { beta_start, beta_end, steps }),
            Beginning::Edm { sigma_data } => (Parameterization::Edm { sigma_data }, crate::method::teacher::SCHEDULE),
        }
    }
}

/// A student of one step that is distilled from each task's model (BOOT) and draws the next task's replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneStep {
    /// Noises it is trained on.
    pub images: u64,
    /// BOOT's step.
    pub delta: f64,
}

/// Settings of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContinualConfig {
    /// What keeps the earlier tasks.
    pub arm: Arm,
    /// Which task this is, n of the weights 1/n and 1 - 1/n; counted from 1.
    pub task: usize,
    /// Tasks of the sequence: how many parts `limbeck continual` splits the classes into.
    pub tasks: usize,
    /// Steps in which the teacher draws replay: N.
    pub teacher_steps: usize,
    /// Images that are drawn for a task and come again and again, each time with other noise; none: new ones in every iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<u64>,
    /// Factor on the replay's loss; none: the arm's own of the paper's scripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Parameterisation of a first task's network. Later tasks have their teacher's.
    pub beginning: Beginning,
    /// Steps in which the exported model draws unless told otherwise.
    pub steps: usize,
    /// Whether x0 is clipped to [-1, 1] in every step; not for points.
    pub clip: bool,
    /// A bundle that draws the replay instead of the teacher, in its own default way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<PathBuf>,
    /// Distill such a bundle from each task's model (`limbeck continual`, beginning in `edm`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_step: Option<OneStep>,
    /// Names of classes that a class-conditional teacher does not know and the new images have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

impl Default for ContinualConfig {
    fn default() -> Self {
        ContinualConfig {
            arm: Arm::default(),
            task: 1,
            tasks: 5,
            teacher_steps: 10,
            pool: None,
            lambda: None,
            beginning: Beginning::default(),
            steps: 10,
            clip: true,
            replay: None,
            one_step: None,
            classes: vec![],
        }
    }
}

impl ContinualConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// Names the key.
    pub(super) fn check(&self) -> Result<()> {
        for (key, found) in [("task", self.task), ("tasks", self.tasks), ("teacher_steps", self.teacher_steps), ("steps", self.steps)] {
            if !(1..=1000).contains(&found) {
                bail!("`method.{key}`: found {found}, expected 1 to 1000");
            }
        }
        match self.pool {
            Some(0) => bail!("`method.pool`: found 0, expected at least one image"),
            Some(_) if self.arm == Arm::Partial => bail!("`method.pool`: found one with partial generation, expected none"),
            _ => (),
        }
        if let Some(lambda) = self.lambda
            && !(lambda >= 0.0 && lambda.is_finite())
        {
            bail!("`method.lambda`: found {lambda}, expected a number from 0");
        }
        Ok(())
    }

    /// Factors of the two losses: `1/n` and `(1 - 1/n) lambda`. Arms without replay have all their weight on the real images.
    pub fn weights(&self) -> [f64; 2] {
        // The paper's scripts: of its comparison of teacher steps, and of its other arms.
        let usual = match self.arm {
            Arm::FineTune | Arm::Joint => return [1.0, 0.0],
            Arm::Replay => 1.0,
            Arm::Distillation | Arm::Partial => 0.75,
            Arm::Gaussian => 8.0,
            Arm::Lwf => 1.25,
        };
        let current = 1.0 / self.task as f64;
        [current, (1.0 - current) * self.lambda.unwrap_or(usual)]
    }

    /// Whether the arm has images drawn.
    pub fn draws(&self) -> bool {
        matches!(self.arm, Arm::Replay | Arm::Distillation | Arm::Partial) && self.weights()[1] > 0.0
    }
}
