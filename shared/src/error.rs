//! Errors. Each names the thing that is wrong, what was found, and what was expected.

use thiserror::Error;

/// What can go wrong in this crate.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum Error {
    /// A configuration that cannot be built.
    #[error("`{key}`: found {found}, expected {expected}")]
    Config {
        /// The key or operation.
        key: String,
        /// What it held.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A bundle that cannot be read.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
    /// A call that does not fit the network.
    #[error("{what}: found {found}, expected {expected}")]
    Call {
        /// The argument.
        what: String,
        /// What was given.
        found: String,
        /// What the network takes.
        expected: String,
    },
    /// The GPU engine cannot run here.
    #[error("gpu: {0}")]
    Gpu(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Call`] from displayable parts.
    pub fn call(what: impl Into<String>, found: impl ToString, expected: impl ToString) -> Error {
        Error::Call { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }
    /// An [`Error::Config`] from displayable parts.
    pub fn config(key: impl Into<String>, found: impl ToString, expected: impl ToString) -> Error {
        Error::Config { key: key.into(), found: found.to_string(), expected: expected.to_string() }
    }
}
