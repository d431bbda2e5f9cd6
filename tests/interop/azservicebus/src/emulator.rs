//! The emulator as a process of its own, with a data folder that ends with it.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use uuid::Uuid;

/// What takes longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const KEY_NAME: &str = "RootManageSharedAccessKey";
pub const KEY: &str = "SAS_KEY_VALUE";

/// A running emulator; it is killed when it is dropped.
pub struct Emulator {
    child: Child,
    data: PathBuf,
    pub http_port: u16,
    pub amqp_port: u16,
}

impl Emulator {
    /// Starts the one that `SERVICEBUS_EMULATOR_BIN` names, on any free ports.
    pub async fn start() -> Self {
        let data = std::env::temp_dir().join(format!("azservicebus-interop-{}", Uuid::new_v4()));
        let (child, http_port, amqp_port) = launch(&data, 0, 0).await;
        Self {
            child,
            data,
            http_port,
            amqp_port,
        }
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the emulator runs");
    }

    /// Starts it again where it was, with what it had stored.
    pub async fn start_again(&mut self) {
        let (child, ..) = launch(&self.data, self.http_port, self.amqp_port).await;
        self.child = child;
    }

    /// How much memory it takes, in kilobytes.
    pub fn resident_kilobytes(&self) -> u64 {
        let id = self.child.id().expect("the emulator runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.and_then(|number| number.parse().ok()).expect("kB")
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended already; its folder goes either way.
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// The process and its two ports, once it is ready.
async fn launch(data: &PathBuf, http_port: u16, amqp_port: u16) -> (Child, u16, u16) {
    let binary = std::env::var_os("SERVICEBUS_EMULATOR_BIN")
        .expect("SERVICEBUS_EMULATOR_BIN names the emulator");
    let entities = concat!(env!("CARGO_MANIFEST_DIR"), "/../servicebus.json");
    let mut child = Command::new(binary)
        .args(["--config", entities, "--data"])
        .arg(data)
        .args(["--http-port", &http_port.to_string()])
        .args(["--amqp-port", &amqp_port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the emulator can be started");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = timeout(PATIENCE, lines.next_line()).await;
    let first = first
        .expect("ready in time")
        .expect("text")
        .expect("a line");
    let (rest, amqp) = first
        .strip_prefix("Service Bus emulator ready: REST data plane at http://127.0.0.1:")
        .and_then(|line| line.split_once(", AMQP at 127.0.0.1:"))
        .unwrap_or_else(|| panic!("not as expected: {first}"));
    // What it prints later must not block it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (
        child,
        rest.parse().expect("a port"),
        amqp.parse().expect("a port"),
    )
}
