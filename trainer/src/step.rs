//! One iteration: batches in passes, accumulation, clipping, and what the weights become.

use crate::checkpoint::State;
use crate::device::device;
use crate::method::Pass;
use crate::optim;
use crate::resident::{Gradients, Resident, Update};
use crate::train::Setup;
use anyhow::{Context, Result};
use candle_core::{Storage, Tensor};
use limbeck_shared::nn::Network;
use std::cell::RefCell;
use std::ops::Range;

/// Named parts of a loss.
type Terms = Vec<(&'static str, f64)>;

/// The networks of an iteration's phase.
struct Nets {
    trained: Vec<Network>,
    average: Option<Network>,
}

impl Setup {
    /// The state's weights on the device of the run; none on the CPU, whose memory the state is in, and with normalised weights.
    pub(crate) fn resident(&self, state: &State) -> Result<Option<Resident>> {
        let here = device().is_cpu() || !self.rows.is_empty();
        (!here).then(|| Resident::new(state, device())).transpose()
    }

    /// One iteration: every phase once, on the next batch. Returns named losses.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step(&self, state: &mut State) -> Result<Vec<(&'static str, f64)>> {
        let nets = |state: &State| -> limbeck_shared::Result<Nets> {
            let nets = self.specs.iter().zip(&state.nets);
            let trained = nets.map(|(s, n)| Network::trained(s.exec.clone(), &n.theta, device())).collect::<Result<_, _>>()?;
            let average = || Network::frozen(self.specs[0].exec.clone(), &state.nets[0].ema, device());
            Ok(Nets { trained, average: self.method.reads_average().then(average).transpose()? })
        };
        let c = &self.config;
        self.iterate(state, nets, |state, update| {
            for (net, grad) in &update.gradients {
                let (n, grad) = (&mut state.nets[*net], grad.to_vec1::<f32>()?);
                match self.rows.get(*net) {
                    None => n.adam.step(&c.optimizer, update.rate, update.scale, &grad, &mut n.theta, &mut n.ema, update.keep),
                    Some(rows) => {
                        n.adam.step(&c.optimizer, update.rate, update.scale, &grad, &mut n.theta, &mut [], update.keep);
                        rows.restore(&mut n.theta);
                        optim::average(&mut n.ema, &n.theta, update.keep);
                    }
                }
                self.specs[*net].exec.recycle(grad);
            }
            Ok(())
        })
    }

    /// As [`Setup::step`] on weights that stay on their device; the state's are as old as its last [`Resident::read_into`].
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step_resident(&self, state: &mut State, resident: &mut Resident) -> Result<Vec<(&'static str, f64)>> {
        let resident = RefCell::new(resident);
        self.iterate(
            state,
            |_| {
                let resident = resident.borrow();
                let average = self.method.reads_average().then(|| resident.average(&self.specs[0]));
                Ok(Nets { trained: resident.networks(&self.specs)?, average: average.transpose()? })
            },
            |_, update| resident.borrow_mut().step(&self.config.optimizer, update),
        )
    }

    /// The phases of an iteration, each with the networks as they are then and an update that is left out if it is not finite.
    fn iterate(
        &self,
        state: &mut State,
        nets: impl Fn(&State) -> limbeck_shared::Result<Nets>,
        mut apply: impl FnMut(&mut State, &Update) -> Result<()>,
    ) -> Result<Vec<(&'static str, f64)>> {
        let c = &self.config;
        let first = state.images_seen;
        let end = (first + c.batch as u64).min(c.images.max(first + 1));
        let batch = (end - first) as usize;
        let mut report = vec![];
        for phase in (0..self.method.phases()).filter(|&p| self.method.active(p, first)) {
            let (loss, terms, gradients) = self.gradients(phase, &nets(state)?, first..end)?;
            // One norm over all networks that this loss trains.
            let mut squares = 0.0;
            for (_, grad) in &gradients {
                squares += square(grad)?;
            }
            let norm = squares.sqrt();
            report.push((if phase == 0 { "loss" } else { "loss2" }, loss));
            report.extend(terms);
            report.push((if phase == 0 { "grad_norm" } else { "grad_norm2" }, norm));
            if !norm.is_finite() {
                // Counted and reported; the weights stay as they were.
                state.skipped += 1;
                continue;
            }
            let scale = optim::clip_factor(norm, c.optimizer.clip);
            apply(state, &Update { gradients, rate: c.optimizer.rate(end, c.images), scale, keep: c.ema.keep(end, batch) })?;
        }
        state.images_seen = end;
        Ok(report)
    }

    /// Mean loss of a phase over images, its named parts, and the gradient of each network that it trains.
    fn gradients(&self, phase: usize, nets: &Nets, images: Range<u64>) -> Result<(f64, Terms, Gradients)> {
        let c = &self.config;
        let mut total: Gradients = vec![];
        let (mut loss_sum, mut terms): (f64, Terms) = (0.0, vec![]);
        let mut at = images.start;
        while at < images.end {
            let range = at..(at + c.pass() as u64).min(images.end);
            let part = (range.end - range.start) as f64 / (images.end - images.start) as f64;
            at = range.end;
            let pass = Pass {
                seed: c.seed,
                first: images.start,
                images: range,
                nets: &nets.trained,
                average: nets.average.as_ref(),
                data: self.data.as_deref(),
            };
            let loss = self.method.loss(phase, &pass)?;
            let grads = loss.value.backward()?;
            loss_sum += part * f64::from(loss.value.to_scalar::<f32>()?);
            for (name, v) in loss.terms {
                match terms.iter_mut().find(|t| t.0 == name) {
                    Some(term) => term.1 += part * v,
                    None => terms.push((name, part * v)),
                }
            }
            for net in loss.nets {
                let grad = grads.get(nets.trained[net].theta()).context("the loss does not depend on a network it trains")?;
                let grad = if part == 1.0 { grad.clone() } else { (grad * part)? };
                match total.iter_mut().find(|t| t.0 == net) {
                    Some((_, sum)) => *sum = (&*sum + grad)?,
                    None => total.push((net, grad)),
                }
            }
        }
        Ok((loss_sum, terms, total))
    }
}

/// The squared norm of a gradient, where it lies: in f64 on the CPU, without a copy.
fn square(grad: &Tensor) -> Result<f64> {
    let (storage, layout) = grad.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(values), Some((start, end))) => Ok(optim::norm(&values.as_slice::<f32>()?[start..end]).powi(2)),
        _ => Ok(f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?)),
    }
}
