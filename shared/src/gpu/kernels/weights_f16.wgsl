// Four half-precision weights are two words; unpack2x16float is core WGSL, no extension needed.
@group(0) @binding(1) var<storage, read> weights: array<vec2<u32>>;

fn weight(i: u32) -> vec4<f32> {
    let w: vec2<u32> = weights[i];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
