//! Passing the link on: copied, sent, as a code to photograph, as a frame for another page.

use super::canvas::context;
use super::ui::{attr, text};
use super::{App, Msg, address, dispatch};
use crate::timer;
use js_sys::{Function, Object, Promise, Reflect};
use limbeck_shared::link::View;
use qrcodegen::{QrCode, QrCodeEcc};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};

/// Pixels of one module of a code, and its quiet margin in modules, which readers need.
const MODULE: u32 = 4;
const QUIET: i32 = 4;

impl App {
    /// Why a link would not show the pictures elsewhere, if so.
    fn not_linkable(&self) -> Option<&'static str> {
        let local = self.shown().into_iter().any(|s| self.sides[s].key.is_some() && self.link.models[s].source.is_none());
        local.then_some("A link cannot carry a model from this device. Put the file on the web and open it from there.")
    }

    /// The link to what is shown, with or without the page's frame.
    fn address(&self, embed: bool) -> String {
        let mut link = self.shown_link();
        link.embed = embed;
        address::absolute(&self.window, &address::write(&link, self.choice))
    }

    /// Where an embedded page leads: the whole page.
    pub fn show_leave(&self) {
        self.ui.leave.set_hidden(!self.link.embed);
        if self.link.embed {
            self.ui.leave.set_href(&self.address(false));
        }
    }

    /// Copies the link to what is shown.
    pub fn copy(&mut self) {
        address::replace(&self.window, &self.fragment());
        match self.not_linkable() {
            Some(why) => self.say(why),
            None => self.copy_text(self.address(self.link.embed), "Link copied: it shows these pictures to whoever opens it."),
        }
    }

    /// Copies the frame for another page.
    pub fn copy_frame(&mut self) {
        self.copy_text(self.ui.share_frame.value(), "Copied: paste it into a page's HTML.");
    }

    pub fn copy_text(&self, words: String, done: &'static str) {
        // Absent where the page was not delivered over https.
        let clipboard = Reflect::get(&self.window.navigator(), &"clipboard".into()).unwrap_or(JsValue::UNDEFINED);
        if clipboard.is_undefined() {
            return self.say("This browser gives no access to the clipboard here; the address bar holds the link.");
        }
        let promise = self.window.navigator().clipboard().write_text(&words);
        spawn_local(async move {
            let words = match JsFuture::from(promise).await {
                Ok(_) => done.to_owned(),
                Err(e) => format!("It could not be copied ({}); the address bar holds the link.", timer::text_of(&e)),
            };
            dispatch(Msg::Say(words));
        });
    }

    /// The browser's own sheet for passing links on, where there is one.
    fn sheet(&self) -> Option<Function> {
        Reflect::get(&self.window.navigator(), &"share".into()).ok()?.dyn_into().ok()
    }

    /// Opens that sheet.
    pub fn send(&mut self) {
        let Some(share) = self.sheet() else { return };
        let what = Object::new();
        let set = |key: &str, value: &str| Reflect::set(&what, &key.into(), &value.into());
        let promise = set("title", "limbeck").and_then(|_| set("url", &self.address(false)));
        let promise = promise.and_then(|_| share.call1(&self.window.navigator(), &what)).and_then(|p| p.dyn_into::<Promise>());
        spawn_local(async move {
            let sent = match promise {
                Ok(promise) => JsFuture::from(promise).await,
                Err(e) => Err(e),
            };
            // Closing the sheet is no failure.
            let name = |e: &JsValue| Reflect::get(e, &"name".into()).ok().and_then(|n| n.as_string());
            if let Some(e) = sent.err().filter(|e| name(e).as_deref() != Some("AbortError")) {
                dispatch(Msg::Say(format!("The link could not be passed on: {}.", timer::text_of(&e))));
            }
        });
    }

    /// Opens the dialog with all ways to pass the link on.
    pub fn show_share(&mut self) {
        let link = self.address(false);
        self.ui.share_link.set_value(&link);
        self.ui.share_send.set_hidden(self.sheet().is_none());
        let height = if self.link.view == View::Path { 900 } else { 640 };
        let frame = format!(
            "<iframe src=\"{}\" width=\"100%\" height=\"{height}\" title=\"limbeck\" loading=\"lazy\"></iframe>",
            self.address(true).replace('&', "&amp;").replace('"', "&quot;")
        );
        self.ui.share_frame.set_value(&frame);
        let words = match (self.not_linkable(), self.paint_code(&link)) {
            (Some(why), _) => why.to_owned(),
            (None, Ok(())) => format!("{} characters. The code holds the same link.", link.len()),
            (None, Err(e)) => format!("{} characters; there is no code: {e}.", link.len()),
        };
        text(&self.ui.share_note, &words);
        if !self.ui.share.open() && self.ui.share.show_modal().is_err() {
            self.say("This browser cannot open the dialog; the address bar holds the link.");
        }
    }

    /// Paints the link as a QR code, dark on light whatever the theme, as readers expect.
    fn paint_code(&self, link: &str) -> Result<(), String> {
        let canvas = &self.ui.share_code;
        let code = QrCode::encode_text(link, QrCodeEcc::Low).map_err(|e| e.to_string());
        canvas.set_hidden(code.is_err());
        let code = code?;
        let edge = (code.size() + 2 * QUIET) as u32 * MODULE;
        canvas.set_width(edge);
        canvas.set_height(edge);
        attr(canvas, "aria-label", "QR code of the link above");
        let context = context(canvas).ok_or("the browser gives no canvas")?;
        context.set_fill_style_str("#ffffff");
        context.fill_rect(0.0, 0.0, edge.into(), edge.into());
        context.set_fill_style_str("#000000");
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|&x| code.get_module(x, y)) {
                let at = |v: i32| f64::from((v + QUIET) as u32 * MODULE);
                context.fill_rect(at(x), at(y), MODULE.into(), MODULE.into());
            }
        }
        Ok(())
    }
}
