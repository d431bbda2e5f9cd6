//! Nothing personal and no secret comes to light: the real binary is taken through all that makes it log or answer an error,
//! with a canary in each personal field and in each secret, and no surface may show one.
//!
//! The surfaces are stdout and stderr of each process (the handler's and the operator's), the answers to HTTP requests and to
//! the host, the properties of each message that is sent, the names of the order book's objects, and their contents except
//! where docs/TILL.md says what they hold. The canaries are allowed where they belong: in the body of a message, an email, a
//! webhook and a call to the till.
//!
//! Every canary has the word `canary` in it, so that [`Surfaces::assert_clean`] finds each of them, in any case and in base64,
//! whatever it is in.

use std::{collections::BTreeMap, path::Path, process::Output, sync::Mutex, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::Command,
};

use crate::{
    handler::{Folder, Handler, command, free_port},
    scripted_server::{Reply, ScriptedServer},
    service_bus::ServiceBus,
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";
const NAME: &str = "Zoë Canary-Smith";
const EMAIL: &str = "zoe@canary-mail.example";
const CARD: &str = "4111111111111111";
const REASON: &str = "the canary is ill";
const ORDER_TOKENS: &str = "canary-order-token-secret-0123456789";

/// What was seen, by the kind of surface.
#[derive(Default)]
struct Surfaces(Mutex<BTreeMap<&'static str, Vec<String>>>);

impl Surfaces {
    fn add(&self, surface: &'static str, text: impl Into<String>) {
        let mut seen = self.0.lock().unwrap();
        seen.entry(surface).or_default().push(text.into());
    }

    async fn answer(&self, surface: &'static str, response: Response) {
        let head = format!("{} {:?}", response.status(), response.headers());
        self.add(
            surface,
            format!("{head} {}", response.text().await.unwrap()),
        );
    }

    fn output(&self, surface: &'static str, output: &Output) {
        let text = [&output.stdout[..], b"\n", &output.stderr[..]].concat();
        self.add(surface, String::from_utf8(text).unwrap());
    }

    /// The properties of all that was sent, and the end of the process.
    async fn stop(&self, handler: Handler) {
        for sent in handler.bus.rest() {
            let mut headers = sent.headers;
            // Who sends, which only the service sees.
            headers.remove("authorization");
            self.add(
                "message properties",
                format!("{} {headers:?}", sent.path_and_query),
            );
        }
        self.add("log", handler.stop().await.join("\n"));
    }

    /// What lies below that folder of an order book, by path.
    fn book(&self, root: &Path, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.book(root, &path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().display().to_string();
            self.add("order book: names", &name);
            let text = std::fs::read_to_string(&path).unwrap();
            // The outbox has whole events, the payment token among them; both go when the bus has them.
            if name.starts_with("outbox/") || name.starts_with("unsendable/") {
                continue;
            }
            let mut object: Value = serde_json::from_str(&text).unwrap_or(json!(text));
            if name.ends_with("/placed.json") {
                object["data"]["customer"] = json!("has its name and address there");
                self.add("order book: placed", object.to_string());
            } else if name.ends_with("/cancelled.json") || name.ends_with("/decision.json") {
                let text = object.to_string();
                let text = [REASON, NAME, EMAIL]
                    .iter()
                    .fold(text, |text, known| text.replace(known, ""));
                self.add("order book: cancelled", text);
            } else {
                self.add("order book: the rest", object.to_string());
            }
        }
    }

    /// # Panics
    /// If a canary is on a surface, or a surface was not seen.
    fn assert_clean(&self, surfaces: &[&str]) {
        let seen = self.0.lock().unwrap();
        for (surface, texts) in &*seen {
            for line in texts.iter().flat_map(|text| text.lines()) {
                assert_eq!(canary_in(line), None, "{surface}: {line}");
            }
        }
        for surface in surfaces {
            assert!(seen.contains_key(surface), "{surface} was not looked at");
        }
    }
}

/// The first canary in the text: the word, a card's number, or the word in base64 at any of the three places in which its bytes
/// can begin.
fn canary_in(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    for word in ["canary", &CARD[..12], "zoë", "zo\\u00eb"] {
        if lower.contains(word) {
            return Some("in clear");
        }
    }
    for word in ["canary", "Canary", "CANARY"] {
        for before in 0..3 {
            let encoded = STANDARD.encode(format!("{}{word}", "x".repeat(before)));
            // Without what depends on the neighbours.
            let inner = &encoded[[0, 2, 3][before]..encoded.len() - 4];
            if text.contains(inner) {
                return Some("in base64");
            }
        }
    }
    None
}

#[test]
fn a_canary_is_found_in_clear_and_in_base64_and_nowhere_else() {
    for before in ["", "a", "ab", "abc"] {
        let secret = format!("{before}canary-secret");
        assert!(canary_in(&format!("x {secret} y")).is_some());
        assert!(canary_in(&STANDARD.encode(&secret)).is_some(), "{secret}");
        assert!(canary_in(&STANDARD.encode(secret.to_uppercase())).is_some());
    }
    assert_eq!(
        canary_in("an ordinary line of 64 bytes: MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        None
    );
}

fn webhook_secret() -> String {
    format!("whsec_{}", STANDARD.encode("canary-webhook-secret-0123456"))
}

fn order() -> Value {
    json!({
        "customer": { "name": NAME, "email": EMAIL, "locale": "en-AU", "phone": "canary-phone", "canary-key": 1 },
        "lineItems": [
            { "vendorId": "bakery", "sku": "P-12", "name": "Pancake stack", "quantity": 2,
              "unitPrice": { "amount": 1250, "currency": "AUD" }, "note": "canary-note" },
            { "vendorId": "florist", "sku": "T-7", "name": "Seven tulips", "quantity": 1,
              "unitPrice": { "amount": 900, "currency": "AUD" } }
        ],
        "payment": { "source": "cnon:canary-card", "holder": "canary-holder" },
        "partner": "brand-7",
        "comment": "canary-comment", "canary-field": { "canary": "canary" }
    })
}

/// The event of the order, as the bus has it.
fn event(kind: &str) -> Value {
    let mut data = order();
    data["orderId"] = json!(ORDER);
    data["placedAt"] = json!("2026-11-22T19:40:00Z");
    data["total"] = json!({ "amount": 3400, "currency": "AUD" });
    if kind == "order.cancelled" {
        data["cancellation"] = json!({ "reason": REASON });
    }
    let verb = kind.trim_start_matches("order.");
    json!({
        "specversion": "1.0", "id": format!("{ORDER}:{verb}"), "source": "/orderup", "type": kind,
        "subject": ORDER, "time": time(), "datacontenttype": "application/json", "data": data
    })
}

/// A moment ago, so that no deadline has passed.
fn time() -> String {
    let now = time::OffsetDateTime::now_utc();
    now.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

/// The handler with a canary in each secret, and with more settings.
struct Shop {
    handler: Handler,
    vendor: ScriptedServer,
    _folder: Folder,
}

impl Shop {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let vendor = ScriptedServer::start([Reply::status(200)]).await;
        let folder = Folder::new();
        let file = folder.0.join("vendors.json");
        let gone = format!(
            "http://127.0.0.1:{}/hook?token=canary-url-token",
            free_port()
        );
        let url = vendor.url() + "/hook?token=canary-url-token";
        let vendors = json!([
            { "id": "bakery", "name": "The Bakery", "url": url, "secrets": ["env:BAKERY_SECRET"], "allowPrivate": true },
            { "id": "florist", "name": "The Florist", "url": gone, "secrets": [webhook_secret()], "allowPrivate": true }
        ]);
        std::fs::write(&file, vendors.to_string()).unwrap();
        let secret = webhook_secret();
        let mut all = vec![
            ("VENDORS_FILE", file.to_str().unwrap()),
            ("BAKERY_SECRET", &secret),
            (
                "ServiceBusConnection",
                "Endpoint=sb://localhost;SharedAccessKeyName=Root;SharedAccessKey=bus-key-canary;UseDevelopmentEmulator=true;",
            ),
            ("ORDER_TOKEN_SECRET", ORDER_TOKENS),
            (
                "HTTPS_PROXY",
                "http://canary-user:canary-password@127.0.0.1:1",
            ),
        ];
        all.extend_from_slice(settings);
        let handler = Handler::start_with(&all).await;
        Self {
            handler,
            vendor,
            _folder: folder,
        }
    }

    async fn trigger(&self, surfaces: &Surfaces, function: &str, body: &[u8]) {
        let response = self.handler.trigger(function, body).await;
        surfaces.answer("answers to the host", response).await;
    }

    async fn request(&self, surfaces: &Surfaces, path: &str, body: impl Into<reqwest::Body>) {
        let url = self.handler.url(path) + "?q=canary-query";
        let request = self
            .handler
            .http
            .post(url)
            .header("Content-Type", "application/json")
            .header("Cookie", "session=canary-cookie")
            .header("x-functions-key", "canary-function-key")
            .header("traceparent", "canary-trace")
            .body(body);
        surfaces
            .answer("answers", request.send().await.unwrap())
            .await;
    }
}

/// Each field of the order with something in it that cannot be, and the canary within.
fn bad_orders() -> Vec<Vec<u8>> {
    let mut orders = Vec::new();
    for pointer in [
        "",
        "/customer",
        "/customer/name",
        "/customer/email",
        "/customer/locale",
        "/lineItems",
        "/lineItems/0",
        "/lineItems/0/vendorId",
        "/lineItems/0/sku",
        "/lineItems/0/name",
        "/lineItems/0/quantity",
        "/lineItems/0/unitPrice",
        "/lineItems/0/unitPrice/amount",
        "/lineItems/0/unitPrice/currency",
        "/payment",
        "/payment/source",
        "/partner",
    ] {
        for value in [
            json!("canary\n"),
            json!(format!("canary {}", "x".repeat(1000))),
            json!({ "canary": "canary" }),
            json!(["canary"]),
            json!(CARD),
            json!(format!("card {CARD} of {NAME}")),
            json!(-1.5),
        ] {
            let mut order = order();
            *order.pointer_mut(pointer).unwrap() = value;
            orders.push(order.to_string().into_bytes());
        }
    }
    let text = order().to_string();
    orders.push(text.as_bytes()[..text.len() - 20].to_vec());
    orders.push(
        text.replacen('{', r#"{"canary-twice":1,"canary-twice":2,"#, 1)
            .into_bytes(),
    );
    orders.push([text.as_bytes(), b"canary"].concat());
    orders.push([b"\xff\xfe", text.as_bytes()].concat());
    orders.push(format!("canary={EMAIL}").into_bytes());
    orders
}

async fn http_requests(surfaces: &Surfaces) {
    let folder = Folder::new();
    let shop = Shop::start(&[("ORDER_BOOK", folder.0.to_str().unwrap())]).await;
    for body in bad_orders() {
        shop.request(surfaces, "/api/checkout", body.clone()).await;
        shop.trigger(surfaces, "notify", &body).await;
    }
    shop.request(surfaces, "/api/checkout", "canary".repeat(100_000))
        .await;
    shop.request(surfaces, "/api/checkout", order().to_string())
        .await;
    for (header, value) in [
        ("Idempotency-Key", "\"canary"),
        ("Idempotency-Key", "canary"),
        ("Content-Type", "canary/canary"),
        ("Content-Encoding", "canary"),
    ] {
        let request = shop.handler.http.post(shop.handler.url("/api/checkout"));
        let request = match header {
            "Content-Type" => request,
            _ => request.header("Content-Type", "application/json"),
        };
        let request = request.header(header, value).body(order().to_string());
        surfaces
            .answer("answers", request.send().await.unwrap())
            .await;
    }
    for path in [
        "/canary",
        "/api/orders/canary",
        "/api/orders/canary/cancel",
        "/api/checkout/canary",
        &format!("/api/orders/{ORDER}/status"),
        &format!("/api/orders/{ORDER}"),
    ] {
        shop.request(surfaces, path, "canary").await;
        let url = shop.handler.url(path) + "?token=canary-order-token";
        surfaces
            .answer("answers", shop.handler.http.get(url).send().await.unwrap())
            .await;
    }
    // The bus refuses it, repeats what it was sent, or something in between does.
    for reply in [
        Reply::Echo(400),
        Reply::Echo(401),
        Reply::Echo(401),
        Reply::Echo(403),
        Reply::Mirror(400),
        Reply::Mirror(413),
        Reply::Mirror(502),
        Reply::Mirror(401),
        Reply::Mirror(401),
    ] {
        shop.handler.bus.reply_once(reply);
        shop.request(surfaces, "/api/checkout", order().to_string())
            .await;
    }
    surfaces.book(&folder.0, &folder.0);
    surfaces.stop(shop.handler).await;
}

async fn cancellations(surfaces: &Surfaces) {
    let folder = Folder::new();
    for settings in [vec![], vec![("ORDER_BOOK", folder.0.to_str().unwrap())]] {
        let shop = Shop::start(&settings).await;
        shop.trigger(
            surfaces,
            "book",
            event("order.placed").to_string().as_bytes(),
        )
        .await;
        let path = format!("/api/orders/{ORDER}/cancel");
        let mut snapshot = order();
        snapshot["orderId"] = json!(ORDER);
        snapshot["total"] = json!({ "amount": 3400, "currency": "AUD" });
        for body in [
            json!({ "reason": format!("{REASON} {}", "x".repeat(10_000)) }),
            json!({ "reason": { "canary": 1 }, "canary": 2 }),
            json!({ "reason": REASON, "order": { "customer": "canary" } }),
            json!({ "reason": REASON, "order": snapshot }),
            json!({ "reason": REASON }),
            json!({ "reason": REASON }),
        ] {
            shop.request(surfaces, &path, body.to_string()).await;
        }
        for function in ["notify", "vendor-notify", "till", "book"] {
            shop.trigger(
                surfaces,
                function,
                event("order.cancelled").to_string().as_bytes(),
            )
            .await;
        }
        let url = shop.handler.url(&format!("/api/orders/{ORDER}"));
        let status = shop.handler.http.get(url).send().await.unwrap();
        // The reason is free text, which the status repeats and the vendors are told: its writer must leave the customer out.
        let status = status.text().await.unwrap().replace(REASON, "");
        surfaces.add("answers", status);
        surfaces.stop(shop.handler).await;
    }
    surfaces.book(&folder.0, &folder.0);
}

/// What stands for one provider's errors: the settings with its URL in them, and what it answers.
async fn email_errors(surfaces: &Surfaces, provider: &'static str, status: u16) {
    let server = ScriptedServer::start([Reply::Mirror(status)]).await;
    let acs = format!(
        "endpoint={}/;accesskey={}",
        server.url(),
        STANDARD.encode("canary-acs-access-key")
    );
    let url = server.url();
    let settings: Vec<(&str, &str)> = match provider {
        "acs" => vec![("ACS_CONNECTION_STRING", &acs)],
        "sendgrid" => vec![
            ("EMAIL_PROVIDER", "sendgrid"),
            ("SENDGRID_API_KEY", "SG.canary-sendgrid"),
            ("SENDGRID_BASE_URL", &url),
        ],
        _ => vec![
            ("EMAIL_PROVIDER", "resend"),
            ("RESEND_API_KEY", "re_canary_resend"),
            ("RESEND_BASE_URL", &url),
        ],
    };
    let shop = Shop::start(&settings).await;
    for kind in ["order.placed", "order.cancelled"] {
        shop.trigger(surfaces, "notify", event(kind).to_string().as_bytes())
            .await;
    }
    assert!(!server.rest().is_empty(), "{provider} was asked");
    surfaces.stop(shop.handler).await;
}

/// A mail server that refuses with what it was told.
async fn smtp_errors(surfaces: &Surfaces, at: &'static str, code: &'static str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            writer.write_all(b"220 ready\r\n").await.unwrap();
            let mut in_message = false;
            while let Ok(Some(line)) = lines.next_line().await {
                let command = if in_message && line != "." {
                    continue;
                } else {
                    line.as_str()
                };
                in_message = false;
                let answer = if command.starts_with(at) {
                    format!("{code} {EMAIL} {NAME} {line} canary-password\r\n")
                } else if command.starts_with("EHLO") {
                    "250-here\r\n250-AUTH PLAIN LOGIN\r\n250 SMTPUTF8\r\n".to_owned()
                } else if command.starts_with("AUTH") {
                    "235 ok\r\n".to_owned()
                } else if command == "DATA" {
                    in_message = true;
                    "354 go on\r\n".to_owned()
                } else {
                    "250 ok\r\n".to_owned()
                };
                if writer.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    let url = format!("smtp://canary-user:canary-password@127.0.0.1:{port}");
    let shop = Shop::start(&[("EMAIL_PROVIDER", "smtp"), ("SMTP_URL", &url)]).await;
    shop.trigger(
        surfaces,
        "notify",
        event("order.placed").to_string().as_bytes(),
    )
    .await;
    surfaces.stop(shop.handler).await;
    server.abort();
}

async fn vendor_errors(surfaces: &Surfaces, status: u16) {
    let shop = Shop::start(&[]).await;
    for _ in 0..3 {
        shop.vendor.reply_once(Reply::Mirror(status));
    }
    shop.trigger(
        surfaces,
        "vendor-notify",
        event("order.placed").to_string().as_bytes(),
    )
    .await;
    shop.trigger(
        surfaces,
        "vendor-notify",
        event("order.cancelled").to_string().as_bytes(),
    )
    .await;
    assert!(!shop.vendor.rest().is_empty());
    surfaces.stop(shop.handler).await;
}

async fn till_errors(surfaces: &Surfaces, till: &'static str, status: u16) {
    let server = ScriptedServer::start([Reply::Mirror(status)]).await;
    let folder = Folder::new();
    let url = server.url();
    let mut settings = vec![("ORDER_BOOK", folder.0.to_str().unwrap()), ("TILL", till)];
    settings.extend(match till {
        "pos" => vec![
            ("TILL_URL", url.as_str()),
            ("TILL_TOKEN", "canary-till-token"),
        ],
        _ => vec![
            ("SQUARE_BASE_URL", url.as_str()),
            ("SQUARE_ACCESS_TOKEN", "canary-square-token"),
            ("SQUARE_LOCATION_ID", "L1"),
        ],
    });
    let shop = Shop::start(&settings).await;
    for function in ["book", "till", "till"] {
        shop.trigger(
            surfaces,
            function,
            event("order.placed").to_string().as_bytes(),
        )
        .await;
    }
    assert!(!server.rest().is_empty());
    let url = shop.handler.url(&format!("/api/orders/{ORDER}"));
    surfaces
        .answer("answers", shop.handler.http.get(url).send().await.unwrap())
        .await;
    surfaces.stop(shop.handler).await;
    surfaces.book(&folder.0, &folder.0);
}

/// Messages that anyone with the right to send could write.
async fn messages(surfaces: &Surfaces) {
    let shop = Shop::start(&[]).await;
    for function in ["notify", "vendor-notify", "till", "book"] {
        for pointer in [
            "",
            "/type",
            "/id",
            "/subject",
            "/time",
            "/source",
            "/data",
            "/data/orderId",
            "/data/customer",
        ] {
            for value in [
                json!("canary"),
                json!({ "canary": "canary" }),
                json!(["canary"]),
            ] {
                let mut event = event("order.placed");
                *event.pointer_mut(pointer).unwrap() = value;
                shop.trigger(surfaces, function, event.to_string().as_bytes())
                    .await;
            }
        }
        shop.trigger(surfaces, function, b"canary").await;
        for envelope in [
            json!("canary"),
            json!({ "Data": "canary" }),
            json!({ "Data": { "message": "canary!" } }),
        ] {
            let url = shop.handler.url(&format!("/{function}"));
            let request = shop.handler.http.post(url).body(envelope.to_string());
            surfaces
                .answer("answers to the host", request.send().await.unwrap())
                .await;
        }
    }
    // The bus repeats the copy that it does not take.
    shop.handler.provider.reply_once(Reply::Mirror(503));
    shop.handler.provider.reply_once(Reply::Mirror(503));
    shop.handler.provider.reply_once(Reply::Mirror(503));
    for reply in [Reply::Mirror(503), Reply::Echo(500)] {
        shop.handler.bus.reply_once(reply);
    }
    shop.trigger(
        surfaces,
        "notify",
        event("order.placed").to_string().as_bytes(),
    )
    .await;
    surfaces.stop(shop.handler).await;
}

/// The order book in a container, whose URL has a signature in it.
async fn container_errors(surfaces: &Surfaces, credential: &'static str, status: Option<u16>) {
    let account = ScriptedServer::start([Reply::Mirror(status.unwrap_or(200))]).await;
    let base = match status {
        Some(_) => account.url(),
        None => format!("http://127.0.0.1:{}", free_port()),
    };
    let connection = match credential {
        "signature" => format!(
            "BlobEndpoint={base}/shop;SharedAccessSignature=sv=2025-01-05&se=2099-01-01&sig=canary-signature"
        ),
        _ => format!(
            "DefaultEndpointsProtocol=http;AccountName=shop;AccountKey={};BlobEndpoint={base}/shop;",
            STANDARD.encode("canary-account-key")
        ),
    };
    let shop = Shop::start(&[("AzureWebJobsStorage", &connection)]).await;
    shop.handler.bus.reply_once(Reply::Mirror(403));
    shop.request(surfaces, "/api/checkout", order().to_string())
        .await;
    shop.trigger(
        surfaces,
        "book",
        event("order.placed").to_string().as_bytes(),
    )
    .await;
    shop.trigger(
        surfaces,
        "notify",
        event("order.placed").to_string().as_bytes(),
    )
    .await;
    shop.trigger(surfaces, "outbox", b"").await;
    let url = shop.handler.url(&format!("/api/orders/{ORDER}"));
    surfaces
        .answer("answers", shop.handler.http.get(url).send().await.unwrap())
        .await;
    surfaces.stop(shop.handler).await;
    let output = orderup("audit --json")
        .env("AzureWebJobsStorage", &connection)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    surfaces.output("output of commands", &output);
}

async fn identity_errors(surfaces: &Surfaces, status: u16) {
    let endpoint = ScriptedServer::start([Reply::Mirror(status)]).await;
    let url = endpoint.url();
    let shop = Shop::start(&[
        ("IDENTITY_ENDPOINT", &url),
        ("IDENTITY_HEADER", "canary-identity-header"),
        ("ServiceBusConnection", ""),
        (
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        ),
    ])
    .await;
    shop.request(surfaces, "/api/checkout", order().to_string())
        .await;
    assert!(!endpoint.rest().is_empty());
    surfaces.stop(shop.handler).await;
}

/// A token is a secret too.
async fn rejected_tokens(surfaces: &Surfaces) {
    let answer = json!({
        "access_token": "canary.jwt.token", "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"
    });
    let endpoint = ScriptedServer::start([Reply::text(200, &answer.to_string())]).await;
    let url = endpoint.url();
    let shop = Shop::start(&[
        ("IDENTITY_ENDPOINT", &url),
        ("IDENTITY_HEADER", "canary-identity-header"),
        ("ServiceBusConnection", ""),
        (
            "ServiceBusConnection__fullyQualifiedNamespace",
            "contoso.servicebus.windows.net",
        ),
    ])
    .await;
    for _ in 0..2 {
        shop.handler.bus.reply_once(Reply::Echo(401));
    }
    shop.request(surfaces, "/api/checkout", order().to_string())
        .await;
    surfaces.stop(shop.handler).await;
}

fn orderup(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderup"));
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .kill_on_drop(true);
    command
}

/// `show --body` prints what its name says, and is left out.
const COMMANDS: [&str; 6] = [
    "dead-letters list",
    "dead-letters show 1",
    "dead-letters show 2",
    "dead-letters replay --dry-run",
    "dead-letters replay --rate 1000/s",
    "dead-letters list --audience customers",
];

async fn operator_commands(surfaces: &Surfaces) {
    let bus = ServiceBus::start().await;
    let body = event("order.placed").to_string();
    bus.dead_letter(
        "customers",
        &format!("{ORDER}:placed"),
        &[],
        body.as_bytes(),
    )
    .await;
    bus.dead_letter(
        "vendors",
        &format!("{ORDER}:placed:vendors:1"),
        &[],
        b"canary",
    )
    .await;
    let scripted = ScriptedServer::start([Reply::Mirror(400)]).await;
    for (url, connection) in [
        (
            bus.url(""),
            "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;",
        ),
        (
            scripted.url(),
            "Endpoint=sb://localhost;SharedAccessKeyName=Root;SharedAccessKey=canary-bus-key;UseDevelopmentEmulator=true;",
        ),
    ] {
        for (index, arguments) in COMMANDS.iter().enumerate() {
            scripted.reply_once(
                [Reply::Echo(403), Reply::Mirror(403), Reply::Mirror(500)][index % 3].clone(),
            );
            let output = orderup(arguments)
                .env("ServiceBusConnection", connection)
                .env("SERVICEBUS_REST_ENDPOINT", &url)
                .output()
                .await
                .unwrap();
            surfaces.output("output of commands", &output);
        }
    }
}

/// Each setting with a secret in it, or one that was put into the wrong setting.
async fn wrong_settings(surfaces: &Surfaces) {
    let many: Vec<(&str, String)> = [
        "FUNCTIONS_CUSTOMHANDLER_PORT",
        "ServiceBusConnection",
        "SERVICEBUS_REST_ENDPOINT",
        "ORDERS_TOPIC",
        "EMAIL_PROVIDER",
        "EMAIL_FROM",
        "EMAIL_REPLY_TO",
        "ACS_CONNECTION_STRING",
        "VENDORS_FILE",
        "PARKED_VENDORS",
        "TILL",
        "VENDOR_NOTIFY_ON",
        "RETRY_SCHEDULE",
        "RETRY_DEADLINE",
        "EMAIL_RATE_LIMIT",
        "AzureWebJobsStorage",
    ]
    .iter()
    .flat_map(|variable| {
        [
            format!("Canary={};x=?\u{1f426}", webhook_secret()),
            "smtp://canary:canary@canary.example:x".to_owned(),
            format!(r#"[{{"id":"{0}","secrets":["{0}"]}}]"#, webhook_secret()),
        ]
        .map(|value| (*variable, value))
    })
    .collect();
    let in_context = [
        ("ORDER_TOKEN_SECRET", "canary", "TILL", "none"),
        ("ORDER_BOOK", "canary--", "TILL", "none"),
        (
            "HTTPS_PROXY",
            "ftp://canary:canary@canary.example",
            "TILL",
            "none",
        ),
        ("HTTPS_PROXY", "http://canary:canary@:x", "TILL", "none"),
        (
            "SMTP_URL",
            "smtp://canary:canary@mail.example",
            "EMAIL_PROVIDER",
            "smtp",
        ),
        ("SMTP_URL", "canary", "EMAIL_PROVIDER", "smtp"),
        (
            "SENDGRID_API_KEY",
            "canary\u{7f}",
            "EMAIL_PROVIDER",
            "sendgrid",
        ),
        ("RESEND_API_KEY", "canary\u{7f}", "EMAIL_PROVIDER", "resend"),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://canary/;accesskey=canary!",
            "TILL",
            "none",
        ),
        (
            "AzureWebJobsStorage",
            "AccountName=shop;AccountKey=canary!",
            "TILL",
            "none",
        ),
        (
            "AzureWebJobsStorage",
            "BlobEndpoint=https://canary:canary@x/;SharedAccessSignature=sig=canary",
            "TILL",
            "none",
        ),
        (
            "ServiceBusConnection__fullyQualifiedNamespace",
            "sb://canary/",
            "ServiceBusConnection",
            "",
        ),
        (
            "ServiceBusConnection",
            "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=canary;EntityPath=canary?",
            "TILL",
            "none",
        ),
    ];
    let mut commands: Vec<Command> = many
        .iter()
        .map(|(variable, value)| {
            let mut command = command(free_port());
            command.env(variable, value);
            command
        })
        .collect();
    commands.extend(in_context.iter().map(|(variable, value, other, setting)| {
        let mut command = command(free_port());
        command.env(other, setting).env(variable, value);
        command
    }));
    for command in &mut commands {
        let ended = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("it serves with {command:?}"));
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        surfaces.output("output at start", &output);
    }
    for arguments in [
        "canary",
        "dead-letters list --canary",
        "dead-letters list --older-than canary",
        "audit --since canary",
    ] {
        // Its own arguments are no secret to whoever typed them; a setting is.
        let output = orderup(arguments)
            .env("ServiceBusConnection", "canary")
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
    for arguments in ["dead-letters list", "audit"] {
        let output = orderup(arguments)
            .env("ServiceBusConnection", "canary")
            .env("AzureWebJobsStorage", "canary")
            .output()
            .await
            .unwrap();
        surfaces.output("output of commands", &output);
    }
}

#[tokio::test]
async fn no_canary_is_seen_in_what_the_storefront_and_the_bus_send_us() {
    let surfaces = Surfaces::default();
    tokio::join!(
        http_requests(&surfaces),
        cancellations(&surfaces),
        messages(&surfaces)
    );
    surfaces.assert_clean(&[
        "answers",
        "answers to the host",
        "message properties",
        "log",
        "order book: names",
        "order book: placed",
        "order book: cancelled",
    ]);
}

#[tokio::test]
async fn no_canary_is_seen_when_whoever_we_call_repeats_what_we_said() {
    let surfaces = Surfaces::default();
    let emails = ["acs", "sendgrid", "resend"]
        .into_iter()
        .flat_map(|provider| {
            [400, 401, 429, 500].map(|status| email_errors(&surfaces, provider, status))
        });
    join_all(emails).await;
    let mails = [
        ("AUTH", "535"),
        ("MAIL", "550"),
        ("RCPT", "550"),
        ("RCPT", "450"),
        (".", "554"),
    ];
    join_all(mails.map(|(at, code)| smtp_errors(&surfaces, at, code))).await;
    join_all([400, 401, 410, 429, 500].map(|status| vendor_errors(&surfaces, status))).await;
    let tills = ["pos", "square"].into_iter().flat_map(|till| {
        [200, 400, 401, 402, 422, 429, 500].map(|status| till_errors(&surfaces, till, status))
    });
    join_all(tills).await;
    surfaces.assert_clean(&[
        "answers",
        "answers to the host",
        "message properties",
        "log",
        "order book: names",
        "order book: placed",
    ]);
}

#[tokio::test]
async fn no_canary_is_seen_when_azure_repeats_what_we_said() {
    let surfaces = Surfaces::default();
    let containers = ["signature", "key"].into_iter().flat_map(|credential| {
        [None, Some(200), Some(400), Some(403), Some(500)]
            .map(|status| container_errors(&surfaces, credential, status))
    });
    join_all(containers).await;
    join_all([400, 403, 500].map(|status| identity_errors(&surfaces, status))).await;
    rejected_tokens(&surfaces).await;
    surfaces.assert_clean(&[
        "answers",
        "answers to the host",
        "log",
        "output of commands",
    ]);
}

#[tokio::test]
async fn no_canary_is_seen_by_an_operator_or_at_start() {
    let surfaces = Surfaces::default();
    tokio::join!(operator_commands(&surfaces), wrong_settings(&surfaces));
    surfaces.assert_clean(&["output of commands", "output at start"]);
}
