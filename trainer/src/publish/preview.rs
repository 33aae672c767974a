//! What other sites show of a link to a model: a page of nothing but tags that leads on, and a picture that the model drew.

use super::index::Entry;
use crate::log::grid;
use crate::sample::{self, Request};
use anyhow::{Context, Result};
use image::imageops::{FilterType, overlay, resize};
use image::{DynamicImage, RgbImage};
use limbeck_shared::bundle::Bundle;
use limbeck_shared::link::{Choice, Link, Source};

/// Size of the picture, which link previews crop least.
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 630;
/// Pixels around the picture, and between its images.
const MARGIN: u32 = 16;
const GAP: u32 = 4;
/// Most images in a picture.
const MOST: u32 = 60;
/// Seed of the picture.
const SEED: u64 = 0;
/// The background: the page's by night.
const PAPER: [u8; 3] = [0x16, 0x13, 0x11];
/// What links carry of a SHA-256.
const HASH: usize = 16;

/// How the images are laid out: the edge of an image's pixel (0: images are shrunk), columns and rows.
fn layout(width: u32, height: u32) -> (u32, u32, u32) {
    let fit = |room: u32, size: u32| (room - 2 * MARGIN + GAP) / (size + GAP);
    let grid = |scale: u32| (scale, fit(WIDTH, width * scale), fit(HEIGHT, height * scale));
    let (_, columns, rows) = grid(1);
    if columns * rows == 0 {
        return (0, 1, 1);
    }
    // The smallest images that are not too many; where those do not fit, fewer small ones.
    let sparse = (1..=HEIGHT).map(grid).find(|(_, columns, rows)| (1..=MOST).contains(&(columns * rows)));
    let columns = columns.min(MOST);
    sparse.unwrap_or((1, columns, rows.min(MOST / columns)))
}

/// A PNG of 1200 x 630 pixels: a grid drawn by the model on the CPU, image k of class k modulo their number.
///
/// # Errors
/// If the model cannot be drawn from.
pub fn picture(bundle: &Bundle) -> Result<Vec<u8>> {
    let meta = &bundle.meta;
    let [channels, height, width] = meta.image.shape();
    let (scale, columns, rows) = layout(width as u32, height as u32);
    let count = (columns * rows) as usize;
    let mut images = sample::draw(bundle, &Request::plain(count, SEED), |_| {})?;
    meta.image.clamp(&mut images);
    let [low, high] = meta.image.range.map(|v| v as f32);
    let byte = |v: f32| grid::byte((v - low) / (high - low) * 2.0 - 1.0);
    let mut out = RgbImage::from_pixel(WIDTH, HEIGHT, PAPER.into());
    // An image of any other number of channels than three shows its first.
    let plane = |c: u32| if channels >= 3 { c as usize } else { 0 };
    let (w, h) = match scale {
        0 => {
            let shrink = f64::from(WIDTH - 2 * MARGIN) / width as f64;
            let shrink = shrink.min(f64::from(HEIGHT - 2 * MARGIN) / height as f64);
            ((width as f64 * shrink) as u32, (height as f64 * shrink) as u32)
        }
        s => (width as u32 * s, height as u32 * s),
    };
    let (w, h) = (w.max(1), h.max(1));
    let left = (WIDTH - (columns * (w + GAP) - GAP)) / 2;
    let top = (HEIGHT - (rows * (h + GAP) - GAP)) / 2;
    for (k, values) in images.chunks_exact(meta.image.values()).enumerate() {
        let value = |x: u32, y: u32, c: u32| byte(values[(plane(c) * height + y as usize) * width + x as usize]);
        let tile = RgbImage::from_fn(width as u32, height as u32, |x, y| [0, 1, 2].map(|c| value(x, y, c)).into());
        let tile = resize(&tile, w, h, if scale == 0 { FilterType::Triangle } else { FilterType::Nearest });
        let (column, row) = (k as u32 % columns, k as u32 / columns);
        overlay(&mut out, &tile, (left + column * (w + GAP)).into(), (top + row * (h + GAP)).into());
    }
    grid::png(&DynamicImage::ImageRgb8(out)).context("the preview's picture")
}

/// The page `m/ID.html`: tags for other sites, and for visitors the way to the page with this model. With the site's address, the
/// tags hold whole addresses, which most readers of them ask for.
pub fn page(entry: &Entry, base_url: Option<&str>) -> String {
    let mut link = Link::default();
    let sha256 = Some(entry.sha256.chars().take(HASH).collect());
    link.models[0] = Choice { source: Source::parse(&entry.id).ok(), sha256, ..Choice::default() };
    let target = escape(&format!("../#{}", link.to_fragment()));
    let (title, line) = (escape(&entry.title), escape(&entry.line));
    let image = escape(&base_url.map_or(format!("{}.png", entry.id), |base| format!("{base}m/{}.png", entry.id)));
    let mut whole = String::new();
    if let Some(base) = base_url {
        let url = escape(&format!("{base}m/{}.html", entry.id));
        whole = format!("    <link rel=\"canonical\" href=\"{url}\" />\n    <meta property=\"og:url\" content=\"{url}\" />\n");
    }
    format!(
        r#"<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>{title}: drawn on your own machine by limbeck</title>
    <meta name="description" content="{line}" />
    <meta name="color-scheme" content="light dark" />
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'" />
    <meta property="og:type" content="website" />
    <meta property="og:site_name" content="limbeck" />
    <meta property="og:title" content="{title}" />
    <meta property="og:description" content="{line}" />
    <meta property="og:image" content="{image}" />
    <meta property="og:image:width" content="{WIDTH}" />
    <meta property="og:image:height" content="{HEIGHT}" />
    <meta property="og:image:alt" content="A grid of images drawn by this model" />
    <meta name="twitter:card" content="summary_large_image" />
{whole}    <meta http-equiv="refresh" content="0; url={target}" />
  </head>
  <body>
    <h1><a href="{target}">{title}</a></h1>
    <p>{line}</p>
    <p><a href="{target}"><img src="{id}.png" width="600" height="315" alt="A grid of images drawn by this model" /></a></p>
  </body>
</html>
"#,
        id = entry.id
    )
}

/// Text for HTML, in attributes too.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_fill_the_picture() {
        for (w, h) in [(1, 2), (8, 8), (28, 28), (32, 32), (64, 64), (64, 16), (256, 256), (512, 512), (590, 1), (1024, 1024), (1, 1024)] {
            let (scale, columns, rows) = layout(w, h);
            assert!((1..=MOST).contains(&(columns * rows)), "{w} x {h}: {columns} x {rows}");
            if scale == 0 {
                assert!(w > WIDTH - 2 * MARGIN || h > HEIGHT - 2 * MARGIN, "{w} x {h} is shrunk");
                continue;
            }
            let (width, height) = (columns * (w * scale + GAP) - GAP, rows * (h * scale + GAP) - GAP);
            assert!(width <= WIDTH - 2 * MARGIN && height <= HEIGHT - 2 * MARGIN, "{w} x {h}: {width} x {height}");
        }
        // Ten columns: the ten classes of the shipped models stand below each other.
        assert_eq!(layout(28, 28), (4, 10, 5));
    }
}
