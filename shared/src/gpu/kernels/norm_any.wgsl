// GroupNorm for any group size: a workgroup treats the groups that share vec4s (a block of lcm(group, 4) channels, at most 4 groups),
// one after the other, channel by channel.
var<workgroup> partial: array<f32, 64>;
var<workgroup> means: array<f32, 4>;
var<workgroup> scales: array<f32, 4>;

fn total(t: u32, v: f32) -> f32 {
    partial[t] = v;
    workgroupBarrier();
    for (var half: u32 = 32u; half > 0u; half = half / 2u) {
        if (t < half) {
            partial[t] = partial[t] + partial[t + half];
        }
        workgroupBarrier();
    }
    let sum: f32 = partial[0];
    workgroupBarrier();
    return sum;
}

fn element(first: u32, channel0: u32, i: u32) -> f32 {
    let c: u32 = channel0 + i % p.group;
    let v: vec4<f32> = load(first + i / p.group, c >> 2u);
    return v[c & 3u];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let first: u32 = group.y * p.pixels;
    let base: u32 = group.x * p.block;
    let width: u32 = min(p.block, p.cin - base);
    let here: u32 = min(4u * p.block, p.channels - 4u * base) / p.group;
    let count: u32 = p.pixels * p.group;
    for (var g: u32 = 0u; g < here; g = g + 1u) {
        let channel0: u32 = 4u * base + g * p.group;
        var sum: f32 = 0.0;
        for (var i: u32 = t; i < count; i = i + 64u) {
            sum = sum + element(first, channel0, i);
        }
        let mean: f32 = total(t, sum) / f32(count);
        var square: f32 = 0.0;
        for (var i: u32 = t; i < count; i = i + 64u) {
            let d: f32 = element(first, channel0, i) - mean;
            square = fma(d, d, square);
        }
        let scale: f32 = inverseSqrt(total(t, square) / f32(count) + p.eps);
        if (t == 0u) {
            means[g] = mean;
            scales[g] = scale;
        }
    }
    workgroupBarrier();
    for (var i: u32 = t; i < p.pixels * width; i = i + 64u) {
        let pixel: u32 = first + i / width;
        let c: u32 = i % width;
        let g: vec4<u32> = min((vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u)) / vec4<u32>(p.group), vec4<u32>(here - 1u));
        let mean: vec4<f32> = vec4<f32>(means[g.x], means[g.y], means[g.z], means[g.w]);
        let scale: vec4<f32> = vec4<f32>(scales[g.x], scales[g.y], scales[g.z], scales[g.w]);
        finish(group.y, pixel, base + c, (load(pixel, base + c) - mean) * scale);
    }
}
