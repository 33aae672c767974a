//! What went wrong, in words on the page, and trying again.

use super::ui::{attr, text};
use super::{App, fetch_shelf};
use web_sys::Document;

/// What "Try again" does.
#[derive(Clone, Debug, PartialEq)]
pub enum Retry {
    /// Fetch the list of models.
    Shelf,
    /// Open a model.
    Open(String),
    /// Start the worker anew.
    Engine,
}

/// Says without any state what went wrong.
pub fn fail(document: &Document, message: &str) {
    for (id, show) in [("problem", true), ("loading", false), ("retry", false)] {
        if let Some(e) = document.get_element_by_id(id) {
            let _ = if show { e.remove_attribute("hidden") } else { e.set_attribute("hidden", "") };
        }
    }
    if let Some(e) = document.get_element_by_id("problem-text") {
        e.set_text_content(Some(message));
    }
    if let Some(root) = document.document_element() {
        attr(&root, "data-state", "error");
    }
}

impl App {
    /// The worker is gone: says so and offers another one.
    pub fn broken(&mut self, message: &str) {
        self.forget();
        (self.engine_info, self.flying) = (None, None);
        text(&self.ui.chip, "stopped");
        attr(&self.ui.chip, "data-kind", "");
        self.problem(message, Some(Retry::Engine));
    }

    /// Says on the page what went wrong, below what is still said of earlier problems.
    pub fn problem(&mut self, message: &str, retry: Option<Retry>) {
        if !self.problems.iter().any(|p| p == message) {
            self.problems.push(message.into());
        }
        text(&self.ui.problem_text, &self.problems.join("\n"));
        self.ui.problem.set_hidden(false);
        self.retry = retry.or(self.retry.take());
        self.ui.retry.set_hidden(self.retry.is_none());
        self.show_state();
    }

    /// Hides what is said of problems.
    pub fn dismiss(&mut self) {
        self.problems.clear();
        self.ui.problem.set_hidden(true);
        self.retry = None;
        self.show_state();
    }

    /// Does again what failed last.
    pub fn try_again(&mut self) {
        let retry = self.retry.clone();
        self.dismiss();
        match retry {
            Some(Retry::Shelf) => {
                self.shelf = None;
                fetch_shelf(self.window.clone());
            }
            Some(Retry::Open(key)) => {
                self.models.remove(&key);
                self.settle();
            }
            Some(Retry::Engine) => match self.engine.restart() {
                Ok(engine) => {
                    self.engine = engine;
                    // Local files are gone with the worker; the rest is opened again.
                    self.models.clear();
                    self.set_up();
                    self.settle();
                }
                Err(e) => self.broken(&e),
            },
            None => {}
        }
    }
}
