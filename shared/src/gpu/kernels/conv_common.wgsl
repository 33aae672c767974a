struct Params {
    pixels: u32,    // output pixels of all images
    out_h: u32,
    out_w: u32,
    h: u32,         // input edges, after upsampling
    w: u32,
    up: u32,        // 1: the stored map is half as large in both directions
    stride: u32,
    pad: u32,       // zeros before the first row and column; those after it follow from out_h, out_w
    kernel: u32,
    cin: u32,       // input vec4s per pixel
    split: u32,     // vec4s that come from src0; the rest comes from src1
    src0: u32,
    row0: u32,
    src1: u32,
    row1: u32,
    cout: u32,      // output vec4s per pixel
    weight: u32,    // [kernel][kernel][4 cin][cout], then [4 tail][cout]
    bias: u32,
    dst: u32,
    dst_row: u32,
    has_channel_bias: u32,
    channel_bias: u32,
    channel_bias_row: u32,
    has_residual: u32,
    residual: u32,
    residual_row: u32,
    tail: u32,      // vec4s per pixel of a second input, to which a 1x1 convolution is applied (a residual block's shortcut)
    tail_split: u32,
    tail0: u32,
    tail_row0: u32,
    tail1: u32,
    tail_row1: u32,
    tail_bias: u32,
    span: u32,      // pixels that tiles may not straddle: one image's where there are statistics, else all
    tiles: u32,     // tiles in a span
    has_norm: u32,  // 1: the input is normalised as it is read, from the statistics of those who made it
    norm_silu: u32,
    group: u32,     // channels of a group
    eps: f32,
    norm_weight: u32,
    norm_bias: u32,
    has_scale: u32,
    scale: u32,     // vector: scales of all channels, then shifts
    scale_row: u32,
    span_in: u32,   // pixels of one image of the input
    stats0: u32,    // [image][tile][mean, squares][vec4] of src0
    stats0_rows: u32, // pixels of a tile there
    stats1: u32,
    stats1_rows: u32,
    has_stats: u32, // 1: the output's statistics are wanted
    stats: u32,
    parts: u32,     // workgroups that share a tile's inner dimension; with more than one, their sums lie at `partial`
    partial: u32,   // [part][pixel][vec4]
}
// First pixel after this workgroup's span.
var<private> limit: u32;

// First pixel of tile `x` of `rows` pixels.
fn begin(x: u32, rows: u32) -> u32 {
    let first: u32 = (x / p.tiles) * p.span;
    limit = first + p.span;
    return first + (x % p.tiles) * rows;
}

// The product's inner dimension, in vec4s: every tap's channels, then the second input's.
fn inner() -> u32 {
    return p.kernel * p.kernel * p.cin + p.tail;
}

// Where output pixel `m` begins to read: (image, y, x) with y and x possibly in the padding.
fn origin(m: u32) -> vec3<i32> {
    let x: u32 = m % p.out_w;
    let rest: u32 = m / p.out_w;
    let y: u32 = rest % p.out_h;
    let image: u32 = rest / p.out_h;
    return vec3<i32>(i32(image), i32(y * p.stride) - i32(p.pad), i32(x * p.stride) - i32(p.pad));
}

// Input vec4 `c` under tap (ky, kx) of output pixel `m`, which begins at `o`; zero outside the map. Beyond the last tap, vec4 `c` of
// the second input. Upsampling, concatenation and the input's norm happen here.
fn fetch(m: u32, o: vec3<i32>, ky: u32, kx: u32, c: u32) -> vec4<f32> {
    if (m >= limit) {
        return vec4<f32>(0.0);
    }
    if (ky >= p.kernel) {
        if (c >= p.tail) {
            return vec4<f32>(0.0);
        }
        if (c < p.tail_split) {
            return arena[p.tail0 + m * p.tail_row0 + c];
        }
        return arena[p.tail1 + m * p.tail_row1 + (c - p.tail_split)];
    }
    let y: i32 = o.y + i32(ky);
    let x: i32 = o.z + i32(kx);
    if (y < 0 || x < 0 || y >= i32(p.h) || x >= i32(p.w)) {
        return vec4<f32>(0.0);
    }
    let row: u32 = u32(o.x) * (p.h >> p.up) + (u32(y) >> p.up);
    let pixel: u32 = row * (p.w >> p.up) + (u32(x) >> p.up);
    if (c < p.split) {
        return normal(c, arena[p.src0 + pixel * p.row0 + c]);
    }
    return normal(c, arena[p.src1 + pixel * p.row1 + (c - p.split)]);
}

// Adds bias, channel bias and residual to the sum of output vec4 `n` at pixel `m`, stores it and returns it; zero outside the map.
fn finish(m: u32, n: u32, sum: vec4<f32>) -> vec4<f32> {
    if (m >= limit || n >= p.cout) {
        return vec4<f32>(0.0);
    }
    var y: vec4<f32> = sum + weight(p.bias + n);
    if (p.tail != 0u) {
        y = y + weight(p.tail_bias + n);
    }
    if (p.has_channel_bias != 0u) {
        let image: u32 = m / (p.out_h * p.out_w);
        y = y + arena[p.channel_bias + image * p.channel_bias_row + n];
    }
    if (p.has_residual != 0u) {
        y = y + arena[p.residual + m * p.residual_row + n];
    }
    arena[p.dst + m * p.dst_row + n] = y;
    return y;
}
