// Attention with an online softmax, for heads of whole vec4s. A workgroup makes 16 queries of one head and at most 16 vec4s of its
// channels (a wider head's scores are made again for each such run); four threads share a query. Keys come in blocks of 32.
var<workgroup> tile: array<vec4<f32>, 512>; // 32 keys by 9 and 16 queries by 9 (8 vec4s, one more against bank conflicts), or 32 values by 16
var<workgroup> scores: array<f32, 512>;     // [query][key]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let query: u32 = t / 4u;
    let part: u32 = t % 4u;
    let first: u32 = group.z * p.pixels;
    let width: u32 = p.head / 4u;
    let head: u32 = (group.y / p.chunks) * width;
    let chunk: u32 = (group.y % p.chunks) * 16u;
    let columns: u32 = min(16u, width - chunk);
    var top: f32 = -1e30;
    var weight_sum: f32 = 0.0;
%   var o$: vec4<f32> = vec4<f32>(0.0);

    for (var key0: u32 = 0u; key0 < p.pixels; key0 = key0 + 32u) {
        var lo: vec4<f32> = vec4<f32>(0.0); // keys part, part + 4, part + 8, part + 12
        var hi: vec4<f32> = vec4<f32>(0.0); // the same plus 16
        for (var e0: u32 = 0u; e0 < width; e0 = e0 + 8u) {
            for (var i: u32 = t; i < 256u; i = i + 64u) {
                let key: u32 = key0 + i / 8u;
                let e: u32 = e0 + i % 8u;
                var v: vec4<f32> = vec4<f32>(0.0);
                if (key < p.pixels && e < width) {
                    v = arena[p.k + (first + key) * p.k_row + head + e];
                }
                tile[(i / 8u) * 9u + i % 8u] = v;
            }
            for (var i: u32 = t; i < 128u; i = i + 64u) {
                let at: u32 = group.x * 16u + i / 8u;
                let e: u32 = e0 + i % 8u;
                var v: vec4<f32> = vec4<f32>(0.0);
                if (at < p.pixels && e < width) {
                    v = arena[p.q + (first + at) * p.q_row + head + e];
                }
                tile[288u + (i / 8u) * 9u + i % 8u] = v;
            }
            workgroupBarrier();
            for (var e: u32 = 0u; e < min(8u, width - e0); e = e + 1u) {
                let q: vec4<f32> = tile[288u + query * 9u + e];
                let at: u32 = part * 9u + e;
                lo = lo + vec4<f32>(dot(q, tile[at]), dot(q, tile[at + 36u]), dot(q, tile[at + 72u]), dot(q, tile[at + 108u]));
                hi = hi + vec4<f32>(dot(q, tile[at + 144u]), dot(q, tile[at + 180u]), dot(q, tile[at + 216u]), dot(q, tile[at + 252u]));
            }
            workgroupBarrier();
        }
        let key: vec4<u32> = vec4<u32>(key0 + part) + vec4<u32>(0u, 4u, 8u, 12u);
        lo = select(vec4<f32>(-1e30), lo * p.scale, key < vec4<u32>(p.pixels));
        hi = select(vec4<f32>(-1e30), hi * p.scale, key + vec4<u32>(16u) < vec4<u32>(p.pixels));
        let row: u32 = query * 32u;
        let best: vec4<f32> = max(lo, hi);
        scores[row + part] = max(max(best.x, best.y), max(best.z, best.w));
        workgroupBarrier();
        let next: f32 = max(top, max(max(scores[row], scores[row + 1u]), max(scores[row + 2u], scores[row + 3u])));
        workgroupBarrier();
        let decay: f32 = exp(top - next);
        top = next;
        lo = exp(lo - vec4<f32>(next));
        hi = exp(hi - vec4<f32>(next));
        scores[row + part] = lo.x;
        scores[row + part + 4u] = lo.y;
        scores[row + part + 8u] = lo.z;
        scores[row + part + 12u] = lo.w;
        scores[row + part + 16u] = hi.x;
        scores[row + part + 20u] = hi.y;
        scores[row + part + 24u] = hi.z;
        scores[row + part + 28u] = hi.w;
        for (var i: u32 = t; i < 512u; i = i + 64u) {
            let at: u32 = key0 + i / 16u;
            let e: u32 = i % 16u;
            var v: vec4<f32> = vec4<f32>(0.0);
            if (at < p.pixels && e < columns) {
                v = arena[p.v + (first + at) * p.v_row + head + chunk + e];
            }
            tile[i] = v;
        }
        workgroupBarrier();
        weight_sum = weight_sum * decay;
%       o$ = o$ * decay;
        for (var j: u32 = 0u; j < 32u; j = j + 1u) {
            let w: f32 = scores[row + j];
            weight_sum = weight_sum + w;
%           o$ = fma(vec4<f32>(w), tile[j * 16u + part + 4u * $u], o$);
        }
        workgroupBarrier();
    }
    let at: u32 = group.x * 16u + query;
    if (at < p.pixels) {
        let dst: u32 = p.dst + (first + at) * p.dst_row + head + chunk + part;
%       if (part + 4u * $u < columns) { arena[dst + 4u * $u] = o$ / weight_sum; }
    }
}
