//! What a run leaves behind and says while it runs: `stats.jsonl`, TensorBoard events, grids of samples,
//! `.npy` arrays, a progress bar.

pub mod grid;
pub mod npy;
pub mod progress;
pub mod stats;
pub mod tfevents;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a file under a temporary name in the same folder and renames it, so that a reader, or a run that
/// was killed, never meets half a file.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let failed = || format!("{}: cannot write", path.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".limbeck-").suffix(".tmp");
    // Temporary files are private by default; this one ends as an ordinary file. The umask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).with_context(failed)?;
    file.write_all(bytes).with_context(failed)?;
    // On the disk before it takes the name: a power cut then leaves the old file or the new one.
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_whole(&path, b"first, longer").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let e = write_whole(&dir.path().join("no/x"), b"").unwrap_err().to_string();
        assert!(e.contains("no/x: cannot write"), "{e}");
    }
}
