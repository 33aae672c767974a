//! A network is data: nodes, named parameters, shapes.
//!
//! [`Graph`] is built once ([`unet`], [`mlp`], [`classifier`]) and read by every interpreter. All parameters live in one flat
//! `f32` vector ("theta"); [`Param::offset`] says where each begins, so that optimisers, averages and files handle one slice.

pub mod classifier;
pub mod mlp;
pub mod op;
pub mod prune;
pub mod unet;

use crate::error::{Error, Result};
pub use op::{Op, Shape, TimeFeatures};
use serde::{Deserialize, Serialize};

/// Index of a node in [`Graph::nodes`].
pub type NodeId = usize;
/// Index of a parameter in [`Graph::params`].
pub type ParamId = usize;

/// One value of the network: an operation on earlier values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Earlier nodes, in the order [`Op`] documents.
    pub inputs: Vec<NodeId>,
    /// Parameters, in the order [`Op`] documents.
    pub params: Vec<ParamId>,
    /// The result's shape for one image.
    pub shape: Shape,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Uniform in `±1/sqrt(fan_in)`, as PyTorch's layers.
    FanIn(usize),
    /// Zero: residual branches that start as the identity, new inputs of a trained network.
    Zeros,
    /// One: norm weights.
    Ones,
    /// Normal with this standard deviation: embeddings and Fourier frequencies.
    Normal(f64),
}

/// A named parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// diffusers' name where there is one.
    pub name: String,
    /// The shape in files.
    pub shape: Vec<usize>,
    /// First element in theta.
    pub offset: usize,
    /// How it starts.
    pub init: Init,
    /// Stored but never trained (Fourier frequencies).
    pub fixed: bool,
}

impl Param {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// True for a parameter of no elements; never the case in a built graph.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Its range in theta.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Everything needed to rebuild a graph; what a bundle stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "_class_name")]
#[allow(
    clippy::large_enum_variant,
    reason = "one configuration a model: its size does not matter, and a box would be in every reader's way"
)]
pub enum NetworkConfig {
    /// diffusers' U-Net.
    #[serde(rename = "UNet2DModel")]
    Unet(unet::UnetConfig),
    /// Perceptron for points (2-D toys).
    #[serde(rename = "Mlp")]
    Mlp(mlp::MlpConfig),
    /// Convolutional classifier (features for evaluation).
    #[serde(rename = "Classifier")]
    Classifier(classifier::ClassifierConfig),
}

impl NetworkConfig {
    /// Builds the graph.
    ///
    /// # Errors
    /// [`Error::Config`] names the key that cannot be built.
    pub fn build(&self) -> Result<Graph> {
        match self {
            NetworkConfig::Unet(c) => unet::build(c),
            NetworkConfig::Mlp(c) => mlp::build(c),
            NetworkConfig::Classifier(c) => classifier::build(c),
        }
    }

    /// As [`NetworkConfig::build`] with the dropout that training may ask for; the parameters are the same.
    ///
    /// # Errors
    /// As [`NetworkConfig::build`].
    pub fn build_training(&self) -> Result<Graph> {
        match self {
            NetworkConfig::Unet(c) => unet::build_training(c),
            _ => self.build(),
        }
    }
}

/// A network: nodes in an order in which each only reads earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The values.
    pub nodes: Vec<Node>,
    /// The parameters, in the order of their offsets.
    pub params: Vec<Param>,
    /// The result.
    pub output: NodeId,
    /// A second result some networks offer (the classifier's features).
    pub features: Option<NodeId>,
    /// The last value before a U-Net's middle: what a discriminator that shares the encoder looks at.
    pub encoder: Option<NodeId>,
    /// How many scalar time inputs a call gives per image: noise level, then target time and guidance where the network has them.
    pub times: usize,
    /// Rows of the label table, 0 for an unconditional network.
    pub classes: usize,
}

impl Graph {
    /// A graph with only its input.
    pub fn new(input: Shape) -> Graph {
        let node = Node { op: Op::Input, inputs: vec![], params: vec![], shape: input };
        Graph { nodes: vec![node], params: vec![], output: 0, features: None, encoder: None, times: 0, classes: 0 }
    }

    /// The network up to a node, which becomes its output. All parameters stay, so that theta is the same.
    pub fn until(&self, output: NodeId) -> Graph {
        Graph { nodes: self.nodes[..=output].to_vec(), output, features: None, encoder: None, ..self.clone() }
    }

    /// Shape of the input image.
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    /// Shape of the output.
    pub fn output_shape(&self) -> Shape {
        self.nodes[self.output].shape
    }

    /// Number of scalars in theta.
    pub fn param_count(&self) -> usize {
        self.params.last().map_or(0, |p| p.offset + p.len())
    }

    /// The parameter of this name.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|p| p.name == name)
    }

    /// Adds a parameter and returns its index.
    pub fn add_param(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> ParamId {
        let offset = self.param_count();
        self.params.push(Param { name: name.into(), shape: shape.to_vec(), offset, init, fixed: false });
        self.params.len() - 1
    }

    /// Adds a node, inferring its shape.
    ///
    /// # Errors
    /// [`Error::Config`] if the inputs' shapes do not fit the operation.
    pub fn add(&mut self, op: Op, inputs: &[NodeId], params: &[ParamId]) -> Result<NodeId> {
        let shape = self.infer(&op, inputs)?;
        self.nodes.push(Node { op, inputs: inputs.to_vec(), params: params.to_vec(), shape });
        Ok(self.nodes.len() - 1)
    }

    fn infer(&self, op: &Op, inputs: &[NodeId]) -> Result<Shape> {
        let bad = |found: String, expected: &str| Err(Error::Config { key: op.name().into(), found, expected: expected.into() });
        let arity = match op {
            Op::Input | Op::TimeEmbed { .. } | Op::LabelEmbed { .. } => 0,
            Op::Linear { .. } | Op::Silu | Op::Upsample2x | Op::MeanPool | Op::Dropout { .. } | Op::DivideByTime { .. } => 1,
            Op::SpaceToDepth { .. } | Op::DepthToSpace { .. } => 1,
            Op::Add | Op::Concat => 2,
            Op::GroupNorm { scale_shift, .. } => 1 + usize::from(*scale_shift),
            Op::Conv2d { channel_bias, residual, .. } => 1 + usize::from(*channel_bias) + usize::from(*residual),
            Op::Attention { .. } => 3,
        };
        if inputs.len() != arity {
            return bad(format!("{} inputs", inputs.len()), &format!("{arity} inputs"));
        }
        let s = |i: usize| self.nodes[inputs[i]].shape;
        Ok(match op {
            Op::Input => self.input_shape(),
            Op::TimeEmbed { dim, .. } | Op::LabelEmbed { dim, .. } => [*dim, 1, 1],
            Op::Linear { out } => {
                if s(0)[1..] != [1, 1] {
                    return bad(format!("{:?}", s(0)), "a vector");
                }
                [*out, 1, 1]
            }
            Op::Silu | Op::Dropout { .. } | Op::DivideByTime { .. } => s(0),
            Op::Add => {
                if s(0) != s(1) {
                    return bad(format!("{:?} and {:?}", s(0), s(1)), "two equal shapes");
                }
                s(0)
            }
            Op::GroupNorm { groups, scale_shift, .. } => {
                if *groups == 0 || s(0)[0] % groups != 0 {
                    return bad(format!("{} channels in {groups} groups", s(0)[0]), "a number of groups that divides the channels");
                }
                if *scale_shift && s(1) != [2 * s(0)[0], 1, 1] {
                    return bad(format!("{:?} for {} channels", s(1), s(0)[0]), "a scale and a shift for each channel");
                }
                s(0)
            }
            Op::Conv2d { out, kernel, stride, pad, channel_bias, residual } => {
                let [_, h, w] = s(0);
                let edge = |n: usize| (n + pad[0] + pad[1]).checked_sub(*kernel).map(|m| m / stride + 1);
                let (Some(oh), Some(ow)) = (edge(h), edge(w)) else {
                    return bad(format!("a map of {h}x{w}"), "a map at least as large as the kernel");
                };
                let shape = [*out, oh, ow];
                if *channel_bias && s(1) != [*out, 1, 1] {
                    return bad(format!("{:?}", s(1)), "one bias for each output channel");
                }
                if *residual && s(inputs.len() - 1) != shape {
                    return bad(format!("{:?} onto {shape:?}", s(inputs.len() - 1)), "a residual of the output's shape");
                }
                shape
            }
            Op::Attention { heads } => {
                if s(0) != s(1) || s(0) != s(2) || *heads == 0 || s(0)[0] % heads != 0 {
                    return bad(
                        format!("{:?}, {:?}, {:?} and {heads} heads", s(0), s(1), s(2)),
                        "equal maps whose channels the heads divide",
                    );
                }
                s(0)
            }
            Op::Upsample2x => [s(0)[0], 2 * s(0)[1], 2 * s(0)[2]],
            Op::Concat => {
                if s(0)[1..] != s(1)[1..] {
                    return bad(format!("{:?} and {:?}", s(0), s(1)), "maps of one height and width");
                }
                [s(0)[0] + s(1)[0], s(0)[1], s(0)[2]]
            }
            Op::SpaceToDepth { block } => {
                let [c, h, w] = s(0);
                if *block == 0 || h % block != 0 || w % block != 0 {
                    return bad(format!("a map of {h}x{w} in blocks of {block}"), "a block that divides height and width");
                }
                [c * block * block, h / block, w / block]
            }
            Op::DepthToSpace { block } => {
                let [c, h, w] = s(0);
                if *block == 0 || c % (block * block) != 0 {
                    return bad(format!("{c} channels in blocks of {block}"), "channels divisible by the block's area");
                }
                [c / (block * block), h * block, w * block]
            }
            Op::MeanPool => [s(0)[0], 1, 1],
        })
    }

    /// Multiply-accumulates of one node for one image: convolutions, linear layers and both attention products; norms, activations
    /// and copies count nothing.
    pub fn node_macs(&self, id: NodeId) -> u64 {
        let node = &self.nodes[id];
        let input = |i: usize| self.nodes[node.inputs[i]].shape;
        let macs = match &node.op {
            Op::Linear { out } => input(0).iter().product::<usize>() * out,
            Op::Conv2d { kernel, .. } => node.shape.iter().product::<usize>() * input(0)[0] * kernel * kernel,
            Op::Attention { .. } => {
                let pixels = node.shape[1] * node.shape[2];
                2 * pixels * pixels * node.shape[0]
            }
            _ => 0,
        };
        macs as u64
    }

    /// Multiply-accumulates of one call for one image.
    pub fn macs(&self) -> u64 {
        (0..self.nodes.len()).map(|i| self.node_macs(i)).sum()
    }

    /// A fresh theta: image `k` of parameter `i` in [`crate::rng`]'s stream of initial values, the same on every machine.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let mut theta = vec![0f32; self.param_count()];
        for (i, p) in self.params.iter().enumerate() {
            let out = &mut theta[p.range()];
            match p.init {
                Init::Zeros => {}
                Init::Ones => out.fill(1.0),
                Init::Normal(std) => {
                    crate::rng::normals(seed, crate::rng::Stream::Init, i as u64, out);
                    out.iter_mut().for_each(|v| *v *= std as f32);
                }
                Init::FanIn(fan_in) => {
                    crate::rng::uniforms(seed, crate::rng::Stream::Init, i as u64, out);
                    let bound = 1.0 / (fan_in as f32).sqrt();
                    out.iter_mut().for_each(|v| *v = (2.0 * *v - 1.0) * bound);
                }
            }
        }
        theta
    }
}
