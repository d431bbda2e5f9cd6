//! `orderup audit` with an order book in a folder.

use std::{
    fs::File,
    process::Output,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::process::Command;
use uuid::Uuid;

use crate::{
    handler::{Folder, order_placed},
    scripted_server::{Reply, ScriptedServer},
};

fn ago(minutes: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(60 * minutes)
}

fn text(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap()
}

/// An object that was written so many minutes ago.
fn put(folder: &Folder, path: &str, body: &Value, minutes: u64) {
    let path = folder.0.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, body.to_string()).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(ago(minutes)).unwrap();
}

/// An order that was placed so many minutes ago, and of which these were told.
fn place(folder: &Folder, minutes: u64, told: &[&str]) -> String {
    let order = Uuid::new_v4().to_string();
    let mut placed = order_placed();
    placed["data"].as_object_mut().unwrap().remove("payment");
    placed["data"]["orderId"] = json!(order);
    placed["time"] = json!(text(ago(minutes)));
    put(
        folder,
        &format!("orders/{order}/placed.json"),
        &placed,
        minutes,
    );
    for fact in told {
        let path = format!("orders/{order}/told/{fact}.json");
        let note = json!({ "at": text(ago(minutes)), "error": "EmailRefused" });
        put(folder, &path, &note, minutes);
    }
    order
}

const VENDORS: [&str; 2] = ["vendors/bakery/placed/sent", "vendors/florist/placed/sent"];

async fn audit(folder: &Folder, arguments: &str, settings: &[(&str, &str)]) -> Output {
    // As in every order book.
    std::fs::create_dir_all(folder.0.join(".unfinished")).unwrap();
    audit_as_it_is(folder, arguments, settings).await
}

async fn audit_as_it_is(folder: &Folder, arguments: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderup"));
    command
        .arg("audit")
        .args(arguments.split_whitespace())
        .env_clear()
        .env("ORDER_BOOK", format!("{}/", folder.0.display()))
        .envs(settings.iter().copied())
        .kill_on_drop(true);
    command.output().await.unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    for personal in ["Ada", "Lovelace", "example.net"] {
        assert!(!stdout.contains(personal), "{stdout}");
    }
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn what_nobody_knows_of_is_reported_and_dead_letters_are_listed() {
    let folder = Folder::new();
    place(
        &folder,
        30,
        &[&VENDORS[..], &["customers/placed/sent"]].concat(),
    );
    place(&folder, 1, &[]);
    place(&folder, 60 * 25, &[]);
    let dead = ["customers/placed/dead-0000000000"];
    let dead = place(&folder, 30, &[&VENDORS[..], &dead].concat());

    let output = audit(&folder, "", &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found = lines(&output);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["finding"], "dead");
    assert_eq!(found[0]["orderId"], json!(dead));
    assert_eq!(found[0]["audience"], "customers");
    assert_eq!(found[0]["label"], "order.placed");
    assert_eq!(found[0]["why"], "EmailRefused");
    let summary = stderr(&output);
    assert_eq!(summary.lines().count(), 1, "{summary}");
    assert!(
        summary.ends_with(": 1 told, 1 waiting, 1 dead, 0 missing; outbox 0\n"),
        "{summary}"
    );

    let lost = place(&folder, 30, &VENDORS);
    let output = audit(&folder, "--json", &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let missing = lines(&output)
        .into_iter()
        .find(|line| line["finding"] == "missing");
    assert_eq!(missing.unwrap()["orderId"], json!(lost));
    assert!(stderr(&output).contains("1 missing"));

    let output = audit(&folder, "--since 10m", &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).starts_with("1 orders since "));
    // Two days are enough for the oldest.
    let output = audit(&folder, "--since 2d", &[]).await;
    assert!(stderr(&output).contains("5 orders since "));
}

#[tokio::test]
async fn a_till_has_to_come_to_an_end() {
    let folder = Folder::new();
    place(&folder, 30, &["customers/placed/sent"]);
    let output = audit(&folder, "", &[("TILL", "square")]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found = lines(&output);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["audience"], "till");
}

#[tokio::test]
async fn what_can_not_be_read_is_no_clean_audit() {
    let folder = Folder::new();
    for settings in [
        [("VENDOR_NOTIFY_ON", "confirmed")],
        [("VENDOR_NOTIFY_ON", "hunter2")],
    ] {
        let output = audit(&folder, "", &settings).await;
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(told.contains("VENDOR_NOTIFY_ON"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let output = audit(&folder, "", &[("ORDER_BOOK", "none")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no order book is kept"));
    let output = audit(&folder, "--since yesterday", &[]).await;
    assert_eq!(output.status.code(), Some(2));
}

/// A name that was mistyped is no book in which nothing is wrong.
#[tokio::test]
async fn a_book_that_is_not_there_is_an_alarm() {
    let folder = Folder::new();
    std::fs::remove_dir_all(&folder.0).unwrap();
    let audited = audit_as_it_is(&folder, "", &[]).await;
    assert_eq!(audited.status.code(), Some(1), "{audited:?}");
    assert!(!folder.0.exists(), "nothing is made");

    let absent = Reply::with_header(404, "x-ms-error-code", "ContainerNotFound");
    let storage = ScriptedServer::start([absent]).await;
    let account = format!(
        "AccountName=contoso;AccountKey=aGlkZGVu;BlobEndpoint={}/contoso",
        storage.url()
    );
    let settings = [
        ("ORDER_BOOK", "mistyped"),
        ("AzureWebJobsStorage", &account),
    ];
    let audited = audit_as_it_is(&folder, "", &settings).await;
    assert_eq!(audited.status.code(), Some(1), "{audited:?}");
    let said = String::from_utf8(audited.stderr).unwrap();
    assert!(said.contains("no such container"), "{said}");
    assert!(storage.rest().iter().all(|asked| asked.method == "GET"));
}
