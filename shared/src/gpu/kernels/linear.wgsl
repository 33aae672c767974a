// y = W f(x) + b (+ another vector), f being the identity or SiLU. A workgroup makes 16 vec4s of one image's output; four threads
// share each.
struct Params {
    cin: u32,
    cout: u32,
    src: u32,
    src_row: u32,
    silu: u32,
    weight: u32, // [4 cin][cout]
    bias: u32,
    dst: u32,
    dst_row: u32,
    has_add: u32,
    add: u32,
    add_row: u32,
}
var<workgroup> partial: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let n: u32 = group.x * 16u + t % 16u;
    var acc: vec4<f32> = vec4<f32>(0.0);
    if (n < p.cout) {
        for (var k: u32 = t / 16u; k < p.cin; k = k + 4u) {
            var x: vec4<f32> = arena[p.src + group.y * p.src_row + k];
            if (p.silu != 0u) {
                x = silu(x);
            }
            let at: u32 = p.weight + 4u * k * p.cout + n;
            acc = fma(vec4<f32>(x.x), weight(at), acc);
            acc = fma(vec4<f32>(x.y), weight(at + p.cout), acc);
            acc = fma(vec4<f32>(x.z), weight(at + 2u * p.cout), acc);
            acc = fma(vec4<f32>(x.w), weight(at + 3u * p.cout), acc);
        }
    }
    partial[t] = acc;
    workgroupBarrier();
    if (t < 16u && n < p.cout) {
        var y: vec4<f32> = weight(p.bias + n) + partial[t] + partial[t + 16u] + partial[t + 32u] + partial[t + 48u];
        if (p.has_add != 0u) {
            y = y + arena[p.add + group.y * p.add_row + n];
        }
        arena[p.dst + group.y * p.dst_row + n] = y;
    }
}
