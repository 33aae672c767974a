//! Guided answers of a frozen or trained network, at every noise level or at some.

use super::per_image;
use crate::device::device;
use anyhow::Result;
use candle_core::Tensor;

/// `f(null) + w (f(label) - f(null))` with a weight for each image `[n, c, h, w]`, as `f(label) + (w - 1) (f(label) - f(null))`.
///
/// `ask` answers the images of these numbers, all if none, with these labels. Without a label it is asked for those images alone whose
/// weight is not 1, and with one for none if all weights are 0.
///
/// # Errors
/// From `ask`, or if a tensor operation fails.
pub(crate) fn guided(weights: &[f64], labels: &[u32], null: u32, ask: impl Fn(Option<&[u32]>, &[u32]) -> Result<Tensor>) -> Result<Tensor> {
    if weights.iter().all(|&w| w == 0.0) {
        return ask(None, &vec![null; labels.len()]);
    }
    let with = ask(None, labels)?;
    let rows: Vec<u32> = (0..weights.len() as u32).filter(|&i| weights[i as usize] != 1.0).collect();
    if rows.is_empty() {
        return Ok(with);
    }
    let beyond = per_image(rows.iter().map(|&i| weights[i as usize] - 1.0))?;
    let nulls = vec![null; rows.len()];
    if rows.len() == weights.len() {
        return Ok((&with + (&with - ask(None, &nulls)?)?.broadcast_mul(&beyond)?)?);
    }
    let picked = Tensor::new(&rows[..], device())?;
    let apart = (with.index_select(&picked, 0)? - ask(Some(&rows), &nulls)?)?;
    Ok(with.index_add(&picked, &apart.broadcast_mul(&beyond)?, 0)?)
}

/// The entries of these numbers, all if none; `each` values belong to one number.
pub(crate) fn entries<T: Copy>(values: &[T], each: usize, rows: Option<&[u32]>) -> Vec<T> {
    match rows {
        None => values.to_vec(),
        Some(rows) => rows.iter().flat_map(|&i| values[i as usize * each..][..each].iter().copied()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use std::cell::RefCell;

    #[test]
    fn each_image_has_its_weight_and_no_call_too_many() {
        // f(x, label) = x (1 + label), f(null = 9) = 10 x.
        let x = Var::new(&[[[[1f32]]], [[[2.0]]], [[[3.0]]]], device()).unwrap();
        let asked = RefCell::new(vec![]);
        let ask = |rows: Option<&[u32]>, labels: &[u32]| {
            asked.borrow_mut().extend_from_slice(labels);
            let rows = rows.map_or(vec![0, 1, 2], <[u32]>::to_vec);
            let x = x.index_select(&Tensor::new(&rows[..], device())?, 0)?;
            Ok(x.broadcast_mul(&per_image(labels.iter().map(|l| f64::from(1 + l)))?)?)
        };
        for (weights, expected, calls) in [
            ([1.0, 1.0, 1.0], [1.0, 4.0, 9.0], vec![0, 1, 2]),
            ([0.0, 0.0, 0.0], [10.0, 20.0, 30.0], vec![9, 9, 9]),
            ([2.0, 2.0, 2.0], [-8.0, -12.0, -12.0], vec![0, 1, 2, 9, 9, 9]),
            ([2.0, 1.0, 0.0], [-8.0, 4.0, 30.0], vec![0, 1, 2, 9, 9]),
        ] {
            asked.borrow_mut().clear();
            let y = guided(&weights, &[0, 1, 2], 9, ask).unwrap();
            assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
            assert_eq!(*asked.borrow(), calls);
            // Linear in x: the gradient of the sum is the answer by x.
            let gradient = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(gradient, [expected[0], expected[1] / 2.0, expected[2] / 3.0]);
        }
    }

    #[test]
    fn entries_follow_their_rows() {
        assert_eq!(entries(&[1, 2, 3, 4, 5, 6], 2, Some(&[2, 0])), [5, 6, 1, 2]);
        assert_eq!(entries(&[1, 2, 3], 1, None), [1, 2, 3]);
    }
}
