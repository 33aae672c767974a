//! What is known before anything is trained, as a table.

use super::budget::Costs;
use super::run::Plan;
use anyhow::Result;
use limbeck_shared::bundle::Bundle;
use std::fmt::Write;

/// Groups with their budgets, then blocks with width, cost, and the part of each group's importance that lies in them.
///
/// # Errors
/// If the base cannot be drawn with.
pub fn table(base: &Bundle, costs: &Costs, plan: &Plan) -> Result<String> {
    let (mut out, schedule) = (String::new(), &base.meta.schedule);
    let million = |macs: u64| macs as f64 / 1e6;
    writeln!(out, "{}: {:.3} M MACs a call", base.meta.name, million(costs.macs))?;
    writeln!(out, "group  uniform time     ln(sigma/alpha)    budget, M MACs")?;
    for (g, (range, &target)) in plan.ranges.iter().zip(&plan.targets).enumerate() {
        let [low, high] = range.map(|u| schedule.noise_ratio(schedule.at_uniform(u)).ln());
        let part = target as f64 / costs.macs as f64;
        writeln!(out, "{:5}  {:.3} to {:.3}  {low:7.3} to {high:6.3}  {:8.3} ({part:.3})", g + 1, range[0], range[1], million(target))?;
    }
    let heads: String = (1..=plan.ranges.len()).map(|g| format!("  group {g}")).collect();
    writeln!(out, "{:32} {:>9} {:>6} {:>10} {:>9}  importance:{heads}", "block", "output", "width", "units", "M MACs")?;
    let sums: Vec<f64> = plan.importance.iter().map(|group| group.iter().flatten().sum::<f64>().max(f64::MIN_POSITIVE)).collect();
    for (i, b) in costs.blocks.iter().enumerate() {
        let share = |g: usize| 100.0 * plan.importance[g][i].iter().sum::<f64>() / sums[g];
        let shares: String = (0..sums.len()).map(|g| format!("{:7.2} %", share(g))).collect();
        let [c, h, w] = b.output;
        let (units, macs) = (format!("{} x {}", b.units, b.unit), million(b.units as u64 * b.unit_macs));
        writeln!(out, "{:32} {:>9} {:6} {units:>10} {macs:9.3}             {shares}", b.name, format!("{c}x{h}x{w}"), b.channels(b.units))?;
    }
    let inside: u64 = costs.blocks.iter().map(|b| b.units as u64 * b.unit_macs).sum();
    writeln!(out, "{:32} {:>9} {:6} {:>10} {:9.3}", "all else", "", "", "", million(costs.macs - inside))?;
    Ok(out)
}
