//! What was packed, as it is: unpacked into an empty folder it serves an order.
//!
//! It needs `just package` (or `package-x86-64`) and the workspace's programs, and so runs only when it is asked for:
//! `cargo test -p packaging -- --ignored`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};
use zip::ZipArchive;

use crate::app::project;

/// A wait that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with what the zip holds, removed at the end.
struct Unpacked(PathBuf);

impl Unpacked {
    fn new() -> Self {
        let zip = project().join("dist/orderup.zip");
        let file = File::open(&zip)
            .unwrap_or_else(|error| panic!("{}: {error}: run `just package`", zip.display()));
        let unpacked = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpacked"));
        drop(fs::remove_dir_all(&unpacked.0));
        ZipArchive::new(file)
            .unwrap()
            .extract(unpacked.0.join("app"))
            .unwrap();
        unpacked
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The devhost that runs it.
struct DevHost {
    _child: Child,
    _stdout: BufReader<ChildStdout>,
    url: String,
    http: Client,
}

impl DevHost {
    async fn start(unpacked: &Unpacked) -> Self {
        // Built by `cargo test --workspace` into the folder where the packaging is.
        let devhost = Path::new(env!("CARGO_BIN_EXE_packaging")).with_file_name("devhost");
        assert!(
            devhost.exists(),
            "devhost is not built: run `cargo build -p devhost`"
        );
        let mut child = Command::new(devhost)
            .arg("--app")
            .arg(unpacked.0.join("app"))
            .arg("--data")
            .arg(unpacked.0.join("data"))
            .arg("--topology")
            .arg(project().join("servicebus.json"))
            .args(["--port", "0", "--bus-port", "0", "--amqp-port", "0"])
            // Nothing of a settings file: what is there is the environment's, as in Azure.
            .env("EMAIL_FROM", "Orderup <orders@shop.example>")
            .env("ORDER_TOKEN_SECRET", "only-for-this-test-0123456789abcdef")
            .current_dir(&unpacked.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut output = String::new();
        let url = loop {
            let from = output.len();
            let read = tokio::time::timeout(PATIENCE, stdout.read_line(&mut output)).await;
            assert!(
                matches!(read, Ok(Ok(1..))),
                "it did not become ready:\n{output}"
            );
            if let Some((_, port)) = output[from..].split_once("ready on http://localhost:") {
                break format!("http://127.0.0.1:{}", port.trim());
            }
        };
        assert!(output.contains("settings from the environment"), "{output}");
        Self {
            _child: child,
            _stdout: stdout,
            url,
            http: Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).send().await;
        serde_json::from_slice(&response.unwrap().bytes().await.unwrap()).unwrap()
    }

    /// Asks again until the answer is as wanted.
    async fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "{path} stayed {answer:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What is in the app's folder.
fn names(unpacked: &Unpacked) -> BTreeSet<OsString> {
    let app = fs::read_dir(unpacked.0.join("app")).unwrap();
    app.map(|entry| entry.unwrap().file_name()).collect()
}

#[tokio::test]
#[ignore = "needs dist/orderup.zip, which `just package` makes, and devhost"]
async fn it_serves_an_order_from_an_empty_folder() {
    let unpacked = Unpacked::new();
    let packed = names(&unpacked);
    let handler = fs::metadata(unpacked.0.join("app/orderup")).unwrap();
    assert_eq!(handler.permissions().mode() & 0o777, 0o755);
    let host = DevHost::start(&unpacked).await;

    let order = json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
        "lineItems": [
            { "vendorId": "bakery", "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 2,
              "unitPrice": { "amount": 1250, "currency": "AUD" } },
            { "vendorId": "florist", "sku": "ROSE-1", "name": "One rose", "quantity": 1,
              "unitPrice": { "amount": 900, "currency": "AUD" } },
        ],
        "payment": { "source": "cnon:card-nonce-ok" },
        "partner": "brand-7",
    });
    let response = host
        .http
        .post(format!("{}/api/checkout", host.url))
        .header("Content-Type", "application/json")
        .body(order.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let accepted: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let order_id = accepted["orderId"].as_str().unwrap();

    // Paid at the stand-in till, told to the customer, and to each vendor with a signature that holds.
    let has = |count: usize| move |answer: &Value| answer.as_array().unwrap().len() == count;
    // The customer hears of it twice: that we have the order, and that it is confirmed.
    let emails = host.wait_for("/_dev/emails", has(2)).await;
    for email in emails.as_array().unwrap() {
        assert!(email["text"].as_str().unwrap().contains(order_id));
    }
    let webhooks = host.wait_for("/_dev/webhooks", has(2)).await;
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["verified"], true, "{webhook}");
        assert_eq!(webhook["body"]["data"]["orderId"], order_id);
    }
    let path = format!("/api/orders/{order_id}");
    host.wait_for(&path, |order| order["status"] == "confirmed")
        .await;
    assert_eq!(names(&unpacked), packed, "nothing was written beside it");
}
