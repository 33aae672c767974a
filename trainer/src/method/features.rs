//! The classifier in whose features images are compared (`fd`). Trained here, so that figures compare across machines.
//!
//! Cross-entropy on real images with small random shifts. Nothing about it is tuned to any generator.

use super::{Loss, Method, NetSpec, Pass, Real, real, tensor};
use crate::data::Dataset;
use crate::device::device;
use anyhow::{Result, bail};
use candle_core::{D, Tensor};
use limbeck_shared::bundle::{ImageSpec, Meta, TrainingRecord, VERSION};
use limbeck_shared::cpu::{Exec, Precision};
use limbeck_shared::denoiser::Parameterization;
use limbeck_shared::graph::NetworkConfig;
use limbeck_shared::rng::{self, Stream};
use std::sync::Arc;

/// The method.
pub struct Features {
    network: NetworkConfig,
    exec: Arc<Exec>,
    shift: usize,
    name: String,
}

impl Features {
    /// Plans the network.
    ///
    /// # Errors
    /// If the network is no classifier.
    pub fn new(network: &NetworkConfig, shift: usize, name: &str, precision: Precision) -> Result<Features> {
        if !matches!(network, NetworkConfig::Classifier(_)) {
            bail!("`network._class_name`: found a generator, expected Classifier");
        }
        Ok(Features {
            network: network.clone(),
            exec: Arc::new(Exec::with_precision(network.build()?, precision)?),
            shift,
            name: name.to_string(),
        })
    }
}

/// Moves an image by whole pixels; what comes in is black (-1).
fn shifted(image: &[f32], [c, h, w]: [usize; 3], dy: isize, dx: isize, out: &mut [f32]) {
    for ch in 0..c {
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = (y as isize - dy, x as isize - dx);
                let inside = (0..h as isize).contains(&sy) && (0..w as isize).contains(&sx);
                out[(ch * h + y) * w + x] = if inside { image[(ch * h + sy as usize) * w + sx as usize] } else { -1.0 };
            }
        }
    }
}

impl Method for Features {
    fn networks(&self, seed: u64) -> Result<Vec<NetSpec>> {
        Ok(vec![NetSpec { name: "features", exec: self.exec.clone(), theta: self.exec.graph().init(seed), averaged: true }])
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn loss(&self, _phase: usize, pass: &Pass<'_>) -> Result<Loss> {
        let shape = self.exec.graph().input_shape();
        let Real { x: images, labels } = real(pass, shape, usize::MAX)?;
        let (n, len) = (labels.len(), shape.iter().product::<usize>());
        let mut x = vec![0f32; images.len()];
        let span = 2 * self.shift as u32 + 1;
        for (i, k) in pass.images.clone().enumerate() {
            let move_by = |axis| rng::below(pass.seed, Stream::Other(axis), k, span) as isize - self.shift as isize;
            let at = i * len..(i + 1) * len;
            shifted(&images[at.clone()], shape, move_by(0), move_by(1), &mut x[at]);
        }
        let logits = pass.nets[0].forward(&tensor(x, n, shape)?, &[], &[])?.flatten_from(1)?;
        let right = logits.argmax(D::Minus1)?.to_vec1::<u32>()?.iter().zip(&labels).filter(|(a, b)| a == b).count();
        let value = candle_nn::loss::cross_entropy(&logits, &Tensor::from_vec(labels, n, device())?)?;
        Ok(Loss { nets: vec![0], value, terms: vec![("accuracy", right as f64 / n as f64)] })
    }

    fn meta(&self, data: Option<&dyn Dataset>) -> Result<Meta> {
        let [channels, height, width] = self.exec.graph().input_shape();
        Ok(Meta {
            version: VERSION,
            name: self.name.clone(),
            networks: vec![self.network.clone()],
            parameterization: Parameterization::X0,
            schedule: super::teacher::SCHEDULE,
            init_time: None,
            second_time: false,
            guidance_input: false,
            samplers: vec![],
            classes: super::class_names(data, self.exec.graph().output_shape()[0], false)?,
            null_label: None,
            guidance: None,
            image: ImageSpec { channels, height, width, range: [-1.0, 1.0] },
            training: TrainingRecord::new("classifier", &self.name),
            licence: "MIT".into(),
            router: None,
            golden: None,
        })
    }
}
