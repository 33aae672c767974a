//! `limbeck prune`: splits noise levels into groups, gives each a budget, and searches what its copy of the base keeps.
//!
//! Li et al. (arXiv 2312.13307): groups by similarity and difficulty, budgets that grow with difficulty, and a decision maker that
//! proposes widths over several rounds and remembers what came of them ("proxy"). Theirs was a language model; here it is a
//! [`policy::Policy`]. Fine-tuning is an ordinary run of [`crate::method::tdc`], whose configuration this writes.

pub mod budget;
pub mod config;
pub mod edges;
pub mod external;
pub mod groups;
pub mod policy;
pub mod probe;
mod report;
mod run;
pub mod search;

pub use config::PruneConfig;
pub use run::{Request, plan, run};

#[cfg(test)]
mod tests;
