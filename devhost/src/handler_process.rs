//! How the handler's process is described and started, and where its output goes.
//!
//! Its environment is devhost's own, the app settings, and the five variables of the protocol. Lines of standard
//! output pass through unchanged; lines of standard error are marked as the host would log them.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{console, exec_handler, host_json::CustomHandler, settings::Settings};

/// How long the last lines of a handler that has ended are waited for.
const LAST_LINES: Duration = Duration::from_millis(500);

/// All that is needed to start the handler, any number of times.
#[derive(Debug, Clone)]
pub struct Launch {
    executable: PathBuf,
    arguments: Vec<String>,
    working_directory: PathBuf,
    app: PathBuf,
    environment: BTreeMap<String, String>,
    removed: Vec<String>,
    pub port: u16,
    pub initialization_timeout: Duration,
    pub std_error_is_errors_only: bool,
}

impl Launch {
    /// `built` is the executable that cargo built, where it did.
    pub fn new(
        handler: &CustomHandler,
        app: &Path,
        settings: &Settings,
        built: Option<PathBuf>,
        port: u16,
    ) -> Self {
        let variable = |name: &str| -> Option<String> {
            match name {
                "FUNCTIONS_CUSTOMHANDLER_PORT" | "FUNCTIONS_HTTPWORKER_PORT" => {
                    Some(port.to_string())
                }
                "FUNCTIONS_APP_ROOT_PATH" => Some(app.display().to_string()),
                _ => settings.get(name).map(str::to_owned),
            }
        };
        let expand = |text: &str| {
            let expanded: Result<String, std::convert::Infallible> =
                crate::settings::expand(text, |name| Ok(variable(name).unwrap_or_default()));
            match expanded {
                Ok(text) => text,
            }
        };
        let mut line: Vec<String> = handler.arguments.iter().map(|part| expand(part)).collect();
        if !handler.default_worker_path.is_empty() {
            line.push(format!("\"{}\"", expand(&handler.default_worker_path)));
        }
        line.extend(handler.worker_arguments.iter().map(|part| expand(part)));
        let executable = built.unwrap_or_else(|| {
            let path = PathBuf::from(expand(&handler.default_executable_path));
            let inside = app.join(&handler.worker_directory).join(&path);
            // Elsewhere it is left as it is, to be looked up on PATH.
            if inside.is_file() { inside } else { path }
        });
        Self {
            executable,
            arguments: split_arguments(&line.join(" ")),
            working_directory: app.join(&handler.working_directory),
            app: app.to_owned(),
            environment: settings
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            removed: settings.removed().to_vec(),
            port,
            initialization_timeout: handler.initialization_timeout,
            std_error_is_errors_only: handler.std_error_is_errors_only,
        }
    }

    /// The executable's file name.
    pub fn name(&self) -> String {
        self.executable
            .file_name()
            .unwrap_or(self.executable.as_os_str())
            .to_string_lossy()
            .into_owned()
    }

    /// The paths of a start, for the error when it fails.
    pub fn paths(&self) -> String {
        format!(
            "`{}` in `{}`",
            self.executable.display(),
            self.working_directory.display()
        )
    }

    /// Makes the working directory if there is none, as the host does.
    pub fn make_working_directory(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.working_directory)
    }

    /// The command of one start.
    pub fn command(&self, worker_id: Uuid) -> Command {
        let mut command = exec_handler::command(&self.executable);
        command
            .args(&self.arguments)
            .current_dir(&self.working_directory)
            .envs(&self.environment)
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", self.port.to_string())
            .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", worker_id.to_string())
            .env("FUNCTIONS_HTTPWORKER_PORT", self.port.to_string())
            .env("FUNCTIONS_HTTPWORKER_ID", worker_id.to_string())
            .env("FUNCTIONS_APP_ROOT_PATH", &self.app)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in &self.removed {
            command.env_remove(name);
        }
        // A process group of its own: Ctrl-C in the terminal is for devhost, which lets invocations finish.
        #[cfg(unix)]
        command.process_group(0);
        command
    }
}

/// The host joins the arguments with spaces and .NET takes the line apart again: an item with a space becomes
/// two, and double quotes hold together.
fn split_arguments(line: &str) -> Vec<String> {
    let (mut arguments, mut current, mut quoted) = (Vec::new(), None::<String>, false);
    for character in line.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                current.get_or_insert_default();
            }
            ' ' | '\t' if !quoted => arguments.extend(current.take()),
            other => current.get_or_insert_default().push(other),
        }
    }
    arguments.extend(current);
    arguments
}

/// A thread that starts the handler and lives as long as devhost: the parent-death signal of [`exec_handler`]
/// follows the thread, and the runtime's own threads may come and go.
pub struct Spawner(std::sync::mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>);

impl Spawner {
    pub fn start() -> io::Result<Self> {
        let (sender, commands) =
            std::sync::mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("handler-parent".to_owned())
            .spawn(move || {
                let _runtime = runtime.enter();
                while let Ok((mut command, reply)) = commands.recv() {
                    // A caller that went away drops the child, which kills it.
                    drop(reply.send(command.spawn()));
                }
                // Nothing more to start, but a handler may still run under this thread.
                loop {
                    std::thread::park();
                }
            })?;
        Ok(Self(sender))
    }

    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, child) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts the handler has ended");
        self.0.send((command, reply)).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

/// The passing on of a child's lines, which goes on when this is dropped.
#[derive(Debug)]
pub struct Output(Vec<JoinHandle<()>>);

impl Output {
    /// Waits, but not for long, until the last line of a child that has ended has been passed on. A process that
    /// the child left behind may hold its output open.
    pub async fn ended(self) {
        let all = async {
            for stream in self.0 {
                drop(stream.await);
            }
        };
        drop(tokio::time::timeout(LAST_LINES, all).await);
    }
}

/// Passes the child's lines on until it closes them.
pub fn pass_output_on(child: &mut Child, std_error_is_errors_only: bool) -> Output {
    let stdout = child
        .stdout
        .take()
        .map(|stdout| tokio::spawn(for_each_line(stdout, |line| console::plain(line))));
    let stderr = child.stderr.take().map(|stderr| {
        tokio::spawn(for_each_line(stderr, move |line| {
            log_stderr(line, std_error_is_errors_only);
        }))
    });
    Output(stdout.into_iter().chain(stderr).collect())
}

async fn for_each_line(output: impl AsyncRead + Unpin, print: impl Fn(&str)) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => print(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n'])),
        }
    }
}

fn log_stderr(line: &str, errors_only: bool) {
    let lower = line.to_ascii_lowercase();
    let is_error = ["error", "fail", "severe", "unhandled exception"]
        .iter()
        .any(|word| lower.contains(word));
    if lower.contains("warn") {
        console::warning(line);
    } else if errors_only || is_error {
        console::error(line);
    } else {
        console::info(line);
    }
}
