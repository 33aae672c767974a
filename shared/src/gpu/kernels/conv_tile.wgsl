// A tile of 16 pixels by 4 vec4s of channels, whose values the first 64 threads hold.

// Pixel of thread `t`.
fn tile_row(t: u32) -> u32 {
    return 4u * (t / 16u) + t % 4u;
}

// vec4 of thread `t`.
fn tile_column(t: u32) -> u32 {
    return t / 4u % 4u;
}

// Leaves its statistics; `y` is the thread's own value.
fn tile_stats(x: u32, m0: u32, n0: u32, t: u32, y: vec4<f32>) {
    if (t < 64u) {
        sums[tile_column(t) * 16u + tile_row(t)] = y;
    }
    workgroupBarrier();
    if (t < 4u && n0 + t < p.cout) {
        let count: u32 = min(16u, limit - m0);
        var mean: vec4<f32> = vec4<f32>(0.0);
        for (var i: u32 = 0u; i < count; i = i + 1u) {
            mean = mean + sums[t * 16u + i];
        }
        mean = mean / f32(count);
        var square: vec4<f32> = vec4<f32>(0.0);
        for (var i: u32 = 0u; i < count; i = i + 1u) {
            let d: vec4<f32> = sums[t * 16u + i] - mean;
            square = fma(d, d, square);
        }
        store_stats(x, n0 + t, mean, square);
    }
}
