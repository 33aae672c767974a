//! Rows of small images in time, and moving through them: what Path and Travel share.

use super::canvas::{Look, Picture, context};
use super::{App, Msg, dispatch};
use limbeck_shared::link::{View, WHOLE};
use web_sys::{HtmlCanvasElement, HtmlInputElement};

/// Height of the line under the row that shows where one is, and gap between tiles, CSS pixels.
const MARK: f64 = 8.0;
const GAP: f64 = 4.0;
/// Milliseconds between frames while playing.
pub const TRAVEL_TICK: i32 = 70;
const PATH_TICK: i32 = 260;

/// The position that a link's thousandths stand for, of `of`.
pub fn position(thousandths: u32, of: usize) -> usize {
    let last = of.saturating_sub(1) as u32;
    ((thousandths.min(WHOLE) * last + WHOLE / 2) / WHOLE) as usize
}

/// Sets a slider to a position.
pub fn show_slider(slider: &HtmlInputElement, position: usize, of: usize) {
    slider.set_max(&of.saturating_sub(1).to_string());
    slider.set_value(&position.to_string());
}

/// Hides canvases that have nothing to show.
pub fn clear(canvases: &[&HtmlCanvasElement]) {
    canvases.iter().for_each(|c| c.set_hidden(true));
}

/// A row of tiles, each where its moment lies on the line of positions.
pub struct Film<'a> {
    /// Whose images.
    pub picture: &'a Picture,
    /// (image, position), positions rising.
    pub tiles: &'a [(usize, usize)],
    /// Number of positions.
    pub positions: usize,
    /// The position that is shown large.
    pub current: usize,
    /// The images are those of a former job.
    pub stale: bool,
}

impl Film<'_> {
    /// Left edge of a position's tile, of `width` device pixels, when `room` is all there is.
    fn left(&self, position: usize, room: f64, width: f64) -> f64 {
        ((room - width) * position as f64 / self.positions.saturating_sub(1).max(1) as f64).round()
    }

    /// Every so-manieth tile, such that first and last are among them and at most `most` remain; all, if no stride gives that.
    fn thinned(&self, most: usize) -> Vec<(usize, usize)> {
        let last = self.tiles.len().saturating_sub(1);
        let stride = (1..last.max(1)).find(|s| last.is_multiple_of(*s) && last / s < most).unwrap_or(1);
        self.tiles.iter().step_by(stride).copied().collect()
    }

    /// Paints it as wide as there is room. Tiles that would lie on their neighbours are left out; first and last stay.
    pub fn paint(&self, canvas: &HtmlCanvasElement, look: &Look) {
        canvas.set_hidden(self.tiles.is_empty());
        let Some(context) = context(canvas).filter(|_| !self.tiles.is_empty() && look.width >= 1.0) else { return };
        let [h, w] = self.picture.size();
        // Whole factors where images are small; larger ones are reduced.
        let target = if look.width > 560.0 { 56.0 } else { 30.0 } * look.ratio;
        let scale = target / h.max(w).max(1) as f64;
        let scale = if scale >= 1.0 { scale.floor() } else { scale };
        let [height, width] = [h as f64 * scale, w as f64 * scale].map(f64::round);
        let (room, gap, mark) = ((look.width * look.ratio).floor(), GAP * look.ratio, (MARK * look.ratio).round());
        canvas.set_width(room as u32);
        canvas.set_height((height + mark) as u32);
        let _ = canvas.style().set_property("width", &format!("{}px", room / look.ratio));
        context.set_image_smoothing_enabled(scale < 1.0);
        let left = |position: usize| self.left(position, room, width);
        let (Some(first), Some(last)) = (self.tiles.first(), self.tiles.last()) else { return };
        context.set_fill_style_str(&look.tile);
        let line = (height / 2.0).round();
        context.fill_rect(left(first.1), line, left(last.1) - left(first.1), look.ratio.ceil());
        let end = left(last.1);
        let mut free = f64::NEG_INFINITY;
        for &(image, position) in &self.thinned(((room + gap) / (width + gap)).floor() as usize) {
            let x = left(position);
            if position != last.1 && (x < free || x + width + gap > end) {
                continue;
            }
            free = x + width + gap;
            context.set_global_alpha(if self.stale { 0.4 } else { 1.0 });
            self.picture.tile(&context, look, image, x, 0.0, [height, width]);
            context.set_global_alpha(1.0);
        }
        context.set_fill_style_str(&look.accent);
        let here = self.tiles.iter().rev().find(|t| t.1 <= self.current).unwrap_or(first);
        context.fill_rect(left(here.1), height + mark - 3.0 * look.ratio, width, (3.0 * look.ratio).round());
    }
}

impl App {
    /// Number of positions on the view's line; none where it has no line.
    pub fn positions(&self) -> Option<usize> {
        match self.link.view {
            View::Path => Some(self.path_positions()),
            View::Travel => Some(super::travel::FRAMES),
            _ => None,
        }
    }

    /// Where on the line the view is.
    pub fn here(&self) -> usize {
        if self.link.view == View::Path { self.path_position() } else { self.travel_frame() }
    }

    /// One position on or back.
    pub fn step_film(&mut self, by: i32) {
        let Some(of) = self.positions() else { return };
        self.playing = false;
        let to = (self.here() as i32 + by).clamp(0, of.saturating_sub(1) as i32);
        self.go_to(to as usize, of);
    }

    /// Plays or pauses.
    pub fn toggle_play(&mut self) {
        let Some(of) = self.positions() else { return };
        self.playing = !self.playing;
        self.backward = false;
        if self.playing && self.here() + 1 >= of {
            self.go_to(0, of);
        }
        self.tick();
    }

    /// The next frame of what plays. A path ends at the image; a travel goes back and forth.
    pub fn tick(&mut self) {
        let Some(of) = self.positions().filter(|_| self.playing) else {
            self.playing = false;
            return self.paint();
        };
        let (here, last) = (self.here(), of.saturating_sub(1));
        if self.link.view == View::Path {
            if here >= last {
                self.playing = false;
                return self.paint();
            }
            self.go_to(here + 1, of);
        } else {
            if here >= last {
                self.backward = true;
            } else if here == 0 {
                self.backward = false;
            }
            self.go_to(if self.backward { here.saturating_sub(1) } else { here + 1 }, of);
        }
        let pause = if self.link.view == View::Path { PATH_TICK } else { TRAVEL_TICK };
        self.ticker.arm(pause);
    }

    /// What calls for [`App::tick`].
    pub fn ticker() -> crate::timer::Debounce {
        crate::timer::Debounce::new(|| dispatch(Msg::Tick))
    }

    /// A click on a film strip, a part of its width from the left.
    pub fn click_film(&mut self, part: f64) {
        let Some(of) = self.positions() else { return };
        self.playing = false;
        // Tiles are aligned at both ends, so the middle of the first and of the last tile lie inside.
        let inner = ((part - 0.03) / 0.94).clamp(0.0, 1.0);
        self.go_to((inner * of.saturating_sub(1) as f64).round() as usize, of);
    }
}
