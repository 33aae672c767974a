//! Measuring a network on a group of noise levels: validation loss on the same images and noises every time, and first-order
//! importance of its units.

use crate::data::Dataset;
use crate::device::device;
use crate::method::tdc::{Questions, span};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limbeck_shared::bundle::Meta;
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::graph::prune::blocks;
use limbeck_shared::graph::{Graph, NetworkConfig};
use limbeck_shared::nn::Network;
use limbeck_shared::rng::{self, Stream};
use std::sync::Arc;

/// Images a pass.
const PASS: usize = 64;

/// Questions that stay the same, to compare networks by.
pub struct Probe(Vec<Questions>);

impl Probe {
    /// `count` images, one at each of as many evenly spaced uniform times of a range. `stream` names its random numbers.
    ///
    /// # Errors
    /// If the images are not the model's.
    pub fn new(base: &Meta, data: &dyn Dataset, range: [f64; 2], count: usize, seed: u64, stream: u32) -> Result<Probe> {
        let (shape, len) = (base.image.shape(), base.image.values());
        if data.shape() != shape {
            bail!("`data`: found images of {:?}, expected the base's {shape:?}", data.shape());
        }
        let [low, high] = span(&base.schedule);
        let mut passes = vec![];
        for first in (0..count).step_by(PASS) {
            let images = first..(first + PASS).min(count);
            let (mut x0, mut eps, mut labels, mut t) = (vec![0f32; images.len() * len], vec![0f32; images.len() * len], vec![], vec![]);
            for (i, (x0, eps)) in images.zip(x0.chunks_exact_mut(len).zip(eps.chunks_exact_mut(len))) {
                let pick = rng::below(seed, Stream::Eval(2 * stream), i as u64, data.len() as u32) as usize;
                data.image(pick, x0);
                rng::normals(seed, Stream::Eval(2 * stream + 1), i as u64, eps);
                let u = range[0] + (range[1] - range[0]) * (i as f64 + 0.5) / count as f64;
                t.push(base.schedule.at_uniform(u.clamp(low, high)));
                labels.push(data.label(pick));
            }
            if base.classes.is_empty() {
                labels.clear();
            }
            passes.push(Questions::new(&base.spec(), shape, &x0, &eps, &t, labels)?);
        }
        Ok(Probe(passes))
    }

    /// Mean square error of a network's raw answers.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn loss(&self, net: &Network) -> Result<f64> {
        let losses = self.0.iter().map(|q| Ok(f64::from(q.loss(net)?.to_scalar::<f32>()?))).collect::<Result<Vec<_>>>()?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// Gradient of the loss at these weights, summed over the passes.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn gradient(&self, exec: &Arc<Exec>, theta: &[f32]) -> Result<Vec<f32>> {
        let mut sum = vec![0f32; theta.len()];
        for questions in &self.0 {
            let net = Network::trained(exec.clone(), theta, device())?;
            let grads = questions.loss(&net)?.backward()?;
            let grad = grads.get(net.theta()).context("the loss does not depend on the network")?.to_vec1::<f32>()?;
            sum.iter_mut().zip(&grad).for_each(|(s, g)| *s += g);
            exec.recycle(grad);
        }
        Ok(sum)
    }

    /// Root mean square difference of two networks' raw answers.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn distance(&self, a: &Network, b: &Network) -> Result<f64> {
        self.mean_square(|q| Ok((q.ask(a)? - q.ask(b)?)?)).map(f64::sqrt)
    }

    /// [`Probe::distance`] over the root mean square of the first's answers.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn difference(&self, a: &Network, b: &Network) -> Result<f64> {
        Ok(self.distance(a, b)? / self.mean_square(|q| q.ask(a))?.sqrt())
    }

    fn mean_square(&self, of: impl Fn(&Questions) -> Result<Tensor>) -> Result<f64> {
        let (mut sum, mut count) = (0.0, 0);
        for q in &self.0 {
            let values = of(q)?;
            count += values.elem_count();
            sum += f64::from(values.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(sum / count as f64)
    }
}

/// A frozen network.
///
/// # Errors
/// If the graph cannot run.
pub fn frozen(config: &NetworkConfig, theta: &[f32], precision: Precision) -> Result<Network> {
    let exec = Arc::new(Exec::with_precision(config.build()?, precision)?);
    Ok(Network::frozen(exec, theta, device())?)
}

/// First-order Taylor importance of every unit of every block, `sum |p g|` over the unit's parameters p, g their gradient summed over
/// the noise levels first (Fang et al. 2023, "Structural Pruning for Diffusion Models").
///
/// # Errors
/// If the graph has not its own blocks.
pub fn taylor(graph: &Graph, theta: &[f32], gradient: &[f32]) -> Result<Vec<Vec<f64>>> {
    let product = |i: &usize| (f64::from(theta[*i]) * f64::from(gradient[*i])).abs();
    let unit = |b: &limbeck_shared::graph::prune::Block, u| Ok(b.elements(graph, u)?.iter().map(product).sum());
    blocks(graph).iter().map(|b| (0..b.units).map(|u| unit(b, u)).collect()).collect()
}
