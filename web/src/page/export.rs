//! Taking pictures away.

use super::canvas::{Picture, context};
use super::film::TRAVEL_TICK;
use super::run::Run;
use super::want::Place;
use super::{App, Msg, address, dispatch, png, travel};
use crate::timer;
use js_sys::{Array, Promise, Uint8Array};
use limbeck_shared::link::View;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Blob, BlobPropertyBag, Document, HtmlAnchorElement, HtmlCanvasElement, HtmlElement, Url};

/// Least edge of an image in a saved grid and of one saved alone, pixels; small images are enlarged by a whole factor.
const SAVED_EDGE: usize = 112;
const ALONE_EDGE: usize = 224;
/// Gaps in a saved grid: between images, and between models.
const GAPS: [usize; 2] = [4, 24];

/// Images of one run that are saved together.
struct Block<'a> {
    picture: &'a Picture,
    images: Vec<usize>,
    columns: usize,
}

impl App {
    /// What the view shows, as blocks beside each other, or below each other.
    fn blocks(&self) -> (Vec<Block<'_>>, bool) {
        let mut places = self.places();
        // As on the page: the teacher first.
        match self.link.view {
            View::Path => places.reverse(),
            _ if places.len() > 1 => places.swap(0, 1),
            _ => {}
        }
        let blocks = places.into_iter().filter_map(|place| {
            let (picture, run) = (&self.shows.get(&place)?.picture, self.run(place).filter(|r| r.drawn > 0)?);
            let alone = self.large_image().map(|i| vec![i]);
            let images = match place {
                Place::Grid(_) => alone.unwrap_or_else(|| (0..run.job.count).collect()),
                Place::Path(_) => (0..run.levels.len()).map(|k| 1 + 2 * k + usize::from(self.link.estimate)).chain([0]).collect(),
                Place::Travel => vec![self.travel_frame()],
            };
            let square = (images.len() as f64).sqrt().ceil() as usize;
            let columns = if let Place::Path(_) = place { images.len() } else { square };
            Some(Block { picture, images, columns })
        });
        (blocks.collect(), self.link.view == View::Path)
    }

    /// The run that saved files are named after.
    fn first_run(&self) -> Option<&Run> {
        let main = if self.link.view == View::Path { self.places().into_iter().last() } else { self.places().into_iter().next() };
        main.and_then(|p| self.run(p))
    }

    /// Texts for a saved file: its link under one of the format's own keywords, and what it shows.
    fn texts(&self, run: &Run) -> Vec<(&'static str, String)> {
        let job = &run.job;
        let about = format!("seed {}, {} in {} steps, guidance {}", job.seed, run.info.name, job.steps, job.guidance);
        vec![
            ("Title", run.info.name.clone()),
            ("Description", about),
            ("Software", "limbeck".to_owned()),
            ("Source", address::absolute(&self.window, &self.fragment())),
        ]
    }

    /// Saves what the view shows as one PNG: beside each other, if there are several grids; one image, if one is shown large.
    pub fn save(&mut self) {
        let (blocks, below) = self.blocks();
        let Some(run) = self.first_run().filter(|_| !blocks.is_empty()) else { return };
        let alone = blocks.iter().all(|b| b.images.len() == 1);
        let edge = if alone { ALONE_EDGE } else { SAVED_EDGE };
        let scale = edge.div_ceil(run.info.shape[2].max(1)).max(1);
        let what = match (self.link.view, self.large_image()) {
            (View::Path, _) => "-path".to_owned(),
            (_, Some(image)) => format!("-image{}", image + 1),
            _ => String::new(),
        };
        let file = format!("{}{what}.png", stem(run));
        let texts = self.texts(run);
        let sizes: Vec<[usize; 2]> = blocks.iter().map(|b| b.picture.stamp_size(b.images.len(), b.columns, scale, GAPS[0])).collect();
        let along = |axis: usize| sizes.iter().map(|s| s[axis]).sum::<usize>() + GAPS[1] * (sizes.len() - 1);
        let across = |axis: usize| sizes.iter().map(|s| s[axis]).max().unwrap_or(0);
        let [height, width] = if below { [along(0), across(1)] } else { [across(0), along(1)] };
        let Some(canvas) = blank(&self.ui.document, [height, width]) else { return };
        let Some(context) = context(&canvas) else { return };
        context.set_image_smoothing_enabled(false);
        let mut at = [0, 0];
        for (block, size) in blocks.iter().zip(&sizes) {
            block.picture.stamp(&context, &block.images, at, block.columns, scale, GAPS[0]);
            let axis = usize::from(!below);
            at[axis] += size[axis] + GAPS[1];
        }
        let document = self.ui.document.clone();
        spawn_local(async move {
            let saved = async {
                let bytes = png::with_texts(&bytes_of(&canvas).await?, &texts)?;
                give(&document, &bytes, &file)
            };
            report(saved.await, &file);
        });
    }

    /// Saves the travel as an animated PNG that goes there and back.
    pub fn save_animation(&mut self) {
        let Some((picture, run)) = self.shows.get(&Place::Travel).and_then(|s| Some((&s.picture, s.run.as_ref()?))) else { return };
        if run.drawn < travel::FRAMES {
            return self.say("The travel is not drawn to its end yet.");
        }
        let scale = ALONE_EDGE.div_ceil(run.info.shape[2].max(1)).max(1);
        let file = format!("{}-to-{}.png", stem(run), self.seed2());
        let texts = self.texts(run);
        let frames: Option<Vec<HtmlCanvasElement>> = (0..travel::FRAMES)
            .map(|k| {
                let canvas = blank(&self.ui.document, picture.stamp_size(1, 1, scale, 0))?;
                let context = context(&canvas)?;
                context.set_image_smoothing_enabled(false);
                picture.stamp(&context, &[k], [0, 0], 1, scale, 0);
                Some(canvas)
            })
            .collect();
        let Some(frames) = frames else { return self.say("The browser gives no canvas for the frames.") };
        let document = self.ui.document.clone();
        self.say("Making the animation.");
        spawn_local(async move {
            let saved = async {
                let mut images = vec![];
                for canvas in &frames {
                    images.push(bytes_of(canvas).await?);
                }
                let order: Vec<usize> = (0..frames.len()).chain((1..frames.len() - 1).rev()).collect();
                let bytes = png::with_texts(&png::animation(&images, &order, TRAVEL_TICK as u16)?, &texts)?;
                give(&document, &bytes, &file)
            };
            report(saved.await, &file);
        });
    }
}

/// The beginning of a file's name.
fn stem(run: &Run) -> String {
    let name = run.info.name.to_lowercase();
    let name = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-");
    format!("{name}-seed{}", run.job.seed)
}

fn report(saved: Result<(), JsValue>, file: &str) {
    dispatch(Msg::Say(match saved {
        Ok(()) => format!("Saved {file}."),
        Err(e) => format!("The picture could not be saved: {}.", timer::text_of(&e)),
    }));
}

/// A canvas of this height and width that is not on the page.
pub fn blank(document: &Document, [height, width]: [usize; 2]) -> Option<HtmlCanvasElement> {
    let canvas: HtmlCanvasElement = document.create_element("canvas").ok()?.dyn_into().ok()?;
    canvas.set_height(height as u32);
    canvas.set_width(width as u32);
    Some(canvas)
}

/// A canvas as the browser's PNG.
async fn bytes_of(canvas: &HtmlCanvasElement) -> Result<Vec<u8>, JsValue> {
    let promise = Promise::new(&mut |resolve, reject| {
        let answer = Closure::once_into_js(move |blob: JsValue| resolve.call1(&JsValue::NULL, &blob));
        if let Err(e) = canvas.to_blob(answer.unchecked_ref()) {
            let _ = reject.call1(&JsValue::NULL, &e);
        }
    });
    let blob: Blob = JsFuture::from(promise).await?.dyn_into().map_err(|_| "the browser made no PNG")?;
    Ok(Uint8Array::new(&JsFuture::from(blob.array_buffer()).await?).to_vec())
}

/// Hands the visitor a PNG.
fn give(document: &Document, bytes: &[u8], file: &str) -> Result<(), JsValue> {
    let options = BlobPropertyBag::new();
    options.set_type("image/png");
    let blob = Blob::new_with_u8_array_sequence_and_options(&Array::of1(&Uint8Array::from(bytes)), &options)?;
    let url = Url::create_object_url_with_blob(&blob)?;
    let anchor: HtmlAnchorElement = document.create_element("a")?.dyn_into()?;
    anchor.set_href(&url);
    anchor.set_download(file);
    anchor.unchecked_ref::<HtmlElement>().click();
    // Some browsers fetch the blob only after the click has returned.
    spawn_local(async move {
        timer::sleep(10_000).await;
        let _ = Url::revoke_object_url(&url);
    });
    Ok(())
}
