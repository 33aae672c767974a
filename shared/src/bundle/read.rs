//! The strict loader. Sizes first, then the header, then what it means, then the weights: nothing is allocated before the file has
//! been seen to hold that much.

use super::{Bundle, BundleError, MAX_FILE, MAX_HEADER, check, json};
use crate::graph::Graph;
use crate::graph::prune::prefix;
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, BundleError>;

/// Bytes before the header: its length.
pub(super) const PREFIX: usize = 8;

/// Reads and checks a bundle.
///
/// Memory beyond `bytes` is bounded by the file itself: some tens of times the header (at most [`MAX_HEADER`]) while it is parsed, and
/// four bytes for each weight in the file.
///
/// # Errors
/// A [`BundleError`] for each kind of damage; never a panic.
pub fn read(bytes: &[u8]) -> Result<Bundle> {
    let (header, data) = split(bytes)?;
    let text = std::str::from_utf8(header).map_err(|e| BundleError::Header(e.to_string()))?;
    let header_info: Metadata = serde_json::from_str(text).map_err(|e| BundleError::Header(e.to_string()))?;
    let tensors = header_info.tensors();
    let end = tensors.values().map(|t| t.data_offsets.1 as u64).max().unwrap_or(0);
    let expected = end.saturating_add((PREFIX + header.len()) as u64);
    if bytes.len() as u64 != expected {
        return Err(BundleError::Length { found: bytes.len() as u64, expected });
    }

    let entry = |key: &str| {
        let text = header_info.metadata().as_ref().and_then(|m| m.get(key));
        text.ok_or_else(|| BundleError::NoMetadata { key: key.into() })
    };
    let (meta, config) = json::meta(entry("limbeck")?)?;
    let graphs = check::meta(&meta)?;
    if json::parse("config", entry("config")?)? != config {
        return Err(BundleError::ConfigMismatch);
    }
    let mut left = tensors;
    let mut thetas = Vec::with_capacity(graphs.len());
    for (k, graph) in graphs.iter().enumerate() {
        // What a routed network has not of its own begins network 0's tensor.
        let widest = (k > 0 && meta.router.is_some()).then_some(&graphs[0]);
        check_table(k, graph, widest, &left)?;
        thetas.push(theta(k, graph, widest.zip(thetas.first()), &mut left, data)?);
    }
    if let Some(name) = left.into_keys().min() {
        return Err(BundleError::ExtraTensor { name });
    }
    Ok(Bundle { meta, graphs, thetas, sha256: sha256(bytes) })
}

/// SHA-256 of a file, 64 lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Header and data, by lengths alone.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let found = bytes.len() as u64;
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(BundleError::FileSize { found, min: PREFIX as u64, max: MAX_FILE });
    };
    if found > MAX_FILE {
        return Err(BundleError::FileSize { found, min: PREFIX as u64, max: MAX_FILE });
    }
    let header = u64::from_le_bytes(*prefix);
    if header > MAX_HEADER {
        return Err(BundleError::HeaderSize { found: header, max: MAX_HEADER });
    }
    if header > rest.len() as u64 {
        return Err(BundleError::Length { found, expected: header + PREFIX as u64 });
    }
    Ok(rest.split_at(header as usize))
}

/// The name of a parameter in the file.
pub(super) fn tensor_name(network: usize, param: &str) -> String {
    if network == 0 { param.into() } else { format!("net{network}.{param}") }
}

/// Every parameter is there with its shape, before theta is allocated.
fn check_table(network: usize, graph: &Graph, widest: Option<&Graph>, tensors: &HashMap<String, &TensorInfo>) -> Result<()> {
    for p in &graph.params {
        let name = tensor_name(network, &p.name);
        let Some(info) = tensors.get(&name) else {
            match widest.and_then(|w| w.param(&p.name)).and_then(|w| prefix(w, p)) {
                Some(_) => continue,
                None => return Err(BundleError::MissingTensor { name }),
            }
        };
        if !matches!(info.dtype, Dtype::F16 | Dtype::F32) {
            return Err(BundleError::TensorType { name, found: format!("{:?}", info.dtype) });
        }
        if info.shape != p.shape {
            return Err(BundleError::TensorShape { name, found: info.shape.clone(), expected: p.shape.clone() });
        }
    }
    Ok(())
}

/// Weights of one network; takes its tensors out of the table, and what is not there from the widest network.
fn theta(
    network: usize,
    graph: &Graph,
    widest: Option<(&Graph, &Vec<f32>)>,
    tensors: &mut HashMap<String, &TensorInfo>,
    data: &[u8],
) -> Result<Vec<f32>> {
    let mut theta = vec![0f32; graph.param_count()];
    for p in &graph.params {
        let name = tensor_name(network, &p.name);
        let Some(info) = tensors.remove(&name) else {
            let shared = widest.and_then(|(g, theta)| Some((prefix(g.param(&p.name)?, p)?, theta)));
            let Some((index, from)) = shared else { return Err(BundleError::MissingTensor { name }) };
            theta[p.range()].iter_mut().zip(index).for_each(|(v, i)| *v = from[i]);
            continue;
        };
        let (from, to) = info.data_offsets;
        let Some(raw) = data.get(from..to) else {
            return Err(BundleError::Header(format!("tensor `{name}` lies outside the file")));
        };
        let out = &mut theta[p.range()];
        if info.dtype == Dtype::F16 {
            for (v, b) in out.iter_mut().zip(raw.as_chunks().0) {
                *v = f16::from_le_bytes(*b).to_f32();
            }
        } else {
            for (v, b) in out.iter_mut().zip(raw.as_chunks().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        if let Some(index) = out.iter().position(|v| !v.is_finite()) {
            return Err(BundleError::NotFinite { name, index, value: out[index].to_string() });
        }
    }
    Ok(theta)
}
