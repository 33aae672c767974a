// What every kernel shares. Maps lie as [image][row][column][channel], channels padded to fours with zeros, so that a pixel is a
// run of vec4s. All values of a plan lie in one arena; `p` says where. Addresses and strides count vec4s.
@group(0) @binding(0) var<storage, read_write> arena: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> p: Params;

fn silu(x: vec4<f32>) -> vec4<f32> {
    // Bounded, so that no exponential overflows: shaders may assume there are no infinities.
    return x / (vec4<f32>(1.0) + exp(min(-x, vec4<f32>(80.0))));
}

// Channel `c` of the value whose first channels lie at `base`.
fn channel(base: u32, c: u32) -> f32 {
    let v: vec4<f32> = arena[base + (c >> 2u)];
    return v[c & 3u];
}
