//! One order is one story: its trace, from the storefront's request to the email and the webhooks, with a delayed retry and a replay
//! in it, as the real binary exports it while everything around it runs.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use reqwest::Method;
use serde_json::json;

use crate::{
    collector::{Asked, Collector},
    dead_letters,
    devhost::{DevHost, has},
    end_to_end::place,
    handler::order,
    outbox::empty_the_outbox,
    recovery::{dead_letter, resend},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// The only one of that kind and name.
fn only<'a>(spans: &'a [Span], kind: SpanKind, name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.is(kind, name)).collect();
    let [span] = found[..] else {
        panic!("{name}: {found:#?}");
    };
    span
}

fn deliveries<'a>(spans: &'a [Span], function: &str) -> Vec<&'a Span> {
    let all = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Consumer);
    all.filter(|span| span.get("orderup.function") == function)
        .collect()
}

fn calls<'a>(spans: &'a [Span], delivery: &Span, name: &str) -> Vec<&'a Span> {
    let parts = spans.iter().filter(|span| span.is_part_of(delivery));
    parts
        .filter(|span| span.is(SpanKind::Client, name))
        .collect()
}

#[tokio::test]
async fn an_order_is_one_story_with_its_retry_and_its_replay() {
    let collector = Collector::start().await;
    let settings = [
        ("RETRY_SCHEDULE", "1s"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &*collector.url.clone().leak(),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let host = DevHost::start_with(&settings).await;
    // The customer's email is refused for good, and one vendor is down for a while.
    host.fault("email", &json!({ "status": 422 })).await;
    host.fault(
        "vendors/florist",
        &json!({ "status": 429, "retryAfter": 1 }),
    )
    .await;
    let request = host
        .http
        .request(Method::POST, host.url("/api/checkout"))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "shop=1")
        .header("content-type", "application/json")
        .body(order().to_string());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let dead = dead_letter(&host, "notifications").await;
    collector.spans("schedule orders", 1).await;
    host.no_fault("vendors/florist").await;
    host.no_fault("email").await;
    host.wait_for("/_dev/webhooks", has(2)).await;
    let id = dead["messageId"].as_str().unwrap();
    resend(&host, "notifications", &dead, id).await;
    host.wait_for("/_dev/emails", has(1)).await;
    host.wait_until_idle().await;
    // Of customers two, of vendors two; what the till and the book got is theirs.
    collector.spans("process notifications", 2).await;
    collector.spans("POST vendor:florist", 2).await;
    let spans = collector.spans("process orders", 4).await;

    // One trace, the caller's.
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    for span in &spans {
        assert_eq!(span.trace_id, trace, "{span:#?}");
    }
    let request = only(&spans, SpanKind::Server, "POST /api/checkout");
    assert_eq!(
        request.parent_span_id,
        u64::from_str_radix(CALLER, 16).unwrap().to_be_bytes()
    );
    assert_eq!(request.get("http.response.status_code"), "202");
    let sent = only(&spans, SpanKind::Producer, "send orders");
    assert!(sent.is_part_of(request));
    assert_eq!(sent.get("messaging.system"), "servicebus");
    let order_id = request.get("orderup.order.id");
    assert_eq!(
        sent.get("messaging.message.id"),
        format!("{order_id}:placed")
    );

    // Every attempt is a part of the same, and none of another attempt.
    let emails = deliveries(&spans, "notify");
    let [first, replay] = emails[..] else {
        panic!("{emails:#?}");
    };
    assert!(first.is_part_of(sent) && replay.is_part_of(sent));
    assert_eq!(first.get("orderup.outcome"), "dead");
    assert_eq!(first.get("error.type"), "EmailRefused:1");
    assert!(first.links.is_empty());
    assert_eq!(first.get("orderup.replay"), "false");
    // The condemned copy died in between, and is what was replayed: it says which delivery gave it up.
    assert_eq!(replay.get("orderup.replay"), "true");
    assert_eq!(replay.get("orderup.outcome"), "delivered");
    assert!(replay.is_linked_to(first), "{replay:#?}");
    let [refused] = calls(&spans, first, "POST acs")[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(refused.get("http.response.status_code"), "422");
    assert_eq!(refused.get("orderup.result"), "refused");
    // It is asked before it gets it again.
    assert_eq!(calls(&spans, replay, "GET acs").len(), 1);
    assert_eq!(calls(&spans, replay, "POST acs").len(), 1);
    let [condemned] = calls(&spans, first, "send orders")[..] else {
        panic!("{spans:#?}");
    };
    assert!(condemned.is_linked_to(sent));

    let vendors = deliveries(&spans, "vendor-notify");
    let (both, later) = (vendors[0], vendors[1]);
    assert!(vendors.iter().all(|span| span.is_part_of(sent)));
    assert_eq!(both.get("orderup.classes"), "rate-limited:1");
    assert_eq!(
        both.get("messaging.destination.subscription.name"),
        "vendors"
    );
    assert_eq!(
        calls(&spans, both, "POST vendor:bakery")[0].get("orderup.result"),
        "ok"
    );
    let limited = calls(&spans, both, "POST vendor:florist")[0];
    assert_eq!(limited.get("error.type"), "429");
    let [scheduled] = calls(&spans, both, "schedule orders")[..] else {
        panic!("{spans:#?}");
    };
    let copy = format!("{order_id}:placed:vendors:florist:1");
    assert_eq!(scheduled.get("messaging.message.id"), copy);
    assert!(later.is_linked_to(both));
    assert_eq!(later.get("messaging.message.id"), copy);
    assert_eq!(later.get("orderup.generation"), "1");
    assert!(calls(&spans, later, "POST vendor:bakery").is_empty());
}

#[tokio::test]
async fn an_order_that_went_through_the_outbox_is_one_story_too() {
    let collector = Collector::start().await;
    let settings = [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &*collector.url.clone().leak(),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ];
    let host = DevHost::start_with(&settings).await;
    host.fault("bus", &json!({ "status": 503 })).await;
    // The second does not try the topic, which has just refused the first.
    let (tried, untried) = (place(&host).await, place(&host).await);
    host.no_fault("bus").await;
    empty_the_outbox(&host).await;
    host.wait_for("/_dev/emails", has(2)).await;
    collector
        .metric("orderup.orders.accepted", "sink=outbox", 2.0)
        .await;
    collector.metric("orderup.outbox.waiting", "", 2.0).await;
    let spans = collector.spans("process notifications", 2).await;
    for (order, name, error) in [
        (tried, "send orders", true),
        (untried, "create orders", false),
    ] {
        let of_order = |span: &&Span| span.get("messaging.message.conversation_id") == order;
        let sent: Vec<_> = spans.iter().filter(of_order).collect();
        let origin = sent
            .iter()
            .find(|span| span.kind() == SpanKind::Producer)
            .unwrap();
        assert_eq!(
            (origin.name.as_str(), origin.get("error.type").is_empty()),
            (name, !error)
        );
        assert_eq!(origin.get("orderup.sink"), "outbox");
        let published = sent
            .iter()
            .find(|span| span.kind() == SpanKind::Client)
            .unwrap();
        assert_eq!(published.get("orderup.function"), "outbox");
        assert!(published.is_part_of(origin) && published.is_linked_to(origin));
        let delivery = deliveries(&spans, "notify").into_iter();
        let mut delivery = delivery.filter(|span| span.get("orderup.order.id") == order);
        assert!(delivery.next().unwrap().is_part_of(origin));
    }
}

/// What a user sees with curl; and the replay is that of the operator's command.
#[tokio::test]
async fn devhost_tells_the_story_as_a_tree() {
    let host = DevHost::start().await;
    host.fault("email", &json!({ "status": 422, "times": 1 }))
        .await;
    let order_id = place(&host).await;
    dead_letter(&host, "notifications").await;
    let bus = format!("http://127.0.0.1:{}", host.bus_port);
    let replay = dead_letters::orderup(&bus, "dead-letters replay")
        .output()
        .await
        .unwrap();
    assert!(replay.status.success(), "{replay:?}");
    host.wait_for("/_dev/emails", has(1)).await;
    let url = host.url(&format!("/_dev/traces/{order_id}"));
    let asked = Instant::now();
    let tree = loop {
        let tree = host
            .http
            .get(&url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        if tree.contains("a replay") && tree.contains("POST acs  202") {
            break tree;
        }
        assert!(asked.elapsed() < Duration::from_secs(60), "{tree}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let line = |text: &str| tree.lines().find(|line| line.contains(text)).unwrap();
    assert!(
        tree.starts_with(&format!("order {order_id}\ntrace ")),
        "{tree}"
    );
    assert!(
        line("POST /api/checkout").ends_with("  [1] POST /api/checkout  202"),
        "{tree}"
    );
    assert!(line("send orders  placed").contains("└─ [2]"), "{tree}");
    let given_up = line("EmailRefused:1");
    let number = given_up.split(['[', ']']).nth(1).unwrap();
    assert!(
        given_up.contains("process notifications  notify  placed  dead"),
        "{tree}"
    );
    assert!(
        line("a replay").ends_with(&format!("a replay  repeats [{number}]")),
        "{tree}"
    );
    let unknown = host
        .http
        .get(host.url("/_dev/traces/unknown"))
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let all = host
        .http
        .get(host.url("/_dev/traces"))
        .send()
        .await
        .unwrap();
    assert!(all.text().await.unwrap().contains(&order_id));
    host.http
        .delete(host.url("/_dev/traces"))
        .send()
        .await
        .unwrap();
    let none = host.http.get(&url).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}
