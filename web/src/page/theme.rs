//! Light or dark: as the system is, or as the visitor wishes, which this browser remembers.

use super::App;
use web_sys::Storage;

/// The key in the browser's storage; `theme.js` reads it before the page is first painted.
const KEY: &str = "limbeck-theme";

impl App {
    /// The browser's storage, where it gives one.
    pub fn storage(&self) -> Option<Storage> {
        self.window.local_storage().ok().flatten()
    }

    /// Sets the control to what was remembered.
    pub fn recall_theme(&self) {
        let theme = self.ui.root.dataset().get("theme").unwrap_or_else(|| "system".into());
        self.ui.theme.set_value(&theme);
    }

    /// Follows the control.
    pub fn choose_theme(&mut self) {
        let theme = self.ui.theme.value();
        let data = self.ui.root.dataset();
        let remembered = match theme.as_str() {
            "light" | "dark" => {
                let _ = data.set("theme", &theme);
                self.storage().map(|s| s.set_item(KEY, &theme))
            }
            _ => {
                data.delete("theme");
                self.storage().map(|s| s.remove_item(KEY))
            }
        };
        if !matches!(remembered, Some(Ok(()))) {
            self.say("This browser does not let the page remember the theme.");
        }
        self.paint();
    }

    /// The next theme.
    pub fn next_theme(&mut self) {
        let next = match self.ui.theme.value().as_str() {
            "system" => "light",
            "light" => "dark",
            _ => "system",
        };
        self.ui.theme.set_value(next);
        self.choose_theme();
    }
}
