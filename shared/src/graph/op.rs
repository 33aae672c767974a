//! The closed set of operations a network is made of.
//!
//! Shapes are per image: a map is `[channels, height, width]`, a vector `[n, 1, 1]`; the batch is never part of a shape.
//! Every interpreter (CPU, candle, WebGPU) matches on [`Op`] exhaustively, so an operation without an implementation
//! is a compile error, not a surprise at run time.

use serde::{Deserialize, Serialize};

/// Shape of one image's value: `[channels, height, width]`; vectors are `[n, 1, 1]`.
pub type Shape = [usize; 3];

/// How a scalar time becomes features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TimeFeatures {
    /// Sinusoids of `t * scale * exp(-ln(10000) i / (dim/2 - freq_shift))`, i = 0..dim/2; `[sin, cos]`, or `[cos, sin]` if flipped.
    Positional {
        /// diffusers' `flip_sin_to_cos`.
        flip_sin_to_cos: bool,
        /// diffusers' `freq_shift`.
        freq_shift: f64,
        /// Factor on the time before anything else; 1 in diffusers.
        scale: f64,
    },
    /// `[sin, cos]` of `2 pi w ln(t)` with `dim/2` stored, untrained frequencies `w` (parameter 0 of the node); `[cos, sin]` if flipped.
    Fourier {
        /// Cosines first.
        flip_sin_to_cos: bool,
    },
}

/// One operation. Inputs and parameters are listed per variant in the order in which [`super::Node`] holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The image the network is asked about. No inputs.
    Input,
    /// Features of time input `slot` (see [`super::Graph::times`]). No inputs; output `[dim, 1, 1]`.
    TimeEmbed {
        /// Which of the call's time inputs.
        slot: usize,
        /// Number of features (even).
        dim: usize,
        /// Which features.
        features: TimeFeatures,
    },
    /// Row of a table, chosen by the call's label. Params: `weight [classes, dim]`. Output `[dim, 1, 1]`.
    LabelEmbed {
        /// Rows of the table.
        classes: usize,
        /// Row length.
        dim: usize,
    },
    /// `W x + b` on a vector. Params: `weight [out, in]`, `bias [out]`.
    Linear {
        /// Output length.
        out: usize,
    },
    /// `x * sigmoid(x)`, element by element.
    Silu,
    /// Sum of two values of one shape.
    Add,
    /// GroupNorm, then an optional per-channel scale and shift, then an optional SiLU.
    ///
    /// Params: `weight [c]`, `bias [c]`. Inputs: `x`, and if `scale_shift` a vector `[2c]`: `y = y * (1 + v[..c]) + v[c..]`.
    GroupNorm {
        /// Number of groups; divides the channels.
        groups: usize,
        /// Added to the variance.
        eps: f64,
        /// A second input gives scale and shift.
        scale_shift: bool,
        /// SiLU at the end.
        silu: bool,
    },
    /// Convolution, zero padding. Params: `weight [out, in, k, k]` (or `[out, in]` for a per-pixel linear layer), `bias [out]`.
    ///
    /// Inputs: `x`; if `channel_bias` a vector `[out]` added at every pixel; if `residual` a map of the output's shape added last.
    Conv2d {
        /// Output channels.
        out: usize,
        /// Kernel edge: 1 or 3.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Zero rows and columns before (top, left) and after (bottom, right).
        pad: [usize; 2],
        /// A vector input is added per channel (the time embedding).
        channel_bias: bool,
        /// A map input is added to the result.
        residual: bool,
    },
    /// Scaled dot-product attention over the pixels. Inputs: `q`, `k`, `v`, each `[heads * d, h, w]`; scale `1/sqrt(d)`.
    Attention {
        /// Heads; divides the channels.
        heads: usize,
    },
    /// Every pixel twice in both directions.
    Upsample2x,
    /// Channels of two maps, one after the other.
    Concat,
    /// `[c, h, w]` to `[c b b, h/b, w/b]`: output channel `(c * b + dy) * b + dx`.
    SpaceToDepth {
        /// Block edge.
        block: usize,
    },
    /// The inverse of [`Op::SpaceToDepth`].
    DepthToSpace {
        /// Block edge.
        block: usize,
    },
    /// Mean over the pixels: `[c, h, w]` to `[c, 1, 1]`.
    MeanPool,
    /// In a call that asks for dropout each value is zero with probability `rate` and divided by `1 - rate` otherwise; in any other
    /// call the value itself. Graphs for drawing have none.
    Dropout {
        /// From 0 to below 1.
        rate: f64,
    },
    /// Every element divided by time input `slot` (diffusers' Fourier-time networks end so).
    DivideByTime {
        /// Which of the call's time inputs.
        slot: usize,
    },
}

impl Op {
    /// The operation's name in messages and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::TimeEmbed { .. } => "time_embed",
            Op::LabelEmbed { .. } => "label_embed",
            Op::Linear { .. } => "linear",
            Op::Silu => "silu",
            Op::Add => "add",
            Op::GroupNorm { .. } => "group_norm",
            Op::Conv2d { .. } => "conv2d",
            Op::Attention { .. } => "attention",
            Op::Upsample2x => "upsample2x",
            Op::Concat => "concat",
            Op::SpaceToDepth { .. } => "space_to_depth",
            Op::DepthToSpace { .. } => "depth_to_space",
            Op::MeanPool => "mean_pool",
            Op::Dropout { .. } => "dropout",
            Op::DivideByTime { .. } => "divide_by_time",
        }
    }
}
