//! Pictures of samples: a grid of images, or a scatter plot of 2-D points.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::tfevents::Png;

/// Pixels between cells and around the grid.
pub const PADDING: usize = 2;
/// The background: dark grey.
pub const BACKGROUND: u8 = 40;
/// Side of a scatter plot in pixels.
pub const SCATTER_SIDE: usize = 384;
/// A scatter plot shows [-SCATTER_REACH, SCATTER_REACH]^2.
pub const SCATTER_REACH: f32 = 1.5;

/// How a grid is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Cells in a row; 0 makes the grid as square as it gets.
    pub columns: usize,
    /// Side of the square that a pixel becomes; at least 1.
    pub upscale: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Layout { columns: 0, upscale: 1 }
    }
}

/// A value in [-1, 1] as a byte; values outside are clamped, NaN is black.
pub fn byte(v: f32) -> u8 {
    ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8
}

/// A picture of `images`, f32 `[n, C, H, W]` in [-1, 1], for `shape` = [C, H, W]: a grid in reading order
/// for C = 1 (grey) or 3 (RGB); a scatter plot, y upwards, for points of shape [2, 1, 1].
///
/// # Errors
/// If there are no images, the length does not fit the shape, or the channels are none of these.
pub fn draw(images: &[f32], shape: [usize; 3], layout: Layout) -> Result<DynamicImage> {
    let [c, h, w] = shape;
    let size = c * h * w;
    if size == 0 || images.is_empty() || !images.len().is_multiple_of(size) {
        bail!("grid: found {} numbers, expected images of shape {shape:?}", images.len());
    }
    if shape == [2, 1, 1] {
        return Ok(DynamicImage::ImageLuma8(scatter(images)));
    }
    if c != 1 && c != 3 {
        bail!("grid: found {c} channels, expected 1 (grey), 3 (RGB) or points of shape [2, 1, 1]");
    }
    let n = images.len() / size;
    let scale = layout.upscale.max(1);
    let columns = match layout.columns {
        0 => (n as f64).sqrt().ceil() as usize,
        k => k.min(n),
    };
    let rows = n.div_ceil(columns);
    let (cell_h, cell_w) = (h * scale + PADDING, w * scale + PADDING);
    let (height, width) = (rows * cell_h + PADDING, columns * cell_w + PADDING);
    let mut out = vec![BACKGROUND; height * width * c];
    for (k, image) in images.chunks_exact(size).enumerate() {
        let (top, left) = (k / columns * cell_h + PADDING, k % columns * cell_w + PADDING);
        for y in 0..h * scale {
            for x in 0..w * scale {
                let to = ((top + y) * width + left + x) * c;
                for (channel, o) in out[to..to + c].iter_mut().enumerate() {
                    *o = byte(image[(channel * h + y / scale) * w + x / scale]);
                }
            }
        }
    }
    let sizes = (u32::try_from(width), u32::try_from(height));
    let (Ok(width), Ok(height)) = sizes else {
        bail!("grid: found {width}x{height} pixels, expected sides below 2^32");
    };
    let drawn = if c == 1 {
        GrayImage::from_raw(width, height, out).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, out).map(DynamicImage::ImageRgb8)
    };
    drawn.context("grid: its buffer does not fit its size")
}

/// Density of points: each adds light to its pixel, so that crowds are brighter.
fn scatter(points: &[f32]) -> GrayImage {
    let side = SCATTER_SIDE as f32;
    let mut out = GrayImage::from_pixel(SCATTER_SIDE as u32, SCATTER_SIDE as u32, [BACKGROUND].into());
    let pixel = |v: f32| {
        let at = ((v / SCATTER_REACH + 1.0) / 2.0 * side).floor();
        (0.0..side).contains(&at).then_some(at as u32)
    };
    for p in points.chunks_exact(2) {
        if let (Some(x), Some(y)) = (pixel(p[0]), pixel(-p[1])) {
            let v = &mut out.get_pixel_mut(x, y).0[0];
            *v = v.saturating_add(96);
        }
    }
    out
}

/// The picture as the bytes of a PNG file.
///
/// # Errors
/// If encoding fails (a side of zero).
pub fn png(picture: &DynamicImage) -> Result<Vec<u8>> {
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png).context("grid: cannot encode as PNG")?;
    Ok(out.into_inner())
}

/// The picture and the bytes of its PNG file as an image summary.
pub fn summary<'a>(picture: &DynamicImage, bytes: &'a [u8]) -> Png<'a> {
    let channels = picture.color().channel_count().into();
    Png { height: picture.height(), width: picture.width(), channels, bytes }
}

/// Draws `images` as [`draw`] does and writes a PNG file, replacing any old one in one step.
///
/// # Errors
/// As [`draw`], or if the file cannot be written.
pub fn save(path: &Path, images: &[f32], shape: [usize; 3], layout: Layout) -> Result<()> {
    let picture = draw(images, shape, layout).with_context(|| path.display().to_string())?;
    super::write_whole(path, &png(&picture)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_invert_the_reading_of_pixels() {
        for v in 0..=255u8 {
            assert_eq!(byte(f32::from(v) / 127.5 - 1.0), v);
        }
        assert_eq!([byte(-7.0), byte(9.0), byte(f32::NAN), byte(f32::INFINITY)], [0, 255, 0, 255]);
    }

    #[test]
    fn grey_cells_lie_where_they_should() {
        // Three 2x3 images in two columns, each pixel a 2x2 square.
        let images: Vec<f32> = (0..18).map(|v| f32::from(v as u8 * 10) / 127.5 - 1.0).collect();
        let picture = draw(&images, [1, 2, 3], Layout { columns: 2, upscale: 2 }).unwrap();
        let grey = picture.as_luma8().unwrap();
        assert_eq!(grey.dimensions(), (2 + 2 * (6 + 2), 2 + 2 * (4 + 2)));
        let at = |x, y| grey.get_pixel(x, y).0[0];
        for k in 0..3u32 {
            let (left, top) = (2 + (k % 2) * 8, 2 + (k / 2) * 6);
            for (y, x) in (0..4).flat_map(|y| (0..6).map(move |x| (y, x))) {
                let expected = (k * 6 + y / 2 * 3 + x / 2) * 10;
                assert_eq!(u32::from(at(left + x, top + y)), expected, "image {k}, ({x}, {y})");
            }
        }
        // Frame, gap and the empty fourth cell.
        for (x, y) in [(0, 0), (1, 5), (8, 2), (9, 2), (3, 6), (17, 13), (12, 9)] {
            assert_eq!(at(x, y), BACKGROUND, "({x}, {y})");
        }
    }

    #[test]
    fn colour_planes_are_interleaved_and_survive_png() {
        let image = [1.0, -1.0, -1.0, 1.0, 0.0, 0.0]; // R 255 0, G 0 255, B 128 128
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("g.png");
        save(&path, &image, [3, 1, 2], Layout::default()).unwrap();
        let read = image::open(&path).unwrap().into_rgb8();
        assert_eq!(read.dimensions(), (6, 5));
        assert_eq!(read.get_pixel(2, 2).0, [255, 0, 128]);
        assert_eq!(read.get_pixel(3, 2).0, [0, 255, 128]);
        let picture = draw(&image, [3, 1, 2], Layout::default()).unwrap();
        let bytes = png(&picture).unwrap();
        let s = summary(&picture, &bytes);
        assert_eq!((s.width, s.height, s.channels), (6, 5, 3));
    }

    #[test]
    fn columns_default_to_a_square() {
        let size = |n: usize, columns| {
            let p = draw(&vec![0.0; n], [1, 1, 1], Layout { columns, upscale: 1 }).unwrap();
            ((p.width() - 2) / 3, (p.height() - 2) / 3)
        };
        assert_eq!([size(9, 0), size(10, 0), size(1, 0)], [(3, 3), (4, 3), (1, 1)]);
        assert_eq!([size(5, 10), size(20, 10)], [(5, 1), (10, 2)]);
    }

    #[test]
    fn points_make_a_scatter_plot() {
        let picture = draw(&[0.0, 0.75, -9.0, 0.0], [2, 1, 1], Layout::default()).unwrap();
        let grey = picture.as_luma8().unwrap();
        let lit: Vec<(u32, u32)> = grey.enumerate_pixels().filter(|p| p.2.0[0] != BACKGROUND).map(|p| (p.0, p.1)).collect();
        assert_eq!(lit, [(192, 96)]); // y upwards: a quarter from the top
    }

    #[test]
    fn misfits_are_named() {
        let e = |images: &[f32], shape| draw(images, shape, Layout::default()).unwrap_err().to_string();
        assert!(e(&[0.0; 5], [1, 2, 2]).contains("found 5 numbers"));
        assert!(e(&[], [1, 2, 2]).contains("found 0 numbers"));
        assert!(e(&[0.0; 8], [2, 2, 2]).contains("found 2 channels"));
    }
}
