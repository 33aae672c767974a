//! The losses of SiD, as functions of what the networks answered.

use crate::method::per_image;
use anyhow::Result;
use candle_core::{D, Tensor};

/// What the networks answer at the noisy image.
pub(super) struct Answers {
    /// f_phi.
    pub(super) teacher: Tensor,
    /// f_psi at kappa_2, in delta.
    pub(super) in_delta: Tensor,
    /// f_psi at kappa_3, outside it.
    pub(super) outside: Tensor,
}

impl Answers {
    pub(super) fn detach(&self) -> Answers {
        Answers { teacher: self.teacher.detach(), in_delta: self.in_delta.detach(), outside: self.outside.detach() }
    }
}

/// `(1 - alpha) delta^2 + delta (f_psi - x_g)` for each pixel, which is `delta (f_phi - x_g - alpha delta)` with one cancellation
/// less (2404.04057, Eq. 23).
pub(super) fn identity(x_g: &Tensor, a: &Answers, alpha: f64) -> Result<Tensor> {
    let delta = (&a.teacher - &a.in_delta)?;
    let first = (&delta * (&a.outside - x_g)?)?;
    Ok(if alpha == 1.0 { first } else { (first + (delta.sqr()? * (1.0 - alpha))?)? })
}

/// omega, one constant an image: `1 / max(1e-5, mean |x_g - f_phi|)`, to multiply `[n, c, h, w]` with.
pub(super) fn weight(x_g: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let away = (x_g - teacher)?.detach().abs()?.flatten_from(1)?.mean_keepdim(D::Minus1)?;
    Ok(away.maximum(1e-5)?.recip()?.unsqueeze(2)?.unsqueeze(3)?)
}

/// EDM's weight, `1 / c_out^2`: the raw network then has a target of unit weight.
pub(super) fn lambda(sigma: f64, sigma_data: f64) -> f64 {
    (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).powi(2)
}

/// `lambda(sigma) (f - y)^2`, sum over pixels, mean over images.
pub(super) fn denoising(f: &Tensor, y: &Tensor, sigma: &[f64], sigma_data: f64) -> Result<Tensor> {
    let weight = per_image(sigma.iter().map(|&s| lambda(s, sigma_data)))?;
    Ok(((f - y)?.sqr()?.broadcast_mul(&weight)?.sum_all()? / sigma.len() as f64)?)
}

/// Mean binary cross-entropy of logits: `max(-x, 0) + ln(1 + exp(-|x|))` for the answer yes.
pub(super) fn bce(logits: &Tensor, yes: bool) -> Result<Tensor> {
    let x = if yes { logits.neg()? } else { logits.clone() };
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?.mean_all()?)
}
