//! Which models are there, which two are chosen, and getting them opened.

use super::App;
use super::run::asked;
use super::want::Place;
use crate::protocol::{ModelInfo, Source, ToWorker};
use limbeck_shared::link::{Choice, Class, MAX_MODELS, Source as LinkSource, View};
use std::rc::Rc;

/// How much of a file's SHA-256 links carry: enough that no two models share it.
const HASH: usize = 16;
/// What begins the key of a model from a local file.
pub const FILE: &str = "file:";

/// A model that was asked for.
pub enum Slot {
    /// On its way: bytes received, bytes in all where known.
    Opening(u64, Option<u64>),
    /// Ready.
    Open(Rc<ModelInfo>),
    /// Cannot be opened.
    Failed,
}

impl App {
    /// The model of one side, if it is open.
    pub fn info(&self, side: usize) -> Option<Rc<ModelInfo>> {
        match self.models.get(self.sides[side].key.as_ref()?) {
            Some(Slot::Open(info)) if !self.sides[side].refused => Some(info.clone()),
            _ => None,
        }
    }

    /// The sides that the view shows.
    pub fn shown(&self) -> Vec<usize> {
        let beside = |side: &usize| *side < 2 || self.sides[*side].key.is_some();
        if self.compares() { (0..MAX_MODELS).filter(beside).collect() } else { vec![0] }
    }

    /// The view shows models beside each other.
    pub fn compares(&self) -> bool {
        matches!(self.link.view, View::Compare | View::Path)
    }

    /// What the visitor reads for a key.
    pub fn title(&self, key: &str) -> String {
        let shelf = self.shelf.iter().flatten().find(|e| e.id == key);
        match (shelf, self.models.get(key)) {
            (Some(entry), _) => entry.title.clone(),
            (None, Some(Slot::Open(info))) => info.name.clone(),
            _ => key.strip_prefix(FILE).unwrap_or_else(|| key.rsplit('/').next().unwrap_or(key)).to_owned(),
        }
    }

    /// Brings everything in line with the link, the list of models, and what is open.
    pub fn settle(&mut self) {
        if self.shelf.is_some() {
            (0..MAX_MODELS).for_each(|side| self.choose(side));
            if self.free_view {
                // The signature view where there is something to compare.
                self.link.view = if self.sides[0].key == self.sides[1].key { View::Draw } else { View::Compare };
            }
            for side in self.shown() {
                self.ensure(side);
            }
            if self.free_view
                && let (Some(engine), Some(info)) = (&self.engine_info, self.info(0))
            {
                // A first visit should not wait long for the teacher.
                self.link.count = if engine.backend == "cpu" { 6 } else { (info.classes.len() as u32).clamp(8, 12) };
            }
        }
        (self.stopped, self.live) = (false, false);
        self.fill();
        self.redraw();
        self.address.arm(150);
    }

    /// Gives a side without a model one: the link's, else the page's choice.
    fn choose(&mut self, side: usize) {
        if self.sides[side].key.is_some() {
            return;
        }
        let shelf = self.shelf.as_deref().unwrap_or_default();
        let wanted = self.link.models[side].source.clone();
        let known = wanted.as_ref().filter(|s| s.url().is_some() || shelf.iter().any(|e| e.id == s.as_str()));
        let key = known.map(|s| s.as_str().to_owned());
        if let (Some(wanted), None) = (&wanted, &key) {
            let words = format!("The link asks for the model `{}`, which is not among the models here.", wanted.as_str());
            self.problem(&words, None);
        }
        let key = key.or_else(|| {
            self.link.models[side] = Choice::default();
            match side {
                0 => self.favourite(),
                1 => self.partner(),
                _ => None,
            }
        });
        match key {
            Some(key) => self.set_key(side, key),
            None if side == 0 && self.models.is_empty() && self.retry.is_none() => {
                self.problem("No models are shipped with this page. Open one from an address or from this device.", None);
            }
            None => {}
        }
    }

    fn set_key(&mut self, side: usize, key: String) {
        self.link.models[side].source = LinkSource::parse(&key).ok();
        if self.run(Place::Grid(side)).is_some_and(|r| r.job.key != key) {
            self.shows.remove(&Place::Grid(side));
        }
        self.sides[side].key = Some(key);
        self.sides[side].refused = false;
    }

    /// The first model whose teacher is here, else the first with a teacher, else the first.
    fn favourite(&self) -> Option<String> {
        let shelf = self.shelf.as_deref()?;
        let taught_here = |e: &&super::shelf::Entry| e.teacher.as_ref().is_some_and(|t| shelf.iter().any(|o| o.sha256 == *t));
        let entry = shelf.iter().find(taught_here).or_else(|| shelf.iter().find(|e| e.teacher.is_some())).or(shelf.first())?;
        Some(entry.id.clone())
    }

    /// What to put beside the main model: its teacher, its first student, or itself.
    fn partner(&self) -> Option<String> {
        let key = self.sides[0].key.as_ref()?;
        let shelf = self.shelf.as_deref()?;
        let (mut sha256, mut teacher) = (None, None);
        if let Some(entry) = shelf.iter().find(|e| e.id == *key) {
            (sha256, teacher) = (Some(entry.sha256.clone()), entry.teacher.clone());
        } else if let Some(Slot::Open(info)) = self.models.get(key) {
            (sha256, teacher) = (Some(info.sha256.clone()), info.teacher.clone());
        }
        let by_teacher = shelf.iter().find(|e| Some(&e.sha256) == teacher.as_ref());
        let by_student = || shelf.iter().find(|e| e.teacher.is_some() && e.teacher == sha256);
        Some(by_teacher.or_else(by_student).map_or_else(|| key.clone(), |e| e.id.clone()))
    }

    /// Another model for a side, chosen by the visitor: what belonged to the old one goes.
    pub fn pick(&mut self, side: usize, key: String) {
        self.link.models[side] = Choice::default();
        if side > 1 && key.is_empty() {
            self.sides[side].key = None;
        } else {
            self.set_key(side, key);
        }
        if side == 0 {
            self.link.guidance = None;
            self.link.models[1] = Choice::default();
            self.sides[1].key = None;
        }
        self.settle();
        self.abandon();
    }

    /// Stops the downloads that no side waits for.
    fn abandon(&mut self) {
        let wanted = |key: &String| self.sides.iter().any(|s| s.key.as_ref() == Some(key));
        let opening = self.models.iter().filter(|(key, slot)| matches!(slot, Slot::Opening(..)) && !key.starts_with(FILE));
        for key in opening.map(|(key, _)| key.clone()).filter(|key| !wanted(key)).collect::<Vec<_>>() {
            self.models.remove(&key);
            self.post(ToWorker::Abort { key }, None);
        }
    }

    /// Asks the worker to open a side's model, once.
    fn ensure(&mut self, side: usize) {
        let Some(key) = self.sides[side].key.clone() else { return };
        match self.models.get(&key) {
            Some(Slot::Open(info)) => {
                let info = info.clone();
                if self.check_hash(side, &info) {
                    self.check_wishes(side, &info);
                }
                return;
            }
            Some(_) => return,
            None => {}
        }
        let base = self.ui.document.base_uri().ok().flatten().unwrap_or_default();
        let source = match self.shelf.iter().flatten().find(|e| e.id == key) {
            Some(entry) => entry.source(&base),
            None if key.starts_with(FILE) => None,
            None => Some(Source::Url { url: key.clone(), bytes: None, sha256: self.link.models[side].sha256.clone() }),
        };
        match source {
            Some(source) => {
                self.models.insert(key.clone(), Slot::Opening(0, None));
                self.post(ToWorker::Open { key, source }, None);
            }
            None => {
                self.models.insert(key.clone(), Slot::Failed);
                self.problem(&format!("`{}` has to be opened again from this device.", self.title(&key)), None);
            }
        }
    }

    /// A link's hash must fit, or the model is refused; the link then carries the hash of what is shown.
    fn check_hash(&mut self, side: usize, info: &ModelInfo) -> bool {
        let choice = &mut self.link.models[side];
        if choice.sha256.as_ref().is_some_and(|h| !info.sha256.starts_with(h.as_str())) {
            if !std::mem::replace(&mut self.sides[side].refused, true) {
                let words = format!(
                    "The link was made with another version of `{}`, so its pictures cannot be shown. Choose the model again to draw \
                     with the version that is here.",
                    info.name
                );
                self.problem(&words, None);
            }
            return false;
        }
        self.sides[side].refused = false;
        choice.sha256 = choice.source.is_some().then(|| info.sha256.chars().take(HASH).collect());
        true
    }

    /// What the link asks for and the model cannot do is said, and left out of the link.
    fn check_wishes(&mut self, side: usize, info: &ModelInfo) {
        let choice = &mut self.link.models[side];
        let mut words = vec![];
        if asked(info, choice).is_none() {
            let steps = info.ways.iter().map(|w| w.steps.to_string()).collect::<Vec<_>>().join(", ");
            words.push(format!(
                "`{}` does not draw as the link asks; it draws in {steps} step{}.",
                info.name,
                if steps == "1" { "" } else { "s" }
            ));
            (choice.sampler, choice.steps) = (None, None);
        }
        if let (Class::Index(class), 0) = (self.link.class, side)
            && class as usize >= info.classes.len().max(1)
        {
            words.push(format!("The link asks for class {class}; `{}` has {} classes.", info.name, info.classes.len()));
            self.link.class = Class::Each;
        }
        for words in words {
            self.problem(&words, None);
        }
    }
}
