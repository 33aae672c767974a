//! Every noise level has one network.

use super::*;

fn router(schedule: &Schedule, cuts: &[f64]) -> Router {
    let edges = cuts.iter().map(|&t| schedule.noise_ratio(t).ln()).collect();
    Router { edges, nets: (0..=cuts.len()).rev().collect() }
}

#[test]
fn every_discrete_time_is_in_one_group_and_groups_follow_each_other() {
    let router = router(&DDPM, &[0.75, 0.5, 0.25]);
    let groups: Vec<usize> = (0..1000).map(|i| router.group(DDPM.noise_ratio(f64::from(i + 1) / 1000.0).ln())).collect();
    assert!(groups.windows(2).all(|g| g[0] == g[1] || g[0] == g[1] + 1), "contiguous");
    assert_eq!((groups[999], groups[0]), (0, 3), "the noisiest is the first group, the cleanest the last");
    // Time 0.25 is index 249, on the edge, and belongs to the noisier side.
    let counts: Vec<usize> = (0..4).map(|g| groups.iter().filter(|&&k| k == g).count()).collect();
    assert_eq!(counts, [251, 250, 250, 249]);
}

#[test]
fn an_eval_goes_to_the_network_of_its_inputs_level() {
    let spec = spec(EDM, Parameterization::Edm { sigma_data: 0.5 });
    let plain = build(Sampler::Heun, &spec, 6, 1.7).unwrap();
    let routed = router(&EDM, &[2.0]).route(plain.clone(), &EDM).unwrap();
    let evals = |p: &Program| p.instrs.iter().filter_map(|i| if let Instr::Eval(e) = i { Some(*e) } else { None }).collect::<Vec<_>>();
    for (before, after) in evals(&plain).into_iter().zip(evals(&routed)) {
        // Both calls of guidance, and Heun's second at the next time.
        assert_eq!(after, Eval { net: usize::from(before.t >= 2.0), ..before });
    }
    let of = |p: &Program, net| evals(p).iter().filter(|e| e.net == net).count();
    assert!(of(&routed, 0) > 0 && of(&routed, 1) > 0);
    assert_eq!(routed.networks(), 2);
    let short = Router { edges: vec![0.0], nets: vec![0] };
    assert!(short.route(plain, &EDM).unwrap_err().to_string().contains("router.nets"));
}

#[test]
fn pure_noise_and_pure_data_have_a_group() {
    let router = router(&FLOW, &[0.5]);
    assert_eq!(router.group(FLOW.noise_ratio(0.0).ln()), 0);
    assert_eq!(router.group(FLOW.noise_ratio(1.0).ln()), 1);
}

#[test]
fn a_student_of_several_steps_has_a_network_for_each() {
    let spec = ModelSpec { init_time: Some(2.5), ..spec(EDM, Parameterization::Edm { sigma_data: 0.5 }) };
    let levels: Vec<f64> = (0..4).map(|k| EDM.at_uniform(EDM.uniform_of(2.5) * (1.0 - f64::from(k) / 4.0))).collect();
    let cuts: Vec<f64> = levels.windows(2).map(|l| (l[0] * l[1]).sqrt()).collect();
    let program = router(&EDM, &cuts).route(build(Sampler::Renoise, &spec, 4, 1.0).unwrap(), &EDM).unwrap();
    let nets: Vec<usize> = program.instrs.iter().filter_map(|i| if let Instr::Eval(e) = i { Some(e.net) } else { None }).collect();
    assert_eq!(nets, [3, 2, 1, 0]);
}
