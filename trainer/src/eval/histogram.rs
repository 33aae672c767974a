//! Which classes the images fall into.

use anyhow::{Result, bail};
use serde::{Serialize, Serializer};

/// Added to shares before the logarithm of a divergence, so that an empty class costs much but not
/// infinitely much.
pub const FLOOR: f64 = 1e-8;

/// Number of images in each class. Serialises as a map from names to counts in label order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassHistogram {
    names: Vec<String>,
    counts: Vec<u64>,
}

impl ClassHistogram {
    /// From class names and counts, both in label order.
    ///
    /// # Errors
    /// If their numbers differ, or nothing was counted.
    pub fn new(names: &[String], counts: &[u64]) -> Result<ClassHistogram> {
        if names.len() != counts.len() {
            bail!("class histogram: found {} counts, expected {}", counts.len(), names.len());
        }
        if counts.iter().all(|&c| c == 0) {
            bail!("class histogram: found no images, expected some");
        }
        Ok(ClassHistogram { names: names.to_vec(), counts: counts.to_vec() })
    }

    /// Class names in label order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Images in each class.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Share of each class; they sum to 1.
    pub fn shares(&self) -> Vec<f64> {
        let total: u64 = self.counts.iter().sum();
        self.counts.iter().map(|&c| c as f64 / total as f64).collect()
    }

    /// Entropy -sum p ln p in nats: 0 for one class, ln K for K equal ones.
    pub fn entropy(&self) -> f64 {
        // `+ 0.0` turns the -0.0 of a single class into 0.0.
        -self.shares().iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>() + 0.0
    }

    /// Average distance between class shares, half the sum of |p - q|: 0 for equal ones, 1 for disjoint
    /// ones. Classes are matched by label; missing ones count as empty.
    pub fn distance(&self, other: &ClassHistogram) -> f64 {
        self.pairs(other).iter().map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
    }

    /// Kullback-Leibler divergence sum p ln(p / q) of `other` (q) from this reference (p), in nats, with
    /// [`FLOOR`] added to p and q inside the logarithm.
    pub fn divergence(&self, other: &ClassHistogram) -> f64 {
        self.pairs(other).iter().map(|(p, q)| p * ((p + FLOOR) / (q + FLOOR)).ln()).sum()
    }

    fn pairs(&self, other: &ClassHistogram) -> Vec<(f64, f64)> {
        let (p, q) = (self.shares(), other.shares());
        let at = |v: &[f64], i: usize| v.get(i).copied().unwrap_or(0.0);
        (0..p.len().max(q.len())).map(|i| (at(&p, i), at(&q, i))).collect()
    }
}

impl Serialize for ClassHistogram {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_map(self.names.iter().zip(&self.counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[u64]) -> ClassHistogram {
        let names: Vec<String> = (0..counts.len()).map(|k| format!("c{k}")).collect();
        ClassHistogram::new(&names, counts).unwrap()
    }

    #[test]
    fn known_values() {
        let uniform = histogram(&[7; 10]);
        let two = histogram(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 3]);
        assert!((uniform.entropy() - 10f64.ln()).abs() < 1e-12);
        assert!((two.entropy() - 2f64.ln()).abs() < 1e-12);
        assert_eq!(histogram(&[0, 5]).entropy().to_string(), "0");
        assert!((uniform.distance(&two) - 0.8).abs() < 1e-12);
        assert_eq!(histogram(&[1, 0]).distance(&histogram(&[0, 9])), 1.0);
        assert_eq!(uniform.divergence(&uniform), 0.0);
        assert!((uniform.divergence(&two) - 12.572_59).abs() < 1e-4, "{}", uniform.divergence(&two));
        assert_eq!(histogram(&[1]).distance(&histogram(&[1, 1])), 0.5);
    }

    #[test]
    fn serialises_in_label_order() {
        let names = ["zebra".to_string(), "ant".to_string()];
        let h = ClassHistogram::new(&names, &[2, 1]).unwrap();
        assert_eq!(serde_json::to_string(&h).unwrap(), "{\"zebra\":2,\"ant\":1}");
        assert!(ClassHistogram::new(&names, &[2]).is_err());
        assert!(ClassHistogram::new(&names, &[0, 0]).is_err());
    }
}
