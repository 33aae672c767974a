//! NumPy's `.npy`, version 1.0, f32 little-endian in C order: how arrays come and go.

use std::path::Path;

use anyhow::{Context, Result, bail};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Bytes of a `.npy` file holding `data` of shape `shape`.
///
/// # Errors
/// If the length of `data` is not the product of `shape`.
pub fn encode(shape: &[usize], data: &[f32]) -> Result<Vec<u8>> {
    if product(shape) != Some(data.len()) {
        bail!("array: found {} numbers, expected shape {shape:?}", data.len());
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    // The format wants the data to begin at a multiple of 64, the header to end in a newline.
    let length = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64);
    let padding = length - MAGIC.len() - 4 - header.len() - 1;
    header.extend(std::iter::repeat_n(' ', padding));
    header.push('\n');
    let header_length = u16::try_from(header.len()).context("array: too many dimensions")?;

    let mut out = Vec::with_capacity(length + 4 * data.len());
    out.extend(MAGIC);
    out.extend([1, 0]);
    out.extend(header_length.to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data.iter().flat_map(|v| v.to_le_bytes()));
    Ok(out)
}

/// Writes `data` of shape `shape` as a `.npy` file, replacing any old one in one step.
///
/// # Errors
/// If the length does not fit the shape, or the file cannot be written.
pub fn write(path: &Path, shape: &[usize], data: &[f32]) -> Result<()> {
    let bytes = encode(shape, data).with_context(|| path.display().to_string())?;
    super::write_whole(path, &bytes)
}

/// Shape and numbers of a `.npy` file of f32 in C order.
///
/// # Errors
/// Another type, order or format version, or a length that is not what the shape says.
pub fn read(path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    decode(&bytes).with_context(|| format!("{}: not a .npy file of f32", path.display()))
}

/// Shape and numbers out of the bytes of a `.npy` file; as [`read`].
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>)> {
    let Some((magic, rest)) = bytes.split_first_chunk::<6>() else {
        bail!("found {} bytes, expected a header", bytes.len());
    };
    if magic != MAGIC {
        bail!("magic: found {magic:?}, expected {MAGIC:?}");
    }
    let (start, length) = match rest {
        [1, 0, a, b, ..] => (4, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, 0, a, b, c, d, ..] => (6, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        [1..=3, 0, ..] | [] | [_] => bail!("found a header cut off, expected its length"),
        [major, minor, ..] => bail!("version: found {major}.{minor}, expected 1.0 to 3.0"),
    };
    let body = &rest[start..];
    if length > body.len() {
        bail!("header: found {} bytes, expected {length}", body.len());
    }
    let (header, data) = body.split_at(length);
    let header = std::str::from_utf8(header).context("header: found bytes that are no text")?;

    let descr = value(header, "descr")?;
    if descr.trim_matches(['\'', '"']) != "<f4" {
        bail!("descr: found {descr}, expected '<f4' (save with .astype('float32'))");
    }
    let order = value(header, "fortran_order")?;
    if order != "False" {
        bail!("fortran_order: found {order}, expected False (save with numpy.ascontiguousarray)");
    }
    let text = value(header, "shape")?;
    let shape: Option<Vec<usize>> = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).and_then(|t| {
        let sizes = t.split(',').map(str::trim).filter(|s| !s.is_empty());
        sizes.map(|s| s.parse().ok()).collect()
    });
    let Some(shape) = shape else { bail!("shape: found {text}, expected a tuple of sizes") };
    let expected = product(&shape).and_then(|n| n.checked_mul(4));
    if expected != Some(data.len()) {
        bail!("data: found {} bytes, expected 4 for each element of shape {shape:?}", data.len());
    }
    let numbers = data.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    Ok((shape, numbers))
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b))
}

/// The value of a key in the header's Python dictionary; a tuple with its parentheses.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let found = quoted.iter().find_map(|q| header.split_once(q.as_str()));
    let Some(rest) = found.and_then(|(_, r)| r.trim_start().strip_prefix(':')) else {
        bail!("header: found {:?}, expected the key '{key}'", header.trim());
    };
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') { rest.find(')').map(|i| i + 1) } else { rest.find([',', '}']) };
    let Some(end) = end else {
        bail!("header: found {:?}, expected a value for '{key}'", header.trim());
    };
    Ok(rest[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_bytes_numpy_writes() {
        let bytes = encode(&[2, 1, 3], &[0.0, 1.0, -2.5, 3.0, 4.0, f32::MIN_POSITIVE]).unwrap();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 3), }";
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let expected = format!("{header:<117}\n");
        assert_eq!(std::str::from_utf8(&bytes[10..128]).unwrap(), expected);
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(&bytes[136..140], &(-2.5f32).to_le_bytes());
    }

    #[test]
    fn round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        for shape in [vec![], vec![7], vec![0, 3], vec![2, 3, 4, 5]] {
            let n = shape.iter().product::<usize>();
            let data: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
            write(&path, &shape, &data).unwrap();
            assert_eq!(read(&path).unwrap(), (shape, data));
        }
        assert!(write(&path, &[2, 2], &[1.0]).unwrap_err().root_cause().to_string().contains("[2, 2]"));
    }

    #[test]
    fn misfits_are_named() {
        let good = encode(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let swap = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut out = good.clone();
            out[at..at + to.len()].copy_from_slice(to.as_bytes());
            out
        };
        let mut version = good.clone();
        version[6] = 9;
        for (bytes, expect) in [
            (vec![], "found 0 bytes"),
            (b"\x89PNG\r\n\x1a\n".to_vec(), "magic: found"),
            (version, "version: found 9.0"),
            (good[..8].to_vec(), "found a header cut off"),
            (good[..40].to_vec(), "header: found 30 bytes, expected 118"),
            (good[..good.len() - 1].to_vec(), "data: found 15 bytes"),
            ([good.clone(), vec![0]].concat(), "data: found 17 bytes"),
            (swap("<f4", "<f8"), "descr: found '<f8', expected '<f4'"),
            (swap("False", "True "), "fortran_order: found True, expected False"),
            (swap("'shape'", "'shade'"), "expected the key 'shape'"),
            (swap("(2, 2)", "(2, x)"), "shape: found (2, x)"),
            (swap("(2, 2), }", "(9999999)"), "data: found 16 bytes"),
            (swap("(2, 2), }", "(2, 2, , "), "expected a value for 'shape'"),
        ] {
            let e = format!("{:#}", decode(&bytes).unwrap_err());
            assert!(e.contains(expect), "{e}\n  lacks {expect}");
        }
        let dir = tempfile::tempdir().unwrap();
        let e = format!("{:#}", read(&dir.path().join("a.npy")).unwrap_err());
        assert!(e.contains("a.npy: cannot read"), "{e}");
    }

    /// What `numpy.lib.format` 2.0 headers look like: a four-byte length.
    #[test]
    fn longer_header_versions() {
        let mut bytes = encode(&[3], &[1.0, 2.0, 3.0]).unwrap();
        bytes[6] = 2;
        bytes.splice(10..10, [0, 0]);
        assert_eq!(decode(&bytes).unwrap(), (vec![3], vec![1.0, 2.0, 3.0]));
    }
}
