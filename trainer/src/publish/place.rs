//! Where a site goes: put together beside its place, then moved there whole.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The file by which a site of this command's is known.
const MARK: &str = "limbeck-site.json";

/// What a site's mark says.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// Version of this program.
    limbeck: String,
    /// The files that were written, relative to the site, with slashes.
    files: Vec<String>,
}

/// A place for a site, and the folder beside it in which the site is put together.
pub struct Place {
    out: PathBuf,
    /// The files of the earlier site there, if there is one.
    earlier: Option<HashSet<String>>,
    staging: TempDir,
    site: PathBuf,
}

impl Place {
    /// Checks that `out` is free, empty, or an earlier site, and makes a folder beside it.
    ///
    /// # Errors
    /// If it is none of these, or nothing can be written there.
    pub fn open(out: &Path) -> Result<Place> {
        let named = |what: &str| format!("`--out`: {} {what}", out.display());
        let absolute = if out.exists() { out.canonicalize() } else { std::path::absolute(out) };
        let absolute = absolute.with_context(|| named("cannot be found"))?;
        let Some(parent) = absolute.parent().filter(|_| absolute.file_name().is_some()) else {
            bail!(named("is no place for a site, expected the name of a folder"));
        };
        let earlier = earlier(&absolute).with_context(|| named("cannot take a site"))?;
        // On the same disk, so that the site can be moved.
        let near = parent.ancestors().find(|a| a.is_dir()).unwrap_or(parent);
        let staging = tempfile::Builder::new().prefix(".limbeck-publish-").tempdir_in(near);
        let staging = staging.with_context(|| format!("`{}` cannot be written to", near.display()))?;
        let site = staging.path().join("site");
        fs::create_dir(&site).with_context(|| format!("`{}` cannot be made", site.display()))?;
        Ok(Place { out: absolute, earlier, staging, site })
    }

    /// The folder in which the site is put together.
    pub fn site(&self) -> &Path {
        &self.site
    }

    /// Moves the site, which holds these files, to its place.
    ///
    /// # Errors
    /// If a file there is in the way, or the folders cannot be moved; the place is then as it was.
    pub fn take(self, files: &[String]) -> Result<()> {
        let Place { out, earlier, staging, site } = self;
        let mark = Mark { limbeck: env!("CARGO_PKG_VERSION").into(), files: files.to_vec() };
        fs::write(site.join(MARK), serde_json::to_string_pretty(&mark)? + "\n").context("the site's mark cannot be written")?;
        let Some(earlier) = earlier else {
            if out.exists() {
                fs::remove_dir(&out).with_context(|| format!("`{}` cannot be replaced", out.display()))?;
            }
            if let Some(parent) = out.parent() {
                fs::create_dir_all(parent).with_context(|| format!("`{}` cannot be made", parent.display()))?;
            }
            return fs::rename(&site, &out).with_context(|| format!("`{}` cannot be made", out.display()));
        };
        let taken = files.iter().find(|f| !earlier.contains(*f) && out.join(f).symlink_metadata().is_ok());
        if let Some(taken) = taken {
            bail!("`{}` is in the way: it was not written by publish, and would be replaced", out.join(taken).display());
        }
        let old = staging.path().join("old");
        fs::rename(&out, &old).with_context(|| format!("`{}` cannot be replaced", out.display()))?;
        if let Err(e) = fs::rename(&site, &out) {
            let back = fs::rename(&old, &out);
            let kept = if back.is_err() { format!("; it lies in `{}`", staging.keep().join("old").display()) } else { String::new() };
            return Err(e).with_context(|| format!("`{}` cannot be replaced{kept}", out.display()));
        }
        if let Err(e) = carry(&old, &out, "", &earlier) {
            let kept = staging.keep().join("old");
            return Err(e.context(format!("the site is in place, but files of yours are still in `{}`", kept.display())));
        }
        Ok(())
    }
}

/// The files of the site in `out`: none if there is nothing.
fn earlier(out: &Path) -> Result<Option<HashSet<String>>> {
    if !out.exists() {
        return Ok(None);
    }
    if !out.is_dir() {
        bail!("found a file, expected a folder or nothing");
    }
    if fs::read_dir(out)?.next().is_none() {
        return Ok(None);
    }
    let mark = out.join(MARK);
    if !mark.is_file() {
        bail!("found files that publish did not write ({MARK} is missing), expected an empty folder or an earlier site");
    }
    let mark: Mark = serde_json::from_str(&fs::read_to_string(&mark)?).with_context(|| format!("`{}`", mark.display()))?;
    Ok(Some(mark.files.into_iter().chain([MARK.to_owned()]).collect()))
}

/// Moves what is not `listed` from the folder `within` (empty, or ending in a slash) of an earlier site to the new one.
fn carry(old: &Path, new: &Path, within: &str, listed: &HashSet<String>) -> Result<()> {
    for entry in fs::read_dir(old.join(within))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("expected Unicode names")?;
        let path = format!("{within}{name}");
        let folder = format!("{path}/");
        if listed.contains(&path) {
            continue;
        }
        if entry.file_type()?.is_dir() && (new.join(&path).is_dir() || listed.iter().any(|l| l.starts_with(&folder))) {
            carry(old, new, &folder, listed)?;
            continue;
        }
        fs::create_dir_all(new.join(within))?;
        fs::rename(entry.path(), new.join(&path)).with_context(|| format!("`{path}` cannot be moved"))?;
    }
    Ok(())
}
