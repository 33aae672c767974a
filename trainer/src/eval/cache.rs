//! Statistics of data sets kept between runs: 60,000 images through a network once, not at every
//! evaluation.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::{Moments, Stats};
use crate::data::Dataset;

/// Part of the key: raised when the meaning of a file changes.
const VERSION: &str = "limbeck feature statistics 1";

/// Key of the statistics of a data set under a feature network: a hash of the network's id, the set's
/// shape and number of images, and every pixel.
pub fn key(features_id: &str, set: &dyn Dataset) -> String {
    let mut hash = Sha256::new();
    let sizes = [features_id.len(), set.len(), set.shape()[0], set.shape()[1], set.shape()[2]];
    hash.update(VERSION.as_bytes());
    sizes.iter().for_each(|&s| hash.update((s as u64).to_le_bytes()));
    hash.update(features_id.as_bytes());
    let mut image = vec![0.0f32; set.shape().iter().product()];
    for i in 0..set.len() {
        set.image(i, &mut image);
        hash.update(bytemuck::cast_slice::<f32, u8>(&image));
    }
    hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// The statistics under `key` in the folder `dir`, or what `compute` gives, which is then kept there.
/// `sizes` are the feature dimension and the number of classes.
///
/// A file that is damaged, or a folder that cannot be written, costs a line on stderr and time.
///
/// # Errors
/// Those of `compute`.
pub fn stats(dir: &Path, key: &str, sizes: (usize, usize), compute: impl FnOnce() -> Result<Stats>) -> Result<Stats> {
    let path = dir.join(format!("features-{key}.safetensors"));
    if path.exists() {
        match read(&path, sizes) {
            Ok(stats) => return Ok(stats),
            Err(e) => eprintln!("warning: {}: {e:#}; computing it again", path.display()),
        }
    }
    let stats = compute()?;
    let kept = std::fs::create_dir_all(dir)
        .context("cannot make the folder")
        .and_then(|()| encode(&stats))
        .and_then(|bytes| crate::log::write_whole(&path, &bytes));
    if let Err(e) = kept {
        eprintln!("warning: {}: cannot keep the statistics: {e:#}", path.display());
    }
    Ok(stats)
}

fn encode(stats: &Stats) -> Result<Vec<u8>> {
    let m = &stats.moments;
    let (dim, classes) = (m.mean().len(), stats.classes.len());
    let view = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes);
    let tensors = [
        ("mean", view(Dtype::F64, &[dim], bytemuck::cast_slice(m.mean()))?),
        ("scatter", view(Dtype::F64, &[dim, dim], bytemuck::cast_slice(m.scatter()))?),
        ("classes", view(Dtype::U64, &[classes], bytemuck::cast_slice(&stats.classes))?),
    ];
    let about = HashMap::from([("format".to_string(), VERSION.to_string()), ("count".to_string(), m.count().to_string())]);
    Ok(safetensors::serialize(tensors, Some(about))?)
}

fn read(path: &Path, (dim, classes): (usize, usize)) -> Result<Stats> {
    let bytes = std::fs::read(path).context("cannot read")?;
    let (_, header) = SafeTensors::read_metadata(&bytes).context("not a sound safetensors file")?;
    let about = header.metadata().clone().unwrap_or_default();
    let format = about.get("format").map_or("nothing", String::as_str);
    if format != VERSION {
        bail!("format: found {format}, expected {VERSION}");
    }
    let count = about.get("count").and_then(|c| c.parse().ok()).context("count: found no number")?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let words = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<Vec<[u8; 8]>> {
        let t = tensors.tensor(name)?;
        if t.dtype() != dtype || t.shape() != shape {
            bail!("{name}: found {:?} {:?}, expected {dtype:?} {shape:?}", t.dtype(), t.shape());
        }
        Ok(t.data().as_chunks::<8>().0.to_vec())
    };
    let floats = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
        Ok(words(name, Dtype::F64, shape)?.into_iter().map(f64::from_le_bytes).collect())
    };
    let moments = Moments::from_parts(count, floats("mean", &[dim])?, floats("scatter", &[dim, dim])?)?;
    let classes = words("classes", Dtype::U64, &[classes])?.into_iter().map(u64::from_le_bytes).collect();
    Ok(Stats { moments, classes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    fn example() -> Stats {
        let mut moments = Moments::new(2);
        moments.push(&[0.1, -2.0, 1.0 / 3.0, 7.0, 4.0, 5.5]).unwrap();
        Stats { moments, classes: vec![1, 0, 2] }
    }

    #[test]
    fn kept_exactly_and_computed_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/here");
        let first = stats(&folder, "k", (2, 3), || Ok(example())).unwrap();
        let second = stats(&folder, "k", (2, 3), || bail!("computed again")).unwrap();
        assert_eq!((&first, &second), (&example(), &example()));
        let other = stats(&folder, "other", (2, 3), || bail!("computed again"));
        assert!(other.unwrap_err().to_string().contains("computed again"));
    }

    #[test]
    fn files_that_do_not_fit_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("features-k.safetensors");
        let good = encode(&example()).unwrap();
        std::fs::write(&path, &good).unwrap();
        assert_eq!(read(&path, (2, 3)).unwrap(), example());
        let e = read(&path, (4, 3)).unwrap_err().to_string();
        assert!(e.contains("mean: found F64 [2], expected F64 [4]"), "{e}");
        assert!(read(&path, (2, 10)).unwrap_err().to_string().contains("classes: found U64 [3]"));
        for n in [0, 7, 40, good.len() - 1] {
            std::fs::write(&path, &good[..n]).unwrap();
            assert!(read(&path, (2, 3)).is_err(), "cut to {n}");
        }
        let mut nan = example();
        nan.moments = Moments::new(2);
        let mut bytes = encode(&nan).unwrap();
        let at = bytes.len() - 8;
        let all_ones = [255u8; 8];
        // The tensors lie by type and name; poison every word and the floats among them must be noticed.
        let start = at - 8 * (2 + 4 + 3 - 1);
        bytes[start..].chunks_mut(8).for_each(|c| c.copy_from_slice(&all_ones));
        std::fs::write(&path, &bytes).unwrap();
        assert!(read(&path, (2, 3)).unwrap_err().to_string().contains("found NaN"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_only_costs_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(stats(&file, "k", (2, 3), || Ok(example())).unwrap(), example());
    }

    #[test]
    fn keys_tell_data_and_networks_apart() {
        let set = |shape, pixels: Vec<u8>, n| InMemory::new(shape, pixels, vec![0; n], vec![]).unwrap();
        let base = set([1, 1, 2], vec![1, 2, 3, 4], 2);
        let keys = [
            key("a", &base),
            key("b", &base),
            key("a", &set([1, 1, 2], vec![1, 2, 3, 5], 2)),
            key("a", &set([1, 2, 1], vec![1, 2, 3, 4], 2)),
            key("a", &set([1, 1, 4], vec![1, 2, 3, 4], 1)),
        ];
        for (i, k) in keys.iter().enumerate() {
            assert_eq!(k.len(), 32);
            assert!(!keys[..i].contains(k), "key {i}");
        }
        assert_eq!(key("a", &base), keys[0]);
    }
}
