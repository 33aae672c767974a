//! The samplers: pure functions from (model, steps, guidance) to a program.

use super::{Eval, Guidance, Instr, Label, ModelSpec, Parameterization, Program, Reg};
use crate::denoiser::conversion_alpha;
use crate::error::{Error, Result};
use crate::schedule::{Schedule, boot_kappa, flow_sigma};
use serde::{Deserialize, Serialize};

/// The most steps a sampler is built with.
pub const MAX_STEPS: usize = 1000;

/// A sampling algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// One call on pure noise: one-step students (SiD, Zhou et al. 2024; BOOT, Gu et al. 2023).
    OneStep,
    /// Euler's method on the probability-flow ODE in the schedule's time (Song et al. 2021).
    Euler,
    /// Deterministic DDIM (Song et al. 2020, eq. 12 with eta 0); on the EDM schedule the same as [`Sampler::Euler`].
    Ddim,
    /// DDIM whose x0 is clipped to [-1, 1] in every step, the noise staying what the network answered (diffusers' `clip_sample`).
    DdimClipped,
    /// Heun's method on the probability-flow ODE (Karras et al. 2022, Algorithm 1).
    Heun,
    /// Denoise, add fresh noise at a lower level, repeat: few-step SiD and multistep consistency.
    Renoise,
    /// Jumps of a flow map over a uniform grid (Boffi et al. 2025).
    FlowMap,
    /// An EDM teacher's probability flow by Euler steps uniform in linear-flow time: DDIM at `sigma = (1 - t) sigma_data / t`,
    /// whose one-step distillation is BOOT.
    FlowEuler,
}

impl Sampler {
    /// All of them.
    pub const ALL: [Sampler; 8] = [
        Sampler::OneStep,
        Sampler::Euler,
        Sampler::Ddim,
        Sampler::DdimClipped,
        Sampler::Heun,
        Sampler::Renoise,
        Sampler::FlowMap,
        Sampler::FlowEuler,
    ];

    /// The name in files, links and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sampler::OneStep => "one_step",
            Sampler::Euler => "euler",
            Sampler::Ddim => "ddim",
            Sampler::DdimClipped => "ddim_clipped",
            Sampler::Heun => "heun",
            Sampler::Renoise => "renoise",
            Sampler::FlowMap => "flow_map",
            Sampler::FlowEuler => "flow_euler",
        }
    }
}

impl std::fmt::Display for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Sampler {
    type Err = Error;

    fn from_str(s: &str) -> Result<Sampler> {
        Sampler::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| {
            let names: Vec<&str> = Sampler::ALL.iter().map(|k| k.name()).collect();
            Error::config("sampler", s, format!("one of {}", names.join(", ")))
        })
    }
}

/// The program of a sampler on a model.
///
/// `steps` is the number of time steps, 1 to [`MAX_STEPS`] (Heun makes `2 steps - 1` calls); `guidance` is a weight `w`, or a
/// [`Guidance`] at some noise levels: one call at `w = 1` and at `w = 0`, one call with `w` as an input where the network takes it,
/// two calls otherwise.
///
/// # Errors
/// [`Error::Config`] if the model cannot run the sampler or the guidance.
pub fn build(sampler: Sampler, spec: &ModelSpec, steps: usize, guidance: impl Into<Guidance>) -> Result<Program> {
    let guidance = guidance.into();
    spec.validate()?;
    if steps == 0 || steps > MAX_STEPS || (sampler == Sampler::OneStep && steps != 1) {
        let expected = if sampler == Sampler::OneStep { "1".into() } else { format!("1 to {MAX_STEPS}") };
        return Err(Error::config("steps", steps, expected));
    }
    if !guidance.is_sound() {
        return Err(Error::config("guidance", guidance, "a finite weight, at levels that rise from 0 or more"));
    }
    if guidance.weight != 1.0 && !spec.guidance_input && !spec.null_label {
        return Err(Error::config("guidance", guidance, "1: the model has neither a null label nor a guidance input"));
    }
    let is_map = spec.parameterization.is_flow_map();
    if spec.second_time && !is_map && sampler != Sampler::OneStep {
        return Err(Error::config("sampler", sampler, "one_step: the network answers for pure noise only"));
    }
    if sampler == Sampler::FlowMap && !is_map {
        return Err(Error::config("sampler", sampler, "another: the model is no flow map"));
    }
    let mut b = Builder { spec, guidance, instrs: vec![], registers: 0, guided: None };
    let output = match sampler {
        Sampler::OneStep => b.renoise(1),
        Sampler::Euler => b.euler(steps),
        Sampler::Ddim => b.ddim(steps),
        Sampler::DdimClipped => b.ddim_clipped(steps),
        Sampler::Heun => b.heun(steps),
        Sampler::Renoise => b.renoise(steps),
        Sampler::FlowMap => b.flow_map(steps),
        Sampler::FlowEuler => match (spec.schedule, spec.parameterization) {
            (Schedule::Edm { sigma_max, .. }, Parameterization::Edm { sigma_data }) => b.flow_euler(steps, sigma_data, sigma_max),
            _ => return Err(Error::config("sampler", sampler, "another: the model is no EDM network on the EDM schedule")),
        },
    };
    let program = Program { registers: b.registers, instrs: b.instrs, output };
    program.validate()?;
    Ok(program)
}

/// `x_s = a x_t + b x0` of one DDIM step (Song et al. 2020): the ODE's exact solution while x0 stays what it is.
fn ddim_step(schedule: &Schedule, t: f64, s: f64) -> [f64; 2] {
    let keep = schedule.sigma(s) / schedule.sigma(t);
    [keep, schedule.alpha(s) - schedule.alpha(t) * keep]
}

/// `dx/dt = a x + b x0` of the probability-flow ODE, `alpha' x0 + sigma' eps` (Song et al. 2021; Karras et al. 2022, eq. 4).
fn drift(schedule: &Schedule, t: f64) -> [f64; 2] {
    let rate = schedule.d_sigma(t) / schedule.sigma(t);
    [rate, schedule.d_alpha(t) - schedule.alpha(t) * rate]
}

/// `x_s = a x_t + b x0` of one Euler step. The last step, onto `sigma = 0`, is DDIM's: the drift is singular there, and for the
/// EDM and the flow schedule the two are the same.
fn euler_step(schedule: &Schedule, t: f64, s: f64) -> [f64; 2] {
    if s == schedule.end() {
        return ddim_step(schedule, t, s);
    }
    let [a, b] = drift(schedule, t);
    [1.0 + (s - t) * a, (s - t) * b]
}

struct Builder<'a> {
    spec: &'a ModelSpec,
    guidance: Guidance,
    instrs: Vec<Instr>,
    registers: usize,
    /// Registers of the two answers that guidance mixes.
    guided: Option<[Reg; 2]>,
}

impl Builder<'_> {
    fn reg(&mut self) -> Reg {
        self.registers += 1;
        self.registers - 1
    }

    fn noise(&mut self, dst: Reg, stream: usize) {
        // Steps are bounded by MAX_STEPS, so the stream's number fits.
        self.instrs.push(Instr::Noise { dst, stream: stream as u32 });
    }

    /// Terms with a zero coefficient are left out, so that a register never written is never read.
    fn combine(&mut self, dst: Reg, terms: &[(f64, Reg)]) {
        let terms = terms.iter().copied().filter(|t| t.0 != 0.0).collect();
        self.instrs.push(Instr::Combine { dst, terms });
    }

    /// Asks the network, with guidance (Ho and Salimans 2022).
    fn eval(&mut self, dst: Reg, src: Reg, t: f64, target: Option<f64>) {
        let call = |dst, label, guidance| Instr::Eval(Eval { dst, src, net: 0, t, target, label, guidance });
        let w = self.guidance.at(self.spec.schedule.noise_ratio(t));
        if self.spec.guidance_input {
            self.instrs.push(call(dst, Label::Given, Some(w)));
        } else if w == 1.0 || w == 0.0 {
            self.instrs.push(call(dst, if w == 1.0 { Label::Given } else { Label::Null }, None));
        } else {
            let [given, null] = match self.guided {
                Some(pair) => pair,
                None => [self.reg(), self.reg()],
            };
            self.guided = Some([given, null]);
            self.instrs.push(call(given, Label::Given, None));
            self.instrs.push(call(null, Label::Null, None));
            self.combine(dst, &[(1.0 - w, null), (w, given)]);
        }
    }

    /// Pure noise at the schedule's noisiest time, `x = sigma eps`, in a new register.
    fn start(&mut self) -> Reg {
        let (eps, x) = (self.reg(), self.reg());
        let schedule = self.spec.schedule;
        self.noise(eps, 0);
        self.combine(x, &[(schedule.sigma(schedule.start()), eps)]);
        x
    }

    /// Methods with one call a step, `x_s = a x_t + b x0`, on the schedule's grid.
    fn linear_steps(&mut self, steps: usize, step: fn(&Schedule, f64, f64) -> [f64; 2]) -> Reg {
        let schedule = self.spec.schedule;
        let (mut x, mut next, x0) = (self.start(), self.reg(), self.reg());
        for pair in schedule.grid(steps).windows(2) {
            self.eval(x0, x, pair[0], None);
            let [a, b] = step(&schedule, pair[0], pair[1]);
            self.combine(next, &[(a, x), (b, x0)]);
            (x, next) = (next, x);
        }
        x
    }

    /// Euler's method on the probability-flow ODE (Song et al. 2021).
    fn euler(&mut self, steps: usize) -> Reg {
        self.linear_steps(steps, euler_step)
    }

    /// Deterministic DDIM (Song et al. 2020).
    fn ddim(&mut self, steps: usize) -> Reg {
        self.linear_steps(steps, ddim_step)
    }

    /// DDIM with a clipped x0: `x_s = alpha_s clip(x0) + sigma_s eps`, where `eps = (x_t - alpha_t x0) / sigma_t` is the answer's
    /// own. The schedule's uniform grid is the "trailing" one: the first step is asked at the noisiest time.
    fn ddim_clipped(&mut self, steps: usize) -> Reg {
        let schedule = self.spec.schedule;
        let (mut x, mut next, x0, clipped) = (self.start(), self.reg(), self.reg(), self.reg());
        for pair in schedule.grid(steps).windows(2) {
            self.eval(x0, x, pair[0], None);
            self.instrs.push(Instr::Clip { dst: clipped, src: x0, limit: 1.0 });
            let keep = schedule.sigma(pair[1]) / schedule.sigma(pair[0]);
            self.combine(next, &[(schedule.alpha(pair[1]), clipped), (keep, x), (-keep * conversion_alpha(self.spec, pair[0]), x0)]);
            (x, next) = (next, x);
        }
        x
    }

    /// Heun's method, the last step Euler's (Karras et al. 2022, Algorithm 1), in the schedule's time.
    fn heun(&mut self, steps: usize) -> Reg {
        let schedule = self.spec.schedule;
        let (mut x, mut next, x0, x0_next) = (self.start(), self.reg(), self.reg(), self.reg());
        for pair in schedule.grid(steps).windows(2) {
            let (t, s) = (pair[0], pair[1]);
            self.eval(x0, x, t, None);
            let [a, b] = euler_step(&schedule, t, s);
            self.combine(next, &[(a, x), (b, x0)]);
            if s != schedule.end() {
                self.eval(x0_next, next, s, None);
                // x + h/2 (drift(x) + drift(x')), with x' = a x + b x0 written out, so that nothing reads what it writes.
                let half = 0.5 * (s - t);
                let ([a1, b1], [a2, b2]) = (drift(&schedule, t), drift(&schedule, s));
                let terms = [(1.0 + half * (a1 + a2 * a), x), (half * (b1 + a2 * b), x0), (half * b2, x0_next)];
                self.combine(next, &terms);
            }
            (x, next) = (next, x);
        }
        x
    }

    /// Few-step SiD (Zhou et al. 2025, "uniform matching") and multistep consistency (Song et al. 2023, Algorithm 1): `x0` at
    /// falling times, linear in the schedule's uniform time from the model's first, fresh noise before each. One step is the
    /// one-step student's sampler.
    fn renoise(&mut self, steps: usize) -> Reg {
        let schedule = self.spec.schedule;
        let init = self.spec.init_time.unwrap_or(schedule.start());
        let target = self.spec.second_time.then_some(1.0);
        let (eps, x, x0) = (self.reg(), self.reg(), self.reg());
        for (k, t) in schedule.renoised(init, steps).into_iter().enumerate() {
            self.noise(eps, k);
            // The first input has no image in it, though alpha may not be 0.
            let alpha = if k == 0 { 0.0 } else { schedule.alpha(t) };
            self.combine(x, &[(alpha, x0), (schedule.sigma(t), eps)]);
            self.eval(x0, x, t, target);
        }
        x0
    }

    /// Jumps `x <- X_{i/N, (i+1)/N}(x)` of a flow map (Boffi et al. 2025).
    fn flow_map(&mut self, steps: usize) -> Reg {
        let (mut x, mut next) = (self.start(), self.reg());
        for pair in self.spec.schedule.grid(steps).windows(2) {
            self.eval(next, x, pair[0], Some(pair[1]));
            (x, next) = (next, x);
        }
        x
    }

    /// The teacher that BOOT distills (Gu et al. 2023, Signal-ODE): Euler in linear-flow time for an EDM network, on the signal
    /// `y` of `x_t = t y + (1 - t) base eps`. The network's input is `x_t / t = y + sigma eps`; pure noise stands for itself at
    /// `sigma_max`.
    fn flow_euler(&mut self, steps: usize, base_std: f64, sigma_max: f64) -> Reg {
        let flow = Schedule::Flow { base_std };
        let (eps, x, f, mut y, mut next) = (self.reg(), self.reg(), self.reg(), self.reg(), self.reg());
        self.noise(eps, 0);
        for pair in flow.grid(steps).windows(2) {
            let sigma = flow_sigma(base_std, sigma_max, pair[0]);
            let kappa = boot_kappa(&flow, pair[1], pair[0]);
            // At time 0 there is no signal yet, and kappa = 0 leaves it out again.
            let signal = if pair[0] == flow.start() { 0.0 } else { 1.0 };
            self.combine(x, &[(signal, y), (sigma, eps)]);
            self.eval(f, x, sigma, None);
            self.combine(next, &[(1.0 - kappa, f), (kappa, y)]);
            (y, next) = (next, y);
        }
        y
    }
}
