//! The queries of `docs/QUERIES.md` ask for what the log says: each field that they read, and each phrase that they look for, is in
//! a line of a real run with an outage, a dead letter and an order that waited in the outbox.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    devhost::DevHost,
    end_to_end::{entity, place},
};

const PAGE: &str = include_str!("../../docs/QUERIES.md");

/// The text of all queries.
fn queries() -> String {
    let blocks = PAGE.split("```kusto\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

/// What stands in `text` between `start` and the next of `ends`, wherever `start` does.
fn between<'a>(text: &'a str, start: &'a str, ends: &'a [char]) -> impl Iterator<Item = &'a str> {
    let rest = text.split(start).skip(1);
    rest.map(move |rest| rest.split(ends).next().unwrap())
}

/// The fields that the queries read of a line, those of its span as `span.…`.
fn fields_asked_for() -> BTreeSet<String> {
    let queries = queries();
    let is_end: &[char] = &[')', ',', ' ', '\n', '[', '.'];
    let spans = between(&queries, "line.span[\"", &['"'])
        .chain(between(&queries, "line.span.", is_end))
        .map(|name| format!("span.{name}"));
    let own = between(&queries, "line[\"", &['"'])
        .chain(between(&queries, "line.", is_end))
        .filter(|name| *name != "span")
        .map(str::to_owned);
    spans.chain(own).collect()
}

/// The phrases by which the queries choose lines.
fn phrases_looked_for() -> BTreeSet<String> {
    between(&queries(), "message has \"", &['"'])
        .map(str::to_owned)
        .collect()
}

#[test]
fn queries_name_metrics_that_there_are() {
    let source = include_str!("../../src/metrics.rs");
    let queries = queries();
    let names: BTreeSet<&str> = between(&queries, "\"orderup.", &['"']).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let literal = format!("\"orderup.{name}\"");
        assert!(source.contains(&literal), "there is no metric {literal}");
    }
}

fn fields_of(line: &Value) -> Vec<String> {
    let own = line.as_object().unwrap().keys().cloned();
    let span = line["span"].as_object().into_iter().flatten();
    own.chain(span.map(|(name, _)| format!("span.{name}")))
        .collect()
}

#[test]
fn the_page_is_read_as_meant() {
    let fields = fields_asked_for();
    for field in [
        "timestamp",
        "outcome",
        "pause_s",
        "span.order.id",
        "span.generation",
        "span.function",
    ] {
        assert!(fields.contains(field), "{field} in {fields:?}");
    }
    assert!(phrases_looked_for().contains("checkout answered"));
}

#[tokio::test]
async fn queries_ask_for_what_the_log_says() {
    let host = DevHost::with_till(&[("RETRY_SCHEDULE", "1s"), ("RETRY_DEADLINE", "2s")]).await;

    host.fault("vendors/bakery", &json!({ "status": 500 }))
        .await;
    host.fault(
        "email",
        &json!({ "status": 429, "retryAfter": 1, "times": 1 }),
    )
    .await;
    place(&host).await;
    host.wait_for("/_dev/entities", |entities| {
        entity(entities, "orders/Subscriptions/vendors")["deadLetter"] == 1
    })
    .await;

    host.no_fault("vendors/bakery").await;
    // Refused for longer than checkout has patience.
    host.fault("bus", &json!({ "status": 503 })).await;
    let waits = place(&host).await;
    host.no_fault("bus").await;
    let run = host.http.post(host.url("/_dev/timers/outbox"));
    assert!(run.send().await.unwrap().status().is_success());
    host.wait_for_status(&waits, "confirmed").await;
    host.wait_until_idle().await;

    let log = host.log();
    let said: BTreeSet<String> = log.iter().flat_map(fields_of).collect();
    let missing: Vec<_> = fields_asked_for().difference(&said).cloned().collect();
    assert!(
        missing.is_empty(),
        "no line has {missing:?}, but only {said:?}"
    );

    // It takes a bus that refuses for a quarter of a minute until this is said.
    let held = include_str!("../../src/patience.rs").to_owned();
    let said: Vec<String> = log.iter().map(Value::to_string).chain([held]).collect();
    for phrase in phrases_looked_for() {
        assert!(
            said.iter().any(|said| said.contains(&phrase)),
            "no line has `{phrase}`"
        );
    }
}
