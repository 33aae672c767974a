//! A linear oracle behind every parameterisation must answer with the same x0.

use super::*;
use crate::program::{Eval, Instr, Program, Sampler, build, run};
use crate::rng::{self, Stream};

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}

fn spec(schedule: Schedule, parameterization: Parameterization) -> ModelSpec {
    let second_time = parameterization.is_flow_map();
    ModelSpec { schedule, parameterization, second_time, guidance_input: false, null_label: false, init_time: None }
}

const EDM: Schedule = Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 };
const DDPM: Schedule = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };

/// What the oracle holds true: `E[x0 | x]` is `0.3 x + 0.1`.
fn oracle(x: f64) -> f64 {
    0.3 * x + 0.1
}

/// A network whose raw output encodes [`oracle`] by the parameterisation's definition, written without [`adapter`].
struct Wrapped {
    spec: ModelSpec,
    t: f64,
}

impl Net for Wrapped {
    fn shape(&self) -> [usize; 3] {
        [1, 2, 2]
    }

    fn eval(&self, x: &[f32], n: usize, times: &[f32], _labels: &[u32], out: &mut [f32]) -> Result<()> {
        assert_eq!((x.len(), times.len()), (4 * n, 1 + usize::from(self.spec.second_time)));
        let (s, t) = (&self.spec.schedule, self.t);
        let (alpha, sigma) = (s.alpha(t), s.sigma(t));
        for (o, &input) in out.iter_mut().zip(x) {
            let input = f64::from(input);
            let f = match self.spec.parameterization {
                Parameterization::X0 => oracle(input),
                Parameterization::Eps => (input - alpha * oracle(input)) / sigma,
                Parameterization::V => {
                    let eps = (input - alpha * oracle(input)) / sigma;
                    alpha * eps - sigma * oracle(input)
                }
                Parameterization::Flow => {
                    let eps = (input - alpha * oracle(input)) / sigma;
                    s.d_alpha(t) * oracle(input) + s.d_sigma(t) * eps
                }
                Parameterization::Edm { sigma_data: d } => {
                    // Karras et al. 2022, Table 1, at sigma / alpha and x / alpha; their limit where alpha is 0.
                    let r = sigma / alpha;
                    if r.is_infinite() {
                        oracle(input * sigma) / d
                    } else {
                        let c_skip = d * d / (r * r + d * d);
                        let c_out = r * d / (r * r + d * d).sqrt();
                        let x = input * (r * r + d * d).sqrt();
                        (oracle(x * alpha) - c_skip * x) / c_out
                    }
                }
                Parameterization::FlowMap { sigma_data: d } => (oracle(input * d) - input * d) / (1.0 - t) / d,
                Parameterization::EdmFlowMap { sigma_data: d } => {
                    // As the EDM network of Karras et al. 2022 on x / t, its input scaled by theirs.
                    let r = d * (1.0 - t) / t;
                    if r.is_infinite() {
                        oracle(input * d) / d
                    } else {
                        let scaled = input * (r * r + d * d).sqrt();
                        let c_skip = d * d / (r * r + d * d);
                        (oracle(scaled * t) - c_skip * scaled) / (r * d / (r * r + d * d).sqrt())
                    }
                }
            };
            *o = f as f32;
        }
        Ok(())
    }
}

/// One `Eval` at time `t` on noise times `scale`: the input and the answer.
fn one_eval(spec: &ModelSpec, t: f64, scale: f64, net: &dyn Net) -> Result<(Vec<f32>, Vec<f32>)> {
    let eval = Eval { dst: 2, src: 1, net: 0, t, target: None, label: Label::Given, guidance: None };
    let mut program = Program {
        registers: 3,
        instrs: vec![Instr::Noise { dst: 0, stream: 0 }, Instr::Combine { dst: 1, terms: vec![(scale, 0)] }, Instr::Eval(eval)],
        output: 2,
    };
    let answer = run(&lower(&program, spec)?, &[net], 3, 0, &[0; 5], 0)?;
    program.output = 1;
    let input = run(&lower(&program, spec)?, &[net], 3, 0, &[0; 5], 0)?;
    Ok((input, answer))
}

#[test]
fn every_parameterization_answers_the_same_x0() {
    use Parameterization::*;
    let mut checked = 0;
    for schedule in [EDM, DDPM, Schedule::Cosine, Schedule::Flow { base_std: 1.0 }, Schedule::Flow { base_std: 0.5 }] {
        for parameterization in [
            X0,
            Eps,
            V,
            Flow,
            Edm { sigma_data: 0.5 },
            Edm { sigma_data: 1.3 },
            FlowMap { sigma_data: 0.5 },
            EdmFlowMap { sigma_data: 0.5 },
        ] {
            let spec = spec(schedule, parameterization);
            if spec.validate().is_err() {
                assert!(spec.second_time);
                continue;
            }
            let times = [schedule.start(), schedule.at_uniform(0.9), schedule.at_uniform(0.5), schedule.at_uniform(0.2)];
            for t in times {
                let result = one_eval(&spec, t, 1.0, &Wrapped { spec: spec.clone(), t });
                if parameterization == Eps && schedule.alpha(t) == 0.0 {
                    assert!(matches!(result, Err(Error::Config { .. })));
                    continue;
                }
                let (input, answer) = result.unwrap();
                // Where x0 is a small difference of large terms, f32 outputs are amplified by c_out.
                let tolerance = 1e-5f64.max(2e-7 * adapter(&spec, t, None).unwrap().c_out.abs());
                for (x, y) in input.iter().zip(&answer) {
                    close(f64::from(*y), oracle(f64::from(*x)), tolerance);
                }
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 5 * 6 * 4 + 2 * 4 + 4 - 3);
}

#[test]
fn edm_check_values() {
    let spec = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    for (sigma, c_skip, c_out, c_in, c_noise, weight) in
        [(0.5, 0.5, 0.353553, std::f64::consts::SQRT_2, -0.173287, 8.0), (2.5, 0.038462, 0.490290, 0.392232, 0.229073, 4.16)]
    {
        let a = adapter(&spec, sigma, None).unwrap();
        close(a.c_skip, c_skip, 5e-7);
        close(a.c_out, c_out, 5e-7);
        close(a.c_in, c_in, 5e-7);
        close(noise_input(&spec, sigma), c_noise, 5e-7);
        close(edm_weight(sigma, 0.5), weight, 1e-12);
        close(edm_weight(sigma, 0.5) * a.c_out * a.c_out, 1.0, 1e-14);
    }
    close(adapter(&spec, 0.002, None).unwrap().c_skip, 0.999984, 5e-7);
    close(edm_weight(0.002, 0.5), 250_004.0, 1e-6);
}

#[test]
fn edm_at_pure_noise_of_a_flow() {
    let flow = spec(Schedule::Flow { base_std: 0.5 }, Parameterization::Edm { sigma_data: 0.5 });
    assert_eq!(adapter(&flow, 0.0, None).unwrap(), Adapter { c_in: 2.0, c_skip: 0.0, c_out: 0.5 });
    assert_eq!(time_inputs(&flow, 0.0, None, None).unwrap(), [(80f64.ln() / 4.0) as f32]);
    // Inside, the conversion is that of sigma / alpha on x / alpha.
    let edm = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    for t in [0.1, 0.5, 0.9] {
        let (a, b) = (adapter(&flow, t, None).unwrap(), adapter(&edm, 0.5 * (1.0 - t) / t, None).unwrap());
        close(a.c_in, b.c_in / t, 1e-13);
        close(a.c_skip, b.c_skip / t, 1e-13);
        close(a.c_out, b.c_out, 1e-13);
    }
}

#[test]
fn time_inputs_are_in_slot_order() {
    let mut s = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    assert_eq!(time_inputs(&s, 1.0, None, None).unwrap(), [0.0]);
    assert!(time_inputs(&s, 0.0, None, None).is_err(), "ln 0");
    assert!(time_inputs(&s, 1.0, Some(1.0), None).is_err());
    assert!(time_inputs(&s, 1.0, None, Some(2.0)).is_err());
    s.guidance_input = true;
    assert_eq!(time_inputs(&s, 1.0, None, Some(2.0)).unwrap(), [0.0, 2.0]);
    assert_eq!(time_inputs(&s, 1.0, None, None).unwrap(), [0.0, 1.0]);
    s.second_time = true;
    assert_eq!(time_inputs(&s, 1.0, Some(0.25), Some(2.0)).unwrap(), [0.0, 0.25, 2.0]);
    assert!(time_inputs(&s, 1.0, None, None).is_err());
    let ddpm = spec(DDPM, Parameterization::Eps);
    close(noise_input(&ddpm, 1.0), 999.0, 1e-9);
    close(noise_input(&ddpm, 1e-3), 0.0, 1e-9);
    close(noise_input(&spec(Schedule::Cosine, Parameterization::V), 0.5), 500.0, 1e-9);
    let map = spec(Schedule::Flow { base_std: 0.5 }, Parameterization::FlowMap { sigma_data: 0.5 });
    assert_eq!(time_inputs(&map, 0.25, Some(0.75), None).unwrap(), [0.25, 0.75]);
    assert_eq!(time_inputs(&map, 0.25, None, None).unwrap(), [0.25, 0.25]);
    let map = spec(Schedule::Flow { base_std: 0.5 }, Parameterization::EdmFlowMap { sigma_data: 0.5 });
    // sigma = 0.5 (1 - t) / t, within what EDM networks know.
    for (t, sigma) in [(0.0, EDM_SIGMA_MAX), (0.25, 1.5), (0.5, 0.5), (1.0, EDM_SIGMA_MIN)] {
        assert_eq!(time_inputs(&map, t, Some(1.0), None).unwrap(), [(0.25 * f64::ln(sigma)) as f32, 1.0]);
    }
}

/// Remembers nothing and answers with a fixed function of the input, the first time and the label.
struct Probe;

impl Net for Probe {
    fn shape(&self) -> [usize; 3] {
        [1, 1, 2]
    }

    fn eval(&self, x: &[f32], n: usize, times: &[f32], labels: &[u32], out: &mut [f32]) -> Result<()> {
        assert_eq!(labels.len(), n);
        for (k, (o, v)) in out.iter_mut().zip(x).enumerate() {
            *o = 0.5 * v + times[0] + labels[k / 2] as f32;
        }
        Ok(())
    }
}

/// A BOOT student whose target-time input does nothing yet (zero-initialised) is its teacher at sigma_max: the boundary loss
/// starts at 0.
#[test]
fn a_fresh_boot_student_is_its_teacher_at_pure_noise() {
    let teacher = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    let student = ModelSpec { second_time: true, ..teacher.clone() };
    let draw = |spec| run(&lower(&build(Sampler::OneStep, spec, 1, 1.0).unwrap(), spec).unwrap(), &[&Probe], 9, 0, &[1, 2], 0).unwrap();
    assert_eq!(draw(&teacher), draw(&student));
    // And both are c_skip x + c_out F(c_in x, ln(80) / 4) for x = 80 eps.
    let mut eps = [0.0; 2];
    rng::normals(9, Stream::Sample(0), 1, &mut eps);
    let root = 6400.25f64.sqrt();
    let x = 80.0 * f64::from(eps[1]);
    let f = 0.5 * x / root + 80f64.ln() / 4.0 + 2.0;
    close(f64::from(draw(&student)[3]), 0.25 / 6400.25 * x + 80.0 * 0.5 / root * f, 1e-6);
}

#[test]
fn flow_map_answers_its_jump() {
    let s = spec(Schedule::Flow { base_std: 0.5 }, Parameterization::FlowMap { sigma_data: 0.5 });
    let program = build(Sampler::FlowMap, &s, 2, 1.0).unwrap();
    let got = run(&lower(&program, &s).unwrap(), &[&Probe], 1, 0, &[0], 0).unwrap();
    let mut eps = [0.0; 2];
    rng::normals(1, Stream::Sample(0), 0, &mut eps);
    for (g, e) in got.iter().zip(eps) {
        // x + (t - s) sigma_d F(x / sigma_d; s, t), twice.
        let x0 = 0.5 * f64::from(e);
        let x1 = x0 + 0.5 * 0.5 * (0.5 * x0 / 0.5);
        let x2 = x1 + 0.5 * 0.5 * (0.5 * x1 / 0.5 + 0.5);
        close(f64::from(*g), x2, 1e-6);
    }
}

#[test]
fn images_do_not_depend_on_the_batch() {
    let s = ModelSpec { null_label: true, ..spec(EDM, Parameterization::Edm { sigma_data: 0.5 }) };
    for (sampler, steps) in [(Sampler::Heun, 4), (Sampler::Renoise, 3), (Sampler::FlowEuler, 5)] {
        let lowered = lower(&build(sampler, &s, steps, 1.7).unwrap(), &s).unwrap();
        let labels = [3, 1, 4, 1, 5];
        let all = run(&lowered, &[&Probe], 11, 100, &labels, 7).unwrap();
        for (k, &label) in labels.iter().enumerate() {
            let one = run(&lowered, &[&Probe], 11, 100 + k as u64, &[label], 7).unwrap();
            assert_eq!(one, all[2 * k..2 * k + 2]);
        }
        assert_ne!(all[2..4], all[6..8], "two images of one label differ by their noise");
        assert!(run(&lowered, &[&Probe], 11, 0, &[], 7).unwrap().is_empty());
        assert!(run(&lowered, &[], 11, 0, &[1], 7).is_err());
    }
}

#[test]
fn bad_specs_are_refused() {
    let good = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    good.validate().unwrap();
    for init_time in [0.0, -1.0, 81.0, f64::NAN] {
        assert!(ModelSpec { init_time: Some(init_time), ..good.clone() }.validate().is_err(), "{init_time}");
    }
    for sigma_data in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(spec(EDM, Parameterization::Edm { sigma_data }).validate().is_err());
    }
    assert!(spec(EDM, Parameterization::FlowMap { sigma_data: 0.5 }).validate().is_err());
    assert!(
        spec(Schedule::Flow { base_std: 1.0 }, Parameterization::EdmFlowMap { sigma_data: 0.5 }).validate().is_err(),
        "noise of standard deviation 1"
    );
    let text = serde_json::to_string(&good.parameterization).unwrap();
    assert_eq!(text, r#"{"kind":"edm","sigma_data":0.5}"#);
}
