//! The golden networks on every native back end; `tests/wasm.rs` has them in node, `tests/e2e/golden.test.mjs` in browsers.

#[path = "../../tests/golden/networks.rs"]
mod networks;

use networks::{Backend, Golden};

/// One test for each back end, of one body.
macro_rules! backends {
    ($($(#[$attribute:meta])* $name:ident = $backend:ident, $forward:expr;)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            for golden in Golden::all() {
                let error = golden.judge(Backend::$backend, &$forward(&golden)).unwrap();
                println!("{}: {error:.1e}", golden.name);
            }
        }
    )*};
}

backends! {
    cpu = Cpu, on_cpu;
    #[cfg(feature = "candle")]
    candle_in_f64 = CandleF64, |g| candle::forward(g, candle_core::DType::F64);
    #[cfg(feature = "candle")]
    candle_in_f32 = CandleF32, |g| candle::forward(g, candle_core::DType::F32);
    #[cfg(feature = "wgpu-native")]
    gpu_wide = Gpu, |g| gpu::forward(g, gpu::WIDE, false);
    #[cfg(feature = "wgpu-native")]
    gpu_narrow = Gpu, |g| gpu::forward(g, gpu::NARROW, false);
    #[cfg(feature = "wgpu-native")]
    gpu_wide_in_half_precision = GpuHalf, |g| gpu::forward(g, gpu::WIDE, true);
    #[cfg(feature = "wgpu-native")]
    gpu_narrow_in_half_precision = GpuHalf, |g| gpu::forward(g, gpu::NARROW, true);
}

fn on_cpu(g: &Golden) -> Vec<f32> {
    let mut y = vec![0.0; 2 * g.graph.output_shape().iter().product::<usize>()];
    let net = limbeck_shared::cpu::Net::new(g.graph.clone(), g.theta.clone()).unwrap();
    net.forward(&g.x, 2, &g.times, &g.labels, &mut y).unwrap();
    y
}

#[cfg(feature = "candle")]
mod candle {
    use super::Golden;
    use candle_core::{DType, Device, Tensor};
    use limbeck_shared::nn::stock;

    pub fn forward(g: &Golden, dtype: DType) -> Vec<f32> {
        let [c, h, w] = g.graph.input_shape();
        let x = Tensor::from_slice(&g.x, (2, c, h, w), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let params = stock::params_from_flat(&g.graph, &g.theta, dtype, &Device::Cpu).unwrap();
        let y = stock::forward(&g.graph, &params, &x, &g.times, &g.labels).unwrap();
        y.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
    }
}

#[cfg(feature = "wgpu-native")]
mod gpu {
    use super::Golden;
    use limbeck_shared::gpu::{Engine, Occupancy, Options, WeightStorage, block_on};

    pub const WIDE: Occupancy = Occupancy::Wide;
    pub const NARROW: Occupancy = Occupancy::Narrow;

    /// f32 storage shows the kernels' own error. f16 storage adds the rounding of the weights and nothing else: with weights that are
    /// already rounded, both give the same bits.
    pub fn forward(g: &Golden, occupancy: Occupancy, half: bool) -> Vec<f32> {
        let answer = |storage, theta: &[f32]| {
            let options = Options { storage, occupancy: Some(occupancy), ..Options::default() };
            let engine = block_on(Engine::new(options)).expect("this test needs a Vulkan adapter (mesa's lavapipe will do)");
            let model = engine.load(std::slice::from_ref(&g.graph), &[theta.to_vec()]).unwrap();
            block_on(model.forward_plan(0, 2).unwrap().forward(&g.x, &g.times, &g.labels)).unwrap()
        };
        if !half {
            return answer(WeightStorage::F32, &g.theta);
        }
        let stored = answer(WeightStorage::F16, &g.theta);
        let rounded: Vec<f32> = g.theta.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect();
        assert!(answer(WeightStorage::F32, &rounded) == stored, "{}", g.name);
        stored
    }
}
