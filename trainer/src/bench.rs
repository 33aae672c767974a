//! Timing: medians after warm-up, one JSON line.

use crate::config::Arithmetic;
use crate::config::OptimizerConfig;
use crate::optim::Adam;
use crate::sample::{self, Device, Request};
use anyhow::{Context, Result};
use clap::Subcommand;
use limbeck_shared::cpu::{self, Cond, Exec, Keep, threads};
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::nn::stock;
use limbeck_shared::rng::{self, Stream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What to time.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Forward, backward and Adam on a network with a mean-square loss
    TrainStep {
        /// diffusers config.json of the network
        #[arg(long)]
        config: PathBuf,
        /// Images a step
        #[arg(long, default_value_t = 64)]
        batch: usize,
        /// Timed steps
        #[arg(long, default_value_t = 7)]
        repeat: usize,
        /// Only the forward pass, nothing kept
        #[arg(long)]
        forward_only: bool,
        /// With `--forward-only`: candle's own operations instead of our kernels, for comparison
        #[arg(long, requires = "forward_only")]
        candle: bool,
        /// How convolutions multiply
        #[arg(long, value_enum, default_value = "f32")]
        precision: Arithmetic,
    },
    /// Drawing from a bundle
    Sample {
        /// Bundle
        #[arg(long)]
        model: PathBuf,
        /// Images a draw
        #[arg(long, default_value_t = 64)]
        count: usize,
        /// Timed draws
        #[arg(long, default_value_t = 7)]
        repeat: usize,
        /// Device
        #[arg(long, value_enum, default_value = "cpu")]
        device: Device,
        /// How convolutions multiply on the CPU
        #[arg(long, value_enum, default_value = "f32")]
        precision: Arithmetic,
    },
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Largest resident size of the process so far, bytes; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn time(repeat: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..2 {
        f()?;
    }
    let mut times = vec![];
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times))
}

/// Runs a benchmark and returns its JSON line.
///
/// # Errors
/// If a file cannot be read or the network cannot be built.
pub fn run(what: &Bench) -> Result<String> {
    let (name, count, ms, device) = match what {
        Bench::TrainStep { config, batch, repeat, forward_only, candle, precision } => {
            let text = std::fs::read_to_string(config).with_context(|| format!("`{}` cannot be read", config.display()))?;
            let network: NetworkConfig =
                serde_json::from_str(&text).with_context(|| format!("`{}` is no network configuration", config.display()))?;
            let (name, what) = match (forward_only, candle) {
                (true, true) => ("forward, candle's own operations", Work::Candle),
                (true, false) => ("forward", Work::Forward),
                _ => ("train-step", Work::Step),
            };
            (name, *batch, train_step(&network, *batch, *repeat, what, *precision)?, Device::Cpu)
        }
        Bench::Sample { model, count, repeat, device, precision } => {
            let bundle = crate::train::read_bundle(model)?;
            let request = Request { device: *device, precision: *precision, ..Request::plain(*count, 0) };
            let ms = time(*repeat, || sample::draw(&bundle, &request, |_| {}).map(|_| ()))?;
            ("sample", *count, ms, *device)
        }
    };
    Ok(serde_json::json!({
        "bench": name,
        "images": count,
        "ms": ms,
        "images_per_second": count as f64 / ms * 1e3,
        "peak_memory_bytes": peak_memory(),
        "threads": threads(),
        "device": format!("{device:?}").to_lowercase(),
    })
    .to_string())
}

/// What is done with a network.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Forward,
    Candle,
    Step,
}

fn train_step(network: &NetworkConfig, batch: usize, repeat: usize, work: Work, precision: Arithmetic) -> Result<f64> {
    let graph = network.build()?;
    let mut theta = graph.init(0);
    // The zero-initialised layers would let half the gradient be zero; time it as in the middle of a training.
    let mut jitter = vec![0f32; theta.len()];
    rng::normals(0, Stream::Other(1), 0, &mut jitter);
    theta.iter_mut().zip(&jitter).for_each(|(t, j)| *t += 0.02 * j);
    let (len, classes) = (graph.input_shape().iter().product::<usize>(), graph.classes);
    let times = vec![0.3f32; batch * graph.times];
    let labels: Vec<u32> = if classes > 0 { (0..batch as u32).map(|k| k % classes as u32).collect() } else { vec![] };
    let mut x = vec![0f32; batch * len];
    rng::normals(0, Stream::Noise, 0, &mut x);
    if work == Work::Candle {
        let device = candle_core::Device::Cpu;
        let params = stock::frozen(&stock::params_from_flat(&graph, &theta, candle_core::DType::F32, &device)?);
        let [c, h, w] = graph.input_shape();
        let x = candle_core::Tensor::from_vec(x, (batch, c, h, w), &device)?;
        return time(repeat, || Ok(stock::forward(&graph, &params, &x, &times, &labels).map(|_| ())?));
    }
    let exec = Exec::with_precision(graph, precision.resolve())?;
    if work == Work::Forward {
        let mut out = vec![0f32; batch * exec.graph().output_shape().iter().product::<usize>()];
        let net = cpu::Net::with_exec(Arc::new(exec), theta)?;
        return time(repeat, || Ok(net.forward(&x, batch, &times, &labels, &mut out)?));
    }
    let cond = Cond { times: &times, labels: &labels, dropout: None };
    let config = OptimizerConfig::default();
    let (mut adam, mut ema) = (Adam::new(theta.len()), theta.clone());
    time(repeat, || {
        let (mut y, tape) = exec.forward(&theta, &x, batch, cond, Keep::ForAll)?;
        let scale = 2.0 / y.len() as f32;
        y.iter_mut().for_each(|v| *v *= scale);
        let grads = exec.backward(&theta, &tape, &y, false, true)?;
        if let Some(grad) = grads.dtheta {
            adam.step(&config, 1e-4, 1.0, &grad, &mut theta, &mut ema, 0.999);
            exec.recycle(grad);
        }
        Ok(())
    })
}
