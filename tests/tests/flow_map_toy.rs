//! Flow maps end to end on points: trained networks against the map in closed form.

use limbeck::sample::{self, Device, Labels, Request};
use limbeck::{config, train};
use limbeck_shared::program::Sampler;
use limbeck_shared::rng::{self, Stream};
use std::time::Instant;

/// Data N((0.6, -0.3), 0.5^2), noise N(0, 0.7^2): `X_{0,1}(x0) = mean + 0.5 / 0.7 x0` per coordinate, in any number of steps.
#[test]
fn on_a_gaussian_every_condition_finds_the_map() {
    // The paper's order at one step: LSD, ESD, PSD.
    for (condition, one_step, eight_steps) in [("lsd", 0.06, 0.03), ("esd", 0.09, 0.03), ("psd_m", 0.16, 0.04)] {
        let folder = tempfile::tempdir().unwrap();
        let condition_key = format!("method.condition={condition}");
        let overrides = [
            condition_key.as_str(),
            "batch=1024",
            "images=2000000",
            "optimizer.warmup=10000",
            "optimizer.lr=4e-3",
            "network.hidden=64",
            "network.layers=2",
            "method.sigma_data=0.7",
            "data.toy={ shape = \"gaussian\", mean = [0.6, -0.3], std = 0.5 }",
        ];
        let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
        let setup = train::Setup::new(config::resolve("toy-flow-map", &overrides).unwrap()).unwrap();
        let (run, out) = (folder.path().join("run"), folder.path().join("map.safetensors"));
        let start = Instant::now();
        assert_eq!(train::train(&setup, &run, "test").unwrap(), train::Outcome::Finished);
        let seconds = start.elapsed().as_secs_f64();
        train::export_run(&setup, &run, &out, "test").unwrap();
        let model = train::read_bundle(&out).unwrap();
        let n = 4096;
        for (steps, most) in [(1, one_step), (8, eight_steps)] {
            let request = Request {
                count: n,
                seed: 3,
                labels: Labels::Each,
                sampler: Some(Sampler::FlowMap),
                steps: Some(steps),
                guidance: None,
                device: Device::Cpu,
            };
            let drawn = sample::draw(&model, &request, |_| {}).unwrap();
            let (mut off, mut size, mut eps) = (0f64, 0f64, [0f32; 2]);
            for (k, point) in drawn.chunks_exact(2).enumerate() {
                rng::normals(3, Stream::Sample(0), k as u64, &mut eps);
                for ((found, e), mean) in point.iter().zip(eps).zip([0.6, -0.3]) {
                    let exact = mean + 0.5 * f64::from(e);
                    off += (f64::from(*found) - exact).powi(2);
                    size += (0.5 * f64::from(e)).powi(2);
                }
            }
            let error = (off / size).sqrt();
            println!("{condition}, {steps} steps: {:.2} % off the closed form ({seconds:.1} s)", 100.0 * error);
            assert!(error < most, "{condition}, {steps} steps: {error}");
        }
    }
}
