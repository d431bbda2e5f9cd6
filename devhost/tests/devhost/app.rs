//! An app in a temporary folder, and the real devhost that runs it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use uuid::Uuid;

/// A test that waits longer than this has failed; nothing is measured by it.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(60);

/// The secret of the vendor `bakery`; `tea` has another, from a setting.
pub(crate) const BAKERY_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const TEA_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The ways in which messages are received.
pub(crate) const PUMPS: [&str; 2] = ["direct", "amqp"];

/// The scripted handler, which cargo builds with the tests.
pub(crate) fn handler() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_devhost"))
        .with_file_name("examples")
        .join("scripted_handler")
}

/// The folder of an app, removed at the end.
pub(crate) struct App(PathBuf);

impl App {
    /// Three functions (`echo` and `env` by HTTP, `work` by the queue of that name), and two vendors.
    pub(crate) fn new() -> Self {
        let app = Self(std::env::temp_dir().join(format!("devhost-test-{}", Uuid::new_v4())));
        app.host_json(|_| {});
        app.write(
            "local.settings.json",
            r#"{"IsEncrypted":false,"Values":{"WORK_QUEUE":"work"}}"#,
        );
        app.write(
            "echo/function.json",
            r#"{"bindings":[
                {"type":"httpTrigger","direction":"in","name":"req","authLevel":"anonymous","methods":["get","post"],"route":"echo/{*rest}"},
                {"type":"http","direction":"out","name":"res"}]}"#,
        );
        app.write(
            "env/function.json",
            r#"{"bindings":[
                {"type":"httpTrigger","direction":"in","name":"req","methods":["get"],"route":"env/{name}"},
                {"type":"http","direction":"out","name":"res"}]}"#,
        );
        app.write(
            "work/function.json",
            r#"{"bindings":[{"type":"serviceBusTrigger","direction":"in","name":"message",
                "queueName":"%WORK_QUEUE%","connection":"ServiceBusConnection"}]}"#,
        );
        app.write(
            "servicebus.json",
            r#"{"UserConfig":{"Namespaces":[{"Name":"sbemulatorns","Queues":[
                {"Name":"work","Properties":{"LockDuration":"PT1M","MaxDeliveryCount":3}}],"Topics":[]}]}}"#,
        );
        app.write(
            "vendors.json",
            &serde_json::json!([
                {"id":"bakery","name":"Bakery","url":"https://bakery.example/hook","secrets":[BAKERY_SECRET]},
                {"id":"tea","name":"Tea","url":"https://tea.example/hook","secrets":["env:TEA_SECRET"]},
            ])
            .to_string(),
        );
        app
    }

    /// Writes host.json as the test wants it.
    pub(crate) fn host_json(&self, change: impl FnOnce(&mut Value)) {
        let mut host = serde_json::json!({
            "version": "2.0",
            "customHandler": {
                "description": { "defaultExecutablePath": handler() },
                "enableForwardingHttpRequest": true,
                "enableProxyingHttpRequest": true,
            },
        });
        change(&mut host);
        self.write("host.json", &host.to_string());
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devhost"));
        for flag in ["--port", "--bus-port", "--amqp-port"] {
            if !arguments.contains(&flag) {
                command.args([flag, "0"]);
            }
        }
        command
            .arg("--app")
            .arg(&self.0)
            .args(arguments)
            .env("TEA_SECRET", TEA_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts devhost and waits until it is ready.
    pub(crate) async fn run(&self) -> Devhost {
        let mut devhost = self.start(&[], &[]);
        devhost.wait_until_ready().await;
        devhost
    }

    /// The same, with messages received in the given way.
    pub(crate) async fn run_with_pump(&self, pump: &str) -> Devhost {
        let mut devhost = self.start(&["--pump", pump], &[]);
        devhost.wait_until_ready().await;
        devhost
    }

    /// Starts devhost.
    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Devhost {
        let mut child = self
            .command(arguments)
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Devhost {
            child,
            lines,
            seen: Vec::new(),
            waiting: Vec::new(),
            url: String::new(),
            client: reqwest::Client::new(),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A running devhost; it is killed when it is dropped, and its handler with it.
pub(crate) struct Devhost {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
    waiting: Vec<String>,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
}

impl Devhost {
    /// Waits for a line that holds the text. Lines of devhost and of its handler may come in either order, so a line
    /// counts as long as no earlier call has taken it.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        if let Some(known) = self.waiting.iter().position(|line| line.contains(text)) {
            return self.waiting.remove(known);
        }
        loop {
            let next = tokio::time::timeout(GIVE_UP, self.lines.next_line()).await;
            let Ok(Ok(Some(line))) = next else {
                panic!("no line with `{text}` after:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
            self.waiting.push(line);
        }
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        let line = self.line("ready on http").await;
        self.url = line[line.find("http://").unwrap()..].replace("localhost", "127.0.0.1");
    }

    /// Whether such a line has been printed so far.
    pub(crate) fn has_printed(&self, text: &str) -> bool {
        self.seen.iter().any(|line| line.contains(text))
    }

    /// Waits for the end; gives the exit code and standard error.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .await
            .unwrap();
        let status = tokio::time::timeout(GIVE_UP, self.child.wait())
            .await
            .unwrap()
            .unwrap();
        (status.code(), stderr)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.text().await.unwrap()).unwrap()
    }

    /// The status of a PUT to `/_dev/faults/{target}`, and the answer's text.
    pub(crate) async fn set_fault(&self, target: &str, fault: &str) -> (u16, String) {
        let url = format!("{}/_dev/faults/{target}", self.url);
        let response = self
            .client
            .put(url)
            .body(fault.to_owned())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Runs `work` by hand with the text as its message.
    pub(crate) async fn work(&self, text: &str) -> u16 {
        self.run_by_hand("work", &serde_json::json!({ "input": text }).to_string())
            .await
    }

    pub(crate) async fn run_by_hand(&self, function: &str, body: &str) -> u16 {
        let url = format!("{}/admin/functions/{function}", self.url);
        self.client
            .post(url)
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    /// A variable of the handler's environment.
    pub(crate) async fn handler_variable(&self, name: &str) -> String {
        let response = self.get(&format!("/api/env/{name}")).await;
        assert_eq!(response.status(), 200, "{name}");
        response.text().await.unwrap()
    }

    /// The address of the stand-ins, without a slash at its end.
    pub(crate) async fn outside(&self) -> String {
        let connection = self.handler_variable("ACS_CONNECTION_STRING").await;
        let (endpoint, _) = connection
            .strip_prefix("endpoint=")
            .unwrap()
            .split_once(';')
            .unwrap();
        endpoint.trim_end_matches('/').to_owned()
    }
}
