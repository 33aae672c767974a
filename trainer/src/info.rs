//! What a bundle says of itself.

use crate::train;
use anyhow::Result;
use limbeck_shared::bundle::Bundle;
use limbeck_shared::program::{Instr, Router};
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
    if let Some(router) = &m.router {
        groups(&bundle, router, out)?;
    }
    writeln!(out, "  reads     {:?} on {:?}", m.parameterization, m.schedule)?;
    for s in &m.samplers {
        let steps = if s.steps.is_empty() { "any number of steps".to_string() } else { format!("steps {:?}", s.steps) };
        writeln!(out, "  sampler   {}: {steps}, {} by default", s.sampler, s.default_steps)?;
    }
    if let Some(g) = &m.guidance {
        let levels = g.levels.map_or("all noise levels".into(), |[low, high]| format!("sigma {low} to {high}"));
        writeln!(out, "  guidance  {} to {}, {} by default, at {levels}", g.min, g.max, g.default)?;
    }
    writeln!(out, "  trained   {} images in {:.0} s: {}", m.training.images_seen, m.training.seconds, m.training.command)?;
    if let Some(t) = &m.training.teacher_sha256 {
        writeln!(out, "  teacher   {t}")?;
    }
    for (key, v) in &m.training.evaluation {
        match v.get("fd") {
            Some(fd) => writeln!(out, "  measured  {key}: fd {fd}")?,
            None => writeln!(out, "  measured  {key}: {v}")?,
        }
    }
    writeln!(out, "  licence   {}", m.licence)?;
    Ok(())
}

/// The groups of a routed bundle: noise levels, network, and how many calls of the default drawing it answers.
fn groups(bundle: &Bundle, router: &Router, out: &mut impl Write) -> Result<()> {
    let program = bundle.draw_program(None, None, None)?;
    let level = |i: &Instr| if let Instr::Eval(e) = i { Some(bundle.meta.schedule.noise_ratio(e.t).ln()) } else { None };
    let levels: Vec<f64> = program.instrs.iter().filter_map(level).collect();
    for (g, &net) in router.nets.iter().enumerate() {
        let calls = levels.iter().filter(|&&l| router.group(l) == g).count();
        let above = router.edges.get(g).map_or("the rest".into(), |e| format!("from {e:.3}"));
        writeln!(out, "  group     {}: network {net}, ln(sigma/alpha) {above}, {calls} of {} calls", g + 1, levels.len())?;
    }
    let macs = program.cost(&bundle.graphs);
    let widest = bundle.graphs.iter().map(|g| g.macs()).max().unwrap_or(0) * levels.len() as u64;
    writeln!(out, "  routed    {:.1} M MACs an image, {:.3} of the widest network's", macs as f64 / 1e6, macs as f64 / widest as f64)?;
    Ok(())
}
