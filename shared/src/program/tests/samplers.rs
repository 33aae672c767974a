//! Tables, orders of convergence, chains, guidance, and what is refused.

use super::*;
use crate::denoiser::{Net, lower};

/// What the probability flow makes of `eps`, exactly: the deviation from the mean scales with the marginal's.
fn exact(g: &Gaussian, eps: f64) -> f64 {
    let t = g.schedule.start();
    let (a, s) = (g.schedule.alpha(t), g.schedule.sigma(t));
    g.mu + (s * eps - a * g.mu) * g.c / (a * a * g.c * g.c + s * s).sqrt()
}

#[test]
fn ddim_tables() {
    let (g, s) = (gaussian(Schedule::Cosine), spec(Schedule::Cosine, Parameterization::X0));
    for (steps, expected) in [(10, 2.428037), (25, 2.470054), (50, 2.484810), (100, 2.492348)] {
        close(draw(&build(Sampler::Ddim, &s, steps, 1.0).unwrap(), &g, 1.0), expected, 3e-6);
    }
    let (g, s) = (gaussian(FLOW), spec(FLOW, Parameterization::X0));
    for (steps, std) in [(10, 0.430783), (25, 0.471201), (50, 0.485397), (100, 0.492645)] {
        for sampler in [Sampler::Ddim, Sampler::Euler] {
            let program = build(sampler, &s, steps, 1.0).unwrap();
            close(draw(&program, &g, 1.0) - draw(&program, &g, 0.0), std, 3e-6);
            close(draw(&program, &g, 0.0), 2.0, 3e-6);
        }
    }
}

#[test]
fn euler_on_the_velocity() {
    let (g, s) = (gaussian(FLOW), spec(FLOW, Parameterization::X0));
    for (steps, expected) in [(1, 2.0), (2, 2.2), (4, 2.340541), (8, 2.414785), (16, 2.455683), (32, 2.477364)] {
        close(draw(&build(Sampler::Euler, &s, steps, 1.0).unwrap(), &g, 1.0), expected, 3e-6);
    }
}

#[test]
fn flow_map_jumps_compose() {
    let (g, s) = (gaussian(FLOW), spec(FLOW, Parameterization::FlowMap { sigma_data: 1.0 }));
    for steps in [1, 2, 4, 8] {
        let program = build(Sampler::FlowMap, &s, steps, 1.0).unwrap();
        assert_eq!(program.evals(), steps);
        close(draw(&program, &g, 1.0), 2.5, 3e-6);
    }
    close(draw(&build(Sampler::OneStep, &s, 1, 1.0).unwrap(), &g, 1.0), 2.5, 1e-6);
    // On its diagonal the map is the velocity: Euler makes it into the ODE again.
    close(draw(&build(Sampler::Euler, &s, 4, 1.0).unwrap(), &g, 1.0), 2.340541, 3e-6);
    let mut out = [0.0];
    g.target(&[0.3], 0.25, 0.75, Label::Given, &mut out).unwrap();
    close(f64::from(out[0]), 1.381450, 1e-6);
}

#[test]
fn ddim_and_euler_agree_on_edm() {
    let s = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    let [ddim, euler] = [Sampler::Ddim, Sampler::Euler].map(|k| draw(&build(k, &s, 18, 1.0).unwrap(), &gaussian(EDM), 0.7));
    close(ddim, euler, 1e-5);
}

#[test]
fn orders_of_convergence() {
    // (sampler, calls at 16 steps, order)
    for (sampler, calls, order) in [(Sampler::Euler, 16, 1.0), (Sampler::Ddim, 16, 1.0), (Sampler::Heun, 31, 2.0)] {
        // A moderate sigma_min, so that EDM's last Euler step onto 0 does not set the error.
        for schedule in [Schedule::Edm { sigma_min: 0.002, sigma_max: 10.0, rho: 7.0 }, Schedule::Cosine, FLOW, DDPM] {
            let (g, s) = (gaussian(schedule), spec(schedule, Parameterization::X0));
            assert_eq!(build(sampler, &s, 16, 1.0).unwrap().evals(), calls);
            let error = |steps| {
                let program = build(sampler, &s, steps, 1.0).unwrap();
                let square = |eps: f32| (draw(&program, &g, eps) - exact(&g, f64::from(eps))).powi(2);
                [-1.0, 0.3, 1.0].map(square).iter().sum::<f64>().sqrt()
            };
            let (coarse, fine) = (error(64), error(256));
            let slope = (coarse / fine).log2() / 2.0;
            println!("{sampler} {schedule:?}: {coarse:.3e} {fine:.3e} order {slope:.2}");
            // DDPM's sigma grows like a root of the time at the clean end, and the last step carries a lower order into Heun's.
            let order = if sampler == Sampler::Heun && schedule == DDPM { 1.45 } else { order };
            assert!((slope - order).abs() < 0.15, "{sampler} on {schedule:?}: {coarse} {fine}: order {slope}");
        }
    }
}

#[test]
fn heun_is_algorithm_one() {
    let (g, s) = (gaussian(EDM), spec(EDM, Parameterization::Edm { sigma_data: 0.5 }));
    let times = EDM.grid(18);
    let mut x = 80.0 * 0.37;
    for i in 0..18 {
        let (t, next) = (times[i], times[i + 1]);
        let d = (x - g.mean(x, t, Label::Given)) / t;
        let euler = x + (next - t) * d;
        x = if next == 0.0 { euler } else { x + (next - t) * 0.5 * (d + (euler - g.mean(euler, next, Label::Given)) / next) };
    }
    let program = build(Sampler::Heun, &s, 18, 1.0).unwrap();
    assert_eq!(program.evals(), 35);
    close(draw(&program, &g, 0.37), x, 2e-5);
}

/// The times at which a program asks, and the noise streams it draws.
fn asked(program: &Program) -> (Vec<f64>, Vec<u32>) {
    let (mut times, mut streams) = (vec![], vec![]);
    for instr in &program.instrs {
        match instr {
            Instr::Eval(e) => times.push(e.t),
            Instr::Noise { stream, .. } => streams.push(*stream),
            Instr::Combine { .. } | Instr::Clip { .. } => {}
        }
    }
    (times, streams)
}

#[test]
fn chain_times() {
    let s = ModelSpec { init_time: Some(2.5), ..spec(EDM, Parameterization::Edm { sigma_data: 0.5 }) };
    for (steps, expected) in
        [(1, vec![2.5]), (2, vec![2.5, 0.1690]), (3, vec![2.5, 0.4676, 0.0514]), (4, vec![2.5, 0.7394, 0.1690, 0.0260])]
    {
        let (times, streams) = asked(&build(Sampler::Renoise, &s, steps, 1.0).unwrap());
        assert_eq!(streams, (0..steps as u32).collect::<Vec<_>>(), "fresh noise for each step");
        assert_eq!(times.len(), steps);
        times.iter().zip(&expected).for_each(|(t, e)| close(*t, *e, 5e-5));
    }
    let one = build(Sampler::OneStep, &s, 1, 1.0).unwrap();
    assert_eq!(one, build(Sampler::Renoise, &s, 1, 1.0).unwrap());
    close(draw(&one, &gaussian(EDM), 0.4), gaussian(EDM).mean(2.5 * f64::from(0.4f32), 2.5, Label::Given), 1e-6);
    // Stable Diffusion's linear rule, and a flow's.
    let sd = ModelSpec { init_time: Some(0.625), ..spec(DDPM, Parameterization::Eps) };
    let times = asked(&build(Sampler::Renoise, &sd, 5, 1.0).unwrap()).0;
    times.iter().zip([0.625, 0.5, 0.375, 0.25, 0.125]).for_each(|(t, e)| close(*t, e, 1e-12));
    assert_eq!(asked(&build(Sampler::Renoise, &spec(FLOW, Parameterization::X0), 4, 1.0).unwrap()).0, [0.0, 0.25, 0.5, 0.75]);
}

/// A linear denoiser with a slope of its own for each time it is asked.
struct Slopes(Vec<(f64, f64)>);

impl Denoiser for Slopes {
    fn x0(&self, x: &[f32], t: f64, _label: Label, out: &mut [f32]) {
        let slope = self.0.iter().find(|s| s.0 == t).expect("a time of the chain").1;
        out.iter_mut().zip(x).for_each(|(o, v)| *o = (slope * f64::from(*v)) as f32);
    }
}

#[test]
fn chain_statistics() {
    let s = ModelSpec { init_time: Some(2.5), ..spec(EDM, Parameterization::X0) };
    let program = build(Sampler::Renoise, &s, 4, 1.0).unwrap();
    let times = asked(&program).0;
    let posterior = |t: f64| 0.25 / (0.25 + t * t);
    let teacher = Slopes(times.iter().map(|&t| (t, posterior(t))).collect());
    let optimum = Slopes(times.iter().enumerate().map(|(k, &t)| (t, if k == 0 { 0.5 / t } else { posterior(t).sqrt() })).collect());
    optimum.0.iter().zip([0.2, 0.560189, 0.947350, 0.998653]).for_each(|(c, e)| close(c.1, e, 5e-7));
    for (k, teacher_std) in [0.09615, 0.23397, 0.25903, 0.25963].into_iter().enumerate() {
        // The first k + 1 steps are a sampler of their own: cut after the k-th call.
        let cut = program.instrs.iter().enumerate().filter(|i| matches!(i.1, Instr::Eval(_))).nth(k).unwrap().0;
        let prefix = Program { instrs: program.instrs[..=cut].to_vec(), ..program.clone() };
        for (denoiser, std) in [(&teacher, teacher_std), (&optimum, 0.5)] {
            // The output is linear in the noises: its variance is the sum of squares of its responses to each.
            let response = |j: u32| run_closed_form(&prefix, denoiser, 1, &mut |s, out| out.fill(f32::from(s == j))).unwrap()[0];
            let variance: f64 = (0..=k as u32).map(|j| f64::from(response(j)).powi(2)).sum();
            close(variance.sqrt(), std, 6e-6);
        }
    }
    // And drawn: 40,000 samples, four standard errors.
    let mut noise = |s: u32, out: &mut [f32]| crate::rng::normals(5, crate::rng::Stream::Sample(s), 0, out);
    let x = run_closed_form(&program, &optimum, 40_000, &mut noise).unwrap();
    let std = (x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 40_000.0).sqrt();
    close(std, 0.5, 4.0 * 0.5 / 80_000f64.sqrt());
}

#[test]
fn guidance() {
    let (g, s) = (gaussian(EDM), spec(EDM, Parameterization::Edm { sigma_data: 0.5 }));
    let one = |w| build(Sampler::OneStep, &s, 1, w).unwrap();
    assert_eq!([one(1.0).evals(), one(0.0).evals(), one(2.0).evals()], [1, 1, 2]);
    let x = 80.0 * f64::from(0.01f32);
    let [null, given] = [Label::Null, Label::Given].map(|l| g.mean(x, 80.0, l));
    for w in [-1.0, 0.0, 0.5, 1.0, 2.0, 4.5] {
        close(draw(&one(w), &g, 0.01), null + w * (given - null), 1e-5);
    }
    // Two calls a step, and registers shared by all steps.
    let heun = build(Sampler::Heun, &s, 10, 3.0).unwrap();
    assert_eq!(heun.evals(), 38);
    assert_eq!(heun.registers, build(Sampler::Heun, &s, 100, 3.0).unwrap().registers);
    // With equal answers guidance changes nothing.
    let same = Gaussian { schedule: EDM, mu: 0.0, c: 1.0 };
    close(draw(&heun, &same, 0.3), draw(&build(Sampler::Heun, &s, 10, 1.0).unwrap(), &same, 0.3), 1e-4);
    // A network that takes the weight is asked once.
    let student = ModelSpec { guidance_input: true, second_time: true, ..s.clone() };
    let program = build(Sampler::OneStep, &student, 1, 2.5).unwrap();
    let lowered = lower(&program, &student).unwrap();
    let nets: Vec<_> = lowered.steps.iter().filter_map(|i| if let crate::denoiser::Step::Net(n) = i { Some(n) } else { None }).collect();
    assert_eq!(nets.len(), 1);
    assert_eq!(nets[0].times, [(80f64.ln() / 4.0) as f32, 1.0, 2.5]);
}

/// Guidance from 1 to 10: the same program as without outside, twice as many calls inside, and at the interval's ends.
#[test]
fn guidance_at_some_noise_levels() {
    let s = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    let guidance: Guidance = "3@1..10".parse().unwrap();
    assert_eq!((guidance.weight, guidance.levels, guidance.to_string().as_str()), (3.0, Some([1.0, 10.0]), "3@1..10"));
    assert_eq!([0.99, 1.0, 10.0, 10.1].map(|level| guidance.at(level)), [1.0, 3.0, 3.0, 1.0]);
    assert_eq!("2.5".parse::<Guidance>().unwrap(), 2.5.into());
    for bad in ["", "x", "inf", "2@", "2@1", "2@3..1", "2@-1..1", "nan@0..1", "2@0..nan"] {
        assert!(bad.parse::<Guidance>().unwrap_err().to_string().contains("guidance"), "{bad}");
    }
    let program = build(Sampler::Euler, &s, 10, guidance).unwrap();
    let inside = |t: f64| (1.0..=10.0).contains(&t);
    let asked: Vec<(f64, Label)> =
        program.instrs.iter().filter_map(|i| if let Instr::Eval(e) = i { Some((e.t, e.label)) } else { None }).collect();
    let grid = EDM.grid(10);
    let twice = grid[..10].iter().filter(|&&t| inside(t)).count();
    assert!(twice > 1 && asked.len() == 10 + twice, "{twice} of 10 levels, {} calls", asked.len());
    assert!(asked.iter().all(|&(t, label)| label == Label::Given || inside(t)));
    let all = build(Sampler::Euler, &s, 10, "3@0..inf".parse::<Guidance>().unwrap()).unwrap();
    assert_eq!(all, build(Sampler::Euler, &s, 10, 3.0).unwrap());
    // One step within: the weighted answer; one without: the plain one.
    let g = gaussian(EDM);
    let drawn = |guidance: Guidance| draw(&build(Sampler::OneStep, &s, 1, guidance).unwrap(), &g, 0.01);
    let level = EDM.start();
    let outside = Guidance { weight: 3.0, levels: Some([0.0, 0.5 * level]) };
    let within = Guidance { weight: 3.0, levels: Some([0.5 * level, level]) };
    assert_eq!(drawn(outside), drawn(1.0.into()));
    assert_eq!(drawn(within), drawn(3.0.into()));
    // A network that takes the weight takes 1 outside.
    let student = ModelSpec { guidance_input: true, second_time: true, ..s };
    let weight = |guidance: Guidance| match build(Sampler::OneStep, &student, 1, guidance).unwrap().instrs.pop() {
        Some(Instr::Eval(e)) => e.guidance,
        other => panic!("{other:?}"),
    };
    assert_eq!([weight(outside), weight(within)], [Some(1.0), Some(3.0)]);
}

#[test]
fn what_cannot_be_built() {
    let edm = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    let student = ModelSpec { second_time: true, ..edm.clone() };
    let unconditional = ModelSpec { null_label: false, ..edm.clone() };
    let flow = spec(FLOW, Parameterization::Flow);
    let bad = [
        (Sampler::Heun, &edm, 0, 1.0),
        (Sampler::Heun, &edm, MAX_STEPS + 1, 1.0),
        (Sampler::OneStep, &edm, 2, 1.0),
        (Sampler::Heun, &edm, 4, f64::NAN),
        (Sampler::FlowMap, &edm, 4, 1.0),
        (Sampler::Heun, &student, 4, 1.0),
        (Sampler::Renoise, &student, 4, 1.0),
        (Sampler::Heun, &unconditional, 4, 2.0),
        (Sampler::FlowEuler, &flow, 4, 1.0),
    ];
    for (sampler, spec, steps, guidance) in bad {
        assert!(matches!(build(sampler, spec, steps, guidance), Err(Error::Config { .. })), "{sampler} {steps} {guidance}");
    }
    for sampler in Sampler::ALL {
        assert_eq!(sampler.name().parse::<Sampler>().unwrap(), sampler);
        assert_eq!(serde_json::to_string(&sampler).unwrap(), format!("\"{sampler}\""));
    }
    assert!("heun2".parse::<Sampler>().is_err());
    // The longest programs are still valid, and keep to few registers.
    for sampler in [Sampler::Heun, Sampler::FlowEuler, Sampler::Renoise] {
        assert!(build(sampler, &edm, MAX_STEPS, 2.0).unwrap().registers <= 8);
    }
}

#[test]
fn validation() {
    let noise = Instr::Noise { dst: 0, stream: 0 };
    let combine = |dst, terms: &[(f64, Reg)]| Instr::Combine { dst, terms: terms.to_vec() };
    let eval = Eval { dst: 1, src: 0, net: 0, t: 1.0, target: None, label: Label::Given, guidance: None };
    let program = |instrs: &[Instr]| Program { registers: 2, instrs: instrs.to_vec(), output: 1 };
    program(&[noise.clone(), Instr::Eval(eval)]).validate().unwrap();
    let bad = [
        program(&[]),
        program(std::slice::from_ref(&noise)),
        program(&[Instr::Eval(eval)]),
        program(&[noise.clone(), Instr::Eval(Eval { dst: 0, ..eval })]),
        program(&[noise.clone(), Instr::Eval(Eval { dst: 2, ..eval })]),
        program(&[noise.clone(), Instr::Eval(Eval { t: f64::NAN, ..eval })]),
        program(&[noise.clone(), combine(1, &[])]),
        program(&[noise.clone(), combine(1, &[(1.0, 0); 5])]),
        program(&[noise.clone(), combine(1, &[(1.0, 1)])]),
        program(&[noise.clone(), combine(1, &[(f64::INFINITY, 0)])]),
        program(&[noise.clone(), combine(1, &[(1.0, 0)]), Instr::Noise { dst: 0, stream: u32::MAX }]),
        Program { registers: 17, ..program(&[noise.clone(), Instr::Eval(eval)]) },
    ];
    for p in bad {
        assert!(matches!(p.validate(), Err(Error::Config { .. })), "{p:?}");
        assert!(lower(&p, &spec(EDM, Parameterization::X0)).is_err());
        assert!(run_closed_form(&p, &gaussian(EDM), 1, &mut |_, out| out.fill(0.0)).is_err());
    }
    struct Other;
    impl Net for Other {
        fn shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }
        fn eval(&self, _: &[f32], _: usize, _: &[f32], _: &[u32], _: &mut [f32]) -> Result<()> {
            Ok(())
        }
    }
    // A program that names a network that is not there.
    let p = program(&[noise, Instr::Eval(Eval { net: 3, ..eval })]);
    assert_eq!(p.networks(), 4);
    assert!(run(&lower(&p, &spec(EDM, Parameterization::X0)).unwrap(), &[&Other], 0, 0, &[0], 0).is_err());
}
