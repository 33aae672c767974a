//! cuDNN's convolutions: descriptors made once for each shape, algorithms whose sums have one order.

use super::{Engine, Theta};
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as ByInput, cudnnConvolutionBwdFilterAlgo_t as ByWeight, cudnnConvolutionFwdAlgo_t as Forward,
    cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
use candle_core::{Error, Result};
use std::rc::Rc;

/// A convolution of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub n: usize,
    /// `[c, h, w]` of the input, framed already if the zeros around it are not the same on both sides.
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
    pub reduced: bool,
}

pub(super) struct Convolution {
    x: TensorDescriptor<f32>,
    w: FilterDescriptor<f32>,
    y: TensorDescriptor<f32>,
    conv: ConvDescriptor<f32>,
    forward: (Forward, usize),
    by_input: (ByInput, usize),
    by_weight: (ByWeight, usize),
}

/// cuDNN reads weights sixteen bytes at a time.
const ALIGNED: u64 = 16;

impl Engine {
    pub(super) fn convolution(&self, key: Key) -> Result<Rc<Convolution>> {
        if let Some(known) = self.convolutions.borrow().get(&key) {
            return Ok(known.clone());
        }
        let made = Rc::new(self.describe(key).map_err(Error::wrap)?);
        self.convolutions.borrow_mut().insert(key, made.clone());
        Ok(made)
    }

    fn describe(&self, k: Key) -> std::result::Result<Convolution, candle_core::cuda_backend::cudarc::cudnn::CudnnError> {
        let layout = cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let map = |[c, h, w]: [usize; 3]| self.cudnn.create_4d_tensor::<f32>(layout, [k.n as i32, c as i32, h as i32, w as i32]);
        let (x, y) = (map(k.input)?, map(k.output)?);
        let edge = k.kernel as i32;
        let w = self.cudnn.create_4d_filter::<f32>(layout, [k.output[0] as i32, k.input[0] as i32, edge, edge])?;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = self.cudnn.create_conv2d::<f32>([k.pad as i32; 2], [k.stride as i32; 2], [1, 1], mode)?;
        conv.set_math_type(match k.reduced {
            true => cudnnMathType_t::CUDNN_DEFAULT_MATH,
            false => cudnnMathType_t::CUDNN_FMA_MATH,
        })?;
        // These three add in the same order every time; where cuDNN has them not, its own choice.
        let op = ConvForward { conv: &conv, x: &x, w: &w, y: &y };
        let forward = Forward::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        let forward = match op.get_workspace_size(forward) {
            Ok(size) => (forward, size),
            Err(_) => op.pick_algorithm().and_then(|a| Ok((a, op.get_workspace_size(a)?)))?,
        };
        let op = ConvBackwardData { conv: &conv, dx: &x, w: &w, dy: &y };
        let by_input = ByInput::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
        let by_input = match op.get_workspace_size(by_input) {
            Ok(size) => (by_input, size),
            Err(_) => op.pick_algorithm().and_then(|a| Ok((a, op.get_workspace_size(a)?)))?,
        };
        let op = ConvBackwardFilter { conv: &conv, x: &x, dw: &w, dy: &y };
        let by_weight = ByWeight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
        let by_weight = match op.get_workspace_size(by_weight) {
            Ok(size) => (by_weight, size),
            Err(_) => op.pick_algorithm().and_then(|a| Ok((a, op.get_workspace_size(a)?)))?,
        };
        Ok(Convolution { x, w, y, conv, forward, by_input, by_weight })
    }

    /// Runs with scratch memory of at least this many bytes.
    fn with_scratch<T>(&self, bytes: usize, run: impl FnOnce(&mut CudaSlice<u8>) -> Result<T>) -> Result<T> {
        let mut scratch = self.scratch.borrow_mut();
        let large_enough = scratch.take().filter(|s| s.len() >= bytes.max(1));
        let mut memory = match large_enough {
            Some(memory) => memory,
            // SAFETY: cuDNN writes what it reads of it.
            None => unsafe { self.stream.alloc(bytes.max(1)) }.map_err(Error::wrap)?,
        };
        let result = run(&mut memory);
        *scratch = Some(memory);
        result
    }

    /// A parameter where cuDNN can read it.
    fn aligned(&self, theta: Theta<'_>, param: usize) -> Result<Option<CudaSlice<f32>>> {
        let part = theta.part(param);
        if part.device_ptr(&self.stream).0.is_multiple_of(ALIGNED) {
            return Ok(None);
        }
        self.stream.clone_dtod(&part).map(Some).map_err(Error::wrap)
    }

    pub(super) fn convolve(&self, key: Key, x: &CudaSlice<f32>, theta: Theta<'_>, weight: usize, y: &mut CudaSlice<f32>) -> Result<()> {
        let c = self.convolution(key)?;
        let (copy, part) = (self.aligned(theta, weight)?, theta.part(weight));
        let w: CudaView<'_, f32> = copy.as_ref().map_or(part, |c| c.as_view());
        let op = ConvForward { conv: &c.conv, x: &c.x, w: &c.w, y: &c.y };
        // SAFETY: the slices are of the descriptors' shapes.
        self.with_scratch(c.forward.1, |s| unsafe { op.launch(c.forward.0, Some(s), (1.0, 0.0), x, &w, y) }.map_err(Error::wrap))
    }

    /// Onto `dx` if `more`.
    pub(super) fn convolve_by_input(
        &self,
        key: Key,
        dy: &CudaSlice<f32>,
        theta: Theta<'_>,
        weight: usize,
        dx: &mut CudaSlice<f32>,
        more: bool,
    ) -> Result<()> {
        let c = self.convolution(key)?;
        let (copy, part) = (self.aligned(theta, weight)?, theta.part(weight));
        let w: CudaView<'_, f32> = copy.as_ref().map_or(part, |c| c.as_view());
        let op = ConvBackwardData { conv: &c.conv, dx: &c.x, w: &c.w, dy: &c.y };
        let beta = f32::from(u8::from(more));
        // SAFETY: as above.
        self.with_scratch(c.by_input.1, |s| unsafe { op.launch(c.by_input.0, Some(s), (1.0, beta), dx, &w, dy) }.map_err(Error::wrap))
    }

    /// Onto the weight's part of `dtheta`.
    pub(super) fn convolve_by_weight(
        &self,
        key: Key,
        x: &CudaSlice<f32>,
        dy: &CudaSlice<f32>,
        graph: &crate::graph::Graph,
        weight: usize,
        dtheta: &mut CudaSlice<f32>,
    ) -> Result<()> {
        let c = self.convolution(key)?;
        let op = ConvBackwardFilter { conv: &c.conv, x: &c.x, dw: &c.w, dy: &c.y };
        let mut part = dtheta.slice_mut(graph.params[weight].range());
        let aligned = part.device_ptr_mut(&self.stream).0.is_multiple_of(ALIGNED);
        let mut copy = match aligned {
            true => None,
            false => Some(self.zeros(part.len())?),
        };
        self.with_scratch(c.by_weight.1, |s| {
            // SAFETY: as above.
            match &mut copy {
                None => unsafe { op.launch(c.by_weight.0, Some(s), (1.0, 1.0), x, &mut part, dy) },
                Some(copy) => unsafe { op.launch(c.by_weight.0, Some(s), (1.0, 1.0), x, copy, dy) },
            }
            .map_err(Error::wrap)
        })?;
        let Some(copy) = copy else { return Ok(()) };
        let y = super::Arg::At(part.device_ptr_mut(&self.stream).0);
        self.each("accumulate", copy.len(), &[y, self.at(&copy)], &[])
    }
}
