//! Writes a complete static site: the built page, bundles, their list, and for each model a page and a picture for link previews.
//!
//! The site is put together in a folder beside its place and moved there as a whole, so that a failure leaves what was there. An
//! earlier site of the same place is replaced; files in it that are not this command's (a `CNAME`, a `.git`) stay.

pub mod index;
mod place;
mod preview;

use anyhow::{Context, Result, bail};
use limbeck_shared::bundle::{self, Bundle};
use place::Place;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What to publish, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// Bundles; the name of each file is its id in links.
    pub models: &'a [PathBuf],
    /// The site's folder.
    pub out: &'a Path,
    /// The address at which the site will be served, for previews that need whole addresses.
    pub base_url: Option<&'a str>,
    /// The built page; looked for unless given.
    pub page: Option<&'a Path>,
}

/// A bundle to publish.
struct Model {
    entry: index::Entry,
    bundle: Bundle,
    bytes: Vec<u8>,
}

/// Writes the site. `progress` is told what is being done.
///
/// # Errors
/// If the page was not built, a bundle is none that the page can draw with, or the folder is not free; it is then left as it was.
pub fn publish(request: &Request, mut progress: impl FnMut(&str)) -> Result<()> {
    let page = page(request.page)?;
    let base_url = request.base_url.map(base).transpose()?;
    let mut models = BTreeMap::new();
    for path in request.models {
        let model = read(path)?;
        if let Some(twice) = models.insert(model.entry.id.clone(), model) {
            bail!("`--models`: found two bundles named {}, expected different names", twice.entry.file);
        }
    }
    if models.is_empty() {
        bail!("`--models`: found none, expected at least one bundle");
    }
    let place = Place::open(request.out)?;
    let site = place.site();
    let mut files = copy_page(&page, site)?;
    for folder in ["models", "m"] {
        fs::create_dir(site.join(folder)).with_context(|| format!("`{}` cannot be made", site.join(folder).display()))?;
    }
    let mut add = |name: String, bytes: &[u8]| {
        let path = site.join(&name);
        fs::write(&path, bytes).with_context(|| format!("`{}` cannot be written", path.display()))?;
        files.push(name);
        anyhow::Ok(())
    };
    for Model { entry, bundle, bytes } in models.values() {
        progress(&format!("{}: drawing its preview", entry.id));
        add(format!("models/{}", entry.file), bytes)?;
        add(format!("m/{}.png", entry.id), &preview::picture(bundle)?)?;
        add(format!("m/{}.html", entry.id), preview::page(entry, base_url.as_deref()).as_bytes())?;
    }
    let entries = models.into_values().map(|m| m.entry).collect();
    add("models/index.json".into(), index::text(entries)?.as_bytes())?;
    place.take(&files)
}

/// Reads a bundle that the page can draw with.
fn read(path: &Path) -> Result<Model> {
    let bytes = fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    let bundle = bundle::read(&bytes).with_context(|| format!("`{}`", path.display()))?;
    if bundle.meta.is_classifier() {
        bail!("`{}`: found a classifier, expected a model that draws", path.display());
    }
    if !bundle.meta.image.is_picture() {
        let [channels, height, width] = bundle.meta.image.shape();
        bail!("`{}`: found a model that draws {channels} x {height} x {width}, expected one that draws images", path.display());
    }
    let entry = index::Entry::of(path, &bytes, &bundle, &index::titles_beside(path)?)?;
    Ok(Model { entry, bundle, bytes })
}

/// The site's address with a slash at its end.
fn base(url: &str) -> Result<String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"'<>#?\\".contains(&b);
    if !rest.is_some_and(|r| !r.is_empty() && !r.starts_with('/') && r.bytes().all(plain)) {
        bail!("`--base-url`: found {url}, expected an address such as https://example.org/limbeck/");
    }
    Ok(format!("{}/", url.trim_end_matches('/')))
}

/// The folder of the built page: the one given, else `dist` here, else `dist` of the repository that this program was built in.
fn page(given: Option<&Path>) -> Result<PathBuf> {
    let how = "build the page with `trunk build --release` in the repository, or name its folder with --page";
    if let Some(given) = given {
        let lacks = lacking(given).map_or(Ok(()), |what| bail!("`{}` is no built page, {what}; {how}", given.display()));
        return lacks.map(|()| given.to_path_buf());
    }
    let program = std::env::current_exe().unwrap_or_default();
    let places = std::iter::once(PathBuf::from("dist")).chain(program.ancestors().skip(1).map(|a| a.join("dist")));
    places.into_iter().find(|p| lacking(p).is_none()).with_context(|| format!("`dist` holds no built page: {how}"))
}

/// What a folder lacks to be a built page.
fn lacking(dir: &Path) -> Option<&'static str> {
    let wasm = || fs::read_dir(dir).ok()?.filter_map(|e| e.ok()?.path().extension().map(|x| x == "wasm")).find(|&found| found);
    match () {
        () if !dir.join("index.html").is_file() => Some("index.html is missing"),
        () if !dir.join("sw.js").is_file() => Some("sw.js is missing"),
        () if wasm().is_none() => Some("its .wasm file is missing"),
        () => None,
    }
}

/// Copies the page's files, not its models. Returns their names.
fn copy_page(page: &Path, site: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(page).with_context(|| format!("`{}` cannot be read", page.display()))? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name().into_string().ok().with_context(|| format!("`{}`: expected Unicode names", page.display()))?;
        let bytes = fs::read(entry.path()).with_context(|| format!("`{}` cannot be read", entry.path().display()))?;
        fs::write(site.join(&name), bytes).with_context(|| format!("`{}` cannot be written", site.join(&name).display()))?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}
