//! A part of a flat theta, with a gradient that is a gather as well.
//!
//! candle 0.11 adds the gradient of `index_select` up by one thread of a card. No element of theta is twice in a part, so that its
//! gradient lies at one place or nowhere.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

/// Which elements of theta a smaller network's are.
#[derive(Clone)]
pub struct Part {
    index: Tensor,
    /// Of every element of theta its place in the part, or the part's length.
    inverse: Tensor,
}

impl Part {
    /// Element i of the part is element `index[i]` of `of`.
    ///
    /// # Errors
    /// If an element is twice in the part or beyond theta, or the device refuses.
    pub fn new(index: &[usize], of: usize, device: &Device) -> Result<Part> {
        let mut inverse = vec![index.len() as u32; of];
        for (i, &element) in index.iter().enumerate() {
            match inverse.get_mut(element) {
                Some(place) if *place as usize == index.len() => *place = i as u32,
                found => candle_core::bail!(
                    "part: found element {element} {}, expected each of {of} at most once",
                    if found.is_some() { "twice" } else { "of none" }
                ),
            }
        }
        let list: Vec<u32> = index.iter().map(|&i| i as u32).collect();
        Ok(Part { index: Tensor::from_vec(list, index.len(), device)?, inverse: Tensor::from_vec(inverse, of, device)? })
    }

    /// The part's elements of theta; gradients flow back to where they lie.
    ///
    /// # Errors
    /// If theta is of another length.
    pub fn of(&self, theta: &Tensor) -> Result<Tensor> {
        let (found, expected) = (theta.elem_count(), self.inverse.elem_count());
        if found != expected {
            candle_core::bail!("parameters: found {found}, expected {expected}");
        }
        let part = theta.detach().index_select(&self.index, 0)?;
        if theta.track_op() { theta.apply_op2(&part, Gather { inverse: self.inverse.clone() }) } else { Ok(part) }
    }
}

/// Passes the second input on, as a part of the first.
struct Gather {
    inverse: Tensor,
}

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "part"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, part: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((part.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, part: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((part.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let none = Tensor::zeros(1, DType::F32, grad.device())?;
        Ok((Some(Tensor::cat(&[grad, &none], 0)?.index_select(&self.inverse, 0)?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn gradients_go_where_elements_came_from() {
        let theta = Var::new(&[1f32, 2.0, 3.0, 4.0, 5.0], &Device::Cpu).unwrap();
        let part = Part::new(&[3, 0, 4], 5, &Device::Cpu).unwrap();
        let taken = part.of(&theta).unwrap();
        assert_eq!(taken.to_vec1::<f32>().unwrap(), [4.0, 1.0, 5.0]);
        let weights = Tensor::new(&[10f32, 20.0, 30.0], &Device::Cpu).unwrap();
        // A second reader of theta: both gradients add.
        let loss = ((taken * weights).unwrap().sum_all().unwrap() + theta.sum_all().unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        assert_eq!(grads.get(&theta).unwrap().to_vec1::<f32>().unwrap(), [21.0, 1.0, 1.0, 11.0, 31.0]);
        assert!(Part::new(&[1, 1], 5, &Device::Cpu).is_err());
        assert!(Part::new(&[5], 5, &Device::Cpu).is_err());
        assert!(part.of(&Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap()).is_err());
    }
}
