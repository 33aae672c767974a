// Attention for heads that are not whole vec4s: a thread makes one vec4 of one pixel, each lane with its own head. Slow; such heads
// occur in tiny networks only.
fn lane(image: u32, pixel: u32, c: u32) -> f32 {
    if (c >= p.channels) {
        return 0.0;
    }
    let head: u32 = (c / p.head) * p.head;
    let first: u32 = image * p.pixels;
    var top: f32 = -1e30;
    var weight_sum: f32 = 0.0;
    var o: f32 = 0.0;
    for (var key: u32 = 0u; key < p.pixels; key = key + 1u) {
        var score: f32 = 0.0;
        for (var e: u32 = head; e < head + p.head; e = e + 1u) {
            score = fma(channel(p.q + (first + pixel) * p.q_row, e), channel(p.k + (first + key) * p.k_row, e), score);
        }
        score = score * p.scale;
        let next: f32 = max(top, score);
        let decay: f32 = exp(top - next);
        let w: f32 = exp(score - next);
        weight_sum = weight_sum * decay + w;
        o = o * decay + w * channel(p.v + (first + key) * p.v_row, c);
        top = next;
    }
    return o / weight_sum;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let pixel: u32 = id.x / p.cout;
    let c: u32 = 4u * (id.x % p.cout);
    if (pixel >= p.pixels) {
        return;
    }
    let y: vec4<f32> = vec4<f32>(lane(id.z, pixel, c), lane(id.z, pixel, c + 1u), lane(id.z, pixel, c + 2u), lane(id.z, pixel, c + 3u));
    arena[p.dst + (id.z * p.pixels + pixel) * p.dst_row + c / 4u] = y;
}
