//! The way between two noises, and between two classes.

use crate::error::{Error, Result};
use crate::graph::{Graph, Op, ParamId};

/// Spherical interpolation (Shoemake 1985): writes into `out`, of the length of `a` and `b`, the noise a part `t` of the way from
/// `a` (0) to `b` (1). Standard normals of many dimensions all have nearly the same length; a straight line between two of them
/// would pass through shorter ones, which no network has seen.
pub fn slerp(a: &[f32], b: &[f32], t: f64, out: &mut [f32]) {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = libm::sqrt(dot(a, a) * dot(b, b));
    let angle = if lengths > 0.0 { libm::acos((dot(a, b) / lengths).clamp(-1.0, 1.0)) } else { 0.0 };
    let sine = libm::sin(angle);
    // Between parallel noises the straight line is as good, and finite.
    let [from, to] = if sine < 1e-6 { [1.0 - t, t] } else { [libm::sin((1.0 - t) * angle) / sine, libm::sin(t * angle) / sine] };
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = (from * f64::from(*a) + to * f64::from(*b)) as f32;
    }
}

/// A network that knows the way from class `from` to class `to`: its label tables get `frames` rows more, of which row k, label
/// `graph.classes + k`, lies a part `k / (frames - 1)` of the straight way from one class's embedding to the other's. For its own labels
/// it answers as before. Any interpreter runs it; none needs to know what a blend is.
///
/// # Errors
/// [`Error::Call`] if the network has no label table, a class is none of its rows, there are fewer than two frames, or theta has not the
/// graph's length.
pub fn blend_classes(graph: &Graph, theta: &[f32], [from, to]: [u32; 2], frames: usize) -> Result<(Graph, Vec<f32>)> {
    if graph.classes == 0 {
        return Err(Error::call("network", "no label table", "one that knows classes"));
    }
    if let Some(class) = [from, to].into_iter().find(|&c| c as usize >= graph.classes) {
        return Err(Error::call("class", class, format!("below {}", graph.classes)));
    }
    if frames < 2 {
        return Err(Error::call("frames", frames, "two or more"));
    }
    if theta.len() != graph.param_count() {
        return Err(Error::call("parameters", theta.len(), graph.param_count()));
    }
    let (mut longer, mut weights) = (graph.clone(), Vec::with_capacity(theta.len()));
    let mut tables: Vec<ParamId> = vec![];
    for node in &mut longer.nodes {
        if let Op::LabelEmbed { classes, .. } = &mut node.op {
            *classes += frames;
            tables.extend(&node.params);
        }
    }
    longer.classes += frames;
    for (id, (param, old)) in longer.params.iter_mut().zip(&graph.params).enumerate() {
        param.offset = weights.len();
        let values = &theta[old.range()];
        weights.extend_from_slice(values);
        if tables.contains(&id) {
            param.shape[0] += frames;
            let row = |class: u32| values.chunks_exact(old.shape[1]).nth(class as usize).unwrap_or_default();
            for k in 0..frames {
                let t = k as f32 / (frames - 1) as f32;
                weights.extend(row(from).iter().zip(row(to)).map(|(a, b)| (1.0 - t) * a + t * b));
            }
        }
    }
    Ok((longer, weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Net;
    use crate::graph::{Graph, mlp};
    use crate::rng::{Stream, normals};

    fn noise(seed: u64) -> Vec<f32> {
        let mut out = vec![0.0; 784];
        normals(seed, Stream::Sample(0), 0, &mut out);
        out
    }

    #[test]
    fn begins_and_ends_exactly_and_keeps_its_length() {
        let (a, b, mut out) = (noise(1), noise(2), vec![0.0; 784]);
        slerp(&a, &b, 0.0, &mut out);
        assert_eq!(out, a);
        slerp(&a, &b, 1.0, &mut out);
        assert_eq!(out, b);
        let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for t in [0.25, 0.5, 0.75] {
            slerp(&a, &b, t, &mut out);
            let straight: Vec<f32> = a.iter().zip(&b).map(|(a, b)| ((1.0 - t) * f64::from(*a) + t * f64::from(*b)) as f32).collect();
            assert!((length(&out) / length(&a) - 1.0).abs() < 0.06, "{t}: {}", length(&out));
            assert!(length(&straight) < 0.85 * length(&a));
        }
    }

    #[test]
    fn quarter_circle_and_parallel() {
        let mut out = [0.0; 2];
        slerp(&[1.0, 0.0], &[0.0, 1.0], 1.0 / 3.0, &mut out);
        assert!((out[0] - 0.866_025_4).abs() < 1e-6 && (out[1] - 0.5).abs() < 1e-6, "{out:?}");
        slerp(&[1.0, 2.0], &[1.0, 2.0], 0.3, &mut out);
        assert!((out[0] - 1.0).abs() < 1e-6 && (out[1] - 2.0).abs() < 1e-6, "{out:?}");
        slerp(&[0.0, 0.0], &[0.0, 0.0], 0.5, &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }

    /// A network of four classes, and its answer for a class.
    fn network() -> (Graph, Vec<f32>) {
        let config = serde_json::json!({"dim": 2, "hidden": 8, "layers": 2, "num_class_embeds": 4});
        let graph = mlp::build(&serde_json::from_value(config).unwrap()).unwrap();
        let theta = graph.init(5);
        (graph, theta)
    }

    fn answer(graph: &Graph, theta: &[f32], label: u32) -> [f32; 2] {
        let mut out = [0.0; 2];
        Net::new(graph.clone(), theta.to_vec()).unwrap().forward(&[0.3, -0.7], 1, &[0.4], &[label], &mut out).unwrap();
        out
    }

    #[test]
    fn a_blend_of_classes_is_the_network_with_the_blended_row() {
        let (graph, theta) = network();
        let (longer, weights) = blend_classes(&graph, &theta, [1, 3], 5).unwrap();
        assert_eq!((longer.classes, weights.len()), (9, longer.param_count()));
        for label in 0..4 {
            assert_eq!(answer(&longer, &weights, label), answer(&graph, &theta, label), "its own labels");
        }
        assert_eq!(answer(&longer, &weights, 4), answer(&graph, &theta, 1));
        assert_eq!(answer(&longer, &weights, 8), answer(&graph, &theta, 3));
        // A quarter of the way, written into the table by hand.
        let table = graph.params.iter().find(|p| p.shape == [4, 8]).unwrap();
        let mut by_hand = theta.clone();
        for i in 0..8 {
            by_hand[table.offset + i] = 0.75 * theta[table.offset + 8 + i] + 0.25 * theta[table.offset + 24 + i];
        }
        let quarter = answer(&longer, &weights, 5);
        assert_eq!(quarter, answer(&graph, &by_hand, 0));
        assert_ne!(quarter, answer(&graph, &theta, 1));
    }

    #[test]
    fn a_blend_needs_classes_of_the_network() {
        let (graph, theta) = network();
        for (classes, frames, theta, word) in
            [([0, 4], 3, &theta[..], "class"), ([0, 1], 1, &theta, "frames"), ([0, 1], 3, &theta[1..], "parameters")]
        {
            let error = blend_classes(&graph, theta, classes, frames).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let config = serde_json::json!({"dim": 2, "hidden": 8, "layers": 2});
        let plain = mlp::build(&serde_json::from_value(config).unwrap()).unwrap();
        let theta = plain.init(5);
        assert!(blend_classes(&plain, &theta, [0, 1], 3).is_err());
    }
}
