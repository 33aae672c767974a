//! What must hold for a bundle whose fields all have the right types: the same checks on reading and on writing.

use super::{BundleError, GuidanceRange, MAX_CHANNELS, MAX_EDGE, MAX_GUIDANCE, MAX_PARAMS, MAX_STEPS, Meta, SamplerSpec, VERSION, json};
use crate::graph::{Graph, NetworkConfig};
use crate::program::{Guidance, Sampler};

type Result<T> = std::result::Result<T, BundleError>;

/// Most networks in one bundle.
const MAX_NETWORKS: usize = 8;
/// Most ways of drawing, and most numbers of steps for one of them: loading builds every listed program once.
const MAX_LISTED: usize = 32;

/// Checks all but the tensors and builds the graphs.
pub(super) fn meta(m: &Meta) -> Result<Vec<Graph>> {
    if m.version != VERSION {
        return Err(BundleError::Version { found: m.version.into(), expected: VERSION });
    }
    within("name", m.name.len(), 1, 200, " bytes")?;
    within("networks", m.networks.len(), 1, MAX_NETWORKS, " networks")?;
    let image = &m.image;
    within("image.channels", image.channels, 1, MAX_CHANNELS, "")?;
    within("image.height", image.height, 1, MAX_EDGE, "")?;
    within("image.width", image.width, 1, MAX_EDGE, "")?;
    let [low, high] = image.range;
    ensure(
        low.is_finite() && high.is_finite() && low < high,
        "image.range",
        || format!("[{low}, {high}]"),
        "two finite numbers, the lower first",
    )?;
    let seconds = m.training.seconds;
    ensure(seconds.is_finite() && seconds >= 0.0, "training.seconds", || seconds.to_string(), "a finite number, 0 or more")?;
    if let Some(hash) = &m.training.teacher_sha256 {
        let hex = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ensure(hex, "training.teacher_sha256", || json::short(hash).into(), "64 lower-case hexadecimal digits")?;
    }
    let graphs = graphs(m)?;
    if m.is_classifier() {
        ensure(m.samplers.is_empty(), "samplers", || format!("{} samplers", m.samplers.len()), "none: classifiers do not draw")?;
        ensure(m.guidance.is_none(), "guidance", || "a range".into(), "none: classifiers do not draw")?;
        ensure(m.router.is_none(), "router", || "a router".into(), "none: classifiers do not draw")?;
        ensure(m.golden.is_none(), "golden", || "an image".into(), "none: classifiers do not draw")?;
        return Ok(graphs);
    }
    if let Some(null) = m.null_label
        && null as usize != m.classes.len()
    {
        return Err(BundleError::NullLabel { found: null, expected: m.classes.len() });
    }
    m.spec().validate().map_err(|e| match e {
        crate::Error::Config { key, found, expected } => BundleError::Field { path: format!("limbeck.{key}"), found, expected },
        other => {
            BundleError::Field { path: "limbeck".into(), found: "a schedule and a parameterization".into(), expected: other.to_string() }
        }
    })?;
    guidance(m)?;
    router(m)?;
    samplers(m)?;
    golden(m)?;
    Ok(graphs)
}

fn graphs(m: &Meta) -> Result<Vec<Graph>> {
    let classifier = m.is_classifier();
    let mut params = 0u64;
    let mut graphs = Vec::with_capacity(m.networks.len());
    for (network, config) in m.networks.iter().enumerate() {
        let path = format!("limbeck.networks[{network}]");
        let value = serde_json::to_value(config).map_err(|e| BundleError::Network { network, problem: e.to_string() })?;
        json::integers(&path, &value)?;
        ensure(
            classifier == matches!(config, NetworkConfig::Classifier(_)),
            &format!("networks[{network}]"),
            || "classifiers and other networks".into(),
            "all classifiers or none",
        )?;
        let graph = config.build().map_err(|e| BundleError::Network { network, problem: e.to_string() })?;
        params =
            graph.params.iter().map(|p| p.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64))).fold(params, u64::saturating_add);
        if params > MAX_PARAMS {
            return Err(BundleError::TooManyParams { found: params, max: MAX_PARAMS });
        }
        shapes(m, network, &graph)?;
        graphs.push(graph);
    }
    Ok(graphs)
}

/// The network's input, output, times and labels are those the bundle declares.
fn shapes(m: &Meta, network: usize, graph: &Graph) -> Result<()> {
    let expected = m.image.shape();
    let wrong = |side, found| Err(BundleError::ImageShape { network, side, found, expected });
    if graph.input_shape() != expected {
        return wrong("input", graph.input_shape());
    }
    if m.is_classifier() {
        let [found, _, _] = graph.output_shape();
        return if found == m.classes.len() { Ok(()) } else { Err(BundleError::Classes { network, found, expected: m.classes.len() }) };
    }
    if graph.output_shape() != expected {
        return wrong("output", graph.output_shape());
    }
    let times = 1 + usize::from(m.second_time) + usize::from(m.guidance_input);
    if graph.times != times {
        return Err(BundleError::TimeInputs { network, found: graph.times, expected: times });
    }
    let rows = m.classes.len() + usize::from(m.null_label.is_some());
    if graph.classes != rows {
        return Err(BundleError::Classes { network, found: graph.classes, expected: rows });
    }
    Ok(())
}

fn guidance(m: &Meta) -> Result<()> {
    let Some(GuidanceRange { min, max, default, levels }) = m.guidance else { return Ok(()) };
    let sound = 0.0 <= min && min <= default && default <= max && max <= MAX_GUIDANCE;
    ensure(sound, "guidance", || format!("{min} to {max}, default {default}"), &format!("0 <= min <= default <= max <= {MAX_GUIDANCE}"))?;
    let rises = Guidance { weight: default, levels }.is_sound();
    ensure(rises, "guidance.levels", || format!("{:?}", levels.unwrap_or_default()), "two levels that rise from 0 or more")?;
    ensure(
        m.null_label.is_some() || m.guidance_input,
        "guidance",
        || "a range, but neither null label nor guidance input".into(),
        "none: guidance needs one of them",
    )
}

fn router(m: &Meta) -> Result<()> {
    let Some(r) = &m.router else { return Ok(()) };
    within("router.nets", r.nets.len(), 1, MAX_LISTED, " groups")?;
    let edges = r.edges.len() + 1 == r.nets.len() && r.edges.iter().all(|e| e.is_finite()) && r.edges.windows(2).all(|e| e[0] > e[1]);
    ensure(edges, "router.edges", || format!("{:?}", r.edges), &format!("{} falling finite numbers", r.nets.len() - 1))?;
    r.nets.iter().enumerate().try_for_each(|(i, &net)| {
        let last = m.networks.len() - 1;
        ensure(net <= last, &format!("router.nets[{i}]"), || net.to_string(), &format!("0 to {last}"))
    })
}

fn samplers(m: &Meta) -> Result<()> {
    if m.samplers.is_empty() {
        return Err(BundleError::NoSampler);
    }
    within("samplers", m.samplers.len(), 1, MAX_LISTED, " samplers")?;
    for (i, s) in m.samplers.iter().enumerate() {
        let path = format!("samplers[{i}]");
        ensure(m.samplers[..i].iter().all(|e| e.sampler != s.sampler), &path, || s.sampler.to_string(), "each sampler once")?;
        within(&format!("{path}.steps"), s.steps.len(), 0, MAX_LISTED, " entries")?;
        for steps in s.steps.iter().chain([&s.default_steps]) {
            within(&format!("{path}.steps"), *steps, 1, MAX_STEPS, " steps")?;
        }
        let listed = s.steps.is_empty() || s.steps.contains(&s.default_steps);
        ensure(listed, &format!("{path}.default_steps"), || s.default_steps.to_string(), &format!("one of {}", offered(s)))?;
        for &steps in s.steps.iter().chain([&s.default_steps]) {
            let w = m.guidance.map_or(1.0, |g| g.default);
            let program = crate::program::build(s.sampler, &m.spec(), steps, w);
            let lowered = program.and_then(|p| crate::denoiser::lower(&p, &m.spec()));
            lowered.map_err(|e| BundleError::Sampler { path: format!("limbeck.{path}"), problem: e.to_string() })?;
        }
    }
    Ok(())
}

fn golden(m: &Meta) -> Result<()> {
    let Some(g) = &m.golden else { return Ok(()) };
    if g.pixels.len() != m.image.values() {
        return Err(BundleError::GoldenPixels { found: g.pixels.len(), expected: m.image.values() });
    }
    if let Some(i) = g.pixels.iter().position(|p| !p.is_finite()) {
        return ensure(false, &format!("golden.pixels[{i}]"), || g.pixels[i].to_string(), "a finite number");
    }
    let labels = m.classes.len() + usize::from(m.null_label.is_some());
    let found = || g.label.map_or("none".into(), |l| l.to_string());
    match g.label {
        Some(l) => ensure((l as usize) < labels, "golden.label", found, &format!("a label below {labels}"))?,
        None => ensure(labels == 0 || m.null_label.is_some(), "golden.label", found, "a label: the model has classes and no null label")?,
    }
    resolve(m, Some(g.sampler), Some(g.steps), Some(g.guidance.into()))
        .map(|_| ())
        .map_err(|e| BundleError::Sampler { path: "limbeck.golden".into(), problem: e.to_string() })
}

/// See [`Meta::resolve`].
pub(super) fn resolve(
    m: &Meta,
    sampler: Option<Sampler>,
    steps: Option<usize>,
    guidance: Option<Guidance>,
) -> Result<(Sampler, usize, Guidance)> {
    let no = |what, found, supported| Err(BundleError::Unsupported { what, found, supported });
    let all = || m.samplers.iter().map(|s| format!("{} with {}", s.sampler, offered(s))).collect::<Vec<_>>().join("; ");
    let found = m.samplers.iter().find(|s| sampler.is_none_or(|want| want == s.sampler));
    let Some(spec) = found else {
        let found = sampler.map_or("any".into(), |s| s.to_string());
        return no("sampler", found, if m.samplers.is_empty() { "none: it is a classifier".into() } else { all() });
    };
    let steps = steps.unwrap_or(spec.default_steps);
    let offer = if spec.steps.is_empty() { (1..=MAX_STEPS).contains(&steps) } else { spec.steps.contains(&steps) };
    if !offer {
        return no("steps", format!("{steps} with {}", spec.sampler), all());
    }
    let mut guidance = guidance.unwrap_or_else(|| m.guidance.map_or(1.0, |g| g.default).into());
    guidance.levels = guidance.levels.or(m.guidance.and_then(|g| g.levels));
    let w = guidance.weight;
    match m.guidance {
        Some(g) if !(g.min..=g.max).contains(&w) => no("guidance", w.to_string(), format!("guidance {} to {}", g.min, g.max)),
        None if w != 1.0 => no("guidance", w.to_string(), "no guidance (weight 1)".into()),
        _ => Ok((spec.sampler, steps, guidance)),
    }
}

fn offered(s: &SamplerSpec) -> String {
    match &s.steps[..] {
        [] => format!("1 to {MAX_STEPS} steps"),
        [one] => format!("{one} {}", if *one == 1 { "step" } else { "steps" }),
        many => format!("{} steps", many.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn within(field: &str, n: usize, min: usize, max: usize, unit: &str) -> Result<()> {
    ensure((min..=max).contains(&n), field, || format!("{n}{unit}"), &format!("{min} to {max}"))
}

fn ensure(holds: bool, field: &str, found: impl Fn() -> String, expected: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(BundleError::Field { path: format!("limbeck.{field}"), found: found(), expected: expected.into() }) }
}
