//! The keys that shape a U-Net, their defaults and ranges.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The keys of a diffusers `config.json` that shape the network, and ours (`limbeck_*`). Keys unknown here are refused by
/// [`super::build`] only if they would change the result; the rest of a diffusers file is read and written back as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnetConfig {
    /// Height and width of the image.
    pub sample_size: usize,
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Residual blocks at each level of the way down (one more on the way up).
    #[serde(default = "two")]
    pub layers_per_block: usize,
    /// Channels at each level.
    pub block_out_channels: Vec<usize>,
    /// `DownBlock2D` or `AttnDownBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `AttnUpBlock2D` for each level, deepest first.
    pub up_block_types: Vec<String>,
    /// Groups of every GroupNorm.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// Added to the variance in every GroupNorm.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Channels of one attention head; none: one head.
    #[serde(default = "eight")]
    pub attention_head_dim: Option<usize>,
    /// `default` (the time embedding is added) or `scale_shift`.
    #[serde(default = "default_word")]
    pub resnet_time_scale_shift: String,
    /// `positional` or `fourier`.
    #[serde(default = "positional")]
    pub time_embedding_type: String,
    /// Cosines before sines.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Subtracted from half the number of features in the frequencies' exponent.
    #[serde(default)]
    pub freq_shift: f64,
    /// 1: padding on all sides; 0: one row and column after the map.
    #[serde(default = "one")]
    pub downsample_padding: usize,
    /// Rows of the class table.
    #[serde(default)]
    pub num_class_embeds: Option<usize>,
    /// Dropout between the two halves of every residual block, in training alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropout: f64,
    /// Attention in the middle block.
    #[serde(default = "yes")]
    pub add_attention: bool,
    /// Edge of the space-to-depth block around the network; 1 is none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub limbeck_space_to_depth: usize,
    /// A second time input (BOOT's target time, a flow map's end).
    #[serde(default, skip_serializing_if = "is_false")]
    pub limbeck_second_time: bool,
    /// A guidance input.
    #[serde(default, skip_serializing_if = "is_false")]
    pub limbeck_guidance_input: bool,
    /// Inner channels of pruned blocks by name ([`crate::graph::prune`]): of a residual block between its convolutions, of an attention
    /// all heads together. Blocks not named have as many as they give.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limbeck_inner_channels: BTreeMap<String, usize>,
    /// Everything else in the file.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn eight() -> Option<usize> {
    Some(8)
}
fn thirty_two() -> usize {
    32
}
fn yes() -> bool {
    true
}
fn default_eps() -> f64 {
    1e-5
}
fn default_word() -> String {
    "default".into()
}
fn positional() -> String {
    "positional".into()
}
fn is_one(n: &usize) -> bool {
    *n == 1
}
fn is_zero(v: &f64) -> bool {
    *v == 0.0
}
fn is_false(b: &bool) -> bool {
    !*b
}

/// Values of other diffusers keys that this builder's network corresponds to; anything else would be a different network.
const FIXED: &[(&str, &[&str])] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("center_input_sample", &["false"]),
    ("class_embed_type", &["null"]),
    ("attn_norm_num_groups", &["null"]),
    ("downsample_type", &["\"conv\""]),
    ("upsample_type", &["\"conv\""]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("mid_block_type", &["\"UNetMidBlock2D\""]),
    ("time_embedding_dim", &["null"]),
];

/// Checks ranges and that the network is one that this builder makes.
pub(super) fn check(c: &UnetConfig) -> Result<()> {
    let levels = c.block_out_channels.len();
    if levels == 0 || levels > 8 {
        return Err(Error::config("block_out_channels", format!("{levels} levels"), "1 to 8 levels"));
    }
    for (key, types) in [("down_block_types", &c.down_block_types), ("up_block_types", &c.up_block_types)] {
        if types.len() != levels {
            return Err(Error::config(key, format!("{} entries", types.len()), format!("{levels}, one for each level")));
        }
    }
    for (key, allowed) in FIXED {
        if let Some(value) = c.other.get(*key) {
            let text = value.to_string();
            if !allowed.contains(&text.as_str()) {
                return Err(Error::config(*key, text, allowed[0]));
            }
        }
    }
    for (key, n, max) in [
        ("sample_size", c.sample_size, 1024),
        ("in_channels", c.in_channels, 64),
        ("out_channels", c.out_channels, 64),
        ("layers_per_block", c.layers_per_block, 16),
        ("norm_num_groups", c.norm_num_groups, 1024),
        ("limbeck_space_to_depth", c.limbeck_space_to_depth, 8),
        ("num_class_embeds", c.num_class_embeds.unwrap_or(1), 100_000),
        ("attention_head_dim", c.attention_head_dim.unwrap_or(1), 4096),
    ] {
        if n == 0 || n > max {
            return Err(Error::config(key, n, format!("1 to {max}")));
        }
    }
    if let Some(n) = c.block_out_channels.iter().find(|&&n| n == 0 || n > 4096 || n % c.norm_num_groups != 0) {
        return Err(Error::config("block_out_channels", n, format!("1 to 4096, divisible by norm_num_groups = {}", c.norm_num_groups)));
    }
    if !c.block_out_channels[0].is_multiple_of(2) {
        return Err(Error::config("block_out_channels", c.block_out_channels[0], "an even number at the first level"));
    }
    if !(0.0..1.0).contains(&c.dropout) {
        return Err(Error::config("dropout", c.dropout, "a probability below 1"));
    }
    if c.downsample_padding > 1 {
        return Err(Error::config("downsample_padding", c.downsample_padding, "0 or 1"));
    }
    if !["default", "scale_shift"].contains(&c.resnet_time_scale_shift.as_str()) {
        return Err(Error::config("resnet_time_scale_shift", &c.resnet_time_scale_shift, "default or scale_shift"));
    }
    Ok(())
}
