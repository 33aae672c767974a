//! The engine's shaders and what distinguishes their variants.
//!
//! Shapes are run-time parameters, so a device compiles each [`Kernel`] once whatever networks it meets. The sources use core WGSL
//! only: no `shader-f16`, no subgroups, at most 256 invocations and 16 KiB of workgroup memory, and no private arrays.

use super::WeightStorage;

/// What all convolutions begin with.
const CONV: &str = include_str!("kernels/conv_common.wgsl");

/// One compute pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// Convolution, tiles of 64 pixels by 64 channels.
    ConvLarge,
    /// Convolution, tiles of 32 pixels by 32 channels.
    ConvMedium,
    /// Convolution, tiles of 16 pixels by 16 channels with the inner dimension shared among 16 thread groups, and where there are few
    /// tiles among several workgroups too.
    ConvSmall,
    /// Adds what several workgroups of [`Kernel::ConvSmall`] made of one tile.
    ConvSum,
    /// Convolution of few channels, a thread making one pixel by 4 vec4s of channels on its own.
    ConvStem,
    /// Convolution onto few channels, a thread making one pixel by one vec4 on its own.
    ConvHead,
    /// Convolution, a thread making 7 pixels by 8 vec4s of channels on its own.
    ConvDirect7,
    /// Convolution, a thread making 8 pixels by 8 vec4s of channels on its own.
    ConvDirect8,
    /// Matrix times vector.
    Linear,
    /// GroupNorm with 64 threads to a group.
    Norm64,
    /// GroupNorm with 256 threads to a group.
    Norm256,
    /// GroupNorm whose groups share vec4s in other ways than pairs and singles.
    NormAny,
    /// Attention on heads of whole vec4s.
    Attention,
    /// Attention on any heads.
    AttentionAny,
    /// Element-wise operations and copies.
    Map,
    /// Linear combination of registers.
    Combine,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Kernel; 16] = [
        Kernel::ConvLarge,
        Kernel::ConvMedium,
        Kernel::ConvSmall,
        Kernel::ConvSum,
        Kernel::ConvStem,
        Kernel::ConvHead,
        Kernel::ConvDirect7,
        Kernel::ConvDirect8,
        Kernel::Linear,
        Kernel::Norm64,
        Kernel::Norm256,
        Kernel::NormAny,
        Kernel::Attention,
        Kernel::AttentionAny,
        Kernel::Map,
        Kernel::Combine,
    ];

    /// A name for labels and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::ConvLarge => "conv_large",
            Kernel::ConvMedium => "conv_medium",
            Kernel::ConvSmall => "conv_small",
            Kernel::ConvSum => "conv_sum",
            Kernel::ConvStem => "conv_stem",
            Kernel::ConvHead => "conv_head",
            Kernel::ConvDirect7 => "conv_direct_7",
            Kernel::ConvDirect8 => "conv_direct_8",
            Kernel::Linear => "linear",
            Kernel::Norm64 => "norm_64",
            Kernel::Norm256 => "norm_256",
            Kernel::NormAny => "norm_any",
            Kernel::Attention => "attention",
            Kernel::AttentionAny => "attention_any",
            Kernel::Map => "map",
            Kernel::Combine => "combine",
        }
    }

    /// The WGSL source. Entry point `main`; bindings of group 0: 0 the arena, 1 the weights, 2 the parameters (dynamic offset).
    pub fn source(self, storage: WeightStorage) -> String {
        // vec4s of channels that a thread of a direct kernel makes.
        let columns = match self {
            Kernel::ConvHead => 1,
            Kernel::ConvStem => 4,
            _ => 8,
        };
        let tile = |rows: u32, columns: u32, pixels: usize| {
            let header = format!("const ROWS: u32 = {rows}u;\nconst COLS: u32 = {columns}u;\nconst PX: u32 = {pixels}u;\n");
            (vec![CONV, include_str!("kernels/conv_plain.wgsl"), include_str!("kernels/conv.wgsl")], header, pixels)
        };
        let normed = |threads: u32, main: &'static str| {
            let header = format!("const THREADS: u32 = {threads}u;\n");
            (vec![CONV, include_str!("kernels/conv_norm.wgsl"), include_str!("kernels/conv_tile.wgsl"), main], header, 1)
        };
        let direct = |threads: u32, pixels: usize| {
            let header = format!("const THREADS: u32 = {threads}u;\nconst PX: u32 = {pixels}u;\nconst COLS: u32 = {columns}u;\n");
            (vec![CONV, include_str!("kernels/conv_norm.wgsl"), include_str!("kernels/conv_direct.wgsl")], header, pixels)
        };
        let norm = |threads: u32| {
            let header = format!("const THREADS: u32 = {threads}u;\n");
            (vec![include_str!("kernels/norm_common.wgsl"), include_str!("kernels/norm.wgsl")], header, 1)
        };
        let plain = |parts: &[&'static str], repeat: usize| (parts.to_vec(), String::new(), repeat);
        let (parts, header, repeat) = match self {
            Kernel::ConvLarge => tile(8, 16, 8),
            Kernel::ConvMedium => tile(8, 8, 4),
            Kernel::ConvSmall => normed(256, include_str!("kernels/conv_small.wgsl")),
            Kernel::ConvSum => normed(64, include_str!("kernels/conv_sum.wgsl")),
            Kernel::ConvStem | Kernel::ConvHead => direct(64, 1),
            Kernel::ConvDirect7 => direct(8, 7),
            Kernel::ConvDirect8 => direct(8, 8),
            Kernel::Linear => plain(&[include_str!("kernels/linear.wgsl")], 1),
            Kernel::Norm64 => norm(64),
            Kernel::Norm256 => norm(256),
            Kernel::NormAny => plain(&[include_str!("kernels/norm_common.wgsl"), include_str!("kernels/norm_any.wgsl")], 1),
            Kernel::Attention => plain(&[include_str!("kernels/attention_common.wgsl"), include_str!("kernels/attention.wgsl")], 4),
            Kernel::AttentionAny => plain(&[include_str!("kernels/attention_common.wgsl"), include_str!("kernels/attention_any.wgsl")], 1),
            Kernel::Map => plain(&[include_str!("kernels/map.wgsl")], 1),
            Kernel::Combine => plain(&[include_str!("kernels/combine.wgsl")], 1),
        };
        let weights = match storage {
            WeightStorage::F16 => include_str!("kernels/weights_f16.wgsl"),
            WeightStorage::F32 => include_str!("kernels/weights_f32.wgsl"),
        };
        let mut source = header;
        source.push_str(include_str!("kernels/common.wgsl"));
        source.push_str(weights);
        for part in parts {
            source.push_str(&expand(&expand(part, '%', '$', repeat), '^', '#', columns));
        }
        source
    }
}

/// Repeats each line that begins with `mark` for `symbol` = 0..`times`.
fn expand(text: &str, mark: char, symbol: char, times: usize) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for line in text.lines() {
        match line.strip_prefix(mark) {
            Some(rest) => (0..times).for_each(|i| {
                out.push_str(&rest.replace(symbol, &i.to_string()));
                out.push('\n');
            }),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}
