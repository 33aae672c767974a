//! Some classes of a data set.

use anyhow::{Result, bail};

use super::Dataset;

/// The images of chosen classes, in their order in the whole set. Labels and class names stay the whole set's.
pub struct Subset {
    set: Box<dyn Dataset>,
    picks: Vec<usize>,
}

impl Subset {
    /// The images of `set` whose label is among `classes`.
    ///
    /// # Errors
    /// If the set has not such a class, or no image of any.
    pub fn new(set: Box<dyn Dataset>, classes: &[u32]) -> Result<Subset> {
        let known = set.classes().len();
        if let Some(class) = classes.iter().find(|&&c| c as usize >= known) {
            bail!("`data.classes`: found class {class}, expected less than {known}");
        }
        let picks: Vec<usize> = (0..set.len()).filter(|&i| classes.contains(&set.label(i))).collect();
        if picks.is_empty() {
            bail!("`data.classes`: found no image of {classes:?}, expected some");
        }
        Ok(Subset { set, picks })
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.picks.len()
    }
    fn shape(&self) -> [usize; 3] {
        self.set.shape()
    }
    fn classes(&self) -> &[String] {
        self.set.classes()
    }
    fn image(&self, i: usize, out: &mut [f32]) {
        self.set.image(self.picks[i], out);
    }
    fn label(&self, i: usize) -> u32 {
        self.set.label(self.picks[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    fn set() -> Box<dyn Dataset> {
        let names = ["a", "b", "c", "d"].map(String::from).to_vec();
        Box::new(InMemory::new([1, 1, 1], vec![10, 20, 30, 40, 50], vec![2, 0, 1, 2, 0], names).unwrap())
    }

    #[test]
    fn classes_keep_their_labels_and_order() {
        let part = Subset::new(set(), &[2, 1]).unwrap();
        assert_eq!((0..part.len()).map(|i| part.label(i)).collect::<Vec<_>>(), [2, 1, 2]);
        let mut pixel = [0.0];
        part.image(2, &mut pixel);
        assert_eq!(pixel, [40.0 / 127.5 - 1.0]);
        assert_eq!(part.classes().len(), 4);
    }

    #[test]
    fn classes_without_images_are_refused() {
        assert!(Subset::new(set(), &[4]).err().unwrap().to_string().contains("found class 4, expected less than 4"));
        assert!(Subset::new(set(), &[3]).err().unwrap().to_string().contains("no image of [3]"));
    }
}
