struct Params {
    pixels: u32,     // of one image
    channels: u32,   // real ones
    group: u32,      // channels of a group
    block: u32,      // vec4s that one workgroup treats
    cin: u32,        // vec4s per pixel
    split: u32,      // vec4s that come from src0; the rest comes from src1
    src0: u32,
    row0: u32,
    src1: u32,
    row1: u32,
    weight: u32,
    bias: u32,
    dst: u32,
    dst_row: u32,
    eps: f32,
    silu: u32,
    has_scale: u32,
    scale: u32,      // vector: scales of all channels, then shifts
    scale_row: u32,
}

fn load(pixel: u32, c: u32) -> vec4<f32> {
    if (c < p.split) {
        return arena[p.src0 + pixel * p.row0 + c];
    }
    return arena[p.src1 + pixel * p.row1 + (c - p.split)];
}

// Affine part and SiLU for vec4 `c` of image `image`, given the normalised value.
fn finish(image: u32, pixel: u32, c: u32, normal: vec4<f32>) {
    var y: vec4<f32> = fma(normal, weight(p.weight + c), weight(p.bias + c));
    if (p.has_scale != 0u) {
        let at: u32 = p.scale + image * p.scale_row;
        let shift: u32 = p.channels + 4u * c;
        // Shifts begin at channel `channels`, which need not be a multiple of four; the padding's y is zero before and stays zero.
        let last: u32 = 2u * p.channels - 1u;
        let left: u32 = p.channels - 4u * c;
        let b: vec4<f32> = vec4<f32>(channel(at, shift), channel(at, min(shift + 1u, last)), channel(at, min(shift + 2u, last)), channel(at, min(shift + 3u, last)));
        let inside: vec4<bool> = vec4<bool>(true, left > 1u, left > 2u, left > 3u);
        y = fma(y, vec4<f32>(1.0) + arena[at + c], select(vec4<f32>(0.0), b, inside));
    }
    if (p.silu != 0u) {
        y = silu(y);
    }
    arena[p.dst + pixel * p.dst_row + c] = y;
}
