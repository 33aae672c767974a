//! Weights, averages and moments that stay on the device they are trained on, so that no step carries them over.

use crate::checkpoint::{NetState, State};
use crate::config::OptimizerConfig;
use crate::method::NetSpec;
use crate::optim;
use anyhow::Result;
use candle_core::{Device, Tensor};
use limbeck_shared::nn::Network;

/// Networks, and their gradients `[param_count]`.
pub type Gradients = Vec<(usize, Tensor)>;

/// What an iteration's phase changes the weights by.
pub struct Update {
    /// Of the networks that it trains.
    pub gradients: Gradients,
    /// Learning rate.
    pub rate: f64,
    /// What the gradients are multiplied by first.
    pub scale: f64,
    /// How much of the average stays.
    pub keep: f64,
}

/// The numbers of a [`State`] on a device.
pub struct Resident(Vec<Net>);

struct Net {
    theta: Tensor,
    ema: Option<Tensor>,
    m: Tensor,
    v: Tensor,
    steps: u64,
}

impl Net {
    fn new(net: &NetState, device: &Device) -> candle_core::Result<Net> {
        let there = |v: &Vec<f32>| Tensor::from_slice(v, v.len(), device);
        Ok(Net {
            theta: there(&net.theta)?,
            ema: if net.ema.is_empty() { None } else { Some(there(&net.ema)?) },
            m: there(&net.adam.m)?,
            v: there(&net.adam.v)?,
            steps: net.adam.steps,
        })
    }

    /// [`optim::Adam::step`] on tensors.
    fn step(&mut self, config: &OptimizerConfig, grad: &Tensor, update: &Update) -> candle_core::Result<()> {
        self.steps += 1;
        let [b1, b2] = config.betas;
        let (rate, eps) = optim::corrected(config, update.rate, self.steps);
        self.m = ((&self.m * b1)? + (grad * ((1.0 - b1) * update.scale))?)?;
        self.v = ((&self.v * b2)? + (grad.sqr()? * ((1.0 - b2) * update.scale * update.scale))?)?;
        let step = match eps {
            Some(eps) => (&self.m / (self.v.sqrt()? + eps)?)?,
            None => self.m.clone(),
        };
        self.theta = (&self.theta - (step * rate)?)?;
        if let Some(ema) = &mut self.ema {
            *ema = ((&*ema * update.keep)? + (&self.theta * (1.0 - update.keep))?)?;
        }
        Ok(())
    }
}

impl Resident {
    /// Copies a state's numbers to a device.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn new(state: &State, device: &Device) -> Result<Resident> {
        Ok(Resident(state.nets.iter().map(|net| Net::new(net, device)).collect::<candle_core::Result<_>>()?))
    }

    /// The networks with these weights, to be trained.
    ///
    /// # Errors
    /// If the specifications are of other networks.
    pub fn networks(&self, specs: &[NetSpec]) -> limbeck_shared::Result<Vec<Network>> {
        specs.iter().zip(&self.0).map(|(spec, net)| Network::trained_from(spec.exec.clone(), &net.theta)).collect()
    }

    /// The first network with the average of its weights, frozen.
    ///
    /// # Errors
    /// If no average is kept, or the specification is of another network.
    pub fn average(&self, spec: &NetSpec) -> limbeck_shared::Result<Network> {
        let ema = self.0[0].ema.as_ref().ok_or_else(|| limbeck_shared::Error::call("average of the weights", "none", "one"))?;
        Network::frozen_from(spec.exec.clone(), ema)
    }

    /// One step of the optimiser on the networks that have a gradient.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn step(&mut self, config: &OptimizerConfig, update: &Update) -> Result<()> {
        for (net, grad) in &update.gradients {
            self.0[*net].step(config, grad, update)?;
        }
        Ok(())
    }

    /// Brings the state up to date.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn read_into(&self, state: &mut State) -> Result<()> {
        for (net, to) in self.0.iter().zip(&mut state.nets) {
            to.theta = net.theta.to_vec1()?;
            to.ema = net.ema.as_ref().map(Tensor::to_vec1).transpose()?.unwrap_or_default();
            (to.adam.m, to.adam.v, to.adam.steps) = (net.m.to_vec1()?, net.v.to_vec1()?, net.steps);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimizerKind;
    use crate::optim::Adam;

    #[test]
    fn takes_the_steps_of_the_other() {
        for kind in [OptimizerKind::Adam, OptimizerKind::RAdam] {
            let config = OptimizerConfig { kind, betas: [0.9, 0.99], eps: 1e-8, ..Default::default() };
            let theta = vec![0.5f32, -1.0, 2.0];
            let start = NetState { name: "net".into(), ema: theta.clone(), adam: Adam::new(3), theta };
            let mut state = State { images_seen: 0, seconds: 0.0, skipped: 0, nets: vec![start], sums: Default::default() };
            let mut resident = Resident::new(&state, &Device::Cpu).unwrap();
            let mut expected = state.nets[0].clone();
            for step in 1..=12 {
                let grad: Vec<f32> = expected.theta.iter().map(|t| (3.0 * t).sin() + 0.1).collect();
                let gradient = Tensor::from_slice(&grad, 3, &Device::Cpu).unwrap();
                let update = Update { gradients: vec![(0, gradient)], rate: 0.01, scale: 0.7, keep: 0.9 };
                resident.step(&config, &update).unwrap();
                let NetState { theta, ema, adam, .. } = &mut expected;
                adam.step(&config, 0.01, 0.7, &grad, theta, ema, 0.9);
                resident.read_into(&mut state).unwrap();
                let found = &state.nets[0];
                assert_eq!(found.adam.steps, step);
                for (found, expected) in [(&found.theta, &*theta), (&found.ema, &*ema), (&found.adam.m, &adam.m), (&found.adam.v, &adam.v)]
                {
                    for (a, b) in found.iter().zip(expected) {
                        assert!((a - b).abs() < 1e-6, "{kind:?}, step {step}: {found:?} {expected:?}");
                    }
                }
            }
        }
    }
}
