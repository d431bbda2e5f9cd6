//! What devhost prints on standard output: its own lines in the form of the Functions host's log.
//!
//! Lines of the handler's standard output pass through as they are. A reader that went away (`devhost | head`)
//! is no reason to stop, so a failed write is ignored.

use std::{fmt::Display, io::Write};

use jiff::Timestamp;

/// Prints the text as it is.
pub(crate) fn plain(text: impl Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Prints what the host would log as information.
pub(crate) fn info(text: impl Display) {
    log("", text);
}

/// Prints what the host would log as a warning.
pub(crate) fn warning(text: impl Display) {
    log("[Warning] ", text);
}

/// Prints what the host would log as an error.
pub(crate) fn error(text: impl Display) {
    log("[Error] ", text);
}

fn log(level: &str, text: impl Display) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    plain(format_args!("[{now}] {level}{text}"));
}
