// A linear combination of up to six registers; above 0, `limit` bounds the result.
struct Params {
    length: u32,
    terms: u32,
    dst: u32,
    limit: f32,
    at0: vec4<u32>,
    at1: vec4<u32>,
    by0: vec4<f32>,
    by1: vec4<f32>,
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i: u32 = id.y * groups.x * 64u + id.x;
    if (i >= p.length) {
        return;
    }
    var r: vec4<f32> = vec4<f32>(0.0);
    if (p.terms > 0u) { r = p.by0.x * arena[p.at0.x + i]; }
    if (p.terms > 1u) { r = fma(vec4<f32>(p.by0.y), arena[p.at0.y + i], r); }
    if (p.terms > 2u) { r = fma(vec4<f32>(p.by0.z), arena[p.at0.z + i], r); }
    if (p.terms > 3u) { r = fma(vec4<f32>(p.by0.w), arena[p.at0.w + i], r); }
    if (p.terms > 4u) { r = fma(vec4<f32>(p.by1.x), arena[p.at1.x + i], r); }
    if (p.terms > 5u) { r = fma(vec4<f32>(p.by1.y), arena[p.at1.y + i], r); }
    if (p.limit > 0.0) { r = clamp(r, vec4<f32>(-p.limit), vec4<f32>(p.limit)); }
    arena[p.dst + i] = r;
}
