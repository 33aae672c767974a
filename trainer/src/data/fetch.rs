//! Where data sets lie on this machine, and how to get them. No network code: a package manager or a
//! browser downloads better.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{cifar, idx};

/// The name of Fashion-MNIST on the command line.
pub const FASHION_MNIST: &str = "fashion-mnist";
/// The name of CIFAR-10 on the command line.
pub const CIFAR_10: &str = "cifar10";

/// A data set that can be looked for by name.
struct Known {
    name: &'static str,
    /// Usual places.
    places: &'static [&'static str],
    /// Whether a folder holds it.
    present: fn(&Path) -> bool,
    /// How to get it, in words.
    get: &'static str,
}

const KNOWN: [Known; 2] = [
    Known {
        name: FASHION_MNIST,
        places: &["/usr/share/datasets/fashion-mnist"],
        present: idx::present,
        get: "on Debian and Ubuntu run `apt install dataset-fashion-mnist`; elsewhere download the four \
              *-ubyte.gz files from https://github.com/zalandoresearch/fashion-mnist",
    },
    Known {
        name: CIFAR_10,
        places: &["/usr/share/datasets/cifar10"],
        present: |dir| cifar::folder_of(dir).is_some(),
        get: "download and unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    },
];

/// The folder of the data set `name` (`limbeck data fetch NAME`): looked for in `$LIMBECK_DATA/NAME`,
/// `$LIMBECK_DATA` and the usual places, in this order.
///
/// # Errors
/// An unknown name, or a data set that is in none of these places; the message then says how to get it.
pub fn find(name: &str) -> Result<PathBuf> {
    find_with(name, std::env::var_os("LIMBECK_DATA"))
}

fn find_with(name: &str, data: Option<OsString>) -> Result<PathBuf> {
    let Some(known) = KNOWN.iter().find(|k| k.name == name) else {
        let names: Vec<&str> = KNOWN.iter().map(|k| k.name).collect();
        bail!("data set: found `{name}`, expected one of: {}", names.join(", "));
    };
    let data = data.filter(|d| !d.is_empty()).map(PathBuf::from);
    let mut places: Vec<PathBuf> = data.iter().flat_map(|d| [d.join(name), d.clone()]).collect();
    places.extend(known.places.iter().map(PathBuf::from));
    if let Some(dir) = places.iter().find(|p| (known.present)(p)) {
        return Ok(dir.clone());
    }
    let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    bail!(
        "data set {name}: not found in {}. To get it: {}. Files elsewhere: set LIMBECK_DATA or pass \
         --data DIR",
        looked.join(", "),
        known.get
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_under_the_variable_first() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("cifar10");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("test_batch.bin"), b"").unwrap();
        let root = Some(dir.path().as_os_str().to_owned());
        assert_eq!(find_with("cifar10", root.clone()).unwrap(), inner);
        std::fs::write(dir.path().join("train-images-idx3-ubyte"), b"").unwrap();
        assert_eq!(find_with("fashion-mnist", root).unwrap(), dir.path());
    }

    #[test]
    fn says_how_to_get_what_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let e = find_with("cifar10", Some(dir.path().into())).unwrap_err().to_string();
        assert!(e.contains("cifar-10-binary.tar.gz") && e.contains("LIMBECK_DATA"), "{e}");
        assert!(e.contains(&dir.path().display().to_string()), "{e}");
        let e = find_with("mnist", None).unwrap_err().to_string();
        assert!(e.contains("found `mnist`, expected one of: fashion-mnist, cifar10"), "{e}");
    }

    #[test]
    fn fashion_mnist_tells_its_package() {
        let known = KNOWN.iter().find(|k| k.name == FASHION_MNIST).unwrap();
        assert!(known.get.contains("apt install dataset-fashion-mnist"));
    }
}
