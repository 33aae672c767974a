//! What happens on the page.

use super::{cache, controls, shelf};
use crate::protocol::FromWorker;
use js_sys::ArrayBuffer;
use limbeck_shared::link::View;
use wasm_bindgen::JsValue;

/// Something that happened.
pub enum Msg {
    /// The worker says something; its array lies beside it.
    Worker(FromWorker, JsValue),
    /// The list of shipped models is here.
    Shelf(Result<Vec<shelf::Entry>, String>),
    /// The address bar changed.
    Address,
    /// A control has a new value.
    Control(controls::Control),
    /// Generate, or stop.
    Generate,
    /// A seed at random.
    Shuffle,
    /// Another view.
    View(View),
    /// Open the model at the address typed in.
    OpenUrl,
    /// A local file was read.
    OpenFile(String, Result<ArrayBuffer, String>),
    /// Save the pictures.
    Save,
    /// Save the travel as an animation.
    Animation,
    /// Copy the link.
    Copy,
    /// Show all ways to pass the link on.
    Share,
    /// Open the browser's own sheet for that.
    Send,
    /// Copy the frame for another page.
    CopyFrame,
    /// Copy the measurements.
    CopyBench,
    /// Show the keyboard's shortcuts.
    Help,
    /// Play or pause.
    Play,
    /// The next frame is due.
    Tick,
    /// A frame on or back, or the next image where one is shown large.
    Step(i32),
    /// A click on a film strip, a part of its width from the left.
    Film(f64),
    /// Show an image large, or none.
    Large(Option<u32>),
    /// A click on a side's grid, at a part of its width and height.
    Hit(usize, [f64; 2]),
    /// Another theme.
    Theme,
    /// Say something in the status line.
    Say(String),
    /// Something happened to what is kept for the next visit.
    Cache(cache::Event),
    /// Try again what failed.
    Retry,
    /// Hide the message about what failed.
    Dismiss,
    /// Sizes or colours changed.
    Repaint,
    /// The link can be written to the address bar.
    WriteAddress,
}
