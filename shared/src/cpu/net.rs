//! A network with its parameters, as samplers call it.

use super::plan::Keep;
use super::{Cond, Exec, pack};
use crate::error::{Error, Result};
use crate::graph::Graph;
use std::sync::Arc;

/// A network with its parameters: what samplers call.
pub struct Net {
    exec: Arc<Exec>,
    theta: Vec<f32>,
    /// The weights as kernels read them: they never change here, so they are laid out once.
    packed: pack::Packed,
}

impl crate::denoiser::Net for Net {
    fn shape(&self) -> [usize; 3] {
        self.graph().input_shape()
    }
    fn eval(&self, x: &[f32], n: usize, times: &[f32], labels: &[u32], out: &mut [f32]) -> Result<()> {
        let labels = if self.graph().classes == 0 { &[] } else { labels };
        self.forward(x, n, &times.repeat(n), labels, out)
    }
}

impl Net {
    /// Joins a graph and its parameters, in f32.
    ///
    /// # Errors
    /// As [`Net::with_exec`], and for a graph that [`Exec::new`] refuses.
    pub fn new(graph: Graph, theta: Vec<f32>) -> Result<Net> {
        Net::with_exec(Arc::new(Exec::new(graph)?), theta)
    }
    /// Joins a planned network and its parameters.
    ///
    /// # Errors
    /// [`Error::Call`] if theta has not the graph's length.
    pub fn with_exec(exec: Arc<Exec>, theta: Vec<f32>) -> Result<Net> {
        if theta.len() != exec.graph().param_count() {
            return Err(Error::call("parameters", theta.len(), exec.graph().param_count()));
        }
        let packed = exec.pack(&theta, pack::Direction::Inference);
        Ok(Net { exec, theta, packed })
    }
    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.exec.graph()
    }
    /// The parameters.
    pub fn theta(&self) -> &[f32] {
        &self.theta
    }
    /// Output `[n, ...]` for `x [n, c, h, w]`.
    ///
    /// # Errors
    /// As [`Exec::forward`].
    pub fn forward(&self, x: &[f32], n: usize, times: &[f32], labels: &[u32], out: &mut [f32]) -> Result<()> {
        self.call(x, n, Cond { times, labels, dropout: None }, out, None)
    }
    /// Output and features (of graphs that have them).
    ///
    /// # Errors
    /// As [`Exec::forward`].
    pub fn forward_features(&self, x: &[f32], n: usize, out: &mut [f32], features: &mut [f32]) -> Result<()> {
        self.call(x, n, Cond { times: &[], labels: &[], dropout: None }, out, Some(features))
    }
    fn call(&self, x: &[f32], n: usize, cond: Cond<'_>, out: &mut [f32], features: Option<&mut [f32]>) -> Result<()> {
        self.exec.forward_into(&self.theta, Some(&self.packed), x, n, cond, Keep::Nothing, out, features).map(|_| ())
    }
}
