//! A small convolutional classifier. Its last hidden layer gives the features in which `fd` is measured.

use super::{Graph, Init, NodeId, Op};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Shape of the classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Height and width of the image.
    pub sample_size: usize,
    /// Channels in.
    pub in_channels: usize,
    /// Channels of each stage; every stage but the first halves the map.
    pub channels: Vec<usize>,
    /// Groups of every GroupNorm.
    pub norm_num_groups: usize,
    /// Length of the feature vector.
    pub features: usize,
    /// Number of classes.
    pub classes: usize,
}

/// Builds the graph: two convolutions a stage, mean over pixels, features, logits. [`Graph::features`] is the feature layer.
///
/// # Errors
/// [`Error::Config`] names the key out of range.
pub fn build(c: &ClassifierConfig) -> Result<Graph> {
    for (key, n, max) in [
        ("sample_size", c.sample_size, 1024),
        ("in_channels", c.in_channels, 64),
        ("channels", c.channels.len(), 8),
        ("norm_num_groups", c.norm_num_groups, 1024),
        ("features", c.features, 4096),
        ("classes", c.classes, 100_000),
    ] {
        if n == 0 || n > max {
            return Err(Error::config(key, n, format!("1 to {max}")));
        }
    }
    if let Some(n) = c.channels.iter().find(|&&n| n == 0 || n > 4096) {
        return Err(Error::config("channels", n, "1 to 4096"));
    }
    let mut g = Graph::new([c.in_channels, c.sample_size, c.sample_size]);
    let mut x = 0;
    for (i, &out) in c.channels.iter().enumerate() {
        x = conv(&mut g, &format!("stages.{i}.conv1"), x, out, if i == 0 { 1 } else { 2 }, c.norm_num_groups)?;
        x = conv(&mut g, &format!("stages.{i}.conv2"), x, out, 1, c.norm_num_groups)?;
    }
    x = g.add(Op::MeanPool, &[x], &[])?;
    let last = g.nodes[x].shape[0];
    for (name, from, out) in [("features", last, c.features), ("logits", c.features, c.classes)] {
        let w = g.add_param(format!("{name}.weight"), &[out, from], Init::FanIn(from));
        let b = g.add_param(format!("{name}.bias"), &[out], Init::FanIn(from));
        x = g.add(Op::Linear { out }, &[x], &[w, b])?;
        if name == "features" {
            x = g.add(Op::Silu, &[x], &[])?;
            g.features = Some(x);
        }
    }
    g.output = x;
    Ok(g)
}

fn conv(g: &mut Graph, name: &str, x: NodeId, out: usize, stride: usize, groups: usize) -> Result<NodeId> {
    let fan_in = g.nodes[x].shape[0] * 9;
    let w = g.add_param(format!("{name}.weight"), &[out, g.nodes[x].shape[0], 3, 3], Init::FanIn(fan_in));
    let b = g.add_param(format!("{name}.bias"), &[out], Init::FanIn(fan_in));
    let op = Op::Conv2d { out, kernel: 3, stride, pad: [1, 1], channel_bias: false, residual: false };
    let x = g.add(op, &[x], &[w, b])?;
    let w = g.add_param(format!("{name}.norm.weight"), &[out], Init::Ones);
    let b = g.add_param(format!("{name}.norm.bias"), &[out], Init::Zeros);
    g.add(Op::GroupNorm { groups, eps: 1e-5, scale_shift: false, silu: true }, &[x], &[w, b])
}
