//! What a bundle says of itself.

use crate::train;
use anyhow::Result;
use std::io::Write;
use std::path::Path;

/// Writes what a bundle is, as text or JSON.
///
/// # Errors
/// If it is none, or `out` takes no more.
pub fn write(file: &Path, json: bool, out: &mut impl Write) -> Result<()> {
    let bundle = train::read_bundle(file)?;
    let m = &bundle.meta;
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(m)?)?;
        return Ok(());
    }
    writeln!(out, "{} ({})", m.name, m.training.method)?;
    writeln!(out, "  file      {} bytes, sha256 {}", std::fs::metadata(file)?.len(), bundle.sha256)?;
    writeln!(
        out,
        "  image     {}x{}, {} channels; classes: {}",
        m.image.width,
        m.image.height,
        m.image.channels,
        if m.classes.is_empty() { "none".into() } else { m.classes.join(", ") }
    )?;
    for g in &bundle.graphs {
        writeln!(
            out,
            "  network   {} parameters, {:.3} M MACs an image, {} operations",
            g.param_count(),
            g.macs() as f64 / 1e6,
            g.nodes.len()
        )?;
    }
    writeln!(out, "  reads     {:?} on {:?}", m.parameterization, m.schedule)?;
    for s in &m.samplers {
        let steps = if s.steps.is_empty() { "any number of steps".to_string() } else { format!("steps {:?}", s.steps) };
        writeln!(out, "  sampler   {}: {steps}, {} by default", s.sampler, s.default_steps)?;
    }
    if let Some(g) = &m.guidance {
        writeln!(out, "  guidance  {} to {}, {} by default", g.min, g.max, g.default)?;
    }
    writeln!(out, "  trained   {} images in {:.0} s: {}", m.training.images_seen, m.training.seconds, m.training.command)?;
    if let Some(t) = &m.training.teacher_sha256 {
        writeln!(out, "  teacher   {t}")?;
    }
    for (key, v) in &m.training.evaluation {
        writeln!(out, "  measured  {key}: fd {}", v.get("fd").unwrap_or(v))?;
    }
    writeln!(out, "  licence   {}", m.licence)?;
    Ok(())
}
