// The same product where the whole layer has few tiles (small maps, one image): a workgroup makes only 16 pixels by 16 channels, and
// its 256 threads are 16 groups that share the inner dimension out; their sums are added in a fixed order at the end. Where even these
// tiles are too few for a device, `parts` workgroups share a tile's inner dimension, and `conv_sum` adds what they leave: two passes
// and no atomics, so that reruns give the same bits.
var<workgroup> tile: array<vec4<f32>, 512>; // operands: [split][16 pixels], then [split][4 inner][4 output]; later partial sums

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let split: u32 = t / 16u;
    let lane: u32 = t % 16u;
    let tx: u32 = lane % 4u;
    let ty: u32 = lane / 4u;
    let m0: u32 = begin(group.x, 16u);
    let n0: u32 = group.y * 4u;
    let o: vec3<i32> = origin(m0 + lane);
    if (p.has_norm != 0u) {
        prepare(group.x / p.tiles, t);
    }

    var acc0: vec4<f32> = vec4<f32>(0.0);
    var acc1: vec4<f32> = vec4<f32>(0.0);
    var acc2: vec4<f32> = vec4<f32>(0.0);
    var acc3: vec4<f32> = vec4<f32>(0.0);
    let steps: u32 = (inner() + 15u) / 16u;
    let first: u32 = group.z * steps / p.parts;
    let last: u32 = (group.z + 1u) * steps / p.parts;
    var c: u32 = first * 16u + split;
    var ky: u32 = 0u;
    var kx: u32 = 0u;
    for (var step: u32 = first; step < last; step = step + 1u) {
        loop {
            if (c < p.cin || ky >= p.kernel) { break; }
            c = c - p.cin;
            kx = kx + 1u;
            if (kx == p.kernel) { kx = 0u; ky = ky + 1u; }
        }
        let k: u32 = step * 16u + split;
        tile[t] = fetch(m0 + lane, o, ky, kx, c);
        var w: vec4<f32> = vec4<f32>(0.0);
        if (k < inner() && n0 + tx < p.cout) {
            w = weight(p.weight + (4u * k + ty) * p.cout + n0 + tx);
        }
        tile[256u + t] = w;
        c = c + 16u;
        workgroupBarrier();
        let at: u32 = split * 16u;
        let b0: vec4<f32> = tile[256u + at + tx];
        let b1: vec4<f32> = tile[256u + at + 4u + tx];
        let b2: vec4<f32> = tile[256u + at + 8u + tx];
        let b3: vec4<f32> = tile[256u + at + 12u + tx];
        let x0: vec4<f32> = tile[at + 4u * ty];
        let x1: vec4<f32> = tile[at + 4u * ty + 1u];
        let x2: vec4<f32> = tile[at + 4u * ty + 2u];
        let x3: vec4<f32> = tile[at + 4u * ty + 3u];
        acc0 = fma(vec4<f32>(x0.w), b3, fma(vec4<f32>(x0.z), b2, fma(vec4<f32>(x0.y), b1, fma(vec4<f32>(x0.x), b0, acc0))));
        acc1 = fma(vec4<f32>(x1.w), b3, fma(vec4<f32>(x1.z), b2, fma(vec4<f32>(x1.y), b1, fma(vec4<f32>(x1.x), b0, acc1))));
        acc2 = fma(vec4<f32>(x2.w), b3, fma(vec4<f32>(x2.z), b2, fma(vec4<f32>(x2.y), b1, fma(vec4<f32>(x2.x), b0, acc2))));
        acc3 = fma(vec4<f32>(x3.w), b3, fma(vec4<f32>(x3.z), b2, fma(vec4<f32>(x3.y), b1, fma(vec4<f32>(x3.x), b0, acc3))));
        workgroupBarrier();
    }

    // Two rounds: the upper half of the groups hands its sums to the lower half, then 64 threads add eight sums each.
    let mine: u32 = (split % 8u) * 64u + lane * 4u;
    if (split >= 8u) {
        tile[mine] = acc0;
        tile[mine + 1u] = acc1;
        tile[mine + 2u] = acc2;
        tile[mine + 3u] = acc3;
    }
    workgroupBarrier();
    if (split < 8u) {
        tile[mine] = tile[mine] + acc0;
        tile[mine + 1u] = tile[mine + 1u] + acc1;
        tile[mine + 2u] = tile[mine + 2u] + acc2;
        tile[mine + 3u] = tile[mine + 3u] + acc3;
    }
    workgroupBarrier();
    var y: vec4<f32> = vec4<f32>(0.0);
    if (t < 64u) {
        var sum: vec4<f32> = tile[t];
        for (var s: u32 = 1u; s < 8u; s = s + 1u) {
            sum = sum + tile[s * 64u + t];
        }
        let m: u32 = m0 + tile_row(t);
        let n: u32 = n0 + tile_column(t);
        if (p.parts == 1u) {
            y = finish(m, n, sum);
        } else if (m < limit && n < p.cout) {
            arena[p.partial + (group.z * p.pixels + m) * p.cout + n] = sum;
        }
    }
    if (p.has_stats != 0u && p.parts == 1u) {
        tile_stats(group.x, m0, n0, t, y);
    }
}
