//! Matrix products over the `gemm` crate, by strides, so that no operand is ever transposed in memory.

/// A matrix in a slice: first element, and how far apart rows and columns are.
#[derive(Clone, Copy)]
pub struct Mat {
    /// First element.
    pub at: usize,
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub col: usize,
}

impl Mat {
    /// Row-major with `columns` columns, from the slice's start.
    pub fn rows(columns: usize) -> Mat {
        Mat { at: 0, row: columns, col: 1 }
    }
    /// The transpose.
    pub fn t(self) -> Mat {
        Mat { at: self.at, row: self.col, col: self.row }
    }
    /// The same from another first element.
    pub fn at(self, at: usize) -> Mat {
        Mat { at, ..self }
    }
    fn fits(&self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0 || columns == 0 || self.at + (rows - 1) * self.row + (columns - 1) * self.col < len
    }
}

/// `c = keep * c + scale * a b` for `a [m, k]`, `b [k, n]`, `c [m, n]`, on one thread.
pub fn matmul(m: usize, k: usize, n: usize, a: &[f32], am: Mat, b: &[f32], bm: Mat, c: &mut [f32], cm: Mat, keep: bool, scale: f32) {
    assert!(am.fits(m, k, a.len()) && bm.fits(k, n, b.len()) && cm.fits(m, n, c.len()), "a matrix outside its slice");
    // SAFETY: every element addressed lies in its slice (checked above), and `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr().add(cm.at),
            cm.col as isize,
            cm.row as isize,
            keep,
            a.as_ptr().add(am.at),
            am.col as isize,
            am.row as isize,
            b.as_ptr().add(bm.at),
            bm.col as isize,
            bm.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
