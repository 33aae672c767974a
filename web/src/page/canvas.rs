//! Images on 2-D canvases.

use super::grid::Grid;
use super::run::Run;
use limbeck_shared::link::Class;
use std::cell::Cell;
use std::ops::Range;
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, Document, HtmlCanvasElement, ImageData};

/// Images in one row of the atlas.
const ATLAS: usize = 8;
/// Radius of tiles' corners, CSS pixels.
const CORNER: f64 = 6.0;

/// The images of a run, as pixels that a canvas can copy from.
pub struct Picture {
    atlas: HtmlCanvasElement,
    /// Number of the job that they belong to; 0 for none.
    job: u32,
    /// `[height, width]` of an image.
    size: [usize; 2],
    /// Images wanted, and images there.
    pub count: usize,
    pub drawn: usize,
    /// A caption each, where images differ in class.
    captions: Vec<String>,
    /// Where the images were last painted.
    grid: Cell<Option<Grid>>,
}

/// Colours and sizes that the page's style determines.
pub struct Look {
    /// Room for the canvas, CSS pixels.
    pub width: f64,
    /// Most height for the canvas, CSS pixels, where the images fit into it.
    pub height: f64,
    /// Device pixels in a CSS pixel.
    pub ratio: f64,
    /// Colour of tiles without image, of captions, and of marks.
    pub tile: String,
    pub ink: String,
    pub accent: String,
    pub font: String,
}

/// The context of a canvas.
pub fn context(canvas: &HtmlCanvasElement) -> Option<CanvasRenderingContext2d> {
    canvas.get_context("2d").ok().flatten()?.dyn_into().ok()
}

impl Picture {
    /// No picture yet.
    ///
    /// # Errors
    /// If the browser gives no canvas.
    pub fn new(document: &Document) -> Result<Picture, String> {
        let atlas = document.create_element("canvas").ok().and_then(|c| c.dyn_into().ok()).ok_or("no canvas")?;
        Ok(Picture { atlas, job: 0, size: [0, 0], count: 0, drawn: 0, captions: vec![], grid: Cell::new(None) })
    }

    /// The picture is the run's, not the one before it.
    pub fn is_of(&self, run: &Run) -> bool {
        self.job == run.job.number
    }

    /// Takes over images that have come. The first of a run replace the former run's.
    pub fn take(&mut self, run: &Run, fresh: Range<usize>) {
        let [channels, h, w] = run.info.shape;
        if !self.is_of(run) {
            self.job = run.job.number;
            self.size = [h, w];
            self.count = run.frames();
            self.atlas.set_width((w * ATLAS) as u32);
            self.atlas.set_height((h * self.count.div_ceil(ATLAS)) as u32);
            let name = |&l: &u32| run.info.classes.get(l as usize).cloned().unwrap_or_default();
            self.captions = run.job.labels.iter().map(name).collect();
            if self.captions.windows(2).all(|p| p[0] == p[1]) || self.captions.len() != self.count {
                self.captions.clear();
            }
        }
        self.drawn = run.drawn;
        let Some(context) = context(&self.atlas) else { return };
        for k in fresh {
            let image = &run.pixels[k * channels * h * w..][..channels * h * w];
            let rgba = rgba(image, channels, h * w);
            if let Ok(data) = ImageData::new_with_u8_clamped_array_and_sh(Clamped(&rgba), w as u32, h as u32) {
                let _ = context.put_image_data(&data, (k % ATLAS * w) as f64, (k / ATLAS * h) as f64);
            }
        }
    }

    /// Paints the grid; `stale` pictures are faint, places without image are empty tiles.
    pub fn paint(&self, canvas: &HtmlCanvasElement, look: &Look, stale: bool) {
        if self.count == 0 || look.width < 1.0 {
            canvas.set_hidden(self.count == 0);
            return;
        }
        canvas.set_hidden(false);
        let grid = Grid::fit(self.count, self.size, !self.captions.is_empty(), look);
        self.grid.set(Some(grid));
        let [height, width] = grid.size();
        canvas.set_width(width as u32);
        canvas.set_height(height as u32);
        let style = canvas.style();
        let _ = style.set_property("width", &format!("{}px", width / look.ratio));
        let Some(context) = context(canvas) else { return };
        context.set_image_smoothing_enabled(false);
        context.set_font(&format!("{}px {}", (12.5 * look.ratio).round(), look.font));
        context.set_text_align("center");
        context.set_text_baseline("alphabetic");
        for k in 0..self.count {
            let [x, y] = grid.place(k);
            context.set_global_alpha(if stale { 0.4 } else { 1.0 });
            self.tile(&context, look, k, x, y, grid.tile);
            context.set_global_alpha(1.0);
            if let (Some(caption), true) = (self.captions.get(k), grid.caption > 0.0) {
                context.set_fill_style_str(&look.ink);
                let baseline = y + grid.tile[0] + grid.caption * 0.76;
                let _ = context.fill_text_with_max_width(caption, x + grid.tile[1] / 2.0, baseline, grid.tile[1] + grid.gap);
            }
        }
    }

    /// Paints the k-th image with round corners, or an empty tile where it has not come.
    pub fn tile(&self, context: &CanvasRenderingContext2d, look: &Look, k: usize, x: f64, y: f64, size: [f64; 2]) {
        context.save();
        round(context, x, y, size, CORNER * look.ratio);
        if k < self.drawn {
            context.clip();
            self.copy(context, k, x, y, size);
        } else {
            context.set_fill_style_str(&look.tile);
            context.fill();
        }
        context.restore();
    }

    /// Paints one image, as large as `edge` CSS pixels and the room allow.
    pub fn paint_one(&self, canvas: &HtmlCanvasElement, look: &Look, k: usize, edge: f64, stale: bool) {
        canvas.set_hidden(self.count == 0);
        if self.count == 0 || look.width < 1.0 {
            return;
        }
        let [h, w] = self.size.map(|n| n as f64);
        let scale = (edge.min(look.width) * look.ratio / h.max(w)).floor().max(1.0);
        canvas.set_width((w * scale) as u32);
        canvas.set_height((h * scale) as u32);
        let _ = canvas.style().set_property("width", &format!("{}px", w * scale / look.ratio));
        let Some(context) = context(canvas) else { return };
        context.set_image_smoothing_enabled(false);
        context.set_global_alpha(if stale { 0.4 } else { 1.0 });
        self.tile(&context, look, k, 0.0, 0.0, [h * scale, w * scale]);
    }

    /// The image at a point of the grid, a part of its width and of its height.
    pub fn hit(&self, part: [f64; 2]) -> Option<usize> {
        self.grid.get()?.hit(self.drawn, part)
    }

    /// `[height, width]` of an image.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Copies the k-th image to a place and size.
    fn copy(&self, context: &CanvasRenderingContext2d, k: usize, x: f64, y: f64, [height, width]: [f64; 2]) {
        let [h, w] = self.size.map(|n| n as f64);
        let (left, top) = ((k % ATLAS) as f64 * w, (k / ATLAS) as f64 * h);
        let _ = context.draw_image_with_html_canvas_element_and_sw_and_sh_and_dx_and_dy_and_dw_and_dh(
            &self.atlas,
            left,
            top,
            w,
            h,
            x,
            y,
            width,
            height,
        );
    }

    /// Height and width of [`Picture::stamp`] of so many images, pixels.
    pub fn stamp_size(&self, count: usize, columns: usize, scale: usize, gap: usize) -> [usize; 2] {
        let edge = |n: usize, size: usize| n * size * scale + n.saturating_sub(1) * gap;
        [edge(count.div_ceil(columns.max(1)), self.size[0]), edge(columns, self.size[1])]
    }

    /// Copies images in rows of `columns` from `at` (top, left) on, each pixel `scale` wide, for saving.
    pub fn stamp(&self, context: &CanvasRenderingContext2d, images: &[usize], at: [usize; 2], columns: usize, scale: usize, gap: usize) {
        let [h, w] = self.size.map(|n| n * scale);
        for (place, &k) in images.iter().enumerate().filter(|(_, k)| **k < self.drawn) {
            let (left, top) = (at[1] + place % columns * (w + gap), at[0] + place / columns * (h + gap));
            self.copy(context, k, left as f64, top as f64, [h as f64, w as f64]);
        }
    }
}

/// A path around a rectangle with round corners.
fn round(context: &CanvasRenderingContext2d, x: f64, y: f64, [height, width]: [f64; 2], radius: f64) {
    let radius = radius.min(height / 4.0).min(width / 4.0);
    let corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
    context.begin_path();
    context.move_to(x + width / 2.0, y);
    for i in [1, 2, 3, 0] {
        let [[x1, y1], [x2, y2]] = [corners[i], corners[i + 1]];
        let _ = context.arc_to(x1, y1, (x1 + x2) / 2.0, (y1 + y2) / 2.0, radius);
    }
    context.close_path();
}

/// Bytes of an image in [-1, 1]: grey for one channel, else the first three as red, green, blue.
fn rgba(image: &[f32], channels: usize, area: usize) -> Vec<u8> {
    let byte = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
    let mut out = vec![255; 4 * area];
    for (i, pixel) in out.chunks_exact_mut(4).enumerate() {
        for (c, value) in pixel[..3].iter_mut().enumerate() {
            let plane = if channels >= 3 { c } else { 0 };
            *value = byte(image[plane * area + i]);
        }
    }
    out
}

/// What a screen reader says of a picture.
pub fn describe(run: &Run, class: Class) -> String {
    let names: Vec<&str> = run.job.labels.iter().filter_map(|&l| run.info.classes.get(l as usize)).map(String::as_str).collect();
    let what = match (class, names.first()) {
        (_, None) => String::new(),
        (Class::Index(_), Some(name)) => format!(" of class {name}"),
        (Class::Each, Some(_)) => format!(", in order: {}", names.join(", ")),
    };
    let words = format!("{} of {} images by {}, seed {}{what}", run.drawn, run.job.count, run.info.name, run.job.seed);
    if run.drawn > 0 { format!("{words}. Enter shows one large.") } else { words }
}
