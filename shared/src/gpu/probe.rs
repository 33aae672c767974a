//! Does this adapter compute what the networks say? Drivers exist that answer with garbage and report no error.

use super::model::GpuModel;
use crate::cpu::Net;
use crate::error::{Error, Result};
use crate::rng::{self, Stream};
use std::sync::atomic::Ordering;

/// Largest difference from the CPU interpreter that passes, over the largest value of the answer. Kernels differ by some 1e-6; a
/// driver's own approximations of exponentials and roots may add to that, while garbage is off by the answer itself.
const TOLERANCE: f32 = 2e-3;

impl GpuModel {
    /// Compares one call of each network, whose parameters are `thetas`, with the CPU interpreter's answer, unless that has been done
    /// since the last kernel was compiled. The call is for `images` copies of an image of noise, since other kernels serve many images
    /// than one. Browsers compile a kernel when it is first used, so this also takes that away from what comes next.
    ///
    /// # Errors
    /// [`Error::Gpu`] says which network's answer is wrong, or that the device failed; [`Error::Call`] if there are other thetas than
    /// networks; what [`Net::new`] says of a network that the CPU does not run.
    pub async fn verify(&self, thetas: &[Vec<f32>], images: usize) -> Result<()> {
        if self.verified.load(Ordering::Relaxed) == self.engine.counters().pipelines {
            return Ok(());
        }
        if thetas.len() != self.nets.len() {
            return Err(Error::call("thetas", thetas.len(), self.nets.len()));
        }
        for (k, (net, theta)) in self.nets.iter().zip(thetas).enumerate() {
            let graph = &net.graph;
            let mut x = vec![0f32; graph.input_shape().iter().product()];
            rng::normals(0, Stream::Other(0), 0, &mut x);
            let times: Vec<f32> = (0..graph.times).map(|slot| if slot == 0 { 1.0 } else { 0.5 }).collect();
            let labels = vec![0; usize::from(graph.classes > 0)];
            let mut answer = vec![0f32; graph.output_shape().iter().product()];
            Net::new(graph.clone(), theta.clone())?.forward(&x, 1, &times, &labels, &mut answer)?;
            let mut plan = self.forward_plan(k, images)?;
            let found = plan.forward(&x.repeat(images), &times.repeat(images), &labels.repeat(images)).await?;
            let largest = answer.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
            let off = |(f, a): (&f32, &f32)| f.is_nan() || (f - a).abs() > TOLERANCE * largest;
            if let Some(i) = found.iter().zip(answer.iter().cycle()).position(off) {
                let (found, expected) = (found[i], answer[i % answer.len()]);
                let message = format!("the adapter computes wrong values: {found} where network {k} answers {expected} on the CPU");
                return Err(Error::Gpu(message));
            }
        }
        self.verified.store(self.engine.counters().pipelines, Ordering::Relaxed);
        Ok(())
    }
}
