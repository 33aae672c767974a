//! Points are measured by themselves: their coordinates are the features, and the nearest class mean names them.

use super::Features;
use crate::data::Dataset;
use anyhow::{Result, bail};

/// The means of a set's classes.
pub struct Nearest {
    dim: usize,
    /// Class and mean of each class that has points.
    means: Vec<(u32, Vec<f32>)>,
}

impl Nearest {
    /// The means of the classes of `set`; classes without points name nothing.
    ///
    /// # Errors
    /// If the set has no classes.
    pub fn new(set: &dyn Dataset) -> Result<Nearest> {
        if set.classes().is_empty() {
            bail!("`data`: found points without classes, expected some, such as the mixture's");
        }
        let dim = set.shape().iter().product::<usize>();
        let (mut sums, mut point) = (vec![(0u64, vec![0f64; dim]); set.classes().len()], vec![0f32; dim]);
        for i in 0..set.len() {
            set.image(i, &mut point);
            let (count, sum) = &mut sums[set.label(i) as usize];
            *count += 1;
            sum.iter_mut().zip(&point).for_each(|(s, p)| *s += f64::from(*p));
        }
        let mean = |(class, (count, sum)): (usize, (u64, Vec<f64>))| {
            (count > 0).then(|| (class as u32, sum.iter().map(|s| (s / count as f64) as f32).collect()))
        };
        Ok(Nearest { dim, means: sums.into_iter().enumerate().filter_map(mean).collect() })
    }
}

impl Features for Nearest {
    fn dim(&self) -> usize {
        self.dim
    }
    fn features(&self, points: &[f32], n: usize, feats: &mut [f32], class: &mut [u32]) -> Result<()> {
        feats.copy_from_slice(&points[..n * self.dim]);
        for (class, point) in class.iter_mut().zip(points.chunks_exact(self.dim)) {
            let square = |mean: &[f32]| mean.iter().zip(point).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            let nearest = self.means.iter().min_by(|a, b| square(&a.1).total_cmp(&square(&b.1)));
            *class = nearest.map_or(0, |m| m.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    #[test]
    fn the_nearest_mean_names() {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        // Class a at (-1, -1), c at (1, 1) and (1, -1), so (1, 0) in the mean; b has no point.
        let set = InMemory::new([2, 1, 1], vec![0, 0, 255, 255, 255, 0], vec![0, 2, 2], names).unwrap();
        let nearest = Nearest::new(&set).unwrap();
        let points = [-0.2, -0.9, 0.5, 0.1, -0.3, 0.9];
        let (mut feats, mut class) = ([0.0; 6], [9; 3]);
        nearest.features(&points, 3, &mut feats, &mut class).unwrap();
        assert_eq!((feats, class), (points, [0, 2, 2]));
        assert!(Nearest::new(&InMemory::new([2, 1, 1], vec![0, 0], vec![0], vec![]).unwrap()).is_err());
    }
}
