//! One image, large: the same one of every model on show.

use super::App;
use super::ui::{attr, text};
use super::want::Place;
use limbeck_shared::link::View;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlCanvasElement};

/// Edge of the large image, CSS pixels: of one model, and of several.
const EDGES: [f64; 2] = [392.0, 224.0];

impl App {
    /// The view has grids, whose images can be shown large.
    fn has_grid(&self) -> bool {
        matches!(self.link.view, View::Draw | View::Compare)
    }

    /// The image that is shown large.
    pub fn large_image(&self) -> Option<usize> {
        let image = self.link.image? as usize;
        let drawn = self.run(Place::Grid(0)).is_some_and(|r| image < r.drawn);
        (self.has_grid() && drawn).then_some(image)
    }

    /// Shows an image large, or none.
    pub fn set_large(&mut self, image: Option<u32>) {
        if self.has_grid() {
            self.link.image = image.filter(|&i| i < self.link.count);
            self.free_view = false;
            self.paint();
            self.address.arm(150);
        }
    }

    /// The image at a point of a side's grid, a part of its width and height.
    pub fn hit(&mut self, side: usize, part: [f64; 2]) {
        let image = self.shows.get(&Place::Grid(side)).and_then(|s| s.picture.hit(part));
        if let Some(image) = image {
            self.set_large(Some(image as u32));
        }
    }

    /// The next image, or the one before.
    pub fn step_large(&mut self, by: i32) {
        if let Some(image) = self.large_image() {
            let next = (image as i32 + by).rem_euclid(self.link.count as i32);
            self.set_large(Some(next as u32));
        }
    }

    /// Opens, fills or closes the dialog, as the link says.
    pub fn show_large(&mut self) {
        let dialog = &self.ui.large;
        let Some(image) = self.large_image() else {
            return if dialog.open() {
                dialog.close()
            };
        };
        if !dialog.open() && dialog.show_modal().is_err() {
            return self.say("This browser cannot open the dialog.");
        }
        let sides = self.shown();
        let class = self.run(Place::Grid(0)).and_then(|r| r.info.classes.get(*r.job.labels.get(image)? as usize).cloned());
        let class = class.map_or(String::new(), |c| format!("{c}, "));
        text(&self.ui.large_title, &format!("{class}image {} of seed {}", image + 1, self.link.seed));
        let row: &Element = &self.ui.large_row;
        while row.child_element_count() as usize > sides.len() {
            if let Some(last) = row.last_element_child() {
                last.remove();
            }
        }
        while (row.child_element_count() as usize) < sides.len() {
            let make = |tag: &str| self.ui.document.create_element(tag).ok();
            let (Some(figure), Some(canvas), Some(caption)) = (make("figure"), make("canvas"), make("figcaption")) else { return };
            attr(&canvas, "role", "img");
            if figure.append_child(&canvas).and_then(|_| figure.append_child(&caption)).and_then(|_| row.append_child(&figure)).is_err() {
                return;
            }
        }
        let mut order = sides.clone();
        if order.len() > 1 {
            order.swap(0, 1);
        }
        for (k, side) in order.into_iter().enumerate() {
            let Some(figure) = row.children().item(k as u32) else { return };
            let canvas = figure.first_element_child().and_then(|c| c.dyn_into::<HtmlCanvasElement>().ok());
            let title = self.sides[side].key.as_ref().map_or(String::new(), |k| self.title(k));
            if let Some(caption) = figure.last_element_child() {
                caption.set_text_content(Some(&title));
            }
            let (Some(canvas), Some(show)) = (canvas, self.shows.get(&Place::Grid(side))) else { continue };
            attr(&canvas, "aria-label", &format!("{class}image {}, drawn by {title}", image + 1));
            let edge = EDGES[usize::from(sides.len() > 1)];
            show.picture.paint_one(&canvas, &self.look(&canvas), image, edge, self.lacks(Place::Grid(side)));
        }
    }
}
