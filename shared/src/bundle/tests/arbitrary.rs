//! Arbitrary damage: an error or a sound bundle, never a panic.

use super::*;
use proptest::prelude::*;

#[test]
fn every_truncation_is_refused() {
    let bytes = file(&mlp());
    for n in 0..bytes.len() {
        let error = read(&bytes[..n]).unwrap_err();
        assert!(matches!(error, BundleError::FileSize { .. } | BundleError::Length { .. }), "{n}: {error:?}");
    }
}

#[test]
fn every_header_byte_flipped() {
    let bytes = file(&mlp());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (mut read_on, mut refused) = (0, 0);
    for i in 0..header {
        for bit in [0, 3, 7] {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1 << bit;
            match read(&flipped) {
                // A changed name, number or trailing space may still be a bundle; its weights are then unharmed.
                Ok(bundle) => {
                    assert_eq!(bundle.thetas, weights(&mlp()));
                    read_on += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > read_on, "{refused} refused, {read_on} read");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
        // The same as a header of the right length, past the first check.
        prop_assert!(read(&[&(bytes.len() as u64).to_le_bytes()[..], &bytes].concat()).is_err());
    }

    #[test]
    fn damaged_files_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), truncate: bool) {
        let mut bytes = file(&mlp());
        for (at, byte) in edits {
            let i = at.index(bytes.len());
            bytes[i] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(read(&bytes).is_err());
        } else if let Ok(bundle) = read(&bytes) {
            prop_assert!(bundle.thetas.iter().flatten().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn damaged_fields_never_panic(which in any::<prop::sample::Index>(), value in prop_oneof![
        Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from), any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from), "\\PC{0,80}".prop_map(Value::from), Just(json!([])), Just(json!({})), Just(json!([1, 2, 3, 4, 5])),
    ]) {
        let bytes = edited(&file(&unet()), |h| {
            let mut paths = vec![];
            leaves(&h["__metadata__"]["limbeck"], String::new(), &mut paths);
            let path = &paths[which.index(paths.len())];
            *h["__metadata__"]["limbeck"].pointer_mut(path).unwrap() = value;
            h["__metadata__"]["config"] = h["__metadata__"]["limbeck"]["networks"][0].clone();
        });
        if let Ok(bundle) = read(&bytes) {
            prop_assert!(bundle.draw_program(None, None, None).is_ok());
            prop_assert_eq!(bundle.thetas, weights(&unet()));
        }
    }

    #[test]
    fn half_precision_is_to_nearest(values in prop::collection::vec(-65504f32..65504.0, 2)) {
        let meta = mlp();
        let mut thetas = weights(&meta);
        let n = thetas[0].len();
        thetas[0][n - 2..].copy_from_slice(&values);
        let read_back = read(&write(&meta, &thetas).unwrap()).unwrap().thetas;
        for (a, b) in values.iter().zip(&read_back[0][n - 2..]) {
            // Half an ulp of eleven bits; below the least normal, half the spacing of subnormals.
            prop_assert!((a - b).abs() <= (a.abs() / 2048.0).max(2f32.powi(-25)), "{} {}", a, b);
        }
    }
}

/// JSON pointers of all values.
fn leaves(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(o) => o.iter().for_each(|(k, v)| leaves(v, format!("{at}/{k}"), out)),
        Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| leaves(v, format!("{at}/{i}"), out)),
        _ => {}
    }
    out.push(at);
}
