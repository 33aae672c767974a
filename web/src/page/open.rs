//! Models and pictures on their way in: downloads, files, addresses typed in.

use super::models::{FILE, Slot};
use super::ui::text;
use super::{App, Retry, address, png};
use crate::protocol::{ModelInfo, Source, ToWorker};
use js_sys::{ArrayBuffer, Uint8Array};
use limbeck_shared::link::Source as LinkSource;
use std::rc::Rc;

impl App {
    /// A download goes on.
    pub fn progress(&mut self, key: &str, received: u64, total: Option<u64>) {
        if let Some(slot @ Slot::Opening(..)) = self.models.get_mut(key) {
            *slot = Slot::Opening(received, total);
        }
        self.show_loading();
    }

    /// A model is ready.
    pub fn opened(&mut self, key: String, info: ModelInfo) {
        // A file may have been opened again with other contents.
        for show in self.shows.values_mut() {
            show.run.take_if(|r| r.job.key == key && r.info.sha256 != info.sha256);
        }
        self.models.insert(key.clone(), Slot::Open(Rc::new(info)));
        if self.sides[0].key.as_deref() == Some(key.as_str()) && self.link.models[1].source.is_none() {
            // Only now is it known who its teacher is.
            self.sides[1].key = None;
        }
        self.settle();
    }

    /// A model cannot be opened.
    pub fn open_failed(&mut self, key: String, message: &str) {
        self.models.insert(key.clone(), Slot::Failed);
        let retry = (!key.starts_with(FILE)).then_some(Retry::Open(key));
        self.problem(message, retry);
        self.show_loading();
    }

    /// Opens the address typed in.
    pub fn open_url(&mut self) {
        let typed = self.ui.url.value();
        match LinkSource::parse(typed.trim()) {
            Ok(source) if source.url().is_some() => {
                let key = source.as_str().to_owned();
                if matches!(self.models.get(&key), Some(Slot::Failed)) {
                    self.models.remove(&key);
                }
                self.dismiss();
                self.pick(0, key);
            }
            Ok(_) => self.problem("Type the whole address of a model, beginning with https://", None),
            Err(expected) => self.problem(&format!("This is not an address to open a model from: expected {expected}."), None),
        }
    }

    /// Opens a local file.
    pub fn open_file(&mut self, name: String, buffer: Result<ArrayBuffer, String>) {
        match buffer {
            Ok(buffer) if png::is_png(&head(&buffer)) => self.open_png(&name, &buffer),
            Ok(buffer) => {
                let key = format!("{FILE}{name}");
                self.dismiss();
                self.models.insert(key.clone(), Slot::Opening(0, None));
                self.post(ToWorker::Open { key: key.clone(), source: Source::Buffer }, Some(buffer));
                self.pick(0, key);
            }
            Err(e) => self.problem(&format!("`{name}` could not be read: {e}."), None),
        }
    }

    /// Follows the link in a saved picture, as far as any link is followed: only its fragment, whatever page saved it.
    fn open_png(&mut self, name: &str, buffer: &ArrayBuffer) {
        let link = png::text(&Uint8Array::new(buffer).to_vec(), "Source");
        match link.as_deref().and_then(|l| l.split_once('#')) {
            Some((_, fragment)) => {
                address::replace(&self.window, fragment);
                self.follow_address();
                self.say(&format!("Restored from {name}."));
            }
            None => self.problem(&format!("`{name}` holds no link; pictures saved by this page do."), None),
        }
    }

    /// The download bar: the first model of the view that is on its way.
    pub fn show_loading(&mut self) {
        let opening = self.shown().into_iter().find_map(|side| {
            let key = self.sides[side].key.as_ref()?;
            match self.models.get(key) {
                Some(Slot::Opening(received, total)) => Some((key.clone(), *received, *total)),
                _ => None,
            }
        });
        let bar = &self.ui.loading_bar;
        match &opening {
            Some((key, received, total)) => {
                let (title, megabytes) = (self.title(key), *received as f64 / 1e6);
                let words = match total {
                    Some(total) => format!("Fetching {title}: {megabytes:.1} of {:.1} MB", *total as f64 / 1e6),
                    None => format!("Fetching {title}: {megabytes:.1} MB; the server does not tell the size"),
                };
                text(&self.ui.loading_text, &words);
                match total {
                    Some(total) => {
                        bar.set_max(*total as f64);
                        bar.set_value(*received as f64);
                    }
                    // Without a value the bar shows that something happens.
                    None => drop(bar.remove_attribute("value")),
                }
            }
            None => text(&self.ui.loading_text, "Starting"),
        }
        let starting = self.shelf.is_none();
        self.ui.loading.set_hidden(opening.is_none() && !starting);
        self.show_state();
    }
}

/// A file's first bytes.
fn head(buffer: &ArrayBuffer) -> Vec<u8> {
    Uint8Array::new_with_byte_offset_and_length(buffer, 0, buffer.byte_length().min(8)).to_vec()
}
