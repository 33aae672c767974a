//! A convolution in candle's forward operations, with its gradient written out.
//!
//! candle 0.11 differentiates a convolution by `conv_transpose2d` and by a convolution over the batch, both naive on CUDA. Here
//! the input's gradient is a plain convolution with the flipped, transposed kernel, and the weight's gradient is one matrix
//! product with the unfolded input: both run on what candle runs fast (cuDNN, cuBLAS). What is not differentiated is not computed.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// `conv2d(x, w)` without padding, for `x [n, c_in, (oh - 1) stride + k, (ow - 1) stride + k]` and `w [c_out, c_in, k, k]`.
///
/// # Errors
/// If the shapes do not fit each other, or from candle.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize) -> Result<Tensor> {
    let y = x.detach().contiguous()?.conv2d(&w.detach().contiguous()?, 0, stride, 1, 1)?;
    if x.track_op() || w.track_op() { x.apply_op3(w, &y, Conv { stride }) } else { Ok(y) }
}

/// Passes the third input on, as the convolution of the first two.
struct Conv {
    stride: usize,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        y: &CpuStorage,
        layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((y.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        y: &CudaStorage,
        layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((y.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dx = x.track_op().then(|| input_gradient(&w.detach(), dy, self.stride)).transpose()?;
        let dw = w.track_op().then(|| weight_gradient(&x.detach(), dy, w.dim(2)?, self.stride)).transpose()?;
        Ok((dx, dw, None))
    }
}

/// The gradient spread out by the stride, framed by the kernel's reach, convolved with the flipped, transposed kernel.
fn input_gradient(w: &Tensor, dy: &Tensor, stride: usize) -> Result<Tensor> {
    let (n, c, oh, ow) = dy.dims4()?;
    let k = w.dim(2)?;
    let spread = if stride == 1 {
        dy.clone()
    } else {
        let cells = dy.reshape(&[n, c, oh, 1, ow, 1][..])?.pad_with_zeros(3, 0, stride - 1)?.pad_with_zeros(5, 0, stride - 1)?;
        let spread = cells.reshape((n, c, oh * stride, ow * stride))?;
        spread.narrow(2, 0, (oh - 1) * stride + 1)?.narrow(3, 0, (ow - 1) * stride + 1)?
    };
    let framed = spread.pad_with_zeros(2, k - 1, k - 1)?.pad_with_zeros(3, k - 1, k - 1)?;
    let flipped = if k > 1 { w.flip(&[2, 3])? } else { w.clone() };
    framed.contiguous()?.conv2d(&flipped.transpose(0, 1)?.contiguous()?, 0, 1, 1, 1)
}

/// `dw[co, (ci ky kx)] = sum over images and pixels of dy[co, p] x[ci, p stride + (ky, kx)]`.
fn weight_gradient(x: &Tensor, dy: &Tensor, k: usize, stride: usize) -> Result<Tensor> {
    let (n, co, oh, ow) = dy.dims4()?;
    let ci = x.dim(1)?;
    let x = x.pad_with_zeros(2, 0, stride - 1)?.pad_with_zeros(3, 0, stride - 1)?;
    let mut taps = vec![];
    for (ky, kx) in (0..k).flat_map(|y| (0..k).map(move |x| (y, x))) {
        let window = x.narrow(2, ky, oh * stride)?.narrow(3, kx, ow * stride)?.contiguous()?;
        let cells = window.reshape(&[n, ci, oh, stride, ow, stride][..])?;
        taps.push(cells.narrow(3, 0, 1)?.narrow(5, 0, 1)?.contiguous()?.reshape((n, ci, oh * ow))?);
    }
    // [n, ci, taps, pixels] to [n pixels, ci taps]
    let unfolded = Tensor::stack(&taps, 2)?.permute((0, 3, 1, 2))?.contiguous()?.reshape((n * oh * ow, ci * k * k))?;
    let dy = dy.contiguous()?.permute((1, 0, 2, 3))?.contiguous()?.reshape((co, n * oh * ow))?;
    dy.matmul(&unfolded)?.reshape((co, ci, k, k))
}
