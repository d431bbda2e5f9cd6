//! The real binary, started as the Functions host starts it, with receivers for everything outside.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::scripted_server::{Reply, ScriptedServer};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// The handler as a child process. It is killed when this is dropped.
pub struct Handler {
    pub address: SocketAddr,
    pub bus: ScriptedServer,
    pub provider: ScriptedServer,
    pub bakery: ScriptedServer,
    pub florist: ScriptedServer,
    /// Where the vendor `inside` would be reached, without being allowed to be there.
    pub inside: TcpListener,
    pub http: reqwest::Client,
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Handler {
    /// Starts it and waits until it answers the host's question whether it is ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further settings.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let bus = ScriptedServer::start([Reply::status(201)]).await;
        let provider = ScriptedServer::start([Reply::status(202)]).await;
        let bakery = ScriptedServer::start([Reply::status(200)]).await;
        let florist = ScriptedServer::start([Reply::status(204)]).await;
        let inside = TcpListener::bind(("localhost", 0)).unwrap();
        inside.set_nonblocking(true).unwrap();
        let vendors = json!([
            { "id": "bakery", "name": "The Bakery", "url": bakery.url() + "/hook", "secrets": [SECRET], "allowPrivate": true },
            { "id": "florist", "name": "The Florist", "url": florist.url() + "/hook", "secrets": [OTHER_SECRET, SECRET], "allowPrivate": true },
            { "id": "inside", "name": "Inside", "url": format!("https://localhost:{}/", inside.local_addr().unwrap().port()), "secrets": [SECRET] }
        ]);
        let folder = Folder::new();
        let vendors_file = folder.0.join("vendors.json");
        std::fs::write(&vendors_file, vendors.to_string()).unwrap();
        let port = free_port();
        let mut child = command(port)
            .env("SERVICEBUS_REST_ENDPOINT", bus.url())
            .env(
                "ACS_CONNECTION_STRING",
                format!(
                    "endpoint={}/;accesskey=c2VjcmV0LWtleS1vZi10aGUtdGVzdHM=",
                    provider.url()
                ),
            )
            .env("VENDORS_FILE", vendors_file)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let stdout = read(child.stdout.take().unwrap(), printed.clone());
        let stderr = read(child.stderr.take().unwrap(), printed.clone());
        let reader = tokio::spawn(async move {
            tokio::join!(stdout, stderr);
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // As the host does: any answer means ready, a refused connection means not yet.
        while let Err(error) = http.get(format!("http://{address}/")).send().await {
            assert!(error.is_connect(), "{error}");
            assert!(
                child.try_wait().unwrap().is_none(),
                "the handler ended at start"
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // The vendors file is read at start only.
        drop(folder);
        Self {
            address,
            bus,
            provider,
            bakery,
            florist,
            inside,
            http,
            child,
            printed,
            reader,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts a JSON body to an HTTP function.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.http.post(self.url(path)).json_body(body);
        request.send().await.unwrap()
    }

    /// Delivers a message as the host does for `"dataType": "binary"`.
    pub async fn trigger(&self, function: &str, body: &[u8]) -> Response {
        let metadata = json!({ "MessageId": "\"m-1\"", "DeliveryCount": "1", "sys": { "MethodName": function } });
        self.trigger_with(function, body, &metadata).await
    }

    /// The same for a message with these application properties.
    pub async fn trigger_copy(
        &self,
        function: &str,
        event: &Value,
        properties: &Value,
    ) -> Response {
        let metadata = json!({ "MessageId": "\"m-1\"", "DeliveryCount": "1", "ApplicationProperties": properties });
        self.trigger_with(function, event.to_string().as_bytes(), &metadata)
            .await
    }

    /// The same with that metadata.
    pub async fn trigger_with(&self, function: &str, body: &[u8], metadata: &Value) -> Response {
        let envelope =
            json!({ "Data": { "message": STANDARD.encode(body) }, "Metadata": metadata });
        self.http
            .post(self.url(&format!("/{function}")))
            .header(
                "X-Azure-Functions-InvocationId",
                "3f1c0f0e-0000-4000-8000-000000000001",
            )
            .json_body(&envelope)
            .send()
            .await
            .unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the handler is running");
        let status = std::process::Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// `kill -9`, and its end.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it has ended by itself; answers how, and all that it printed.
    pub async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().await.unwrap();
        (&mut self.reader).await.unwrap();
        let lines = std::mem::take(&mut *self.printed.lock().unwrap());
        (status, lines)
    }

    /// Ends it in the ordinary way and answers all that it printed.
    pub async fn stop(self) -> Vec<String> {
        self.signal("-TERM");
        let (status, lines) = self.ended().await;
        assert!(status.success(), "{status}");
        lines
    }
}

/// Keeps all lines until the end.
async fn read(stream: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        kept.lock().unwrap().push(line);
    }
}

/// The handler's command with settings that suffice, and with nothing of the tests' own environment.
pub fn command(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderup"));
    command
        .env_clear()
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("ServiceBusConnection", "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;")
        .env("EMAIL_PROVIDER", "acs")
        .env("EMAIL_FROM", "orders@shop.example")
        .env("ACS_CONNECTION_STRING", "endpoint=https://shop.communication.azure.com/;accesskey=c2VjcmV0LWtleS1vZi10aGUtdGVzdHM=")
        .env("VENDORS_FILE", concat!(env!("CARGO_MANIFEST_DIR"), "/vendors.json"))
        .kill_on_drop(true);
    command
}

/// A port that was free a moment ago; the host finds its own in the same way.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A folder of this test's own, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("orderup-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// reqwest's own `json` is a feature that the product does not use.
pub trait JsonBody {
    fn json_body(self, body: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }
}

pub async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// A valid checkout of two vendors.
pub fn order() -> Value {
    json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
        "lineItems": [
            { "vendorId": "bakery", "sku": "PANCAKE-12", "name": "Pancake stack", "quantity": 2,
              "unitPrice": { "amount": 1250, "currency": "AUD" } },
            { "vendorId": "florist", "sku": "TULIP-7", "name": "Seven tulips", "quantity": 1,
              "unitPrice": { "amount": 900, "currency": "AUD" } }
        ],
        "payment": { "source": "cnon:card-nonce-ok" },
        "partner": "brand-7"
    })
}

/// The message that the order leads to.
pub fn order_placed() -> Value {
    let mut data = order();
    data["orderId"] = json!("01935a1e-9c00-7000-8000-000000000001");
    data["placedAt"] = json!("2026-11-22T19:40:00Z");
    data["total"] = json!({ "amount": 3400, "currency": "AUD" });
    json!({
        "specversion": "1.0", "id": "01935a1e-9c00-7000-8000-000000000001:placed", "source": "/orderup",
        "type": "order.placed", "subject": "01935a1e-9c00-7000-8000-000000000001",
        "time": "2026-11-22T19:40:00Z", "datacontenttype": "application/json", "data": data
    })
}
