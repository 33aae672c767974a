//! The Travel view: the images between two seeds, and between two classes.

use super::App;
use super::film::{self, Film};
use super::run::Run;
use super::ui::{attr, duration, figure, text};
use super::want::Place;
use crate::protocol::ModelInfo;
use limbeck_shared::link::WHOLE;

/// Images of one travel, both ends included: an odd number, so that there is a middle.
pub const FRAMES: usize = 33;

/// The classes at both ends.
pub fn classes(info: &ModelInfo, from: u32, to: Option<u32>) -> [u32; 2] {
    let most = (info.classes.len().max(1) - 1) as u32;
    [from, to.map_or(from, |c| c.min(most))]
}

/// The nearer class of each frame.
pub fn labels([from, to]: [u32; 2]) -> Vec<u32> {
    (0..FRAMES).map(|k| if 2 * k < FRAMES { from } else { to }).collect()
}

/// What a frame shows, in words: a class, or parts of two.
fn mixture(run: &Run, frame: usize) -> String {
    let name = |class: u32| run.info.classes.get(class as usize).cloned().unwrap_or_default();
    match (run.job.blend, run.job.labels.get(frame)) {
        (Some([from, to]), _) if frame > 0 && frame + 1 < FRAMES => {
            let percent = frame * 100 / (FRAMES - 1);
            format!(", {} % {} and {percent} % {}", 100 - percent, name(from), name(to))
        }
        (_, Some(&label)) if !run.info.classes.is_empty() => format!(", {}", name(label)),
        _ => String::new(),
    }
}

impl App {
    /// The seed at the end: the link's, else the next one.
    pub fn seed2(&self) -> u64 {
        self.link.seed2.unwrap_or_else(|| self.link.seed.wrapping_add(1))
    }

    /// The frame that is shown.
    pub fn travel_frame(&self) -> usize {
        film::position(self.link.place.unwrap_or(0), FRAMES)
    }

    /// Paints the Travel view.
    pub fn paint_travel(&mut self) {
        let frame = self.travel_frame();
        let ui = &self.ui;
        let title = self.sides[0].key.as_ref().map_or("None chosen".to_owned(), |k| self.title(k));
        text(&ui.travel_name, &title);
        film::show_slider(&ui.travel_place, frame, FRAMES);
        let run = self.run(Place::Travel);
        text(&ui.travel_calls, &run.filter(|r| r.calls > 0).map_or("–".to_owned(), |r| r.calls.to_string()));
        text(&ui.travel_time, &run.filter(|r| r.ms > 0.0).map_or("–".to_owned(), |r| duration(r.ms)));
        text(&ui.travel_rate, &run.and_then(|r| r.rate()).map_or("–".to_owned(), figure));
        ui.travel_bar.set_value(run.map_or(0.0, |r| r.drawn as f64 / r.frames() as f64));
        let percent = frame * 100 / (FRAMES - 1);
        let class = run.map_or(String::new(), |r| mixture(r, frame));
        let words = format!("{percent} % from seed {} to seed {}{class}", self.link.seed, self.seed2());
        text(&ui.travel_out, &words);
        attr(&ui.travel_place, "aria-valuetext", &words);
        attr(&ui.travel_canvas, "aria-label", &format!("Frame {} of {FRAMES}: {words}, drawn by {title}", frame + 1));
        ui.travel_save.set_disabled(run.is_none_or(|r| r.drawn < FRAMES));
        let Some(show) = self.shows.get(&Place::Travel) else {
            return film::clear(&[&ui.travel_canvas, &ui.travel_film]);
        };
        let stale = !show.run.as_ref().is_some_and(|r| show.picture.is_of(r));
        let look = self.look(&ui.travel_canvas);
        show.picture.paint_one(&ui.travel_canvas, &look, frame.min(show.picture.count.saturating_sub(1)), 392.0, stale);
        let tiles: Vec<(usize, usize)> = (0..show.picture.count).map(|k| (k, k)).collect();
        let look = self.look(&ui.travel_film);
        Film { picture: &show.picture, tiles: &tiles, positions: FRAMES, current: frame, stale }.paint(&ui.travel_film, &look);
    }

    /// Sets the place on a travel or path to a position of `of`.
    pub fn go_to(&mut self, position: usize, of: usize) {
        let last = of.saturating_sub(1).max(1);
        self.link.place = Some((position.min(last) as u32 * WHOLE + last as u32 / 2) / last as u32);
        self.free_view = false;
        self.paint();
        self.address.arm(300);
    }
}
