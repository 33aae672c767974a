//! Frechet distance between Gaussians fitted to feature vectors (Dowson and Landau 1982; for images Heusel
//! et al. 2017), in f64 throughout.

use anyhow::{Result, anyhow, bail};
use faer::{Mat, Side};

/// Count, mean and scatter matrix of feature vectors, gathered batch by batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Vec<f64>,
    /// Sum of (x - mean)(x - mean)^T, row-major `[dim, dim]`.
    scatter: Vec<f64>,
}

impl Moments {
    /// Of no vectors of length `dim`.
    pub fn new(dim: usize) -> Moments {
        Moments { count: 0, mean: vec![0.0; dim], scatter: vec![0.0; dim * dim] }
    }

    /// From stored parts: count, mean `[dim]` and scatter matrix `[dim, dim]`.
    ///
    /// # Errors
    /// If the lengths do not fit or a number is not finite.
    pub fn from_parts(count: u64, mean: Vec<f64>, scatter: Vec<f64>) -> Result<Moments> {
        let dim = mean.len();
        if dim.checked_mul(dim) != Some(scatter.len()) {
            bail!("moments: found {} scatter values, expected {dim} x {dim}", scatter.len());
        }
        if let Some(v) = mean.iter().chain(&scatter).find(|v| !v.is_finite()) {
            bail!("moments: found {v}, expected finite numbers");
        }
        Ok(Moments { count, mean, scatter })
    }

    /// Adds vectors, `[n, dim]`.
    ///
    /// # Errors
    /// If the length is no multiple of `dim`, or a number is not finite.
    pub fn push(&mut self, feats: &[f32]) -> Result<()> {
        let dim = self.mean.len();
        if dim == 0 || !feats.len().is_multiple_of(dim) {
            bail!("features: found {} numbers, expected a multiple of {dim}", feats.len());
        }
        if let Some(i) = feats.iter().position(|v| !v.is_finite()) {
            bail!("features of vector {}: found {}, expected finite numbers", i / dim, feats[i]);
        }
        let n = feats.len() / dim;
        if n == 0 {
            return Ok(());
        }
        let mut mean = vec![0.0; dim];
        for row in feats.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= n as f64);
        let centred = Mat::from_fn(n, dim, |i, j| f64::from(feats[i * dim + j]) - mean[j]);
        let scatter = centred.transpose() * &centred;

        // Chan, Golub and LeVeque 1979: joining two groups without subtracting large sums.
        let (before, total) = (self.count as f64, (self.count + n as u64) as f64);
        let shift: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let weight = before * n as f64 / total;
        for i in 0..dim {
            for j in 0..dim {
                self.scatter[i * dim + j] += scatter[(i, j)] + weight * shift[i] * shift[j];
            }
        }
        for (m, s) in self.mean.iter_mut().zip(&shift) {
            *m += s * n as f64 / total;
        }
        self.count += n as u64;
        Ok(())
    }

    /// Number of vectors.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean, `[dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Scatter matrix, row-major `[dim, dim]`: the covariance times (count - 1).
    pub fn scatter(&self) -> &[f64] {
        &self.scatter
    }

    /// Trace of the covariance: half the mean squared distance between two of the vectors. 0 for fewer
    /// than two.
    pub fn total_variance(&self) -> f64 {
        let dim = self.mean.len();
        (0..dim).map(|i| self.scatter[i * dim + i]).sum::<f64>() / self.degrees()
    }

    /// Covariance with the unbiased divisor count - 1, as `numpy.cov` has it.
    fn covariance(&self) -> Mat<f64> {
        let (dim, degrees) = (self.mean.len(), self.degrees());
        // Averaging with the transpose removes what rounding leaves of asymmetry.
        Mat::from_fn(dim, dim, |i, j| (self.scatter[i * dim + j] + self.scatter[j * dim + i]) / (2.0 * degrees))
    }

    fn degrees(&self) -> f64 {
        self.count.saturating_sub(1).max(1) as f64
    }
}

/// Frechet distance |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1^{1/2} S2 S1^{1/2})^{1/2}, the last trace from
/// the eigenvalues of the symmetric matrix in parentheses.
///
/// Non-negative and symmetric up to rounding. Rounding is about 1e-8 of the traces when a covariance is
/// singular, much less otherwise.
///
/// # Errors
/// Fewer than two vectors on a side, different dimensions, or eigenvalues that do not converge.
pub fn distance(a: &Moments, b: &Moments) -> Result<f64> {
    if a.mean.len() != b.mean.len() {
        bail!("Frechet distance: found dimensions {} and {}, expected equal ones", a.mean.len(), b.mean.len());
    }
    if a.count < 2 || b.count < 2 {
        bail!("Frechet distance: found {} and {} vectors, expected at least 2", a.count, b.count);
    }
    let (sa, sb) = (a.covariance(), b.covariance());
    let root = square_root(&sa)?;
    let inner = &root * &sb * &root;
    let symmetric = Mat::from_fn(inner.nrows(), inner.ncols(), |i, j| (inner[(i, j)] + inner[(j, i)]) / 2.0);
    let eigenvalues = symmetric.self_adjoint_eigenvalues(Side::Lower).map_err(diverged)?;
    // The matrix is positive semi-definite: what is below zero is rounding.
    let cross: f64 = eigenvalues.iter().map(|v| v.max(0.0).sqrt()).sum();
    let means: f64 = a.mean.iter().zip(&b.mean).map(|(x, y)| (x - y).powi(2)).sum();
    let distance = means + a.total_variance() + b.total_variance() - 2.0 * cross;
    if !distance.is_finite() {
        bail!("Frechet distance: found {distance}, expected a finite number");
    }
    Ok(distance.max(0.0))
}

/// The symmetric square root of a positive semi-definite matrix.
fn square_root(s: &Mat<f64>) -> Result<Mat<f64>> {
    let eigen = s.self_adjoint_eigen(Side::Lower).map_err(diverged)?;
    let (u, values) = (eigen.U(), eigen.S().column_vector());
    let scaled = Mat::from_fn(u.nrows(), u.ncols(), |i, j| u[(i, j)] * values[j].max(0.0).sqrt());
    Ok(scaled * u.transpose())
}

fn diverged(e: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("Frechet distance: the eigenvalues do not converge ({e:?})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_shared::rng::{self, Stream};

    /// Moments of exactly this mean and covariance.
    fn gaussian(mean: &[f64], covariance: &[f64]) -> Moments {
        let scatter = covariance.iter().map(|v| v * 9.0).collect();
        Moments::from_parts(10, mean.to_vec(), scatter).unwrap()
    }
    fn diagonal(v: &[f64]) -> Vec<f64> {
        let d = v.len();
        (0..d * d).map(|i| if i / d == i % d { v[i / d] } else { 0.0 }).collect()
    }
    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
    }
    fn draw(stream: u32, n: usize, dim: usize) -> Vec<f32> {
        let mut out = vec![0.0; n * dim];
        rng::normals(5, Stream::Eval(stream), 0, &mut out);
        out
    }

    #[test]
    fn shifted_means_and_diagonal_covariances() {
        let (one, four) = (diagonal(&[1.0, 1.0, 1.0]), diagonal(&[4.0, 9.0, 0.25]));
        let zero = gaussian(&[0.0; 3], &one);
        close(distance(&zero, &gaussian(&[3.0, 4.0, 0.0], &one)).unwrap(), 25.0, 1e-12);
        // Sum of (sqrt(a) - sqrt(b))^2.
        close(distance(&zero, &gaussian(&[0.0; 3], &four)).unwrap(), 1.0 + 4.0 + 0.25, 1e-12);
        close(distance(&zero, &gaussian(&[1.0; 3], &four)).unwrap(), 8.25, 1e-12);
        // A point mass: the whole variance.
        close(distance(&zero, &gaussian(&[0.0; 3], &diagonal(&[0.0; 3]))).unwrap(), 3.0, 1e-12);
    }

    #[test]
    fn commuting_covariances() {
        // Q diag(a) Q^T and Q diag(b) Q^T with one rotation Q: again sum of (sqrt(a) - sqrt(b))^2.
        let (c, s) = (0.7f64.cos(), 0.7f64.sin());
        let turned = |a: f64, b: f64| {
            let off = c * s * (a - b);
            [c * c * a + s * s * b, off, off, s * s * a + c * c * b]
        };
        let x = gaussian(&[1.0, 2.0], &turned(4.0, 0.01));
        let y = gaussian(&[1.0, 0.0], &turned(1.0, 9.0));
        close(distance(&x, &y).unwrap(), 4.0 + 1.0 + 2.9f64.powi(2), 1e-12);
    }

    #[test]
    fn covariances_that_do_not_commute() {
        // In two dimensions tr (AB)^{1/2} = sqrt(tr AB + 2 sqrt(det A det B)).
        let (a, b) = ([2.0, 0.5, 0.5, 1.0], [1.0, -0.8, -0.8, 3.0]);
        let trace = 2.0 * 1.0 - 0.5 * 0.8 * 2.0 + 3.0;
        let cross = (trace + 2.0 * (1.75f64 * 2.36).sqrt()).sqrt();
        let expected = 7.0 - 2.0 * cross;
        let (x, y) = (gaussian(&[0.0; 2], &a), gaussian(&[0.0; 2], &b));
        close(distance(&x, &y).unwrap(), expected, 1e-12);
        close(distance(&y, &x).unwrap(), expected, 1e-12);
    }

    #[test]
    fn zero_for_identical_and_symmetric_also_when_singular() {
        let dim = 24;
        let fit = |feats: &[f32]| {
            let mut m = Moments::new(dim);
            m.push(feats).unwrap();
            m
        };
        let (a, b) = (fit(&draw(0, 400, dim)), fit(&draw(1, 500, dim)));
        let few = fit(&draw(2, 9, dim)); // rank 8 of 24
        close(distance(&a, &a).unwrap(), 0.0, 1e-10);
        close(distance(&few, &few).unwrap(), 0.0, 1e-6);
        let (ab, ba) = (distance(&a, &b).unwrap(), distance(&b, &a).unwrap());
        close(ab, ba, 1e-10);
        assert!(ab > 0.1, "{ab}");
        let (af, fa) = (distance(&a, &few).unwrap(), distance(&few, &a).unwrap());
        close(af, fa, 1e-6);
        assert!(af > ab);
    }

    #[test]
    fn batches_do_not_matter_nor_does_a_far_origin() {
        let dim = 5;
        let feats: Vec<f32> = draw(3, 300, dim).iter().map(|v| v + 1000.0).collect();
        let mut whole = Moments::new(dim);
        whole.push(&feats).unwrap();
        let mut parts = Moments::new(dim);
        for chunk in feats.chunks(7 * dim) {
            parts.push(chunk).unwrap();
        }
        assert_eq!((parts.count(), whole.count()), (300, 300));
        for j in 0..dim {
            let column = || feats.iter().skip(j).step_by(dim).map(|&v| f64::from(v));
            let mean = column().sum::<f64>() / 300.0;
            close(parts.mean()[j], mean, 1e-10);
            let var = column().map(|v| (v - mean).powi(2)).sum::<f64>() / 299.0;
            close(parts.covariance()[(j, j)], var, 1e-10);
            for i in 0..dim {
                close(parts.covariance()[(i, j)], whole.covariance()[(i, j)], 1e-10);
            }
        }
    }

    #[test]
    fn misfits_are_named() {
        let mut m = Moments::new(3);
        assert!(m.push(&[1.0; 4]).unwrap_err().to_string().contains("found 4 numbers"));
        let e = m.push(&[0.0, 0.0, 0.0, 0.0, f32::INFINITY, 0.0]).unwrap_err().to_string();
        assert!(e.contains("vector 1: found inf"), "{e}");
        m.push(&[1.0; 3]).unwrap();
        let two = gaussian(&[0.0; 2], &[1.0, 0.0, 0.0, 1.0]);
        let three = gaussian(&[0.0; 3], &diagonal(&[1.0; 3]));
        assert!(distance(&m, &three).unwrap_err().to_string().contains("found 1 and 10 vectors"));
        assert!(distance(&two, &three).unwrap_err().to_string().contains("dimensions 2 and 3"));
        assert!(Moments::from_parts(2, vec![0.0], vec![f64::NAN]).is_err());
        assert!(Moments::from_parts(2, vec![0.0], vec![0.0; 2]).is_err());
    }
}
