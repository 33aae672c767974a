//! DDIM on DDPM's schedules, and with a clipped x0.

use super::*;
use crate::denoiser::{Net, adapter, lower};

/// Standard deviation of what the exact model of `N(0, 1)` draws, as DDIM's shrinking steps leave it.
fn drawn_std(sampler: Sampler, steps: usize) -> f64 {
    let s = spec(ZERO_SNR, Parameterization::X0);
    draw(&build(sampler, &s, steps, 1.0).unwrap(), &Gaussian { schedule: ZERO_SNR, mu: 0.0, c: 1.0 }, 1.0)
}

#[test]
fn few_steps_lose_contrast() {
    for (steps, std) in [(1, 0.0), (2, 0.2650), (5, 0.6777), (10, 0.8282), (20, 0.9106), (100, 0.9814)] {
        close(drawn_std(Sampler::Ddim, steps), std, 1e-3);
        // Noise 1 leads to x0 within 1 on the whole way, so that clipping changes nothing.
        close(drawn_std(Sampler::DdimClipped, steps), std, 1e-3);
    }
}

#[test]
fn what_is_clipped_is_x0_and_not_the_noise() {
    // Data at mean 3: x0 is above 1 from the first step to the last, the noise the exact one.
    let g = Gaussian { schedule: DDPM, mu: 3.0, c: 0.25 };
    let s = spec(DDPM, Parameterization::X0);
    let program = build(Sampler::DdimClipped, &s, 4, 1.0).unwrap();
    for eps in [-1.0f64, 0.4] {
        let mut x = DDPM.sigma(1.0) * eps;
        for pair in DDPM.grid(4).windows(2) {
            let x0 = g.mean(x, pair[0], Label::Given);
            let noise = (x - DDPM.alpha(pair[0]) * x0) / DDPM.sigma(pair[0]);
            x = DDPM.alpha(pair[1]) * x0.clamp(-1.0, 1.0) + DDPM.sigma(pair[1]) * noise;
        }
        close(draw(&program, &g, eps as f32), x, 1e-6);
        close(x, 1.0, 1e-6);
    }
    let unclipped = draw(&build(Sampler::Ddim, &s, 4, 1.0).unwrap(), &g, 0.4);
    assert!(unclipped > 2.5, "{unclipped}");
}

/// Answers the same noise to everything.
struct Constant(f32);

impl Net for Constant {
    fn shape(&self) -> [usize; 3] {
        [1, 1, 1]
    }
    fn eval(&self, _: &[f32], _: usize, _: &[f32], _: &[u32], out: &mut [f32]) -> Result<()> {
        out.fill(self.0);
        Ok(())
    }
}

#[test]
fn noise_alone_is_read_as_x0_by_the_guarded_division() {
    let s = spec(ZERO_SNR, Parameterization::Eps);
    let a = adapter(&s, 1.0, None).unwrap();
    close(a.c_skip, 1e4, 1e-6);
    close(a.c_out, -1e4, 1e-6);
    // The first step, by hand: x0 = clip(1e4 (x - eps)), then alpha_499 x0 + sigma_499 eps; and the second onto alpha = 1.
    let lowered = lower(&build(Sampler::DdimClipped, &s, 2, 1.0).unwrap(), &s).unwrap();
    for (latent, answer, first) in [(0.5f32, 0.3f32, 1.0), (0.2, 0.3, -1.0), (0.3, 0.3, 0.0)] {
        let x = run_from(&lowered, &[&Constant(answer)], &mut |_, _, out| out.fill(latent), &[0], 0).unwrap();
        let (alpha, sigma) = (ZERO_SNR.alpha(0.5), ZERO_SNR.sigma(0.5));
        let middle = alpha * first + sigma * f64::from(answer);
        let want = (middle - sigma * f64::from(answer)) / (alpha * alpha + 1e-8f64).sqrt();
        close(f64::from(x[0]), want.clamp(-1.0, 1.0), 2e-3);
    }
}

#[test]
fn a_path_shows_the_clipped_answer() {
    let g = Gaussian { schedule: DDPM, mu: 3.0, c: 0.25 };
    let program = build(Sampler::DdimClipped, &spec(DDPM, Parameterization::X0), 3, 1.0).unwrap();
    let moments = moments(&program);
    assert_eq!(moments.len(), 3);
    for m in moments {
        let cut = Program { instrs: program.instrs[..m.answer.after].to_vec(), output: m.answer.reg, ..program };
        assert_eq!(draw(&cut, &g, 0.3), 1.0);
    }
}

#[test]
fn limits_are_checked() {
    let noise = Instr::Noise { dst: 0, stream: 0 };
    let program = |limit| Program { registers: 2, instrs: vec![noise.clone(), Instr::Clip { dst: 1, src: 0, limit }], output: 1 };
    program(0.5).validate().unwrap();
    for limit in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(program(limit).validate().is_err());
    }
}
