//! Matrix products by cuBLAS, which counts in columns: what is `[rows, columns]` here is `[columns, rows]` there.

use super::{Engine, Theta};
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{self, CUBLAS_OP_N as N, CUBLAS_OP_T as T};
use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig, StridedBatchedConfig};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result};

/// Sizes of a product `[m, k] [k, n]` in cuBLAS's terms.
#[derive(Clone, Copy)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
}

fn config(a: cublasOperation_t, b: cublasOperation_t, s: Sizes, alpha: f32, more: bool) -> GemmConfig<f32> {
    let Sizes { m, n, k } = s;
    GemmConfig {
        transa: a,
        transb: b,
        m: m as i32,
        n: n as i32,
        k: k as i32,
        alpha,
        lda: if a == N { m } else { k } as i32,
        ldb: if b == N { k } else { n } as i32,
        beta: f32::from(u8::from(more)),
        ldc: m as i32,
    }
}

/// Attention's maps `[n heads, d, pixels]`, its scores `[n heads, pixels, pixels]`.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub count: usize,
    pub d: usize,
    pub pixels: usize,
}

impl Heads {
    pub(super) fn scale(&self) -> f32 {
        (1.0 / (self.d as f64).sqrt()) as f32
    }

    pub(super) fn scores(&self) -> usize {
        self.count * self.pixels * self.pixels
    }

    fn batched(&self, gemm: GemmConfig<f32>, strides: [usize; 3]) -> StridedBatchedConfig<f32> {
        let [stride_a, stride_b, stride_c] = strides.map(|s| s as i64);
        StridedBatchedConfig { gemm, batch_size: self.count as i32, stride_a, stride_b, stride_c }
    }
}

impl Engine {
    /// `y [n, out] = x [n, in] w^T`, without the bias.
    pub(super) fn linear(
        &self,
        theta: Theta<'_>,
        weight: usize,
        x: &CudaSlice<f32>,
        [n, of, out]: [usize; 3],
        y: &mut CudaSlice<f32>,
    ) -> Result<()> {
        let c = config(T, N, Sizes { m: out, n, k: of }, 1.0, false);
        // SAFETY: the slices hold the products' sizes.
        unsafe { self.blas.gemm(c, &theta.part(weight), x, y) }.map_err(Error::wrap)
    }

    pub(super) fn linear_by_input(
        &self,
        theta: Theta<'_>,
        weight: usize,
        dy: &CudaSlice<f32>,
        [n, of, out]: [usize; 3],
        dx: &mut CudaSlice<f32>,
        more: bool,
    ) -> Result<()> {
        let c = config(N, N, Sizes { m: of, n, k: out }, 1.0, more);
        // SAFETY: as above.
        unsafe { self.blas.gemm(c, &theta.part(weight), dy, dx) }.map_err(Error::wrap)
    }

    pub(super) fn linear_by_weight(
        &self,
        graph: &crate::graph::Graph,
        weight: usize,
        x: &CudaSlice<f32>,
        dy: &CudaSlice<f32>,
        [n, of, out]: [usize; 3],
        dtheta: &mut CudaSlice<f32>,
    ) -> Result<()> {
        let c = config(N, T, Sizes { m: of, n: out, k: n }, 1.0, true);
        let mut part = dtheta.slice_mut(graph.params[weight].range());
        // SAFETY: as above.
        unsafe { self.blas.gemm(c, x, dy, &mut part) }.map_err(Error::wrap)
    }

    /// `scores[i, j] = alpha sum over d of a[d, i] b[d, j]`.
    pub(super) fn pair(&self, h: Heads, alpha: f32, a: &CudaSlice<f32>, b: &CudaSlice<f32>, scores: &mut CudaSlice<f32>) -> Result<()> {
        let (map, square) = (h.d * h.pixels, h.pixels * h.pixels);
        let c = config(N, T, Sizes { m: h.pixels, n: h.pixels, k: h.d }, alpha, false);
        // SAFETY: as above.
        unsafe { self.blas.gemm_strided_batched(h.batched(c, [map, map, square]), b, a, scores) }.map_err(Error::wrap)
    }

    /// `y[d, i] = alpha sum over j of p[i, j] v[d, j]`, or of `p[j, i]` if turned; onto `y` if `more`.
    pub(super) fn mix(
        &self,
        h: Heads,
        turned: bool,
        alpha: f32,
        p: &CudaSlice<f32>,
        v: &CudaSlice<f32>,
        y: &mut CudaSlice<f32>,
        more: bool,
    ) -> Result<()> {
        let (map, square) = (h.d * h.pixels, h.pixels * h.pixels);
        let c = config(if turned { N } else { T }, N, Sizes { m: h.pixels, n: h.d, k: h.pixels }, alpha, more);
        // SAFETY: as above.
        unsafe { self.blas.gemm_strided_batched(h.batched(c, [square, map, map]), p, v, y) }.map_err(Error::wrap)
    }
}
