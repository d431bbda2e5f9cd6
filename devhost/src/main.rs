//! The one command that runs everything locally.
//!
//! It ends with 0 after a signal, with 130 after a second one, and with 1 and a line on standard error when something is wrong or the host
//! would have stopped.

use std::process::ExitCode;

use clap::Parser;
use devhost::{Arguments, Ended, exec_handler};

fn main() -> ExitCode {
    let mut raw = std::env::args_os().skip(1);
    if raw.next().is_some_and(|first| first == exec_handler::FLAG) {
        eprintln!("{}", exec_handler::become_handler(raw));
        return ExitCode::from(127);
    }
    match devhost::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Error(error)) => {
            eprintln!("devhost: {error}");
            ExitCode::FAILURE
        }
        // 128 and the number of SIGINT, as shells have it.
        Err(Ended::AtOnce) => ExitCode::from(130),
    }
}
