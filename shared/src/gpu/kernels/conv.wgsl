// Convolution as an implicit matrix product: pixels by (tap, input channel) times (tap, input channel) by output channels.
// A workgroup makes a tile of ROWS * PX pixels by COLS vec4s of channels; a thread makes PX pixels of one vec4. The next step's
// operands are fetched into registers while this step's are multiplied. Lines that begin with a percent sign are repeated PX
// times, the dollar sign being the count: named accumulators stay in registers where an indexed array may not.
const THREADS: u32 = ROWS * COLS;
var<workgroup> tile_a: array<vec4<f32>, ROWS * PX * 4u>; // [pixel][4 vec4s of the inner dimension]
var<workgroup> tile_b: array<vec4<f32>, 16u * COLS>;     // [inner][output vec4]

fn fetch_weight(k: u32, n: u32) -> vec4<f32> {
    if (k >= 4u * inner() || n >= p.cout) {
        return vec4<f32>(0.0);
    }
    return weight(p.weight + k * p.cout + n);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let tx: u32 = t % COLS;
    let ty: u32 = t / COLS;
    let n0: u32 = group.y * COLS;
    let m0: u32 = begin(group.x, ROWS * PX);

    // This thread fetches two input vec4s a step (pixels ma and mb, one of the four inner vec4s) and two weight vec4s.
    let ma: u32 = m0 + t / 4u;
    let mb: u32 = ma + THREADS / 4u;
    let oa: vec3<i32> = origin(ma);
    let ob: vec3<i32> = origin(mb);
    var c: u32 = t % 4u;
    var ky: u32 = 0u;
    var kx: u32 = 0u;
    loop {
        if (c < p.cin || ky >= p.kernel) { break; }
        c = c - p.cin;
        kx = kx + 1u;
        if (kx == p.kernel) { kx = 0u; ky = ky + 1u; }
    }
    var a0: vec4<f32> = fetch(ma, oa, ky, kx, c);
    var a1: vec4<f32> = fetch(mb, ob, ky, kx, c);
    var w0: vec4<f32> = fetch_weight(ty, n0 + tx);
    var w1: vec4<f32> = fetch_weight(ty + ROWS, n0 + tx);

%   var acc$: vec4<f32> = vec4<f32>(0.0);
    let steps: u32 = (inner() + 3u) / 4u;
    for (var step: u32 = 0u; step < steps; step = step + 1u) {
        tile_a[t] = a0;
        tile_a[t + THREADS] = a1;
        tile_b[t] = w0;
        tile_b[t + THREADS] = w1;
        workgroupBarrier();
        if (step + 1u < steps) {
            c = c + 4u;
            loop {
                if (c < p.cin || ky >= p.kernel) { break; }
                c = c - p.cin;
                kx = kx + 1u;
                if (kx == p.kernel) { kx = 0u; ky = ky + 1u; }
            }
            a0 = fetch(ma, oa, ky, kx, c);
            a1 = fetch(mb, ob, ky, kx, c);
            w0 = fetch_weight(16u * (step + 1u) + ty, n0 + tx);
            w1 = fetch_weight(16u * (step + 1u) + ty + ROWS, n0 + tx);
        }
        for (var k: u32 = 0u; k < 4u; k = k + 1u) {
            let b0: vec4<f32> = tile_b[(4u * k) * COLS + tx];
            let b1: vec4<f32> = tile_b[(4u * k + 1u) * COLS + tx];
            let b2: vec4<f32> = tile_b[(4u * k + 2u) * COLS + tx];
            let b3: vec4<f32> = tile_b[(4u * k + 3u) * COLS + tx];
%           let x$: vec4<f32> = tile_a[(ty * PX + $u) * 4u + k];
%           acc$ = fma(vec4<f32>(x$.x), b0, acc$);
%           acc$ = fma(vec4<f32>(x$.y), b1, acc$);
%           acc$ = fma(vec4<f32>(x$.z), b2, acc$);
%           acc$ = fma(vec4<f32>(x$.w), b3, acc$);
        }
        workgroupBarrier();
    }
%   _ = finish(m0 + ty * PX + $u, n0 + tx, acc$);
}
