//! Values, derivatives and inverses, against independent formulas and the published check values.

use super::*;

const EDM: Schedule = Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 };
const DDPM: Schedule = Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };
const ZERO_SNR: Schedule = Schedule::DdpmZeroSnr { beta_start: 1e-4, beta_end: 0.02, steps: 1000 };
const ALL: [Schedule; 6] = [EDM, DDPM, ZERO_SNR, Schedule::Cosine, Schedule::Flow { base_std: 1.0 }, Schedule::Flow { base_std: 0.5 }];

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} is not {b} within {tolerance}");
}

#[test]
fn derivatives_are_those_of_finite_differences() {
    for schedule in ALL {
        for t in [0.013, 0.2505, 0.5, 0.77, 0.98] {
            let h = 1e-5;
            let slope = |f: fn(&Schedule, f64) -> f64| (f(&schedule, t + h) - f(&schedule, t - h)) / (2.0 * h);
            close(schedule.d_alpha(t), slope(Schedule::alpha), 1e-6);
            close(schedule.d_sigma(t), slope(Schedule::sigma), 1e-6);
            close(schedule.d_lambda(t), slope(|s, t| s.noise_ratio(t).ln()), 1e-5 * schedule.d_lambda(t).abs());
        }
    }
}

#[test]
fn inverses_round_trip() {
    for schedule in ALL {
        for i in 1..100 {
            let t = f64::from(i) / 100.0;
            close(schedule.time_of_ratio(schedule.noise_ratio(t)), t, 1e-12);
            close(schedule.uniform_of(schedule.at_uniform(t)), t, 1e-12);
        }
        close(schedule.time_of_ratio(0.0), schedule.end(), 1e-12);
        close(schedule.at_uniform(1.0), schedule.start(), 1e-12);
    }
    // Where alpha reaches 0, the ratio is infinite and still has its time.
    for schedule in [Schedule::Cosine, ZERO_SNR, Schedule::Flow { base_std: 0.7 }] {
        assert_eq!(schedule.alpha(schedule.start()), 0.0);
        assert_eq!(schedule.noise_ratio(schedule.start()), f64::INFINITY);
        // A difference's last digits vanish a little before its end.
        close(schedule.time_of_ratio(f64::INFINITY), schedule.start(), 1e-14);
    }
}

#[test]
fn ends_are_noise_and_data() {
    for schedule in ALL {
        assert_eq!(schedule.sigma(schedule.end()), 0.0);
        assert_eq!(schedule.alpha(schedule.end()), 1.0);
        let middle = schedule.noise_ratio(schedule.at_uniform(0.5));
        assert!(schedule.noise_ratio(schedule.start()) > middle && middle > 0.0);
    }
}

#[test]
fn variance_preserving_schedules_preserve_it() {
    for schedule in [DDPM, ZERO_SNR, Schedule::Cosine] {
        for i in 0..=20 {
            let t = f64::from(i) / 20.0;
            close(schedule.alpha(t).powi(2) + schedule.sigma(t).powi(2), 1.0, 1e-14);
        }
    }
}

#[test]
fn zero_terminal_snr_is_the_published_table() {
    for (index, alpha) in [(0, 0.99995), (249, 0.72217), (499, 0.27573), (749, 0.05186)] {
        close(ZERO_SNR.alpha(f64::from(index + 1) / 1000.0), alpha, 5e-6);
    }
    close(ZERO_SNR.alpha(1e-3), DDPM.alpha(1e-3), 1e-15);
    assert_eq!((ZERO_SNR.alpha(1.0), ZERO_SNR.sigma(1.0)), (0.0, 1.0));
    // Trailing steps: the first at the last discrete index, the next entry of the list its end.
    let indices = |n| ZERO_SNR.grid(n).iter().map(|t| t * 1000.0 - 1.0).collect::<Vec<_>>();
    for (steps, expected) in [(1, vec![999.0]), (2, vec![999.0, 499.0]), (10, vec![999.0, 899.0])] {
        indices(steps).iter().zip(&expected).for_each(|(a, b)| close(*a, *b, 1e-9));
        assert_eq!((indices(steps).len(), *ZERO_SNR.grid(steps).last().unwrap()), (steps + 1, 0.0));
    }
}

#[test]
fn ddpm_is_the_discrete_product() {
    // Published settings, then parameters that strain Stirling's formula: nearly constant, constant, and up to 0.999 in few
    // steps.
    let settings = [(1e-4, 0.02, 1000), (1e-4, 1.0001e-4, 1000), (0.01, 0.01, 50), (0.1, 0.999, 10), (0.4, 0.9, 2)];
    for (beta_start, beta_end, steps) in settings {
        let schedule = Schedule::DdpmLinear { beta_start, beta_end, steps };
        schedule.validate().unwrap();
        let (mut log, n) = (0.0f64, f64::from(steps));
        assert_eq!(schedule.alpha(0.0), 1.0);
        for i in 0..steps {
            log += (-(beta_start + (beta_end - beta_start) * f64::from(i) / (n - 1.0))).ln_1p();
            let t = f64::from(i + 1) / n;
            close(schedule.alpha(t), (0.5 * log).exp(), 1e-12);
            close(schedule.sigma(t), (-log.exp_m1()).sqrt(), 1e-9);
        }
        // Between the discrete values the continuation falls steadily.
        let fine: Vec<f64> = (0..=400).map(|i| schedule.alpha(f64::from(i) / 400.0)).collect();
        assert!(fine.windows(2).all(|w| w[1] < w[0]));
    }
}

#[test]
fn ddpm_check_values() {
    close(DDPM.alpha(1e-3).powi(2), 0.9999, 1e-12);
    for (index, db) in [(0, 40.00), (249, 0.42), (499, -10.69), (749, -24.73), (999, -43.94)] {
        close(DDPM.snr_db(f64::from(index + 1) / 1000.0), db, 5e-3);
    }
    close(DDPM.noise_ratio(1.0), 157.407, 1e-3);
}

#[test]
fn rho_grid_check_values() {
    for (u, sigma) in [(0.25, 0.16975), (0.5, 2.51522), (0.8, 24.4083)] {
        close(EDM.at_uniform(u), sigma, 5e-5 * sigma.max(0.1));
    }
    close(EDM.uniform_of(2.5), 0.499322, 5e-7);
    let grid = EDM.grid(18);
    assert_eq!((grid.len(), grid[0], grid[18]), (19, 80.0, 0.0));
    close(grid[17], 0.002, 1e-12);
    // Karras et al. 2022, eq. 5, written out.
    let (low, high) = (0.002f64.powf(1.0 / 7.0), 80f64.powf(1.0 / 7.0));
    for i in 0..18 {
        close(grid[i], (high + i as f64 / 17.0 * (low - high)).powi(7), 1e-12 * grid[i]);
    }
    assert_eq!(EDM.grid(1), [80.0, 0.0]);
    assert_eq!(Schedule::Cosine.grid(4), [1.0, 0.75, 0.5, 0.25, 0.0]);
    assert_eq!(Schedule::Flow { base_std: 0.5 }.grid(4), [0.0, 0.25, 0.5, 0.75, 1.0]);
    for schedule in ALL {
        let grid = schedule.grid(25);
        assert!(grid.windows(2).all(|w| schedule.noise_ratio(w[1]) < schedule.noise_ratio(w[0])));
    }
}

#[test]
fn cosine_rate_of_the_signal_ode() {
    // lambda' = pi / sin(pi t).
    for t in [0.1, 0.6, 0.9] {
        close(Schedule::Cosine.d_lambda(t), std::f64::consts::PI / (std::f64::consts::PI * t).sin(), 1e-12);
    }
    close(Schedule::Cosine.d_lambda(0.6), 3.303266, 5e-7);
}

#[test]
fn kappa() {
    let flow = Schedule::Flow { base_std: 0.7 };
    // 1 - kappa = h / (t' (1 - t)) for the linear flow, whatever the base.
    for (t, h) in [(0.0, 0.04), (0.2, 0.05), (0.5, 0.25), (0.9, 0.1)] {
        let next: f64 = t + h;
        close(1.0 - boot_kappa(&flow, next, t), h / (next * (1.0 - t)), 1e-14);
    }
    for schedule in [flow, Schedule::Cosine] {
        let (start, s) = (schedule.start(), schedule.at_uniform(0.9));
        assert_eq!(boot_kappa(&schedule, s, start), 0.0);
        assert_eq!(boot_kappa(&schedule, schedule.end(), s), 0.0);
        for i in 1..20 {
            let (t, s) = (schedule.at_uniform(f64::from(i) / 20.0), schedule.at_uniform(f64::from(i - 1) / 20.0));
            assert!((0.0..1.0).contains(&boot_kappa(&schedule, s, t)));
        }
    }
    // The same through logarithms, away from the ends.
    let lambda = |t: f64| Schedule::Cosine.noise_ratio(t).ln();
    close(boot_kappa(&Schedule::Cosine, 0.3, 0.4), (lambda(0.3) - lambda(0.4)).exp(), 1e-14);
}

#[test]
fn flow_time_of_an_edm_network() {
    assert_eq!(flow_sigma(0.5, 80.0, 0.0), 80.0);
    assert_eq!(flow_sigma(0.5, 80.0, 0.5), 0.5);
    assert_eq!(flow_sigma(0.5, 80.0, 1.0), 0.0);
    assert_eq!(flow_sigma(0.5, 80.0, 1e-3), 80.0);
}

#[test]
fn files_and_limits() {
    let text = r#"{"kind":"edm","sigma_min":0.002,"sigma_max":80.0,"rho":7.0}"#;
    assert_eq!(serde_json::from_str::<Schedule>(text).unwrap(), EDM);
    for schedule in ALL {
        schedule.validate().unwrap();
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
    }
    let bad = [
        Schedule::Edm { sigma_min: 0.0, sigma_max: 80.0, rho: 7.0 },
        Schedule::Edm { sigma_min: 0.002, sigma_max: f64::INFINITY, rho: 7.0 },
        Schedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: f64::NAN },
        Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 1.0, steps: 1000 },
        Schedule::DdpmLinear { beta_start: 0.02, beta_end: 1e-4, steps: 1000 },
        Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 1 },
        Schedule::DdpmLinear { beta_start: 1e-4, beta_end: 0.02, steps: 100 },
        Schedule::Flow { base_std: -1.0 },
    ];
    for schedule in bad {
        assert!(matches!(schedule.validate(), Err(Error::Config { .. })), "{schedule:?}");
    }
}
