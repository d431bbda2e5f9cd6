//! The order book in Azurite, Microsoft's own stand-in for a storage account; `tests/interop` runs this.
//!
//! `ORDERUP_TEST_AZURITE` is the command that starts it, as a JSON array.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use orderup::book_store::{BookStore, Put, StoreError, with_page_size};
use orderup::config::Settings;
use orderup::http_client;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::{
    devhost::DevHost,
    handler::{json_of, order},
};

const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

struct Azurite {
    port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl Azurite {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = std::env::temp_dir().join(format!("orderup-azurite-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let mut azurite = Self {
            port,
            folder,
            process: None,
        };
        azurite.restart().await;
        azurite
    }

    async fn restart(&mut self) {
        let command =
            std::env::var("ORDERUP_TEST_AZURITE").expect("the command that starts Azurite");
        let command: Vec<String> = serde_json::from_str(&command).expect("a JSON array");
        let process = Command::new(&command[0])
            .args(&command[1..])
            .args(["--blobPort", &self.port.to_string()])
            .arg("--location")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.process = Some(process);
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Azurite does not listen");
    }

    async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    fn connection(&self, key: &str) -> String {
        let port = self.port;
        format!(
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};\
             BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    }

    fn store(&self, container: &str) -> BookStore {
        self.store_with(container, AZURITE_KEY)
    }

    fn store_with(&self, container: &str, key: &str) -> BookStore {
        let settings = Settings::from_pairs([
            ("AzureWebJobsStorage", self.connection(key).as_str()),
            ("ORDER_BOOK", container),
        ]);
        let http = http_client::outgoing(&settings).unwrap();
        BookStore::from_settings(&settings, &http).unwrap().unwrap()
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn a_container_keeps_what_is_written_once() {
    let azurite = Azurite::start().await;
    let store = azurite.store("order-book");
    let path = "orders/1/placed.json";
    // Nothing can be read before the first write creates the container.
    assert_eq!(store.get(path).await, Ok(None));
    assert_eq!(store.list("").await, Ok(vec![]));
    assert_eq!(store.delete(path).await, Ok(()));

    assert_eq!(
        store.put_once(path, "{\"first\":1}").await,
        Ok(Put::Created)
    );
    assert_eq!(store.put_once(path, "{}").await, Ok(Put::Existed));
    assert_eq!(store.get(path).await, Ok(Some("{\"first\":1}".into())));
    assert_eq!(store.put_once("orders/1/empty", "").await, Ok(Put::Created));
    assert_eq!(store.get("orders/1/empty").await, Ok(Some("".into())));
    for _ in 0..2 {
        assert_eq!(store.delete(path).await, Ok(()));
        assert_eq!(store.get(path).await, Ok(None));
    }
    assert_eq!(store.put_once(path, "{}").await, Ok(Put::Created));
}

#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn of_fifty_who_create_the_container_and_an_object_one_creates_the_object() {
    let azurite = Azurite::start().await;
    let store = azurite.store("contested");
    let creators = (0..50).map(|creator| {
        let store = &store;
        async move { store.put_once("a", format!("by {creator}")).await.unwrap() }
    });
    let results = join_all(creators).await;
    let created: Vec<_> = (0..50)
        .filter(|&creator| results[creator] == Put::Created)
        .collect();
    let [winner] = created[..] else {
        panic!("{created:?} created it");
    };
    let body = store.get("a").await.unwrap().unwrap();
    assert_eq!(body, format!("by {winner}"));
}

#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn a_list_has_all_pages_and_a_few_can_be_had_alone() {
    let azurite = Azurite::start().await;
    let store = with_page_size(azurite.store("paged"), 10);
    store.put_once("outboxes/1", "").await.unwrap();
    for entry in 0..35 {
        let path = format!("outbox/{:03}.json", 34 - entry);
        store.put_once(&path, "body").await.unwrap();
    }
    let expected: Vec<_> = (0..35)
        .map(|entry| format!("outbox/{entry:03}.json"))
        .collect();
    let listed = store.list("outbox").await.unwrap();
    let paths: Vec<_> = listed.iter().map(|object| &object.path).collect();
    assert_eq!(paths, expected.iter().collect::<Vec<_>>());
    assert_eq!(listed[0].size, 4);
    let age = time::OffsetDateTime::now_utc() - listed[0].last_modified;
    assert!(age.abs() < time::Duration::MINUTE, "{age}");
    for limit in [1, 10, 15] {
        let first = store.list_first("outbox", limit).await.unwrap();
        let paths: Vec<_> = first.iter().map(|object| &object.path).collect();
        assert_eq!(paths, expected.iter().take(limit).collect::<Vec<_>>());
    }
    assert_eq!(store.list("").await.unwrap().len(), 36);
}

#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn a_wrong_key_is_told() {
    let azurite = Azurite::start().await;
    let store = azurite.store_with("order-book", "d3Jvbmc=");
    let error = store.put_once("a", "").await.unwrap_err();
    assert!(matches!(error, StoreError::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("403 Auth"), "{error}");
}

#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn an_outage_is_noticed_left_alone_and_over() {
    let mut azurite = Azurite::start().await;
    let store = azurite.store("order-book");
    store.put_once("before", "body").await.unwrap();
    // It writes its index down now and then; what is killed before has lost it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    azurite.kill().await;
    for _ in 0..3 {
        let error = store.put_once("during", "body").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert_eq!(
        store.put_once("during", "body").await,
        Err(StoreError::Paused)
    );

    azurite.restart().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.put_once("after", "body").await, Ok(Put::Created));
    assert_eq!(store.get("before").await, Ok(Some("body".into())));
}

/// The main job with the book where a deployment has it: placed, paid, cancelled by id, taken while the bus is down, audited.
#[tokio::test]
#[ignore = "tests/interop runs it, with Azurite"]
async fn orders_are_paid_looked_up_and_cancelled_with_the_book_in_a_container() {
    let azurite = Azurite::start().await;
    // The test's own, to its end.
    let connection: &'static str = azurite.connection(AZURITE_KEY).leak();
    let settings = [
        ("AzureWebJobsStorage", connection),
        ("ORDER_BOOK", "end-to-end"),
    ];
    let host = DevHost::with_till(&settings).await;
    let place = async |source: &str| {
        let mut order = order();
        order["payment"]["source"] = json!(source);
        let response = host.post("/api/checkout", &order).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let answer = json_of(response).await;
        answer["orderId"].as_str().unwrap().to_owned()
    };
    let cancel = async |order_id: &str| {
        let reason = json!({ "reason": "Changed my mind" });
        let path = format!("/api/orders/{order_id}/cancel");
        host.post(&path, &reason).await.status()
    };

    let paid = place("cnon:card-nonce-ok").await;
    host.wait_for_status(&paid, "confirmed").await;
    assert_eq!(cancel(&paid).await, StatusCode::CONFLICT);
    let declined = place("cnon:card-nonce-declined").await;
    host.wait_for_status(&declined, "cancelled").await;
    assert_eq!(cancel(&declined).await, StatusCode::ACCEPTED);

    host.fault("bus", &json!({ "status": 503 })).await;
    let waits = place("cnon:card-nonce-ok").await;
    host.wait_for_status(&waits, "placed").await;
    assert_eq!(cancel(&waits).await, StatusCode::ACCEPTED);
    host.no_fault("bus").await;
    let run = host.http.post(host.url("/_dev/timers/outbox"));
    assert!(run.send().await.unwrap().status().is_success());
    host.wait_until_idle().await;
    assert_eq!(host.at_the_till(&waits).await.1.len(), 0);
    assert_eq!(host.at_the_till(&paid).await.1.len(), 1);

    let audit = Command::new(env!("CARGO_BIN_EXE_orderup"))
        .arg("audit")
        .env_clear()
        .envs(settings)
        .env("TILL", "square")
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&audit.stderr).into_owned();
    assert!(audit.status.success(), "{printed}");
    assert!(
        printed.contains("3 told, 0 waiting, 0 dead, 0 missing; outbox 0"),
        "{printed}"
    );
}
