//! Networks as differentiable candle operations.
//!
//! On the CPU a whole network is one candle operation ([`Network::forward`]): its forward and its backward pass are the CPU
//! interpreter's, so losses are written in candle's tensors while activations, fusion and threads stay in [`crate::cpu`].
//! On a CUDA card it is the same with the `cuda` module, in builds with cuDNN. Elsewhere ([`Network::composed`]) the graph is walked
//! with candle's operations, convolutions with the gradient of [`conv`]. [`stock`] walks the same graph with candle's own operations
//! on any device and in f64: the reference the fast path is checked against.

pub mod conv;
pub mod dual;
pub mod part;
pub mod stock;

use crate::cpu::{Cond, Dropout, Exec, Keep, Tape};
use crate::error::{Error, Result};
use crate::graph::{Graph, Op};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor, Var};
use std::sync::{Arc, Mutex};

/// A network whose parameters are one flat tensor.
#[derive(Clone)]
pub struct Network {
    exec: Arc<Exec>,
    theta: Tensor,
}

impl Network {
    /// A network to be trained: `theta` becomes a variable.
    ///
    /// # Errors
    /// [`Error::Call`] if theta has not the graph's length, or the device refuses it.
    pub fn trained(exec: Arc<Exec>, theta: &[f32], device: &Device) -> Result<Network> {
        let theta = flat(&exec, theta, device)?;
        Ok(Network { exec, theta: Var::from_tensor(&theta).map_err(candle)?.into_inner() })
    }

    /// A network to be trained whose parameters begin as a tensor's values, on its device.
    ///
    /// # Errors
    /// [`Error::Call`] if theta has not the graph's length.
    pub fn trained_from(exec: Arc<Exec>, theta: &Tensor) -> Result<Network> {
        let theta = Var::from_tensor(theta).map_err(candle)?.into_inner();
        Network { exec: exec.clone(), theta }.with_exec(exec)
    }

    /// A frozen network: gradients flow through it to its input, never to its parameters.
    ///
    /// # Errors
    /// [`Error::Call`] if theta has not the graph's length, or the device refuses it.
    pub fn frozen(exec: Arc<Exec>, theta: &[f32], device: &Device) -> Result<Network> {
        let theta = flat(&exec, theta, device)?;
        Ok(Network { exec, theta })
    }

    /// A frozen network whose parameters are a tensor's, on its device and not copied.
    ///
    /// # Errors
    /// [`Error::Call`] if theta has not the graph's length.
    pub fn frozen_from(exec: Arc<Exec>, theta: &Tensor) -> Result<Network> {
        Network { exec: exec.clone(), theta: theta.detach() }.with_exec(exec)
    }

    /// The same parameters without a gradient.
    pub fn detached(&self) -> Network {
        Network { exec: self.exec.clone(), theta: self.theta.detach() }
    }

    /// The same parameters in another network of as many, such as a part of this one ([`Graph::until`]).
    ///
    /// # Errors
    /// [`Error::Call`] if the other takes another number of parameters.
    pub fn with_exec(&self, exec: Arc<Exec>) -> Result<Network> {
        let (found, expected) = (self.theta.elem_count(), exec.graph().param_count());
        if found != expected {
            return Err(Error::call("parameters", found, expected));
        }
        Ok(Network { exec, theta: self.theta.clone() })
    }

    /// Another network whose parameters are a part of this one's; gradients flow back to where they lie.
    ///
    /// # Errors
    /// [`Error::Call`] if the other takes another number of parameters, or the part is of another theta.
    pub fn part(&self, exec: Arc<Exec>, part: &part::Part) -> Result<Network> {
        let theta = part.of(&self.theta).map_err(candle)?;
        Network { exec: self.exec.clone(), theta }.with_exec(exec)
    }

    /// The flat parameters, `[param_count]`.
    pub fn theta(&self) -> &Tensor {
        &self.theta
    }

    /// What runs it.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.exec.graph()
    }

    /// Output `[n, ...]` for `x [n, c, h, w]` (or `[n, c]`), `times [n * graph.times]` image by image, `labels [n]` or empty.
    ///
    /// Differentiable in `x` and, for a trained network, in theta; where neither is tracked nothing is kept.
    ///
    /// # Errors
    /// [`Error::Call`] if an argument does not fit the network.
    pub fn forward(&self, x: &Tensor, times: &[f32], labels: &[u32]) -> Result<Tensor> {
        self.call(x, times, labels, None)
    }

    /// As [`Network::forward`], values dropped as the graph says ([`crate::graph::NetworkConfig::build_training`]). On the CPU.
    ///
    /// # Errors
    /// As [`Network::forward`]; on another device, if the graph drops any.
    pub fn forward_dropping(&self, x: &Tensor, times: &[f32], labels: &[u32], dropout: Dropout<'_>) -> Result<Tensor> {
        self.call(x, times, labels, Some(dropout))
    }

    fn call(&self, x: &Tensor, times: &[f32], labels: &[u32], dropout: Option<Dropout<'_>>) -> Result<Tensor> {
        let [c, h, w] = self.graph().input_shape();
        let n = match *x.dims() {
            [n, channels] if [channels, 1, 1] == [c, h, w] => n,
            [n, channels, height, width] if [channels, height, width] == [c, h, w] => n,
            ref dims => return Err(Error::call("image", format!("{dims:?}"), format!("[n, {c}, {h}, {w}]"))),
        };
        let device = self.theta.device();
        if !device.is_cpu() && dropout.is_some() && self.graph().nodes.iter().any(|node| matches!(node.op, Op::Dropout { .. })) {
            return Err(Error::call("dropout", "a network that drops values on another device", "one on the CPU, or a rate of 0"));
        }
        let whole = device.is_cpu() || cfg!(feature = "cudnn") && device.is_cuda();
        if !whole {
            return self.composed(x, times, labels);
        }
        let keep = match (self.theta.track_op(), x.track_op()) {
            (true, _) => Keep::ForAll,
            (false, true) => Keep::ForInput,
            (false, false) => Keep::Nothing,
        };
        let dropout = dropout.map(|d| (d.seed, d.images.to_vec()));
        let (exec, times, labels) = (self.exec.clone(), times.to_vec(), labels.to_vec());
        let op = NetworkOp { exec, times, labels, dropout, n, keep, tape: Mutex::new(None) };
        let x = x.contiguous().map_err(candle)?;
        let y = if keep == Keep::Nothing { x.apply_op2_no_bwd(&self.theta, &op) } else { x.apply_op2(&self.theta, op) };
        y.map_err(candle)
    }

    /// As [`Network::forward`], by candle's operations one by one, on the device of the parameters.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn composed(&self, x: &Tensor, times: &[f32], labels: &[u32]) -> Result<Tensor> {
        let params = self.params().map_err(candle)?;
        stock::forward_with(self.graph(), &params, x, times, labels, conv::conv2d).map_err(candle)
    }

    /// Output and its derivative along `x.tangent` and `rates`, the rate of every time input (laid out as `times`). `backward`
    /// differentiates through both. By candle's operations one by one, on any device.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn dual(&self, x: &dual::Dual, times: &[f32], rates: &[f32], labels: &[u32]) -> Result<dual::Dual> {
        let params = self.params().map_err(candle)?;
        dual::forward(self.graph(), &params, x, times, rates, labels).map_err(candle)
    }

    /// Each parameter as a part of theta.
    fn params(&self) -> candle_core::Result<stock::Params> {
        let part = |p: &crate::graph::Param| {
            let theta = if p.fixed { self.theta.detach() } else { self.theta.clone() };
            Ok((p.name.clone(), theta.narrow(0, p.range().start, p.range().len())?.reshape(p.shape.as_slice())?))
        };
        self.graph().params.iter().map(part).collect()
    }
}

fn flat(exec: &Exec, theta: &[f32], device: &Device) -> Result<Tensor> {
    let expected = exec.graph().param_count();
    if theta.len() != expected {
        return Err(Error::call("parameters", theta.len(), expected));
    }
    Tensor::from_slice(theta, expected, device).map_err(candle)
}

fn candle(e: candle_core::Error) -> Error {
    Error::call("tensor", e, "a tensor that fits the network")
}

/// The whole network as one operation of candle's graph.
struct NetworkOp {
    exec: Arc<Exec>,
    times: Vec<f32>,
    labels: Vec<u32>,
    dropout: Option<(u64, Vec<u64>)>,
    n: usize,
    keep: Keep,
    tape: Mutex<Option<Kept>>,
}

/// What the forward pass kept.
enum Kept {
    Cpu(Tape),
    #[cfg(feature = "cudnn")]
    Cuda(crate::cuda::Tape),
}

const ONCE: &str = "a network's backward pass runs once for each forward pass";

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| candle_core::Error::msg("a contiguous tensor was expected"))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

impl CustomOp2 for NetworkOp {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (x, theta) = (values(s1, l1)?, values(s2, l2)?);
        let dropout = self.dropout.as_ref().map(|(seed, images)| Dropout { seed: *seed, images });
        let cond = Cond { times: &self.times, labels: &self.labels, dropout };
        let (y, tape) = self.exec.forward(theta, x, self.n, cond, self.keep).map_err(candle_core::Error::wrap)?;
        if self.keep != Keep::Nothing {
            self.put(Kept::Cpu(tape))?;
        }
        Ok((CpuStorage::F32(y), self.output_shape(l1)))
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let engine = crate::cuda::Engine::of(s1.device())?;
        let (x, theta) = (engine.values(s1, l1)?, engine.values(s2, l2)?);
        let theta = crate::cuda::Theta { graph: self.exec.graph(), values: &theta };
        let asked = crate::cuda::Asked { n: self.n, times: &self.times, labels: &self.labels };
        let keep = self.keep != Keep::Nothing;
        let (y, tape) = engine.forward(&self.exec, theta, engine.copy_of(&x)?, asked, keep)?;
        if keep {
            self.put(Kept::Cuda(tape))?;
        }
        Ok((candle_core::CudaStorage::wrap_cuda_slice(y, s1.device().clone()), self.output_shape(l1)))
    }

    fn bwd(&self, x: &Tensor, theta: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        #[allow(clippy::infallible_destructuring_match, reason = "builds without cuDNN know one kind of tape")]
        let tape = match self.take()? {
            Kept::Cpu(tape) => tape,
            #[cfg(feature = "cudnn")]
            Kept::Cuda(tape) => return self.backward_on_card(x, theta, &tape, grad),
        };
        let grad = grad.contiguous()?.flatten_all()?;
        let (dy, weights) = (grad.to_vec1::<f32>()?, theta.detach());
        let (storage, layout) = weights.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("the CPU interpreter was given parameters on another device");
        };
        let gradients =
            self.exec.backward(values(storage, layout)?, &tape, &dy, x.track_op(), theta.track_op()).map_err(candle_core::Error::wrap)?;
        let dx = gradients.dx.map(|v| Tensor::from_vec(v, x.shape(), &Device::Cpu)).transpose()?;
        let dtheta = gradients.dtheta.map(|v| Tensor::from_vec(v, theta.shape(), &Device::Cpu)).transpose()?;
        Ok((dx, dtheta))
    }
}

impl NetworkOp {
    fn output_shape(&self, x: &Layout) -> Shape {
        let [c, h, w] = self.exec.graph().output_shape();
        if x.dims().len() == 2 { Shape::from((self.n, c)) } else { Shape::from((self.n, c, h, w)) }
    }

    fn put(&self, tape: Kept) -> candle_core::Result<()> {
        *self.tape.lock().map_err(|_| candle_core::Error::msg("a forward pass panicked"))? = Some(tape);
        Ok(())
    }

    fn take(&self) -> candle_core::Result<Kept> {
        let tape = self.tape.lock().map_err(|_| candle_core::Error::msg("a pass panicked"))?.take();
        tape.ok_or_else(|| candle_core::Error::msg(ONCE))
    }

    #[cfg(feature = "cudnn")]
    fn backward_on_card(
        &self,
        x: &Tensor,
        theta: &Tensor,
        tape: &crate::cuda::Tape,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        use candle_core::op::BackpropOp;
        use candle_core::{CudaStorage, Storage};
        let (weights, grad) = (theta.detach(), grad.contiguous()?);
        let ((s1, l1), (s2, l2)) = (weights.storage_and_layout(), grad.storage_and_layout());
        let (Storage::Cuda(s1), Storage::Cuda(s2)) = (&*s1, &*s2) else {
            candle_core::bail!("a pass on a card was given tensors elsewhere");
        };
        let device = grad.device().as_cuda_device()?;
        let engine = crate::cuda::Engine::of(device)?;
        let (values, dy) = (engine.values(s1, l1)?, engine.values(s2, l2)?);
        let theta_there = crate::cuda::Theta { graph: self.exec.graph(), values: &values };
        let dy = engine.copy_of(&dy)?;
        let g = engine.backward(&self.exec, theta_there, tape, dy, x.track_op(), theta.track_op())?;
        let tensor = |v, shape: &Shape| {
            let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(v, device.clone()));
            Tensor::from_storage(storage, shape.clone(), BackpropOp::none(), false)
        };
        Ok((g.dx.map(|v| tensor(v, x.shape())), g.dtheta.map(|v| tensor(v, theta.shape()))))
    }
}
