//! The local Service Bus by itself, as its user starts it, with the topology of the shop.

use std::process::Stdio;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use reqwest::{Client, Method, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::handler::Folder;

/// The emulator as a child process. It is killed when this is dropped.
pub struct ServiceBus {
    pub port: u16,
    http: Client,
    _child: Child,
}

/// A message, and where its lock is given back.
pub struct Received {
    pub broker_properties: Value,
    pub headers: HeaderMap,
    pub body: String,
    lock: String,
}

impl Received {
    pub fn property(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl ServiceBus {
    /// A message that is delivered once and given back is a dead letter here, and a lock takes 5 s.
    pub async fn start() -> Self {
        let topology = include_str!("../../servicebus.json")
            .replace("\"MaxDeliveryCount\": 10", "\"MaxDeliveryCount\": 1")
            .replace("\"LockDuration\": \"PT1M\"", "\"LockDuration\": \"PT5S\"");
        let folder = Folder::new();
        let config = folder.0.join("servicebus.json");
        std::fs::write(&config, topology).unwrap();
        // Built by `cargo test --workspace` into the folder where the handler is.
        let emulator = std::path::Path::new(env!("CARGO_BIN_EXE_orderup"))
            .with_file_name("servicebus-emulator");
        assert!(
            emulator.exists(),
            "servicebus-emulator is not built: run `cargo test --workspace`"
        );
        let mut child = Command::new(emulator)
            .arg("--config")
            .arg(config)
            .args(["--http-port", "0", "--amqp-port", "0"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next_line().await.unwrap().expect("it says its port");
        let (http, _) = ready.split_once(", AMQP at ").unwrap();
        let port = http.rsplit(':').next().unwrap().parse().unwrap();
        // It has more to say, and must not find the pipe closed.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            port,
            http: Client::builder().no_proxy().build().unwrap(),
            _child: child,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    async fn request(&self, method: Method, url: &str) -> Response {
        let request = self.http.request(method, url);
        let request = request.header("Authorization", sas(&self.url("")));
        request.send().await.unwrap()
    }

    /// Sends to the topic, with application properties as they are written in a header.
    pub async fn send(&self, message_id: &str, properties: &[(&str, &str)], body: &[u8]) {
        let url = self.url("orders/messages");
        let broker_properties = json!({
            "MessageId": message_id, "Label": "order.placed", "CorrelationId": message_id.split(':').next(),
        });
        let mut request = self
            .http
            .post(&url)
            .header("Authorization", sas(&self.url("")))
            .header("Content-Type", "application/cloudevents+json")
            .header("BrokerProperties", broker_properties.to_string());
        for (name, value) in properties {
            request = request.header(*name, *value);
        }
        let response = request.body(body.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
    }

    /// The next message, under a lock; waits for it so many seconds.
    pub async fn receive(&self, entity: &str, seconds: u64) -> Option<Received> {
        let url = self.url(&format!("{entity}/messages/head?timeout={seconds}"));
        let response = self.request(Method::POST, &url).await;
        if response.status() == StatusCode::NO_CONTENT {
            return None;
        }
        assert_eq!(response.status(), StatusCode::CREATED);
        let headers = response.headers().clone();
        let broker_properties =
            serde_json::from_slice(headers["brokerproperties"].as_bytes()).unwrap();
        Some(Received {
            broker_properties,
            lock: headers["location"].to_str().unwrap().to_owned(),
            headers,
            body: response.text().await.unwrap(),
        })
    }

    pub async fn unlock(&self, received: &Received) {
        let response = self.request(Method::PUT, &received.lock).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    pub async fn complete(&self, received: &Received) {
        let response = self.request(Method::DELETE, &received.lock).await;
        assert_eq!(response.status(), StatusCode::OK);
    }

    /// Makes a dead letter of a message for that audience.
    pub async fn dead_letter(
        &self,
        audience: &str,
        message_id: &str,
        properties: &[(&str, &str)],
        body: &[u8],
    ) {
        let quoted = format!("\"{audience}\"");
        let properties = [&[("audience", quoted.as_str())], properties].concat();
        self.send(message_id, &properties, body).await;
        let entity = match audience {
            "customers" => "notifications",
            _ => "orders/subscriptions/vendors",
        };
        let received = self.receive(entity, 60).await.expect("it was sent");
        self.unlock(&received).await;
    }
}

/// A shared access signature for the emulator's well-known key.
pub fn sas(url: &str) -> String {
    let resource: String = url.replace(':', "%3A").replace('/', "%2F");
    let expiry = time::OffsetDateTime::now_utc().unix_timestamp() + 600;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"SAS_KEY_VALUE").unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=RootManageSharedAccessKey"
    )
}
