//! States on the way from noise to image.

use super::*;

/// A program that stops where something is kept.
fn stopped(program: &Program, keep: Keep) -> Program {
    Program { instrs: program.instrs[..keep.after].to_vec(), output: keep.reg, ..program.clone() }
}

#[test]
fn one_state_for_each_step_at_the_times_of_the_grid() {
    for (sampler, schedule) in [(Sampler::Euler, EDM), (Sampler::Heun, EDM), (Sampler::Ddim, DDPM), (Sampler::Heun, FLOW)] {
        for guidance in [1.0, 2.5] {
            let program = build(sampler, &spec(schedule, Parameterization::X0), 6, guidance).unwrap();
            let times: Vec<f64> = moments(&program).iter().map(|m| m.t).collect();
            assert_eq!(times, schedule.grid(6)[..6], "{sampler}");
        }
    }
    let renoised = build(Sampler::Renoise, &spec(EDM, Parameterization::X0), 4, 1.0).unwrap();
    assert_eq!(moments(&renoised).len(), 4);
}

/// The states are those that the sampler goes on from, not Heun's trial states: they lie on the exact trajectory, whose error at
/// second order is a hundredth of the trial states' at this many steps.
#[test]
fn heun_states_lie_on_the_trajectory() {
    let data = gaussian(EDM);
    let program = build(Sampler::Heun, &spec(EDM, Parameterization::X0), 100, 1.0).unwrap();
    let moments = moments(&program);
    let deviation = |sigma: f64| (sigma * sigma + data.c * data.c).sqrt();
    for m in &moments {
        let exact = data.mu + deviation(m.t) / deviation(80.0) * (80.0 * 0.7 - data.mu);
        let state = draw(&stopped(&program, m.state), &data, 0.7);
        close(state / deviation(m.t), exact / deviation(m.t), 1e-3);
        close(draw(&stopped(&program, m.answer), &data, 0.7), data.mean(state, m.t, Label::Given), 1e-5);
    }
}

#[test]
fn answers_are_guided() {
    let data = gaussian(EDM);
    for sampler in [Sampler::Heun, Sampler::FlowEuler] {
        let program = build(sampler, &spec(EDM, Parameterization::Edm { sigma_data: 0.5 }), 5, 3.0).unwrap();
        for m in moments(&program) {
            let x = draw(&stopped(&program, m.state), &data, -0.4);
            let [given, null] = [Label::Given, Label::Null].map(|l| data.mean(x, m.t, l));
            let tolerance = 1e-4 * (1.0 + given.abs() + null.abs());
            close(draw(&stopped(&program, m.answer), &data, -0.4), null + 3.0 * (given - null), tolerance);
        }
    }
}
