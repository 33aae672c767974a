//! How far two groups' networks are apart where one hands over to the other.

use super::probe::{Probe, frozen};
use crate::data::Dataset;
use anyhow::Result;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::cpu::Precision;
use limbeck_shared::denoiser::adapter;
use serde_json::{Value, json};

/// For every edge the relative difference of the two networks' raw answers, and of the noise that they see in the same `count` images.
///
/// # Errors
/// If a network cannot run.
pub fn measure(routed: &Bundle, data: &dyn Dataset, count: usize, seed: u64) -> Result<Value> {
    let meta = &routed.meta;
    let Some(router) = &meta.router else { return Ok(Value::Null) };
    let mut rows = vec![];
    for (g, &edge) in router.edges.iter().enumerate() {
        let t = meta.schedule.time_of_ratio(edge.exp());
        let u = meta.schedule.uniform_of(t);
        let probe = Probe::new(meta, data, [u, u], count, seed, 2)?;
        let net = |g: usize| frozen(&meta.networks[router.nets[g]], &routed.thetas[router.nets[g]], Precision::F32);
        let (noisier, cleaner) = (net(g)?, net(g + 1)?);
        let raw = probe.difference(&noisier, &cleaner)?;
        // eps = (x - alpha x0) / sigma and x0 = c_skip x + c_out F: the raw difference times alpha c_out / sigma, over |eps| = 1.
        let (alpha, sigma) = (meta.schedule.alpha(t), meta.schedule.sigma(t));
        let eps = probe.distance(&noisier, &cleaner)? * (alpha * adapter(&meta.spec(), t, None)?.c_out / sigma).abs();
        rows.push(json!({ "ln_ratio": edge, "raw": raw, "eps": eps }));
    }
    Ok(rows.into())
}
