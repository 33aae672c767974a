//! The Path view: the states between noise and image, of all models on one line of noise levels.

use super::App;
use super::film::{self, Film};
use super::run::{Run, way};
use super::ui::{attr, duration, plural, text};
use super::want::Place;
use crate::protocol::Way;
use limbeck_shared::link::WHOLE;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlCanvasElement, HtmlElement, HtmlTemplateElement};

/// Most numbers of steps of one student, and the largest of them.
const MOST_WAYS: usize = 4;
const MOST_STEPS: usize = 8;
/// Edge of the large pictures where there is room for it, and where there is less, CSS pixels.
const LARGE: [f64; 2] = [140.0, 84.0];
/// What counts as room.
const WIDE: f64 = 480.0;

/// One row: a model, drawing in one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Whose model.
    pub side: usize,
    /// How it draws.
    pub way: Way,
}

/// The positions of a run's states on the line of the reference's: a state lies where the reference's noise level is nearest (in
/// its logarithm), the image at the end.
fn place_states(levels: &[f64], reference: &[f64]) -> Vec<usize> {
    let distance = |a: f64, b: f64| (a.max(1e-9).ln() - b.max(1e-9).ln()).abs();
    let nearest = |level: f64| {
        let by = |a: &usize, b: &usize| distance(reference[*a], level).total_cmp(&distance(reference[*b], level));
        (0..reference.len()).min_by(by).unwrap_or(0)
    };
    let mut out: Vec<usize> = levels.iter().map(|&l| nearest(l)).collect();
    // Two states may be nearest to the same: the later one moves on.
    for k in 1..out.len() {
        out[k] = out[k].max(out[k - 1] + 1);
    }
    let last = reference.len();
    out.iter_mut().for_each(|p| *p = (*p).min(last.saturating_sub(1)));
    out.push(last);
    out
}

impl App {
    /// The rows: teacher first; a student with every number of steps that it draws in.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = vec![];
        for side in [1, 0, 2, 3] {
            let Some(info) = self.info(side) else { continue };
            let Some(chosen) = way(&info, &self.link.models[side]) else { continue };
            let mut ways: Vec<Way> = info.ways.iter().filter(|w| w.sampler == chosen.sampler && w.steps <= MOST_STEPS).copied().collect();
            if info.teacher.is_none() || ways.len() > MOST_WAYS {
                ways.clear();
            }
            if !ways.contains(&chosen) {
                ways.push(chosen);
            }
            ways.sort_by_key(|w| std::cmp::Reverse(w.steps));
            for way in ways {
                let same =
                    |r: &&Row| self.sides[r.side].key == self.sides[side].key && (r.way.sampler, r.way.steps) == (way.sampler, way.steps);
                if !rows.iter().any(|r| same(&r)) {
                    rows.push(Row { side, way });
                }
            }
        }
        rows
    }

    /// The noise levels of the row with the most states: the line on which all rows lie.
    fn reference(&self) -> Vec<f64> {
        let runs = (0..self.rows().len()).filter_map(|r| self.run(Place::Path(r)));
        runs.map(|r| &r.levels).max_by_key(|l| l.len()).cloned().unwrap_or_default()
    }

    /// Positions on the line: the reference's states, and the image.
    pub fn path_positions(&self) -> usize {
        self.reference().len() + 1
    }

    /// Where on the line the view is: at the image unless told otherwise.
    pub fn path_position(&self) -> usize {
        film::position(self.link.place.unwrap_or(WHOLE), self.path_positions())
    }

    /// Paints the Path view.
    pub fn paint_path(&mut self) {
        let rows = self.rows();
        self.make_rows(rows.len());
        let reference = self.reference();
        let (positions, here) = (self.path_positions(), self.path_position());
        film::show_slider(&self.ui.path_place, here, positions);
        let level = reference.get(here).map_or("the image".to_owned(), |l| format!("noise level {}", sigma(*l)));
        text(&self.ui.path_out, &format!("{}: {level}", if here + 1 >= positions { "End".to_owned() } else { plural_step(here) }));
        attr(&self.ui.path_place, "aria-valuetext", &level);
        self.ui.path_show.set_value(if self.link.estimate { "x0" } else { "state" });
        for (k, row) in rows.iter().enumerate() {
            let Some(card) = self.ui.path_rows.children().item(k as u32) else { continue };
            self.paint_row(&card, k, *row, &reference, here);
        }
    }

    fn paint_row(&self, card: &Element, k: usize, row: Row, reference: &[f64], here: usize) {
        let part = |name: &str| card.query_selector(name).ok().flatten();
        let write = |name: &str, words: &str| {
            if let Some(e) = part(name).and_then(|e| e.dyn_into::<HtmlElement>().ok()) {
                text(&e, words);
            }
        };
        let canvas = |name: &str| part(name).and_then(|e| e.dyn_into::<HtmlCanvasElement>().ok());
        let (Some(large), Some(strip)) = (canvas(".large"), canvas(".strip")) else { return };
        let look = self.look(&large);
        let edge = LARGE[usize::from(look.width < WIDE)];
        let title = self.sides[row.side].key.as_ref().map_or(String::new(), |key| self.title(key));
        let student = self.role(row.side) == "Student";
        let _ = card.class_list().toggle_with_force("student", student);
        write(".role", self.role(row.side));
        write("h2", &title);
        let place = Place::Path(k);
        let run = self.run(place);
        let calls = run.map_or(row.way.calls, |r| if r.calls > 0 { r.calls } else { row.way.calls });
        let time = run.filter(|r| r.ms > 0.0).map_or(String::new(), |r| format!(", {}", duration(r.ms)));
        write(".cost", &format!("{}, {}{time}", plural(row.way.steps, "step"), plural(calls, "network call")));
        let ready = |run: &&Run| run.drawn == run.frames() && run.drawn > 0;
        let (Some(show), Some(run)) = (self.shows.get(&place), run.filter(ready)) else {
            write(".where", "");
            if let Some(show) = self.shows.get(&place).filter(|s| s.picture.count > 0) {
                show.picture.paint_one(&large, &look, 0, edge, true);
            }
            return;
        };
        let spots = place_states(&run.levels, reference);
        // The image is the first of the run's pictures, then states and estimates in turn.
        let picture = |state: usize| if state >= run.levels.len() { 0 } else { 1 + 2 * state + usize::from(self.link.estimate) };
        let tiles: Vec<(usize, usize)> = spots.iter().enumerate().map(|(k, &p)| (picture(k), p)).collect();
        let now = spots.iter().rposition(|&p| p <= here).unwrap_or(0);
        let words = match run.levels.get(now) {
            Some(level) if now == 0 => format!("Start, noise level {}", sigma(*level)),
            Some(level) => format!("{} of {}, noise level {}", plural_step(now), run.levels.len(), sigma(*level)),
            None => "The image".to_owned(),
        };
        write(".where", &words);
        attr(&large, "aria-label", &format!("{title}: {words}"));
        show.picture.paint_one(&large, &look, picture(now), edge, false);
        let film = Film { picture: &show.picture, tiles: &tiles, positions: reference.len() + 1, current: here, stale: false };
        film.paint(&strip, &self.look(&strip));
        attr(&strip, "aria-label", &format!("{} from noise to image", plural(run.levels.len(), "state")));
    }

    /// As many rows in the document as there are to show.
    fn make_rows(&self, count: usize) {
        let list = &self.ui.path_rows;
        while list.child_element_count() as usize > count {
            if let Some(last) = list.last_element_child() {
                last.remove();
            }
        }
        let template: &HtmlTemplateElement = &self.ui.path_row;
        while (list.child_element_count() as usize) < count {
            let Ok(row) = template.content().clone_node_with_deep(true) else { return };
            if list.append_child(&row).is_err() {
                return;
            }
        }
    }
}

fn plural_step(steps: usize) -> String {
    if steps == 0 { "Start".to_owned() } else { format!("After {}", plural(steps, "step")) }
}

/// A noise level for reading.
fn sigma(level: f64) -> String {
    match level {
        l if l >= 10.0 => format!("{l:.0}"),
        l if l >= 1.0 => format!("{l:.1}"),
        l if l >= 0.1 => format!("{l:.2}"),
        l => format!("{l:.3}"),
    }
}
