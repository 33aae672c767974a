// GroupNorm without dispatches of its own. Whoever makes a map leaves, for each tile of its pixels and each channel, the mean and the
// sum of squared distances from it; whoever reads the map puts them together (no sums of squares of large numbers anywhere), and
// normalises each vec4 as it is read.
var<workgroup> sums: array<vec4<f32>, 256>;
var<workgroup> norm_scale: array<vec4<f32>, 64>;
var<workgroup> norm_shift: array<vec4<f32>, 64>;

fn normal(c: u32, v: vec4<f32>) -> vec4<f32> {
    if (p.has_norm == 0u) {
        return v;
    }
    let y: vec4<f32> = fma(v, norm_scale[c], norm_shift[c]);
    if (p.norm_silu == 0u) {
        return y;
    }
    return silu(y);
}

// Leaves the statistics of output vec4 `n` over tile `x`.
fn store_stats(x: u32, n: u32, mean: vec4<f32>, square: vec4<f32>) {
    let at: u32 = p.stats + x * 2u * p.cout + n;
    arena[at] = mean;
    arena[at + p.cout] = square;
}

// What channels of one group have together, in each lane.
fn across(v: vec4<f32>) -> vec4<f32> {
    if (p.group == 1u) {
        return v;
    }
    if (p.group == 2u) {
        return vec4<f32>(v.x + v.y, v.x + v.y, v.z + v.w, v.z + v.w);
    }
    return vec4<f32>((v.x + v.y) + (v.z + v.w));
}

// Sum over the group of vec4 `q`, of values that lie for each vec4 in `norm_shift`.
fn over_group(q: u32) -> vec4<f32> {
    let width: u32 = max(p.group / 4u, 1u);
    let first: u32 = q - q % width;
    var sum: vec4<f32> = vec4<f32>(0.0);
    for (var i: u32 = 0u; i < width; i = i + 1u) {
        sum = sum + norm_shift[first + i];
    }
    return across(sum);
}

// For each vec4 the sum over its parts in `sums`, to `norm_shift`.
fn over_parts(parts: u32, t: u32) {
    workgroupBarrier();
    for (var q: u32 = t; q < p.cin; q = q + THREADS) {
        var sum: vec4<f32> = vec4<f32>(0.0);
        for (var i: u32 = 0u; i < parts; i = i + 1u) {
            sum = sum + sums[i * p.cin + q];
        }
        norm_shift[q] = sum;
    }
    workgroupBarrier();
}

// Sum over every `parts`-th tile from `part` on, of means, or with `squares` of squared distances from `around`; of vec4 `q`.
fn over_tiles(image: u32, q: u32, part: u32, parts: u32, squares: bool, around: vec4<f32>) -> vec4<f32> {
    let second: bool = q >= p.split;
    let rows: u32 = select(p.stats0_rows, p.stats1_rows, second);
    let row: u32 = select(p.split, p.cin - p.split, second);
    let tiles: u32 = (p.span_in + rows - 1u) / rows;
    let base: u32 = select(p.stats0, p.stats1, second) + image * tiles * 2u * row + select(q, q - p.split, second);
    var sum: vec4<f32> = vec4<f32>(0.0);
    for (var i: u32 = part; i < tiles; i = i + parts) {
        let count: f32 = f32(min(rows, p.span_in - i * rows));
        let mean: vec4<f32> = arena[base + i * 2u * row];
        if (squares) {
            let d: vec4<f32> = mean - around;
            sum = sum + fma(d * d, vec4<f32>(count), arena[base + (i * 2u + 1u) * row]);
        } else {
            sum = fma(mean, vec4<f32>(count), sum);
        }
    }
    return sum;
}

// Fills `norm_scale` and `norm_shift` for an image; all threads of the workgroup take part.
fn prepare(image: u32, t: u32) {
    let parts: u32 = max(THREADS / p.cin, 1u);
    let count: f32 = f32(p.span_in * p.group);
    for (var i: u32 = t; i < p.cin * parts; i = i + THREADS) {
        sums[i] = over_tiles(image, i % p.cin, i / p.cin, parts, false, vec4<f32>(0.0));
    }
    over_parts(parts, t);
    for (var q: u32 = t; q < p.cin; q = q + THREADS) {
        norm_scale[q] = over_group(q) / count;
    }
    workgroupBarrier();
    for (var i: u32 = t; i < p.cin * parts; i = i + THREADS) {
        sums[i] = over_tiles(image, i % p.cin, i / p.cin, parts, true, norm_scale[i % p.cin]);
    }
    over_parts(parts, t);
    for (var q: u32 = t; q < p.cin; q = q + THREADS) {
        sums[q] = inverseSqrt(over_group(q) / count + vec4<f32>(p.eps));
    }
    workgroupBarrier();
    for (var q: u32 = t; q < p.cin; q = q + THREADS) {
        var scale: vec4<f32> = sums[q] * weight(p.norm_weight + q);
        var shift: vec4<f32> = fma(-norm_scale[q], scale, weight(p.norm_bias + q));
        if (p.has_scale != 0u) {
            let at: u32 = p.scale + image * p.scale_row + q;
            let factor: vec4<f32> = vec4<f32>(1.0) + arena[at];
            scale = scale * factor;
            shift = fma(shift, factor, arena[at + p.cin]);
        }
        norm_scale[q] = scale;
        norm_shift[q] = shift;
    }
    workgroupBarrier();
}
