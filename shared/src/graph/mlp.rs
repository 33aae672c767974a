//! A perceptron on points: the network of the 2-D toys, where every method is proved before it meets an image.

use super::{Graph, Init, Op, TimeFeatures};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Shape of the perceptron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Coordinates of a point.
    pub dim: usize,
    /// Width of the hidden layers (even).
    pub hidden: usize,
    /// Hidden layers.
    pub layers: usize,
    /// Rows of the class table.
    #[serde(default)]
    pub num_class_embeds: Option<usize>,
    /// A second time input, as in [`super::unet::UnetConfig::limbeck_second_time`].
    #[serde(default)]
    pub limbeck_second_time: bool,
    /// A guidance input.
    #[serde(default)]
    pub limbeck_guidance_input: bool,
}

/// Builds the graph: `linear, (+ time), SiLU` repeated, then a linear layer back to a point.
///
/// # Errors
/// [`Error::Config`] names the key out of range.
pub fn build(c: &MlpConfig) -> Result<Graph> {
    for (key, n, max) in [
        ("dim", c.dim, 64),
        ("hidden", c.hidden, 4096),
        ("layers", c.layers, 32),
        ("num_class_embeds", c.num_class_embeds.unwrap_or(1), 100_000),
    ] {
        if n == 0 || n > max {
            return Err(Error::config(key, n, format!("1 to {max}")));
        }
    }
    if !c.hidden.is_multiple_of(2) {
        return Err(Error::config("hidden", c.hidden, "an even number"));
    }
    let mut g = Graph::new([c.dim, 1, 1]);
    let linear = |g: &mut Graph, name: &str, x, from: usize, out: usize, init| {
        let w = g.add_param(format!("{name}.weight"), &[out, from], init);
        let b = g.add_param(format!("{name}.bias"), &[out], init);
        g.add(Op::Linear { out }, &[x], &[w, b])
    };
    let mut emb = None;
    let inputs = [
        (true, "time", 1.0),
        (c.limbeck_second_time, "limbeck_second_time", super::unet::EXTRA_TIME_SCALE),
        (c.limbeck_guidance_input, "limbeck_guidance", super::unet::EXTRA_TIME_SCALE),
    ];
    for (slot, (_, name, scale)) in inputs.into_iter().filter(|i| i.0).enumerate() {
        let features = TimeFeatures::Positional { flip_sin_to_cos: true, freq_shift: 0.0, scale };
        let t = g.add(Op::TimeEmbed { slot, dim: c.hidden, features }, &[], &[])?;
        let t = linear(&mut g, &format!("{name}.linear_1"), t, c.hidden, c.hidden, Init::FanIn(c.hidden))?;
        let t = g.add(Op::Silu, &[t], &[])?;
        let last = if slot == 0 { Init::FanIn(c.hidden) } else { Init::Zeros };
        let t = linear(&mut g, &format!("{name}.linear_2"), t, c.hidden, c.hidden, last)?;
        emb = Some(match emb {
            None => t,
            Some(e) => g.add(Op::Add, &[e, t], &[])?,
        });
        g.times = slot + 1;
    }
    let mut emb = emb.expect("the first time input is always there");
    if let Some(classes) = c.num_class_embeds {
        let table = g.add_param("class_embedding.weight", &[classes, c.hidden], Init::Normal(1.0));
        let label = g.add(Op::LabelEmbed { classes, dim: c.hidden }, &[], &[table])?;
        emb = g.add(Op::Add, &[emb, label], &[])?;
        g.classes = classes;
    }
    let mut x = linear(&mut g, "input", 0, c.dim, c.hidden, Init::FanIn(c.dim))?;
    for i in 0..c.layers {
        x = g.add(Op::Add, &[x, emb], &[])?;
        x = g.add(Op::Silu, &[x], &[])?;
        x = linear(&mut g, &format!("hidden.{i}"), x, c.hidden, c.hidden, Init::FanIn(c.hidden))?;
    }
    x = g.add(Op::Silu, &[x], &[])?;
    g.output = linear(&mut g, "output", x, c.hidden, c.dim, Init::FanIn(c.hidden))?;
    Ok(g)
}
