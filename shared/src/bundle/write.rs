//! Writing a bundle: the same meta and weights always give the same bytes, so a model's hash can be reproduced.

use super::read::{PREFIX, tensor_name};
use super::{BundleError, MAX_FILE, MAX_HEADER, Meta, check};
use crate::graph::prune::prefix;
use crate::graph::{Graph, Param};
use half::f16;
use serde_json::{Map, Value, json};

type Result<T> = std::result::Result<T, BundleError>;

/// Writes a bundle; weights are rounded to half precision.
///
/// `thetas` holds one slice for each of [`Meta::networks`].
///
/// # Errors
/// Whatever [`super::read`] would refuse; [`BundleError::NotFinite`] and [`BundleError::F16Overflow`] name the tensor.
pub fn write(meta: &Meta, thetas: &[Vec<f32>]) -> Result<Vec<u8>> {
    let graphs = check::meta(meta)?;
    if thetas.len() != graphs.len() {
        return Err(BundleError::Weights { what: "weights".into(), found: thetas.len(), expected: graphs.len() });
    }
    let halves = graphs.iter().zip(thetas).enumerate().map(|(k, (g, t))| f16_bits(k, g, t)).collect::<Result<Vec<_>>>()?;
    let stored = stored(meta, &graphs, &halves);
    let header = header(meta, &graphs, &stored)?;
    let params: usize = stored.iter().map(|&(k, p)| graphs[k].params[p].len()).sum();
    let length = PREFIX as u64 + header.len() as u64 + 2 * params as u64;
    if length > MAX_FILE {
        return Err(BundleError::FileSize { found: length, min: PREFIX as u64, max: MAX_FILE });
    }
    let mut file = Vec::with_capacity(length as usize);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    for (k, p) in stored {
        file.extend(halves[k][graphs[k].params[p].range()].iter().flat_map(|b| b.to_le_bytes()));
    }
    Ok(file)
}

/// What the file holds, as network and parameter: all, but of a routed bundle only once what begins network 0's tensor.
fn stored(meta: &Meta, graphs: &[Graph], halves: &[Vec<u16>]) -> Vec<(usize, usize)> {
    let again = |k: usize, p: &Param| {
        let index = graphs[0].param(&p.name).filter(|_| k > 0 && meta.router.is_some()).and_then(|widest| prefix(widest, p));
        index.is_some_and(|index| index.into_iter().zip(&halves[k][p.range()]).all(|(i, half)| halves[0][i] == *half))
    };
    let all = graphs.iter().enumerate().flat_map(|(k, g)| (0..g.params.len()).map(move |p| (k, p)));
    all.filter(|&(k, p)| !again(k, &graphs[k].params[p])).collect()
}

/// The safetensors header, padded to a multiple of eight bytes. Written here because the crate's writer orders metadata at random.
fn header(meta: &Meta, graphs: &[Graph], stored: &[(usize, usize)]) -> Result<String> {
    let not_json = |key: &str, e: serde_json::Error| BundleError::NotJson { key: key.into(), problem: e.to_string() };
    let limbeck = serde_json::to_string(meta).map_err(|e| not_json("limbeck", e))?;
    let config = serde_json::to_string(&meta.networks[0]).map_err(|e| not_json("config", e))?;
    let mut table = Map::new();
    table.insert("__metadata__".into(), json!({ "format": "pt", "config": config, "limbeck": limbeck }));
    let mut offset = 0;
    for &(k, p) in stored {
        let p = &graphs[k].params[p];
        let end = offset + 2 * p.len();
        table.insert(tensor_name(k, &p.name), json!({ "dtype": "F16", "shape": p.shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut text = Value::Object(table).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(PREFIX) - text.len()));
    if text.len() as u64 > MAX_HEADER {
        return Err(BundleError::HeaderSize { found: text.len() as u64, max: MAX_HEADER });
    }
    Ok(text)
}

/// Half-precision bit patterns of a network's weights, rounded to nearest. `network` is the index that error messages name.
///
/// # Errors
/// [`BundleError::Weights`] if `theta` is not of length [`Graph::param_count`]; [`BundleError::NotFinite`] and
/// [`BundleError::F16Overflow`] name the tensor and the element.
pub fn f16_bits(network: usize, graph: &Graph, theta: &[f32]) -> Result<Vec<u16>> {
    if theta.len() != graph.param_count() {
        let what = format!("weights of network {network}");
        return Err(BundleError::Weights { what, found: theta.len(), expected: graph.param_count() });
    }
    let mut bits = Vec::with_capacity(theta.len());
    for p in &graph.params {
        for (index, &value) in theta[p.range()].iter().enumerate() {
            let name = || tensor_name(network, &p.name);
            if !value.is_finite() {
                return Err(BundleError::NotFinite { name: name(), index, value: value.to_string() });
            }
            let half = f16::from_f32(value);
            if half.is_infinite() {
                return Err(BundleError::F16Overflow { name: name(), index, value });
            }
            bits.push(half.to_bits());
        }
    }
    Ok(bits)
}
