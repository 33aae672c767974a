//! What races of the two interpreters found, remembered for the next visit.

use super::App;
use crate::protocol::Race;
use serde::{Deserialize, Serialize};

const KEY: &str = "limbeck-races";
/// Most races that are kept, the newest ones.
const MOST: usize = 40;

#[derive(Default, Serialize, Deserialize)]
struct Races {
    /// The bindings' file, whose name changes with the program: another program may be faster on either.
    build: String,
    races: Vec<Race>,
}

impl App {
    /// The races of former visits, by this very build. Where nothing can be remembered, none.
    pub fn recall_races(&self) -> Vec<Race> {
        let text = self.storage().and_then(|s| s.get_item(KEY).ok().flatten());
        let kept: Races = text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
        if kept.build == self.engine.build() { kept.races } else { vec![] }
    }

    /// Keeps a race. That it cannot be kept costs the next visit another one.
    pub fn keep_race(&self, race: Race) {
        let mut races = self.recall_races();
        races.push(race);
        let surplus = races.len().saturating_sub(MOST);
        races.drain(..surplus);
        let kept = Races { build: self.engine.build().to_owned(), races };
        if let (Some(storage), Ok(text)) = (self.storage(), serde_json::to_string(&kept)) {
            let _ = storage.set_item(KEY, &text);
        }
    }
}
