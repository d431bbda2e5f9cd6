//! Builds the handler with cargo before it is started, so that one command is enough.
//!
//! Cargo's messages to people go to the terminal as they are; where the executable is comes from its JSON. Only the
//! package itself is built: in a build of the whole workspace other features could be switched on in it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

/// Builds the package and gives its executable; the error says what to do.
pub(crate) async fn build(app: &Path, package: &str) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command
        .args([
            "build",
            "-p",
            package,
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(app)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    // Under `cargo run` these describe devhost. Some build scripts watch them, and would run again each time.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(describes_a_package) {
            command.env_remove(&name);
        }
    }
    let not_run = |error: std::io::Error| format!("`{}` cannot be run: {error}", cargo.display());
    let mut child = command.spawn().map_err(not_run)?;
    let mut executable = None;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await.map_err(not_run)? {
            executable = executable_of(&line, package).or(executable);
        }
    }
    let status = child.wait().await.map_err(not_run)?;
    if !status.success() {
        return Err(format!(
            "the handler could not be built: `cargo build -p {package}` failed"
        ));
    }
    executable.ok_or(format!(
        "cargo built no executable called `{package}` (the file name in customHandler.description.defaultExecutablePath)"
    ))
}

fn describes_a_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(
            name,
            "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR"
        )
}

/// The executable, if this line of cargo's tells of it.
fn executable_of(line: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_it = message["reason"] == "compiler-artifact"
        && message["target"]["name"] == name
        && message["target"]["kind"] == serde_json::json!(["bin"]);
    is_it
        .then(|| message["executable"].as_str().map(PathBuf::from))
        .flatten()
}
