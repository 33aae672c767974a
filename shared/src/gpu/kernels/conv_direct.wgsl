// The same product without workgroup memory in its loop: a thread makes PX pixels by COLS vec4s of channels from what it reads itself.
// For adapters that compute on the CPU, where every access to memory, the workgroup's own included, costs as much as a hundred products;
// and on others for a network's first and last layer, where input or output is one vec4 and a tile would be mostly empty.
// Lines that begin with `^` are repeated for the COLS vec4s, the hash being the count.
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let tile: u32 = begin(group.x, THREADS * PX);
    let m0: u32 = tile + t * PX;
    let n0: u32 = group.y * COLS;
    if (p.has_norm != 0u) {
        prepare(group.x / p.tiles, t);
    }
%   let o$: vec3<i32> = origin(m0 + $u);
%^  var a$_#: vec4<f32> = vec4<f32>(0.0);
    var at: u32 = p.weight + n0;
    var ky: u32 = 0u;
    var kx: u32 = 0u;
    var c: u32 = 0u;
    for (var k: u32 = 0u; k < inner(); k = k + 1u) {
%       var x$: vec4<f32> = fetch(m0 + $u, o$, ky, kx, c);
        for (var lane: u32 = 0u; lane < 4u; lane = lane + 1u) {
^           let w#: vec4<f32> = weight(at + #u);
%^          a$_# = fma(vec4<f32>(x$.x), w#, a$_#);
%           x$ = x$.yzwx;
            at = at + p.cout;
        }
        c = c + 1u;
        if (c == p.cin && ky < p.kernel) {
            c = 0u;
            kx = kx + 1u;
            if (kx == p.kernel) { kx = 0u; ky = ky + 1u; }
        }
    }
%^  a$_# = finish(m0 + $u, n0 + #u, a$_#);
    if (p.has_stats == 0u) {
        return;
    }

    // Means over the tile first, then squared distances from them. Pixels outside the span are zero in the sums.
    let count: u32 = min(THREADS * PX, limit - tile);
^   var s#: vec4<f32> = vec4<f32>(0.0);
%^  s# = s# + a$_#;
^   sums[t * COLS + #u] = s#;
    workgroupBarrier();
^   s# = vec4<f32>(0.0);
    for (var i: u32 = 0u; i < THREADS; i = i + 1u) {
^       s# = s# + sums[i * COLS + #u];
    }
    workgroupBarrier();
^   let mean#: vec4<f32> = s# / f32(count);
^   s# = vec4<f32>(0.0);
%   let inside$: f32 = select(0.0, 1.0, m0 + $u < limit);
%^  s# = fma(inside$ * (a$_# - mean#), a$_# - mean#, s#);
^   sums[t * COLS + #u] = s#;
    workgroupBarrier();
    if (t < COLS && n0 + t < p.cout) {
        var square: vec4<f32> = vec4<f32>(0.0);
        for (var i: u32 = 0u; i < THREADS; i = i + 1u) {
            square = square + sums[i * COLS + t];
        }
        var mean: vec4<f32> = mean0;
^       if (t == #u) { mean = mean#; }
        store_stats(group.x, n0 + t, mean, square);
    }
}
