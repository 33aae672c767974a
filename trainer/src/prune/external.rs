//! A decision maker in another program, over a pipe of lines: it reads one JSON object a round, `{"state": ..., "memory": [...]}`, and
//! answers one line, a JSON array of a ratio for each block. Where the paper asked a language model, such a program can; this one
//! calls no network.

use super::policy::{Attempt, Policy, State};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running program.
pub struct External {
    name: String,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl External {
    /// Starts it: program and arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &[String]) -> Result<External> {
        let (program, arguments) = command.split_first().context("`command`: found nothing, expected a program")?;
        let started = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.with_context(|| format!("`command`: `{program}` cannot be started"))?;
        let to = child.stdin.take();
        let from = child.stdout.take().with_context(|| format!("`command`: `{program}` has no output"))?;
        Ok(External { name: program.clone(), child, to, from: BufReader::new(from) })
    }
}

impl Policy for External {
    fn propose(&mut self, state: &State, memory: &[Attempt]) -> Result<Vec<f64>> {
        let name = &self.name;
        let to = self.to.as_mut().with_context(|| format!("`{name}` takes no input"))?;
        writeln!(to, "{}", json!({ "state": state, "memory": memory })).with_context(|| format!("`{name}` reads no more"))?;
        to.flush()?;
        let mut line = String::new();
        if self.from.read_line(&mut line).with_context(|| format!("`{name}`"))? == 0 {
            bail!("`{name}`: found the end of its output in round {}, expected a line", state.round);
        }
        let n = state.blocks.len();
        match serde_json::from_str::<Vec<f64>>(&line) {
            Ok(ratios) if ratios.len() == n && ratios.iter().all(|r| (0.0..=1.0).contains(r)) => Ok(ratios),
            _ => bail!("`{name}`: found {}, expected a JSON array of {n} numbers from 0 to 1", line.trim()),
        }
    }
}

impl Drop for External {
    fn drop(&mut self) {
        // The end of its input asks it to leave.
        self.to = None;
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(std::time::Duration::from_millis(50));
            // It may have left by itself meanwhile.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
