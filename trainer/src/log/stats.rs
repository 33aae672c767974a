//! `stats.jsonl`: one JSON object a line, `images_seen` first, in the order of the run.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Appends lines to `stats.jsonl` and hands each to the operating system at once.
#[derive(Debug)]
pub struct StatsWriter {
    file: File,
    path: PathBuf,
    last: u64,
}

#[derive(Serialize)]
struct Line<'a, T> {
    images_seen: u64,
    #[serde(flatten)]
    fields: &'a T,
}

#[derive(Deserialize)]
struct Position {
    images_seen: u64,
}

impl StatsWriter {
    /// Opens or creates the file for a run that stands at `images_seen` (0 for a new one). Lines of later
    /// positions, and a last line that was cut off, are dropped, so that a resumed run writes the same file
    /// as one never stopped.
    ///
    /// # Errors
    /// If the file cannot be read or written, or a whole line in it is not a JSON object with `images_seen`.
    pub fn open(path: &Path, images_seen: u64) -> Result<StatsWriter> {
        let failed = || format!("{}: cannot open for appending", path.display());
        let old = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).with_context(failed),
        };
        let (mut keep, mut last, mut unended) = (0, 0, false);
        for (k, line) in old.split_inclusive(|&b| b == b'\n').enumerate() {
            let ended = line.ends_with(b"\n");
            match serde_json::from_slice::<Position>(line) {
                Ok(p) if p.images_seen > images_seen => break,
                Ok(p) => {
                    keep += line.len();
                    last = p.images_seen;
                    unended = !ended;
                }
                Err(_) if !ended => break,
                Err(e) => bail!(
                    "{}: line {}: found {:?} ({e}), expected a JSON object with `images_seen`",
                    path.display(),
                    k + 1,
                    String::from_utf8_lossy(&line[..line.len().min(80)])
                ),
            }
        }
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path).with_context(failed)?;
        file.set_len(keep as u64).with_context(failed)?;
        file.seek(SeekFrom::End(0)).with_context(failed)?;
        if unended {
            file.write_all(b"\n").with_context(failed)?;
        }
        Ok(StatsWriter { file, path: path.to_path_buf(), last })
    }

    /// Appends one line: `images_seen`, then the fields of a struct or map. Numbers that are not finite
    /// become `null`, which is all JSON has for them.
    ///
    /// # Errors
    /// If `images_seen` goes backwards, the fields do not serialise, or the disk is full.
    pub fn write(&mut self, images_seen: u64, fields: &impl Serialize) -> Result<()> {
        let failed = || format!("{}: cannot append", self.path.display());
        if images_seen < self.last {
            bail!("{}: `images_seen`: found {images_seen}, expected at least {}", self.path.display(), self.last);
        }
        let mut line = serde_json::to_vec(&Line { images_seen, fields }).with_context(failed)?;
        line.push(b'\n');
        // One write a line: what a kill leaves is whole lines, or one cut-off line that `open` drops.
        self.file.write_all(&line).with_context(failed)?;
        self.file.flush().with_context(failed)?;
        self.last = images_seen;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn resuming_gives_the_file_of_an_undisturbed_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = |name: &str| dir.path().join(name);
        let write = |path: &Path, at: u64, steps: std::ops::RangeInclusive<u64>| {
            let mut w = StatsWriter::open(path, at).unwrap();
            steps.for_each(|k| w.write(k * 100, &json!({"loss": k as f64 / 4.0})).unwrap());
        };
        write(&run("whole"), 0, 1..=6);
        assert!(text(&run("whole")).starts_with("{\"images_seen\":100,\"loss\":0.25}\n"));
        write(&run("stopped"), 0, 1..=5);
        write(&run("stopped"), 300, 4..=6);
        assert_eq!(text(&run("stopped")), text(&run("whole")));

        // A kill in the middle of a line, and one just before its end.
        let full = text(&run("whole"));
        for cut in [7, 1] {
            std::fs::write(run("cut"), &full[..full.len() - cut]).unwrap();
            let at = if cut == 1 { 600 } else { 500 };
            write(&run("cut"), at, at / 100 + 1..=6);
            assert_eq!(text(&run("cut")), full, "cut by {cut}");
        }
        // A new run in an old folder starts afresh.
        write(&run("stopped"), 0, 1..=1);
        assert_eq!(text(&run("stopped")).lines().count(), 1);
    }

    #[test]
    fn structs_flatten_and_infinities_are_null() {
        #[derive(Serialize)]
        struct S {
            loss: f64,
            rate: f32,
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut w = StatsWriter::open(&path, 0).unwrap();
        w.write(5, &S { loss: f64::NAN, rate: 0.5 }).unwrap();
        assert_eq!(text(&path), "{\"images_seen\":5,\"loss\":null,\"rate\":0.5}\n");
        let e = w.write(4, &json!({})).unwrap_err().to_string();
        assert!(e.contains("found 4, expected at least 5"), "{e}");
    }

    #[test]
    fn a_damaged_line_is_not_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let damaged = "{\"images_seen\":1}\nrubbish\n{\"images_seen\":2}\n";
        std::fs::write(&path, damaged).unwrap();
        let e = StatsWriter::open(&path, 9).unwrap_err().to_string();
        assert!(e.contains("line 2: found \"rubbish"), "{e}");
        assert_eq!(text(&path), damaged);
    }
}
