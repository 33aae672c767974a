// The small operations: a thread makes one vec4 of the result.
struct Params {
    mode: u32,
    rows: u32,     // pixels of all images
    h: u32,        // of the result
    w: u32,
    channels: u32, // of the result, real ones
    cout: u32,     // vec4s per pixel of the result
    dst: u32,
    dst_row: u32,
    a: u32,
    a_row: u32,
    a_channels: u32,
    a_h: u32,
    a_w: u32,
    b: u32,        // second operand; for LABEL the labels, for DIVIDE the times
    b_row: u32,
    block: u32,    // edge of a space-to-depth block; for DIVIDE the time's slot; for LABEL the table
}
const COPY: u32 = 0u;
const SILU: u32 = 1u;
const ADD: u32 = 2u;
const DIVIDE: u32 = 3u;
const LABEL: u32 = 4u;
const CONCAT: u32 = 5u;
const UPSAMPLE: u32 = 6u;
const SPACE_TO_DEPTH: u32 = 7u;
const DEPTH_TO_SPACE: u32 = 8u;
const MEAN: u32 = 9u;

// Channel `c` of the result's pixel (image, y, x), for the operations that move single channels.
fn moved(row: u32, image: u32, y: u32, x: u32, c: u32) -> f32 {
    if (c >= p.channels) {
        return 0.0;
    }
    if (p.mode == CONCAT) {
        if (c < p.a_channels) {
            return channel(p.a + row * p.a_row, c);
        }
        return channel(p.b + row * p.b_row, c - p.a_channels);
    }
    if (p.mode == SPACE_TO_DEPTH) {
        let sy: u32 = y * p.block + (c / p.block) % p.block;
        let sx: u32 = x * p.block + c % p.block;
        return channel(p.a + ((image * p.a_h + sy) * p.a_w + sx) * p.a_row, c / (p.block * p.block));
    }
    let sc: u32 = (c * p.block + y % p.block) * p.block + x % p.block;
    return channel(p.a + ((image * p.a_h + y / p.block) * p.a_w + x / p.block) * p.a_row, sc);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i: u32 = id.y * groups.x * 64u + id.x;
    let row: u32 = i / p.cout;
    let c: u32 = i % p.cout;
    if (row >= p.rows) {
        return;
    }
    let image: u32 = row / (p.h * p.w);
    let y: u32 = (row / p.w) % p.h;
    let x: u32 = row % p.w;
    var r: vec4<f32> = vec4<f32>(0.0);
    switch (p.mode) {
        case COPY: {
            r = arena[p.a + row * p.a_row + c];
        }
        case SILU: {
            r = silu(arena[p.a + row * p.a_row + c]);
        }
        case ADD: {
            r = arena[p.a + row * p.a_row + c] + arena[p.b + row * p.b_row + c];
        }
        case DIVIDE: {
            r = arena[p.a + row * p.a_row + c] / channel(p.b + image * p.b_row, p.block);
        }
        case LABEL: {
            r = weight(p.block + u32(channel(p.b, image) + 0.5) * p.cout + c);
        }
        case UPSAMPLE: {
            r = arena[p.a + ((image * p.a_h + y / 2u) * p.a_w + x / 2u) * p.a_row + c];
        }
        case MEAN: {
            let count: u32 = p.a_h * p.a_w;
            for (var s: u32 = 0u; s < count; s = s + 1u) {
                r = r + arena[p.a + (image * count + s) * p.a_row + c];
            }
            r = r / f32(count);
        }
        default: {
            r = vec4<f32>(moved(row, image, y, x, 4u * c), moved(row, image, y, x, 4u * c + 1u), moved(row, image, y, x, 4u * c + 2u), moved(row, image, y, x, 4u * c + 3u));
        }
    }
    arena[p.dst + row * p.dst_row + c] = r;
}
