//! The `limbeck` command.

use clap::Parser;
use std::io::ErrorKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    limbeck::keep_memory_mapped();
    let command = limbeck::cli::Cli::parse();
    // Losses of unrolled networks are deep graphs, and candle walks them recursively.
    let run = std::thread::Builder::new().stack_size(256 << 20).spawn(move || limbeck::cli::run(command));
    let result = match run {
        Ok(handle) => handle.join(),
        Err(e) => {
            eprintln!("error: no thread could be started: {e}");
            return ExitCode::from(1);
        }
    };
    match result {
        Ok(Ok(code)) => code,
        // Whoever reads our output has read enough, such as `head`.
        Ok(Err(e)) if e.chain().filter_map(|c| c.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Ok(Err(e)) => {
            eprintln!("error: {e:#}");
            ExitCode::from(1)
        }
        Err(_) => ExitCode::from(1),
    }
}
