//! Where the images of a grid lie: each pixel an integer number of device pixels wide.

use super::canvas::Look;

/// Gap between tiles, CSS pixels.
const GAP: f64 = 8.0;
/// Largest tile, CSS pixels.
const LARGEST: f64 = 144.0;
/// Height of a caption, and the least width of a tile that has one, CSS pixels.
const CAPTION: f64 = 20.0;
const CAPTION_WIDTH: f64 = 60.0;

/// Where tiles lie; all in device pixels.
#[derive(Clone, Copy)]
pub struct Grid {
    columns: usize,
    rows: usize,
    /// Device pixels of one image pixel.
    scale: usize,
    pub gap: f64,
    /// Height of a tile's caption; 0: none.
    pub caption: f64,
    /// Height and width of a tile.
    pub tile: [f64; 2],
}

impl Grid {
    /// The grid with the largest tiles that fits; among equals the one with the fewest empty places.
    pub fn fit(count: usize, [h, w]: [usize; 2], captions: bool, look: &Look) -> Grid {
        let (room, gap) = ((look.width * look.ratio).floor(), (GAP * look.ratio).round());
        let largest = LARGEST * look.ratio / w.max(h) as f64;
        let tallest = look.height * look.ratio;
        let grid = |columns: usize| {
            let scale = ((room - gap * (columns - 1) as f64) / (columns * w) as f64).min(largest).floor() as usize;
            let tile = [(h * scale) as f64, (w * scale) as f64];
            let caption = if captions && tile[1] >= CAPTION_WIDTH * look.ratio { (CAPTION * look.ratio).round() } else { 0.0 };
            Grid { columns, rows: count.div_ceil(columns), scale, gap, caption, tile }
        };
        let fits = |g: &Grid| g.scale > 0 && g.size()[0] <= tallest;
        let merit = |g: &Grid| (g.scale, std::cmp::Reverse(g.columns * g.rows - count), g.columns);
        (1..=count).map(grid).filter(fits).max_by_key(merit).unwrap_or_else(|| {
            // Large images or many of them: pixel for pixel, as many in a row as there is room for, one at least.
            let columns = (((room + gap) / (w as f64 + gap)).floor() as usize).clamp(1, count);
            Grid { scale: 1, tile: [h as f64, w as f64], ..grid(columns) }
        })
    }

    /// Height and width.
    pub fn size(&self) -> [f64; 2] {
        let (rows, columns) = (self.rows as f64, self.columns as f64);
        [rows * (self.tile[0] + self.caption) + (rows - 1.0) * self.gap, columns * self.tile[1] + (columns - 1.0) * self.gap]
    }

    /// Left and top of the k-th tile.
    pub fn place(&self, k: usize) -> [f64; 2] {
        let (row, column) = ((k / self.columns) as f64, (k % self.columns) as f64);
        [column * (self.tile[1] + self.gap), row * (self.tile[0] + self.caption + self.gap)]
    }
    /// The tile at a point, a part of the width and of the height; none between tiles and beyond the last.
    pub fn hit(&self, count: usize, part: [f64; 2]) -> Option<usize> {
        let [height, width] = self.size();
        let (x, y) = (part[0] * width, part[1] * height);
        (0..count).find(|&k| {
            let [left, top] = self.place(k);
            (left..left + self.tile[1]).contains(&x) && (top..top + self.tile[0]).contains(&y)
        })
    }
}
