//! The local stack as its user starts it: the real devhost, which runs the real handler.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use crate::handler::{Folder, JsonBody, free_port, json_of};

/// Longer than anything here takes on a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct DevHost {
    pub port: u16,
    pub bus_port: u16,
    pub http: Client,
    data: Arc<Folder>,
    settings: Vec<(&'static str, &'static str)>,
    pump: &'static str,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

impl DevHost {
    /// Without a till: an order is told when it is placed, and that is all.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further settings, which reach the handler.
    pub async fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        let data = Arc::new(Folder::new());
        let settings = [&[("TILL", "none")], settings].concat();
        Self::start_at(data, settings, "direct", free_port(), free_port()).await
    }

    /// The same with messages received over AMQP, as in Azure.
    pub async fn start_over_amqp() -> Self {
        let data = Arc::new(Folder::new());
        let settings = vec![("TILL", "none")];
        Self::start_at(data, settings, "amqp", free_port(), free_port()).await
    }

    /// As it comes, with the stand-in Square.
    pub async fn with_till(settings: &[(&'static str, &'static str)]) -> Self {
        let data = Arc::new(Folder::new());
        Self::start_at(data, settings.to_vec(), "direct", free_port(), free_port()).await
    }

    /// Where the order book is.
    pub fn book(&self) -> PathBuf {
        self.data.0.join("order-book")
    }

    /// Where its stand-in of Square is.
    pub fn square(&self) -> String {
        let output = self.output.lock().unwrap();
        let line = output.iter().find(|line| line.starts_with("Payments:"));
        let (_, rest) = line.unwrap().split_once(" at ").unwrap();
        rest.split_once(';').unwrap().0.to_owned()
    }

    /// Runs the operator's audit on its order book; the exit code, and what it printed on both streams.
    pub async fn audit(&self, till: &str) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_orderup"))
            .arg("audit")
            .env_clear()
            .env("ORDER_BOOK", self.book())
            .env("TILL", till)
            .output()
            .await
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    }

    async fn start_at(
        data: Arc<Folder>,
        settings: Vec<(&'static str, &'static str)>,
        pump: &'static str,
        port: u16,
        bus_port: u16,
    ) -> Self {
        // Built by `cargo test --workspace` into the folder where the handler is.
        let handler = env!("CARGO_BIN_EXE_orderup");
        let devhost = std::path::Path::new(handler).with_file_name("devhost");
        assert!(
            devhost.exists(),
            "devhost is not built: run `cargo test --workspace`"
        );
        let mut child = Command::new(devhost)
            .args(["--app", env!("CARGO_MANIFEST_DIR")])
            .arg("--data")
            .arg(&data.0)
            .args(["--port", &port.to_string()])
            .args(["--bus-port", &bus_port.to_string(), "--amqp-port", "0"])
            .args(["--pump", pump])
            .env(
                "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath",
                handler,
            )
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let (ready, mut is_ready) = mpsc::channel(1);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kept = output.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("ready") {
                    let _ = ready.try_send(());
                }
                kept.lock().unwrap().push(line);
            }
        });
        let started = tokio::time::timeout(PATIENCE, is_ready.recv()).await;
        assert!(
            matches!(started, Ok(Some(()))),
            "devhost did not become ready: {output:#?}"
        );
        Self {
            port,
            bus_port,
            http: Client::builder().no_proxy().build().unwrap(),
            data,
            settings,
            pump,
            child,
            output,
        }
    }

    /// `kill -9`, of devhost and with it the handler, and a new start with the same data.
    pub async fn kill_and_restart(mut self) -> Self {
        self.child.kill().await.unwrap();
        Self::start_at(
            self.data,
            self.settings,
            self.pump,
            self.port,
            self.bus_port,
        )
        .await
    }

    /// `kill -9` of the handler alone; the host, which has seen that, starts it again. What it is asked from then on waits.
    pub async fn kill_handler(&self) {
        let host = self.child.id().expect("devhost runs").to_string();
        loop {
            let processes = Command::new("ps")
                .args(["-A", "-o", "ppid=,pid=,stat="])
                .output()
                .await
                .unwrap();
            let processes = String::from_utf8(processes.stdout).unwrap();
            let handler = processes.lines().find_map(|line| {
                let mut columns = line.split_whitespace();
                let is_child = columns.next() == Some(&host);
                let (handler, state) = (columns.next()?, columns.next()?);
                (is_child && !state.starts_with('Z')).then_some(handler)
            });
            // It may be about to be started again.
            if let Some(handler) = handler {
                let kill = Command::new("kill").args(["-KILL", handler]).output().await;
                if kill.unwrap().status.success() {
                    return self.has_said(&format!("Pid={handler}.")).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a line with these words.
    async fn has_said(&self, words: &str) {
        let said = async {
            while !self
                .output
                .lock()
                .unwrap()
                .iter()
                .any(|line| line.contains(words))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        assert!(
            said.is_ok(),
            "devhost does not say {words}: {:#?}",
            self.output.lock().unwrap()
        );
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(
            ended.is_ok(),
            "devhost goes on: {:#?}",
            self.output.lock().unwrap()
        );
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.http.post(self.url(path)).json_body(body);
        request.send().await.unwrap()
    }

    /// Nothing that anybody logged has any of this in it.
    pub fn assert_unsaid(&self, secrets: &[&str]) {
        // The banner has a sample order.
        let output = self.output.lock().unwrap();
        for line in output.iter().filter(|line| !line.starts_with("curl ")) {
            for secret in secrets {
                assert!(!line.contains(secret), "{secret}: {line}");
            }
        }
    }

    /// The lines of the handler's own log so far.
    pub fn log(&self) -> Vec<Value> {
        let output = self.output.lock().unwrap();
        let lines = output.iter().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What the till has of the order: its orders, and its payments.
    pub async fn at_the_till(&self, order_id: &str) -> (Vec<Value>, Vec<Value>) {
        let till = self.get("/_dev/till").await;
        let of = |name: &str| {
            let all = till[name].as_array().unwrap().iter();
            let own = all.filter(|entry| entry["referenceId"] == order_id);
            own.cloned().collect()
        };
        (of("orders"), of("payments"))
    }

    /// Waits until the order has that status.
    pub async fn wait_for_status(&self, order_id: &str, status: &str) -> Value {
        let path = format!("/api/orders/{order_id}");
        let started = Instant::now();
        loop {
            // The order book may have been away.
            let response = self.http.get(self.url(&path)).send().await.unwrap();
            if response.status().is_success() {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{}", response.status());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.wait_for(&path, |order| order["status"] == status)
            .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        json_of(response).await
    }

    pub async fn fault(&self, target: &str, fault: &Value) {
        let url = self.url(&format!("/_dev/faults/{target}"));
        let request = self.http.request(Method::PUT, url).json_body(fault);
        let response = request.send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{}",
            response.text().await.unwrap()
        );
    }

    pub async fn no_fault(&self, target: &str) {
        let url = self.url(&format!("/_dev/faults/{target}"));
        assert!(
            self.http
                .delete(url)
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }

    /// Asks again until the answer is as wanted.
    pub async fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{path} stayed {answer:#}\n{:#?}",
                self.output.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many webhooks came again, under the id that their vendor knew.
    pub async fn repeated_webhooks(&self) -> u64 {
        let webhooks = self.get("/_dev/webhooks").await;
        let repeated = |webhook: &Value| webhook["deliveries"].as_u64().unwrap() - 1;
        webhooks.as_array().unwrap().iter().map(repeated).sum()
    }

    /// Waits until nothing is on its way any more.
    pub async fn wait_until_idle(&self) {
        let count = |entity: &Value, state: &str| entity[state].as_u64().unwrap();
        self.wait_for("/_dev/entities", |entities| {
            entities.as_array().unwrap().iter().all(|entity| {
                count(entity, "active") + count(entity, "locked") + count(entity, "scheduled") == 0
            })
        })
        .await;
    }
}

/// Whether the answer is an array of that many.
pub fn has(count: usize) -> impl Fn(&Value) -> bool {
    move |answer| answer.as_array().unwrap().len() == count
}
