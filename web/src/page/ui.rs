//! The elements of `index.html` that Rust touches, and small helpers on them.

pub use crate::timer::duration;
use wasm_bindgen::JsCast;
use web_sys::{
    Document, Element, HtmlAnchorElement, HtmlButtonElement, HtmlCanvasElement, HtmlDialogElement, HtmlElement, HtmlInputElement,
    HtmlProgressElement, HtmlSelectElement, HtmlTemplateElement, HtmlTextAreaElement,
};

macro_rules! elements {
    ($($name:ident: $kind:ty = $id:literal),* $(,)?) => {
        /// The page's elements, by the name of their id.
        pub struct Ui {
            pub document: Document,
            pub root: HtmlElement,
            $(pub $name: $kind,)*
        }

        impl Ui {
            /// Finds them all.
            ///
            /// # Errors
            /// The id of an element that `index.html` lacks.
            pub fn find(document: Document) -> Result<Ui, String> {
                let root = document.document_element().and_then(|r| r.dyn_into().ok()).ok_or("no document")?;
                Ok(Ui { $($name: element(&document, $id)?,)* document, root })
            }
        }
    };
}

fn element<T: JsCast>(document: &Document, id: &str) -> Result<T, String> {
    document.get_element_by_id(id).and_then(|e| e.dyn_into().ok()).ok_or_else(|| format!("the page has no element `{id}`"))
}

elements! {
    chip: HtmlElement = "chip",
    problem: HtmlElement = "problem",
    problem_text: HtmlElement = "problem-text",
    retry: HtmlButtonElement = "retry",
    loading: HtmlElement = "loading",
    loading_text: HtmlElement = "loading-text",
    loading_bar: HtmlProgressElement = "loading-bar",
    verdict: HtmlElement = "verdict",
    model_name: HtmlElement = "model-name",
    model_line: HtmlElement = "model-line",
    model_methods: HtmlElement = "model-methods",
    model_facts: HtmlElement = "model-facts",
    model_eval_title: HtmlElement = "model-eval-title",
    model_eval: HtmlElement = "model-eval",
    model: HtmlSelectElement = "model",
    model_hint: HtmlElement = "model-hint",
    field_with: HtmlElement = "field-with",
    with: HtmlSelectElement = "with",
    with_steps: HtmlSelectElement = "with-steps",
    third: HtmlSelectElement = "third",
    third_steps: HtmlSelectElement = "third-steps",
    fourth: HtmlSelectElement = "fourth",
    fourth_steps: HtmlSelectElement = "fourth-steps",
    field_class: HtmlElement = "field-class",
    class: HtmlSelectElement = "class",
    seed: HtmlInputElement = "seed",
    near: HtmlInputElement = "near",
    field_seed2: HtmlElement = "field-seed2",
    seed2: HtmlInputElement = "seed2",
    field_class2: HtmlElement = "field-class2",
    class2: HtmlSelectElement = "class2",
    field_image: HtmlElement = "field-image",
    image: HtmlInputElement = "image",
    field_count: HtmlElement = "field-count",
    count: HtmlInputElement = "count",
    count_out: HtmlElement = "count-out",
    field_steps: HtmlElement = "field-steps",
    steps: HtmlSelectElement = "steps",
    slide_row: HtmlElement = "slide-row",
    slide: HtmlInputElement = "slide",
    slide_out: HtmlElement = "slide-out",
    field_guidance: HtmlElement = "field-guidance",
    guidance: HtmlInputElement = "guidance",
    guidance_out: HtmlElement = "guidance-out",
    generate: HtmlButtonElement = "generate",
    save: HtmlButtonElement = "save",
    url: HtmlInputElement = "url",
    backend: HtmlSelectElement = "backend",
    engine_text: HtmlElement = "engine-text",
    status: HtmlElement = "status",
    path_rows: HtmlElement = "path-rows",
    path_row: HtmlTemplateElement = "path-row",
    path_play: HtmlElement = "path-play",
    path_place: HtmlInputElement = "path-place",
    path_out: HtmlElement = "path-out",
    path_show: HtmlSelectElement = "path-show",
    travel_name: HtmlElement = "travel-name",
    travel_canvas: HtmlCanvasElement = "travel-canvas",
    travel_film: HtmlCanvasElement = "travel-film",
    travel_calls: HtmlElement = "travel-calls",
    travel_time: HtmlElement = "travel-time",
    travel_rate: HtmlElement = "travel-rate",
    travel_bar: HtmlProgressElement = "travel-bar",
    travel_play: HtmlElement = "travel-play",
    travel_place: HtmlInputElement = "travel-place",
    travel_out: HtmlElement = "travel-out",
    travel_save: HtmlButtonElement = "travel-save",
    bench_verdict: HtmlElement = "bench-verdict",
    bench_line: HtmlElement = "bench-line",
    bench_rows: HtmlElement = "bench-rows",
    bench_table: HtmlElement = "bench-table",
    bench_start: HtmlButtonElement = "bench-start",
    bench_copy: HtmlButtonElement = "bench-copy",
    large: HtmlDialogElement = "large",
    large_title: HtmlElement = "large-title",
    large_row: HtmlElement = "large-row",
    share: HtmlDialogElement = "share",
    share_link: HtmlInputElement = "share-link",
    share_send: HtmlElement = "share-send",
    share_code: HtmlCanvasElement = "share-code",
    share_frame: HtmlTextAreaElement = "share-frame",
    share_note: HtmlElement = "share-note",
    help: HtmlDialogElement = "help",
    theme: HtmlSelectElement = "theme",
    leave: HtmlAnchorElement = "leave",
}

impl Ui {
    /// The lists of models and of steps of a side beside the main one, 1 to 3.
    pub fn beside(&self, side: usize) -> (&HtmlSelectElement, &HtmlSelectElement) {
        match side {
            2 => (&self.third, &self.third_steps),
            3 => (&self.fourth, &self.fourth_steps),
            _ => (&self.with, &self.with_steps),
        }
    }
}

/// The elements of one card with pictures.
pub struct Card {
    /// Names the model's part; the Draw view has none.
    pub role: Option<HtmlElement>,
    pub name: HtmlElement,
    pub canvas: HtmlCanvasElement,
    pub calls: HtmlElement,
    pub time: HtmlElement,
    pub rate: HtmlElement,
    pub bar: HtmlProgressElement,
}

impl Card {
    /// The card whose ids begin with `prefix`.
    ///
    /// # Errors
    /// The id of an element that `index.html` lacks.
    pub fn find(document: &Document, prefix: &str) -> Result<Card, String> {
        Ok(Card {
            role: element(document, &format!("{prefix}-role")).ok(),
            name: element(document, &format!("{prefix}-name"))?,
            canvas: element(document, &format!("canvas-{prefix}"))?,
            calls: element(document, &format!("{prefix}-calls"))?,
            time: element(document, &format!("{prefix}-time"))?,
            rate: element(document, &format!("{prefix}-rate"))?,
            bar: element(document, &format!("{prefix}-bar"))?,
        })
    }
}

/// Sets an attribute. Only a name that is no attribute's can fail.
pub fn attr(element: &Element, name: &str, value: &str) {
    let _ = element.set_attribute(name, value);
}

/// Sets the text unless it is there already, so that live regions speak once.
pub fn text(element: &HtmlElement, value: &str) {
    if element.text_content().as_deref() != Some(value) {
        element.set_text_content(Some(value));
    }
}

/// Fills a list of choices with (value, text) and marks one.
pub fn options(select: &HtmlSelectElement, entries: &[(String, String)], chosen: &str) {
    let fingerprint = entries.iter().map(|(v, t)| format!("{v}\u{1}{t}\u{2}")).collect::<String>();
    // Rebuilding an open list would close it.
    if select.dataset().get("entries").as_deref() != Some(fingerprint.as_str()) {
        select.set_text_content(None);
        for (value, label) in entries {
            if let Some(option) = select.owner_document().and_then(|d| d.create_element("option").ok()) {
                attr(&option, "value", value);
                option.set_text_content(Some(label));
                let _ = select.append_child(&option);
            }
        }
        let _ = select.dataset().set("entries", &fingerprint);
    }
    select.set_value(chosen);
}

/// A number for reading, three digits of it.
pub fn figure(v: f64) -> String {
    match v.abs() {
        a if !a.is_finite() => "–".into(),
        a if a >= 1e9 => format!("{:.2} G", v / 1e9),
        a if a >= 1e6 => format!("{:.2} M", v / 1e6),
        a if a >= 1e4 => format!("{:.1} k", v / 1e3),
        a if a >= 99.5 => format!("{v:.0}"),
        a if a >= 9.95 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    }
}

/// `count` of something, in the right number.
pub fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
