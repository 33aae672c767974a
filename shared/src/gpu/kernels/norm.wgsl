// GroupNorm where a group is 1 or 2 channels or a multiple of 4: one workgroup for each image and each group (or the groups that
// share a vec4). Mean first, then the squared distances from it: no cancellation.
var<workgroup> partial: array<vec4<f32>, THREADS>;

// Sums over the lanes of one group.
fn fold(v: vec4<f32>) -> vec4<f32> {
    if (p.group == 1u) {
        return v;
    }
    if (p.group == 2u) {
        return vec4<f32>(v.x + v.y, v.x + v.y, v.z + v.w, v.z + v.w);
    }
    return vec4<f32>((v.x + v.y) + (v.z + v.w));
}

fn total(t: u32, v: vec4<f32>) -> vec4<f32> {
    partial[t] = v;
    workgroupBarrier();
    for (var half: u32 = THREADS / 2u; half > 0u; half = half / 2u) {
        if (t < half) {
            partial[t] = partial[t] + partial[t + half];
        }
        workgroupBarrier();
    }
    let sum: vec4<f32> = fold(partial[0]);
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let first: u32 = group.y * p.pixels;
    let end: u32 = first + p.pixels;
    let base: u32 = group.x * p.block;
    let width: u32 = min(p.block, p.cin - base);
    // A thread walks the group's vec4s in strides of THREADS, without a division for each.
    let dp: u32 = THREADS / width;
    let dc: u32 = THREADS % width;
    let pixel0: u32 = first + t / width;
    let c0: u32 = t % width;
    let count: f32 = f32(p.pixels * p.group);

    var sum: vec4<f32> = vec4<f32>(0.0);
    var pixel: u32 = pixel0;
    var c: u32 = c0;
    loop {
        if (pixel >= end) { break; }
        sum = sum + load(pixel, base + c);
        pixel = pixel + dp;
        c = c + dc;
        if (c >= width) { c = c - width; pixel = pixel + 1u; }
    }
    let mean: vec4<f32> = total(t, sum) / count;

    var square: vec4<f32> = vec4<f32>(0.0);
    pixel = pixel0;
    c = c0;
    loop {
        if (pixel >= end) { break; }
        let d: vec4<f32> = load(pixel, base + c) - mean;
        square = fma(d, d, square);
        pixel = pixel + dp;
        c = c + dc;
        if (c >= width) { c = c - width; pixel = pixel + 1u; }
    }
    let scale: vec4<f32> = inverseSqrt(total(t, square) / count + vec4<f32>(p.eps));

    pixel = pixel0;
    c = c0;
    loop {
        if (pixel >= end) { break; }
        finish(group.y, pixel, base + c, (load(pixel, base + c) - mean) * scale);
        pixel = pixel + dp;
        c = c + dc;
        if (c >= width) { c = c - width; pixel = pixel + 1u; }
    }
}
