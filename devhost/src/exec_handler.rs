//! How the handler's process is started so that it never outlives devhost.
//!
//! On Linux devhost starts *itself* with a hidden flag; that process asks the kernel for SIGKILL when its parent
//! dies and then becomes the handler (`exec` keeps both the request and the process id). So not even `kill -9` of
//! devhost leaves a handler behind. The request follows the parent *thread*: spawn from one that lives on.
//! Elsewhere the handler is started directly.

use std::path::Path;

use tokio::process::Command;

/// The hidden first argument that makes devhost become the handler.
pub const FLAG: &str = "--exec-handler";

/// The command that starts the handler; its arguments, environment and folder are for the caller to add.
#[cfg(target_os = "linux")]
pub fn command(executable: &Path) -> Command {
    // Not current_exe(): devhost's own file may have been rebuilt, and so unlinked, since it was started.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("devhost")
        .arg(FLAG)
        .arg(std::process::id().to_string())
        .arg(executable);
    command
}

/// The command that starts the handler; its arguments, environment and folder are for the caller to add.
#[cfg(not(target_os = "linux"))]
pub fn command(executable: &Path) -> Command {
    Command::new(executable)
}

/// Becomes the handler; what it returns is why it could not. `arguments` are what follows the flag.
#[cfg(target_os = "linux")]
pub fn become_handler(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> String {
    use std::os::unix::process::CommandExt;

    let parent: Option<i32> = arguments
        .next()
        .and_then(|argument| argument.to_str()?.parse().ok());
    let (Some(parent), Some(executable)) = (parent, arguments.next()) else {
        return format!("{FLAG} is for devhost itself");
    };
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        return format!("the parent-death signal could not be set: {error}");
    }
    // A parent that died before the request was made would never be noticed.
    let now = rustix::process::getppid().map(rustix::process::Pid::as_raw_nonzero);
    if now.map(std::num::NonZeroI32::get) != Some(parent) {
        return "devhost has ended".to_owned();
    }
    let error = std::process::Command::new(&executable)
        .args(arguments)
        .exec();
    format!("`{}` cannot be run: {error}", executable.display())
}

/// Becomes the handler, where the operating system has parent-death signals.
#[cfg(not(target_os = "linux"))]
pub fn become_handler(_arguments: impl Iterator<Item = std::ffi::OsString>) -> String {
    format!("{FLAG} is for Linux only")
}
