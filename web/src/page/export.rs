//! Taking pictures and links away.

use super::canvas::context;
use super::{App, Msg, address, dispatch, png};
use crate::timer;
use js_sys::{Array, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{Blob, BlobPropertyBag, Document, HtmlAnchorElement, HtmlCanvasElement, HtmlElement, Url};

/// Least edge of an image in a saved grid, pixels; small images are enlarged by a whole factor.
const SAVED_EDGE: usize = 112;
/// Gaps in a saved grid: between images, and between teacher and student.
const GAPS: [usize; 2] = [4, 24];

impl App {
    /// Saves what the view shows as one PNG: beside each other, if there are two grids.
    pub fn save(&mut self) {
        let drawn = |side: &&usize| self.sides[**side].run.as_ref().is_some_and(|r| r.drawn > 0);
        // The teacher stands on the left, as on the page.
        let mut sides: Vec<usize> = self.shown().iter().filter(drawn).copied().collect();
        sides.reverse();
        let Some(run) = sides.last().and_then(|&s| self.sides[s].run.as_ref()) else { return };
        let columns = (run.job.count as f64).sqrt().ceil() as usize;
        let scale = SAVED_EDGE.div_ceil(run.info.shape[2].max(1)).max(1);
        let name = run.info.name.to_lowercase();
        let name = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-");
        let file = format!("{name}-seed{}.png", run.job.seed);
        let sizes: Vec<[usize; 2]> = sides.iter().map(|&s| self.sides[s].picture.stamp_size(columns, scale, GAPS[0])).collect();
        let canvas = self.ui.document.create_element("canvas").ok().and_then(|c| c.dyn_into::<HtmlCanvasElement>().ok());
        let Some(canvas) = canvas else { return };
        canvas.set_height(sizes.iter().map(|s| s[0]).max().unwrap_or(0) as u32);
        canvas.set_width((sizes.iter().map(|s| s[1]).sum::<usize>() + GAPS[1] * (sizes.len() - 1)) as u32);
        let Some(context) = context(&canvas) else { return };
        context.set_image_smoothing_enabled(false);
        let mut x = 0;
        for (&side, size) in sides.iter().zip(&sizes) {
            self.sides[side].picture.stamp(&context, x, columns, scale, GAPS[0]);
            x += size[1] + GAPS[1];
        }
        let document = self.ui.document.clone();
        let link = address::absolute(&self.window, &self.fragment());
        let give = Closure::once_into_js(move |blob: Option<Blob>| {
            spawn_local(async move {
                let saved = give_png(&document, blob, &file, &link).await;
                dispatch(Msg::Say(match saved {
                    Ok(()) => format!("Saved {file}."),
                    Err(e) => format!("The picture could not be saved: {}.", timer::text_of(&e)),
                }));
            });
        });
        if canvas.to_blob(give.unchecked_ref()).is_err() {
            self.say("The browser could not make a PNG.");
        }
    }

    /// Copies the link to what is shown.
    pub fn copy(&mut self) {
        let fragment = self.fragment();
        address::replace(&self.window, &fragment);
        let link = address::absolute(&self.window, &fragment);
        if self.sides[0].key.is_some() && self.link.models[0].source.is_none() {
            return self.say("A link cannot carry a model from this device. Put the file on the web and open it from there.");
        }
        // Absent where the page was not delivered over https.
        let clipboard = js_sys::Reflect::get(&self.window.navigator(), &"clipboard".into()).unwrap_or(JsValue::UNDEFINED);
        if clipboard.is_undefined() {
            return self.say("This browser gives no access to the clipboard here; the address bar holds the link.");
        }
        let promise = self.window.navigator().clipboard().write_text(&link);
        spawn_local(async move {
            let words = match JsFuture::from(promise).await {
                Ok(_) => "Link copied: it shows these pictures to whoever opens it.".to_owned(),
                Err(e) => format!("The link could not be copied ({}); the address bar holds it.", timer::text_of(&e)),
            };
            dispatch(Msg::Say(words));
        });
    }
}

/// Hands the visitor the PNG, with the link to its pictures inside (`Source`, one of the format's own keywords).
async fn give_png(document: &Document, blob: Option<Blob>, file: &str, link: &str) -> Result<(), JsValue> {
    let blob = blob.ok_or("the browser made no PNG")?;
    let bytes = Uint8Array::new(&JsFuture::from(blob.array_buffer()).await?).to_vec();
    let bytes = Uint8Array::from(&png::with_text(&bytes, "Source", link)[..]);
    let options = BlobPropertyBag::new();
    options.set_type("image/png");
    let blob = Blob::new_with_u8_array_sequence_and_options(&Array::of1(&bytes), &options)?;
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
