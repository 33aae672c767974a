// Second pass of a convolution whose inner dimension several workgroups shared: adds their sums, in order, and finishes the tile.
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0: u32 = begin(group.x, 16u);
    let n0: u32 = group.y * 4u;
    let m: u32 = m0 + tile_row(t);
    let n: u32 = n0 + tile_column(t);
    var sum: vec4<f32> = vec4<f32>(0.0);
    if (m < limit && n < p.cout) {
        for (var part: u32 = 0u; part < p.parts; part = part + 1u) {
            sum = sum + arena[p.partial + (part * p.pixels + m) * p.cout + n];
        }
    }
    let y: vec4<f32> = finish(m, n, sum);
    if (p.has_stats != 0u) {
        tile_stats(group.x, m0, n0, t, y);
    }
}
