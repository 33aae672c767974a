//! diffusers' `UNet2DModel`, built from its `config.json`, with diffusers' parameter names.
//!
//! Extras outside that config, all off by default: a space-to-depth stem and head, a second time input and a guidance input.
//! The second time and the guidance enter through embeddings whose last layer starts at zero, so a network extended with them
//! computes what it computed before.

mod config;

pub use config::UnetConfig;

use super::{Graph, Init, NodeId, Op, TimeFeatures};
use crate::error::{Error, Result};
use config::check;

/// Factor on the second time and on guidance before their sinusoids: the fastest then turns 4 rad over a unit of time, fast
/// enough to resolve a trajectory and slow enough that time derivatives stay of the order of the network itself.
pub const EXTRA_TIME_SCALE: f64 = 4.0;

/// Builds the graph.
///
/// # Errors
/// [`Error::Config`] names the key whose value this network does not have.
pub fn build(c: &UnetConfig) -> Result<Graph> {
    with_dropout(c, 0.0)
}

/// As [`build`] with the dropout of the configuration.
///
/// # Errors
/// As [`build`].
pub fn build_training(c: &UnetConfig) -> Result<Graph> {
    with_dropout(c, c.dropout)
}

fn with_dropout(c: &UnetConfig, dropout: f64) -> Result<Graph> {
    check(c)?;
    let b = Builder { g: Graph::new([c.in_channels, c.sample_size, c.sample_size]), c, emb: 0, dropout };
    let graph = b.unet()?;
    let known = |name: &str| ["norm2.weight", "to_q.weight"].iter().any(|end| graph.param(&format!("{name}.{end}")).is_some());
    match c.limbeck_inner_channels.keys().find(|name| !known(name)) {
        Some(name) => Err(Error::config("limbeck_inner_channels", name, "names of residual blocks and attentions")),
        None => Ok(graph),
    }
}

struct Builder<'a> {
    g: Graph,
    dropout: f64,
    c: &'a UnetConfig,
    /// SiLU of the time (and class) embedding: what every residual block projects.
    emb: NodeId,
}

impl Builder<'_> {
    fn unet(mut self) -> Result<Graph> {
        let c = self.c;
        let block = c.limbeck_space_to_depth;
        self.embedding()?;
        let mut x = 0;
        if block > 1 {
            x = self.g.add(Op::SpaceToDepth { block }, &[x], &[])?;
        }
        x = self.conv("conv_in", x, c.block_out_channels[0], 3, 1, [1, 1], None, None)?;

        let mut skips = vec![x];
        let levels = c.block_out_channels.len();
        for (i, kind) in c.down_block_types.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            let attention = attention(kind, "down_block_types", "DownBlock2D", "AttnDownBlock2D")?;
            for j in 0..c.layers_per_block {
                x = self.resnet(&format!("{name}.resnets.{j}"), x, c.block_out_channels[i])?;
                if attention {
                    x = self.attention(&format!("{name}.attentions.{j}"), x, true)?;
                }
                skips.push(x);
            }
            if i + 1 < levels {
                let [_, h, w] = self.g.nodes[x].shape;
                if h % 2 != 0 || w % 2 != 0 {
                    return Err(Error::config("sample_size", format!("{h}x{w} at level {i}"), "even edges at every level but the last"));
                }
                let pad = if c.downsample_padding == 1 { [1, 1] } else { [0, 1] };
                x = self.conv(&format!("{name}.downsamplers.0.conv"), x, c.block_out_channels[i], 3, 2, pad, None, None)?;
                skips.push(x);
            }
        }

        self.g.encoder = Some(x);
        let deepest = c.block_out_channels[levels - 1];
        x = self.resnet("mid_block.resnets.0", x, deepest)?;
        if c.add_attention {
            // diffusers gives the middle attention a norm only without scale-shift.
            x = self.attention("mid_block.attentions.0", x, c.resnet_time_scale_shift == "default")?;
        }
        x = self.resnet("mid_block.resnets.1", x, deepest)?;

        for (i, kind) in c.up_block_types.iter().enumerate() {
            let name = format!("up_blocks.{i}");
            let attention = attention(kind, "up_block_types", "UpBlock2D", "AttnUpBlock2D")?;
            let channels = c.block_out_channels[levels - 1 - i];
            for j in 0..=c.layers_per_block {
                let skip = skips.pop().expect("one skip for each block on the way up, by construction");
                x = self.g.add(Op::Concat, &[x, skip], &[])?;
                x = self.resnet(&format!("{name}.resnets.{j}"), x, channels)?;
                if attention {
                    x = self.attention(&format!("{name}.attentions.{j}"), x, true)?;
                }
            }
            if i + 1 < levels {
                x = self.g.add(Op::Upsample2x, &[x], &[])?;
                x = self.conv(&format!("{name}.upsamplers.0.conv"), x, channels, 3, 1, [1, 1], None, None)?;
            }
        }

        x = self.norm("conv_norm_out", x, self.c.norm_num_groups, None, true)?;
        x = self.conv("conv_out", x, c.out_channels * block * block, 3, 1, [1, 1], None, None)?;
        if block > 1 {
            x = self.g.add(Op::DepthToSpace { block }, &[x], &[])?;
        }
        if c.time_embedding_type == "fourier" {
            x = self.g.add(Op::DivideByTime { slot: 0 }, &[x], &[])?;
        }
        self.g.output = x;
        Ok(self.g)
    }

    /// Time, class, second time and guidance, summed, then SiLU.
    fn embedding(&mut self) -> Result<()> {
        let c = self.c;
        let (base, dim) = (c.block_out_channels[0], 4 * c.block_out_channels[0]);
        let features = match c.time_embedding_type.as_str() {
            "positional" => TimeFeatures::Positional { flip_sin_to_cos: c.flip_sin_to_cos, freq_shift: c.freq_shift, scale: 1.0 },
            "fourier" => TimeFeatures::Fourier { flip_sin_to_cos: false },
            other => return Err(Error::config("time_embedding_type", other, "positional or fourier")),
        };
        let (params, width) = match features {
            TimeFeatures::Fourier { .. } => {
                let id = self.g.add_param("time_proj.weight", &[base], Init::Normal(16.0));
                self.g.params[id].fixed = true;
                (vec![id], 2 * base)
            }
            TimeFeatures::Positional { .. } => (vec![], base),
        };
        let t = self.g.add(Op::TimeEmbed { slot: 0, dim: width, features }, &[], &params)?;
        self.g.times = 1;
        let mut emb = self.mlp("time_embedding", t, width, dim, Init::FanIn(dim))?;
        if let Some(classes) = c.num_class_embeds {
            let table = self.g.add_param("class_embedding.weight", &[classes, dim], Init::Normal(1.0));
            let label = self.g.add(Op::LabelEmbed { classes, dim }, &[], &[table])?;
            emb = self.g.add(Op::Add, &[emb, label], &[])?;
            self.g.classes = classes;
        }
        let extra = [(c.limbeck_second_time, "limbeck_second_time"), (c.limbeck_guidance_input, "limbeck_guidance")];
        for (_, name) in extra.into_iter().filter(|e| e.0) {
            let features = TimeFeatures::Positional { flip_sin_to_cos: true, freq_shift: 0.0, scale: EXTRA_TIME_SCALE };
            let t = self.g.add(Op::TimeEmbed { slot: self.g.times, dim: base, features }, &[], &[])?;
            self.g.times += 1;
            let e = self.mlp(name, t, base, dim, Init::Zeros)?;
            emb = self.g.add(Op::Add, &[emb, e], &[])?;
        }
        self.emb = self.g.add(Op::Silu, &[emb], &[])?;
        Ok(())
    }

    fn mlp(&mut self, name: &str, x: NodeId, from: usize, dim: usize, last: Init) -> Result<NodeId> {
        let x = self.linear(&format!("{name}.linear_1"), x, from, dim, Init::FanIn(from))?;
        let x = self.g.add(Op::Silu, &[x], &[])?;
        self.linear(&format!("{name}.linear_2"), x, dim, dim, last)
    }

    fn linear(&mut self, name: &str, x: NodeId, from: usize, out: usize, init: Init) -> Result<NodeId> {
        let w = self.g.add_param(format!("{name}.weight"), &[out, from], init);
        let b = self.g.add_param(format!("{name}.bias"), &[out], init);
        self.g.add(Op::Linear { out }, &[x], &[w, b])
    }

    fn norm(&mut self, name: &str, x: NodeId, groups: usize, scale_shift: Option<NodeId>, silu: bool) -> Result<NodeId> {
        let channels = self.g.nodes[x].shape[0];
        let w = self.g.add_param(format!("{name}.weight"), &[channels], Init::Ones);
        let b = self.g.add_param(format!("{name}.bias"), &[channels], Init::Zeros);
        let op = Op::GroupNorm { groups, eps: self.c.norm_eps, scale_shift: scale_shift.is_some(), silu };
        let inputs: Vec<_> = std::iter::once(x).chain(scale_shift).collect();
        self.g.add(op, &inputs, &[w, b])
    }

    fn conv(
        &mut self,
        name: &str,
        x: NodeId,
        out: usize,
        kernel: usize,
        stride: usize,
        pad: [usize; 2],
        channel_bias: Option<NodeId>,
        residual: Option<NodeId>,
    ) -> Result<NodeId> {
        let channels = self.g.nodes[x].shape[0];
        let fan_in = channels * kernel * kernel;
        // Attention's per-pixel layers are `nn.Linear` in diffusers: two-dimensional weights in files.
        let shape = if name.contains(".to_") { vec![out, channels] } else { vec![out, channels, kernel, kernel] };
        // Branches that end in zero start as the identity (EDM's initialisation).
        let last = ["conv2", "to_out.0", "conv_out"].iter().any(|end| name.ends_with(end));
        let init = if last { Init::Zeros } else { Init::FanIn(fan_in) };
        let w = self.g.add_param(format!("{name}.weight"), &shape, init);
        let b = self.g.add_param(format!("{name}.bias"), &[out], init);
        let op = Op::Conv2d { out, kernel, stride, pad, channel_bias: channel_bias.is_some(), residual: residual.is_some() };
        let inputs: Vec<_> = std::iter::once(x).chain(channel_bias).chain(residual).collect();
        self.g.add(op, &inputs, &[w, b])
    }

    /// Inner channels of a block that gives `out`: whole parts of `unit` channels.
    fn inner(&self, name: &str, out: usize, unit: usize) -> Result<usize> {
        let inner = self.c.limbeck_inner_channels.get(name).copied().unwrap_or(out);
        if inner == 0 || inner > out || !inner.is_multiple_of(unit) {
            let key = format!("limbeck_inner_channels.{name}");
            return Err(Error::config(key, inner, format!("a multiple of {unit} up to {out}")));
        }
        Ok(inner)
    }

    /// `ResnetBlock2D`: norm, SiLU, conv, time, norm, SiLU, conv, plus the input.
    fn resnet(&mut self, name: &str, x: NodeId, out: usize) -> Result<NodeId> {
        let channels = self.g.nodes[x].shape[0];
        let emb_dim = self.g.nodes[self.emb].shape[0];
        let scale_shift = self.c.resnet_time_scale_shift == "scale_shift";
        // A norm group keeps its size, whatever is pruned: its statistics are then those of the unpruned block.
        let (groups, unit) = (self.c.norm_num_groups, out / self.c.norm_num_groups);
        let inner = self.inner(name, out, unit)?;
        let h = self.norm(&format!("{name}.norm1"), x, groups, None, true)?;
        let time_out = if scale_shift { 2 * inner } else { inner };
        let time = self.linear(&format!("{name}.time_emb_proj"), self.emb, emb_dim, time_out, Init::FanIn(emb_dim))?;
        let h = self.conv(&format!("{name}.conv1"), h, inner, 3, 1, [1, 1], (!scale_shift).then_some(time), None)?;
        let h = self.norm(&format!("{name}.norm2"), h, inner / unit, scale_shift.then_some(time), true)?;
        let h = if self.dropout > 0.0 { self.g.add(Op::Dropout { rate: self.dropout }, &[h], &[])? } else { h };
        let residual = if channels == out { x } else { self.conv(&format!("{name}.conv_shortcut"), x, out, 1, 1, [0, 0], None, None)? };
        self.conv(&format!("{name}.conv2"), h, out, 3, 1, [1, 1], None, Some(residual))
    }

    fn attention(&mut self, name: &str, x: NodeId, norm: bool) -> Result<NodeId> {
        let channels = self.g.nodes[x].shape[0];
        let head = self.c.attention_head_dim.unwrap_or(channels);
        if !channels.is_multiple_of(head) {
            return Err(Error::config("attention_head_dim", head, format!("a divisor of {channels}")));
        }
        let inner = self.inner(name, channels, head)?;
        let h = if norm { self.norm(&format!("{name}.group_norm"), x, self.c.norm_num_groups, None, false)? } else { x };
        let mut qkv = [0; 3];
        for (node, part) in qkv.iter_mut().zip(["to_q", "to_k", "to_v"]) {
            *node = self.conv(&format!("{name}.{part}"), h, inner, 1, 1, [0, 0], None, None)?;
        }
        let y = self.g.add(Op::Attention { heads: inner / head }, &qkv, &[])?;
        self.conv(&format!("{name}.to_out.0"), y, channels, 1, 1, [0, 0], None, Some(x))
    }
}

fn attention(kind: &str, key: &str, plain: &str, with: &str) -> Result<bool> {
    match kind {
        k if k == plain => Ok(false),
        k if k == with => Ok(true),
        other => Err(Error::config(key, other, format!("{plain} or {with}"))),
    }
}
