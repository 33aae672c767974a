//! 2-D distributions with closed forms, where a method is proved right before it sees an image.
//!
//! Point `i` is a function of (seed, split, i) alone, so the number of points is notional.

use anyhow::{Result, bail};
use limbeck_shared::rng::{self, Stream};
use serde::{Deserialize, Serialize};

use super::{Dataset, Split};

/// Modes of [`Toy::Mixture`].
pub const MODES: usize = 8;

/// First of the four `rng` streams of the toys: (choice, position) for training, then for the test.
const STREAM: u32 = 7000;

/// A 2-D distribution. Empty braces let the configuration refuse unknown keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Toy {
    /// N(mean, std^2 I).
    Gaussian {
        /// Mean.
        #[serde(default)]
        mean: [f32; 2],
        /// Standard deviation of each coordinate.
        #[serde(default = "gaussian_std")]
        std: f32,
    },
    /// Eight equal Gaussians, mode k at `radius` (cos(k pi/4), sin(k pi/4)). Label = mode.
    Mixture {
        /// Distance of the modes from the origin.
        #[serde(default = "mixture_radius")]
        radius: f32,
        /// Standard deviation of each coordinate within a mode.
        #[serde(default = "mixture_std")]
        std: f32,
    },
    /// Four equal Gaussians at (+-offset, +-offset): two independent coordinates of two modes each, so that the flow map is the
    /// quantile map of each. No labels.
    Corners {
        /// Distance of the modes from each axis.
        #[serde(default = "corner_offset")]
        offset: f32,
        /// Standard deviation of each coordinate within a mode.
        #[serde(default = "gaussian_std")]
        std: f32,
    },
    /// Uniform on the eight squares with even row + column of a 4x4 board on [-1, 1]^2. Each
    /// coordinate is uniform on [-1, 1]: standard deviation 1/sqrt(3).
    Checkerboard {},
}

fn gaussian_std() -> f32 {
    0.5
}
fn mixture_radius() -> f32 {
    0.75
}
fn corner_offset() -> f32 {
    2.0
}
fn mixture_std() -> f32 {
    0.1
}

/// An isotropic Gaussian of a [`Toy`]'s closed form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Component {
    /// Probability.
    pub weight: f64,
    /// Mean.
    pub mean: [f64; 2],
    /// Standard deviation of each coordinate.
    pub std: f64,
}

impl Toy {
    /// The Gaussians whose mixture this is; none for the checkerboard.
    pub fn components(&self) -> Vec<Component> {
        match *self {
            Toy::Gaussian { mean, std } => {
                vec![Component { weight: 1.0, mean: mean.map(f64::from), std: std.into() }]
            }
            Toy::Mixture { radius, std } => (0..MODES)
                .map(|k| {
                    let angle = k as f64 * std::f64::consts::TAU / MODES as f64;
                    let mean = [f64::from(radius) * angle.cos(), f64::from(radius) * angle.sin()];
                    Component { weight: 1.0 / MODES as f64, mean, std: std.into() }
                })
                .collect(),
            Toy::Corners { offset, std } => [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
                .map(|side| Component { weight: 0.25, mean: side.map(|s| s * f64::from(offset)), std: std.into() })
                .to_vec(),
            Toy::Checkerboard {} => vec![],
        }
    }
}

/// Points of a [`Toy`] as a data set of shape `[2, 1, 1]`.
#[derive(Debug, Clone)]
pub struct Points {
    toy: Toy,
    components: Vec<Component>,
    count: usize,
    seed: u64,
    /// `Stream::Other` of the choice among components; the position within one has the next.
    stream: u32,
    classes: Vec<String>,
}

impl Points {
    /// `count` points of `toy`; the two splits are drawn from different streams.
    ///
    /// # Errors
    /// If `count` is zero, or a parameter is not finite or a deviation negative.
    pub fn new(toy: Toy, count: usize, seed: u64, split: Split) -> Result<Points> {
        if count == 0 {
            bail!("`data.count`: found 0, expected at least 1");
        }
        let components = toy.components();
        for c in &components {
            if !(c.std >= 0.0 && c.std.is_finite() && c.mean.iter().all(|m| m.is_finite())) {
                bail!("`data.toy`: found {toy:?}, expected finite numbers and std >= 0");
            }
        }
        let stream = STREAM + if split == Split::Test { 2 } else { 0 };
        let modes = if matches!(toy, Toy::Mixture { .. }) { components.len() } else { 0 };
        Ok(Points { toy, components, count, seed, stream, classes: (0..modes).map(|k| format!("mode {k}")).collect() })
    }

    fn choice(&self, i: usize, n: usize) -> usize {
        rng::below(self.seed, Stream::Other(self.stream), i as u64, n as u32) as usize
    }

    fn component(&self, i: usize) -> usize {
        match self.components.len() {
            0 | 1 => 0,
            n => self.choice(i, n),
        }
    }
}

impl Dataset for Points {
    fn len(&self) -> usize {
        self.count
    }
    fn shape(&self) -> [usize; 3] {
        [2, 1, 1]
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn image(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.count, "point {i} of {}", self.count);
        assert_eq!(out.len(), 2, "a point has two coordinates");
        let position = Stream::Other(self.stream + 1);
        if let Toy::Checkerboard {} = self.toy {
            let square = self.choice(i, 8);
            let (row, half) = (square / 2, square % 2);
            let column = 2 * half + row % 2;
            rng::uniforms(self.seed, position, i as u64, out);
            out[0] = (out[0] + column as f32) / 2.0 - 1.0;
            out[1] = (out[1] + row as f32) / 2.0 - 1.0;
        } else {
            let c = self.components[self.component(i)];
            rng::normals(self.seed, position, i as u64, out);
            for (o, mean) in out.iter_mut().zip(c.mean) {
                *o = mean as f32 + c.std as f32 * *o;
            }
        }
    }
    fn label(&self, i: usize) -> u32 {
        assert!(i < self.count, "point {i} of {}", self.count);
        if self.classes.is_empty() { 0 } else { self.component(i) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 40_000;

    fn draw(toy: Toy) -> (Points, Vec<[f64; 2]>) {
        let set = Points::new(toy, N, 11, Split::Train).unwrap();
        let mut x = [0.0; 2];
        let points = (0..N)
            .map(|i| {
                set.image(i, &mut x);
                x.map(f64::from)
            })
            .collect();
        (set, points)
    }
    fn moments(points: &[[f64; 2]], axis: usize) -> (f64, f64) {
        let n = points.len() as f64;
        let mean = points.iter().map(|p| p[axis]).sum::<f64>() / n;
        let var = points.iter().map(|p| (p[axis] - mean).powi(2)).sum::<f64>() / n;
        (mean, var.sqrt())
    }

    #[test]
    fn gaussian_has_its_moments() {
        let (set, points) = draw(Toy::Gaussian { mean: [2.0, -1.0], std: 0.5 });
        assert!(set.classes().is_empty());
        assert_eq!(set.label(3), 0);
        for (axis, expected) in [(0, 2.0), (1, -1.0)] {
            let (mean, std) = moments(&points, axis);
            assert!((mean - expected).abs() < 0.01 && (std - 0.5).abs() < 0.01, "{mean} {std}");
        }
    }

    #[test]
    fn mixture_modes_carry_their_labels() {
        let toy = Toy::Mixture { radius: 0.75, std: 0.1 };
        let components = toy.components();
        let (set, points) = draw(toy);
        assert_eq!(set.classes().len(), 8);
        for k in 0..8 {
            let mine: Vec<[f64; 2]> = (0..N).filter(|&i| set.label(i) == k).map(|i| points[i]).collect();
            assert!(mine.len().abs_diff(N / 8) < 300, "{}", mine.len());
            for axis in 0..2 {
                let (mean, std) = moments(&mine, axis);
                let expected = components[k as usize].mean[axis];
                assert!((mean - expected).abs() < 0.01 && (std - 0.1).abs() < 0.005, "{k}: {mean} {std}");
            }
        }
    }

    #[test]
    fn corners_are_two_independent_mixtures() {
        let (set, points) = draw(Toy::Corners { offset: 2.0, std: 0.5 });
        assert!(set.classes().is_empty() && set.label(7) == 0);
        for axis in 0..2 {
            // Two modes at +-2: standard deviation sqrt(4 + 0.25).
            let (mean, std) = moments(&points, axis);
            assert!(mean.abs() < 0.05 && (std - 4.25f64.sqrt()).abs() < 0.02, "{mean} {std}");
        }
        let together = points.iter().filter(|p| p[0] > 0.0 && p[1] > 0.0).count();
        assert!(together.abs_diff(N / 4) < 400, "{together}");
    }

    #[test]
    fn checkerboard_fills_the_even_squares() {
        let (_, points) = draw(Toy::Checkerboard {});
        let mut counts = [0usize; 16];
        for p in &points {
            let [x, y] = p.map(|v| ((v + 1.0) * 2.0).floor() as usize);
            counts[y * 4 + x] += 1;
        }
        for (i, &n) in counts.iter().enumerate() {
            let even = (i / 4 + i % 4) % 2 == 0;
            let expected = if even { N / 8 } else { 0 };
            assert!(n.abs_diff(expected) <= if even { 300 } else { 0 }, "square {i}: {n}");
        }
        let (mean, std) = moments(&points, 0);
        assert!(mean.abs() < 0.01 && (std - 1.0 / 3f64.sqrt()).abs() < 0.01, "{mean} {std}");
    }

    #[test]
    fn points_depend_on_seed_split_and_index_alone() {
        let toy = Toy::Mixture { radius: 0.75, std: 0.1 };
        let point = |count, seed, split| {
            let mut x = [0.0; 2];
            Points::new(toy.clone(), count, seed, split).unwrap().image(4, &mut x);
            x
        };
        assert_eq!(point(5, 1, Split::Train), point(500, 1, Split::Train));
        assert_ne!(point(5, 1, Split::Train), point(5, 2, Split::Train));
        assert_ne!(point(5, 1, Split::Train), point(5, 1, Split::Test));
    }

    #[test]
    fn bad_parameters_are_refused() {
        let e = Points::new(Toy::Checkerboard {}, 0, 0, Split::Train).unwrap_err().to_string();
        assert!(e.contains("`data.count`: found 0"), "{e}");
        let bad = Toy::Gaussian { mean: [0.0; 2], std: -1.0 };
        let e = Points::new(bad, 5, 0, Split::Train).unwrap_err().to_string();
        assert!(e.contains("std >= 0"), "{e}");
    }
}
