struct Params {
    pixels: u32,   // of one image: queries, and keys
    channels: u32, // real ones
    head: u32,     // channels of a head
    cout: u32,     // vec4s per pixel
    scale: f32,    // 1 / sqrt(head)
    q: u32,
    q_row: u32,
    k: u32,
    k_row: u32,
    v: u32,
    v_row: u32,
    dst: u32,
    dst_row: u32,
    chunks: u32,   // runs of at most 16 vec4s in a head
}
