//! What the process exports, what it does not, and what a collector that is away costs.

use std::time::Duration;

use axum::http::StatusCode;
use opentelemetry_proto::tonic::{
    metrics::v1::{AggregationTemporality, metric::Data},
    trace::v1::{span::SpanKind, status::StatusCode as StatusCodeOfSpan},
};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    collector::{Asked, Collector, Mood, points},
    handler::{Folder, Handler, JsonBody, command, free_port, order, order_placed},
    scripted_server::Reply,
    triggers::assert_completed,
};

/// A handler that exports at once.
async fn exporting(collector: &Collector, settings: &[(&str, &str)]) -> Handler {
    let all = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ];
    Handler::start_with(&[&all, settings].concat()).await
}

async fn checkout(handler: &Handler) {
    let response = handler.post("/api/checkout", &order()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_message_carries_the_span_in_which_it_was_sent() {
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[]).await;
    checkout(&handler).await;
    let sent = handler.bus.next().await;
    let spans = collector.spans("POST /api/checkout", 1).await;
    let producer = spans
        .iter()
        .find(|span| span.kind() == SpanKind::Producer)
        .unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let context = format!(
        "00-{}-{}-01",
        hex(&producer.trace_id),
        hex(&producer.span_id)
    );
    assert_eq!(sent.header("traceparent"), format!("\"{context}\""));
    assert_eq!(sent.header("diagnostic-id"), sent.header("traceparent"));
    // The log knows both.
    let lines = handler.stop().await;
    let line = lines
        .iter()
        .find(|line| line.contains("checkout answered"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let request = spans
        .iter()
        .find(|span| span.kind() == SpanKind::Server)
        .unwrap();
    assert_eq!(line["span"]["trace.id"], hex(&request.trace_id));
    assert_eq!(line["span"]["span.id"], hex(&request.span_id));
    assert_eq!(line["status"], 202);
    // Only where it is another one.
    assert!(line["span"]["sink"].is_null());
}

#[tokio::test]
async fn a_vendor_gets_the_context_of_its_call_and_an_email_provider_does_not() {
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[]).await;
    assert_completed(
        handler
            .trigger_copy("vendor-notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    let spans = collector.spans("process notifications", 1).await;
    let call = spans
        .iter()
        .find(|span| span.name == "POST vendor:bakery")
        .unwrap();
    let hex: String = call
        .span_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        handler
            .bakery
            .next()
            .await
            .header("traceparent")
            .contains(&hex)
    );
    assert!(
        !handler
            .provider
            .next()
            .await
            .headers
            .contains_key("traceparent")
    );
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_told_and_nobody_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    for settings in [
        vec![],
        vec![
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_TRACES_SAMPLER", "always_on"),
        ],
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_SDK_DISABLED", "true"),
        ],
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ],
    ] {
        let handler = Handler::start_with(&settings).await;
        checkout(&handler).await;
        let sent = handler.bus.next().await;
        assert!(
            !sent.header("traceparent").is_empty(),
            "it goes along all the same"
        );
        handler
            .trigger_copy("vendor-notify", &order_placed(), &json!({}))
            .await;
        assert!(
            !handler
                .bakery
                .next()
                .await
                .headers
                .contains_key("traceparent")
        );
        handler.florist.reply_once(Reply::status(429));
        handler
            .trigger_copy("vendor-notify", &order_placed(), &json!({}))
            .await;
        assert!(!handler.bus.next().await.headers.contains_key("repeats"));
        let lines = handler.stop().await;
        assert!(
            lines.iter().all(|line| !line.contains("span.id")),
            "{lines:#?}"
        );
    }
    let called = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(called.is_err(), "{called:?}");
}

/// Azure Container Apps sets these two by itself where its agent is enabled; orders are taken all the same.
#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_told_and_nothing_is_exported() {
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).await;
    checkout(&handler).await;
    let lines = handler.stop().await;
    for signal in ["traces", "metrics"] {
        let line = format!("no {signal} are exported: OTEL_EXPORTER_OTLP_PROTOCOL is grpc");
        assert!(
            lines.iter().any(|known| known.contains(&line)),
            "{lines:#?}"
        );
    }
    assert!(collector.take_exports().is_empty());
}

#[tokio::test]
async fn a_signal_sends_what_has_not_been_sent() {
    let collector = Collector::start().await;
    let an_hour = [
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
    ];
    let handler = exporting(&collector, &an_hour).await;
    checkout(&handler).await;
    assert!(collector.take_exports().is_empty());
    handler.stop().await;
    let names: Vec<_> = collector
        .so_far()
        .into_iter()
        .map(|span| span.name)
        .collect();
    assert_eq!(names, ["send orders", "POST /api/checkout"]);
    collector
        .metric("orderup.orders.accepted", "sink=topic", 1.0)
        .await;
}

/// It takes the connection and never answers, which is the worst that it can do.
#[tokio::test]
async fn a_collector_that_hangs_delays_nothing_and_the_queue_is_bounded() {
    let collector = Collector::start().await;
    collector.next_is(Mood::Hangs);
    let settings = [
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let handler = exporting(&collector, &settings).await;
    for _ in 0..20 {
        checkout(&handler).await;
    }
    collector.exports(1).await;
    // It is told to end, and does not wait for the collector for ever.
    let lines = handler.stop().await;
    let lost = "the last telemetry is lost";
    assert!(lines.iter().any(|line| line.contains(lost)), "{lines:#?}");
    assert_eq!(collector.take_exports().len(), 1);
}

#[tokio::test]
async fn spans_that_find_no_room_are_counted() {
    let collector = Collector::start().await;
    let settings = [
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3600000"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://127.0.0.1:9/v1/traces",
        ),
    ];
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", hanging.local_addr().unwrap());
    let mut settings = settings.to_vec();
    settings[4].1 = &url;
    let handler = exporting(&collector, &settings).await;
    checkout(&handler).await;
    let _connection = hanging.accept().await.unwrap();
    // One is being sent, and the other waits in the queue, which has room for one more.
    for _ in 0..7 {
        checkout(&handler).await;
    }
    collector
        .metric("orderup.telemetry.dropped", "signal=traces", 13.0)
        .await;
}

#[tokio::test]
async fn what_a_collector_cannot_take_now_comes_again_and_what_it_refuses_does_not() {
    for (mood, comes_again) in [
        (Mood::Answers(429, Some("1")), true),
        (Mood::Answers(502, None), true),
        (Mood::Answers(503, Some("0")), true),
        (Mood::Answers(504, None), true),
        (Mood::Answers(400, None), false),
        (Mood::Answers(500, None), false),
        (Mood::Answers(413, None), false),
        // A partial success: ExportTraceServiceResponse { partial_success { rejected_spans: 2 } }.
        (Mood::Takes(b"\x0a\x02\x08\x02"), false),
        // More than there were: 2^64 - 1.
        (
            Mood::Takes(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            false,
        ),
    ] {
        let collector = Collector::start().await;
        collector.next_is(mood.clone());
        let settings = [
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ];
        let handler = exporting(&collector, &settings).await;
        checkout(&handler).await;
        if comes_again {
            collector.exports(2).await;
            let exports = collector.take_exports();
            assert_eq!(exports[0].body, exports[1].body);
            handler.stop().await;
        } else {
            collector.exports(1).await;
            let lines = handler.stop().await;
            assert_eq!(collector.take_exports().len(), 1);
            let line = lines
                .iter()
                .find(|line| line.contains("telemetry does not reach"));
            let line: Value = serde_json::from_str(line.unwrap()).unwrap();
            assert_eq!((&line["level"], &line["lost"]), (&json!("WARN"), &json!(2)));
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_a_line_in_the_log() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let handler = Handler::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2%3D"),
    ])
    .await;
    for _ in 0..5 {
        checkout(&handler).await;
    }
    let lines = handler.stop().await;
    let complaints: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("does not reach the collector"))
        .collect();
    assert_eq!(complaints.len(), 1, "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains("hunter2")));
}

#[tokio::test]
async fn a_sampler_decides_for_the_whole_story() {
    let collector = Collector::start().await;
    let handler = exporting(
        &collector,
        &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")],
    )
    .await;
    let request = |flags: &str| {
        let traceparent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let request = handler.http.post(handler.url("/api/checkout"));
        let request = request.header("traceparent", traceparent);
        request
            .header("content-type", "application/json")
            .body(order().to_string())
            .send()
    };
    checkout(&handler).await;
    assert!(
        handler
            .bus
            .next()
            .await
            .header("traceparent")
            .ends_with("-00\"")
    );
    request("00").await.unwrap();
    assert!(
        handler
            .bus
            .next()
            .await
            .header("traceparent")
            .ends_with("-00\"")
    );
    request("01").await.unwrap();
    assert!(
        handler
            .bus
            .next()
            .await
            .header("traceparent")
            .ends_with("-01\"")
    );
    let spans = collector.spans("POST /api/checkout", 1).await;
    assert_eq!(spans.len(), 2);
    // An attempt that is not recorded is nothing that a copy could be linked to.
    handler.provider.reply_once(Reply::status(429));
    let unsampled =
        json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00" });
    handler
        .trigger_copy("notify", &order_placed(), &unsampled)
        .await;
    let copy = handler.bus.next().await;
    assert!(!copy.headers.contains_key("repeats"));
    assert!(copy.header("traceparent").contains("b7ad6b7169203331-00"));
}

/// Who calls with Application Insights may say of every request that nobody records it.
#[tokio::test]
async fn a_caller_turns_off_the_trace_of_an_order_only_where_that_was_asked_for() {
    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    for (settings, flags) in [
        (vec![], "-01\""),
        (
            vec![("OTEL_TRACES_SAMPLER", "parentbased_always_on")],
            "-00\"",
        ),
    ] {
        let collector = Collector::start().await;
        let handler = exporting(&collector, &settings).await;
        let request = handler.http.post(handler.url("/api/checkout"));
        let request = request.header("traceparent", CALLER).json_body(&order());
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
        let sent = handler.bus.next().await;
        let context = sent.header("traceparent").to_owned();
        assert!(context.contains(&CALLER[..36]), "{context}");
        assert!(context.ends_with(flags), "{context}");
        // What a message says is followed either way.
        let unsampled = json!({ "traceparent": CALLER });
        handler
            .trigger_copy("notify", &order_placed(), &unsampled)
            .await;
        handler.stop().await;
        let spans = collector.so_far();
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        if flags == "-01\"" {
            assert_eq!(names, ["send orders", "POST /api/checkout"]);
            assert_eq!(
                spans[1].parent_span_id,
                0xb7ad_6b71_6920_3331_u64.to_be_bytes()
            );
        } else {
            assert!(names.is_empty(), "{names:?}");
        }
    }
}

/// The topic does not answer within the time that it has, the outbox does not take the event either, and then the topic does.
#[tokio::test]
async fn what_is_sent_after_all_has_not_failed() {
    let collector = Collector::start().await;
    let book = Folder::new();
    // Nothing can be written into what is no folder.
    std::fs::write(book.0.join("outbox"), "").unwrap();
    let settings = [("ORDER_BOOK", book.0.to_str().unwrap())];
    let handler = exporting(&collector, &settings).await;
    handler.bus.reply_once(Reply::Hang);
    // The second does not try the topic before the outbox.
    checkout(&handler).await;
    checkout(&handler).await;
    collector
        .metric("orderup.bus.send.duration", "result=unanswered", 1.0)
        .await;
    collector
        .metric("orderup.bus.send.duration", "result=ok", 2.0)
        .await;
    let spans = collector.spans("POST /api/checkout", 2).await;
    let sent: Vec<_> = spans
        .iter()
        .filter(|span| span.kind() == SpanKind::Producer)
        .collect();
    assert_eq!(sent.len(), 2);
    for span in sent {
        assert_eq!(span.name, "send orders");
        assert_eq!(span.get("messaging.operation.name"), "send");
        assert_eq!(span.get("messaging.operation.type"), "send");
        assert_eq!(span.get("orderup.sink"), "topic");
        assert_eq!(span.get("error.type"), "");
        let status = span.status.as_ref().map(|status| status.code());
        assert_ne!(status, Some(StatusCodeOfSpan::Error));
        let mut keys: Vec<_> = span.attributes.iter().map(|pair| &pair.key).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{:?}", span.attributes);
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_counted() {
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[]).await;
    handler.provider.reply_once(Reply::Hang);
    let request = handler.http.post(handler.url("/notify"));
    let envelope = json!({ "Data": { "message": order_placed().to_string() }, "Metadata": {} });
    let request = tokio::spawn(request.json_body(&envelope).send());
    handler.provider.next().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let labels = "provider=acs,result=given-up";
    collector
        .metric("orderup.provider.duration", labels, 1.0)
        .await;
}

#[tokio::test]
async fn the_page_of_a_problem_has_its_own_route() {
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[]).await;
    let page = handler.http.get(handler.url("/api/problems/not-found"));
    assert_eq!(page.send().await.unwrap().status(), StatusCode::OK);
    let spans = collector.spans("GET /api/problems/{name}", 1).await;
    assert_eq!(spans[0].get("http.route"), "/api/problems/{name}");
    assert_eq!(spans[0].get("orderup.function"), "problem");
}

/// A list, or another exporter, may be set for a whole machine; orders are taken all the same.
#[tokio::test]
async fn an_exporter_that_is_not_there_is_told_and_nothing_is_exported() {
    let collector = Collector::start().await;
    let exporters = [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
    ];
    let is_told = |lines: &[String]| {
        ["traces", "metrics"].map(|signal| {
            let line = format!("no {signal} are exported: ");
            lines.iter().any(|known| known.contains(&line))
        })
    };
    let handler = exporting(&collector, &exporters).await;
    checkout(&handler).await;
    assert_eq!(is_told(&handler.stop().await), [true, true]);
    assert!(collector.take_exports().is_empty());
    // There is nothing to tell where nothing was to be exported.
    let handler = Handler::start_with(&exporters).await;
    checkout(&handler).await;
    assert_eq!(is_told(&handler.stop().await), [false, false]);
}

#[tokio::test]
async fn a_collector_that_asks_for_more_time_than_there_is_gets_some_for_what_comes_next() {
    let (traces, metrics) = (Collector::start().await, Collector::start().await);
    traces.next_is(Mood::Answers(429, Some("3600")));
    let url = format!("{}/v1/traces", traces.url);
    let settings = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
    ];
    let handler = exporting(&metrics, &settings).await;
    checkout(&handler).await;
    // The first span is lost, and the second waits.
    metrics
        .metric("orderup.telemetry.dropped", "signal=traces", 1.0)
        .await;
    metrics.take_exports();
    metrics.exports(5).await;
    assert_eq!(traces.take_exports().len(), 1);
    // Until the process is told to end.
    handler.stop().await;
    let names: Vec<_> = traces.so_far().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["POST /api/checkout"]);
}

#[tokio::test]
async fn whose_it_is_and_how_it_is_sent_is_as_the_settings_say() {
    let collector = Collector::start().await;
    let settings = [
        ("OTEL_SERVICE_NAME", "shop"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test%20stage,service.name=no",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "api-key=hunter2%3D,x-team=kitchen",
        ),
        ("WEBSITE_SITE_NAME", "orderup-prod"),
        ("WEBSITE_INSTANCE_ID", "instance-1"),
        ("REGION_NAME", "australiaeast"),
    ];
    let handler = exporting(&collector, &settings).await;
    checkout(&handler).await;
    collector.spans("POST /api/checkout", 1).await;
    let resource = collector.resource();
    for (name, value) in [
        ("service.name", "shop"),
        ("deployment.environment.name", "test stage"),
        ("service.instance.id", "instance-1"),
        ("faas.name", "orderup-prod"),
        ("cloud.platform", "azure.functions"),
        ("cloud.region", "australiaeast"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ] {
        let values: Vec<_> = resource.iter().filter(|(known, _)| known == name).collect();
        assert_eq!(values, [&(name.to_owned(), value.to_owned())]);
    }
    let exports = collector.take_exports();
    for export in &exports {
        assert_eq!(export.headers["content-type"], "application/x-protobuf");
        assert_eq!(export.headers["api-key"], "hunter2=");
        assert_eq!(export.headers["x-team"], "kitchen");
        assert!(matches!(export.path.as_str(), "/v1/traces" | "/v1/metrics"));
    }
}

#[tokio::test]
async fn each_wrong_setting_is_named() {
    for (variable, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@x"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://hunter2"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "hunter2"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "hunter2"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "hunter2"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "hunter2",
        ),
        ("OTEL_RESOURCE_ATTRIBUTES", "hunter2"),
        ("OTEL_TRACES_SAMPLER", "hunter2"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "x"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
    ] {
        let mut command = command(free_port());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        if variable == "OTEL_TRACES_SAMPLER_ARG" {
            command.env("OTEL_TRACES_SAMPLER", "traceidratio");
        }
        let output = command.env(variable, value).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}={value}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("{variable} ")), "{stderr}");
        assert!(
            stderr.contains("should be") && !stderr.contains("hunter2"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn the_figures_are_exact() {
    let collector = Collector::start().await;
    let once = [
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ("RETRY_SCHEDULE", "1h"),
    ];
    let handler = exporting(&collector, &once).await;
    for _ in 0..3 {
        checkout(&handler).await;
    }
    let refused = handler.post("/api/checkout", &json!({})).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // To two vendors: one is told, one asks for time; and then it is left alone.
    handler
        .florist
        .reply_once(Reply::with_header(429, "retry-after", "3600"));
    for _ in 0..2 {
        assert_completed(
            handler
                .trigger_copy("vendor-notify", &order_placed(), &json!({}))
                .await,
        )
        .await;
    }
    handler.provider.reply_once(Reply::status(422));
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &json!({}))
            .await,
    )
    .await;
    let an_hour_ago = time::OffsetDateTime::now_utc() - time::Duration::HOUR;
    let format = &time::format_description::well_known::Rfc3339;
    let waited = json!({ "first-seen": an_hour_ago.format(format).unwrap(), "generation": 3 });
    assert_completed(
        handler
            .trigger_copy("notify", &order_placed(), &waited)
            .await,
    )
    .await;
    let lines = handler.stop().await;

    let metrics = collector.metrics_so_far();
    let mut all = Vec::new();
    for metric in &metrics {
        all.extend(
            points(metric)
                .into_iter()
                .map(|(labels, value)| (metric.name.as_str(), labels, value)),
        );
    }
    let expected = [
        ("orderup.orders.accepted", "sink=topic", 3.0),
        (
            "orderup.orders.refused",
            "http.response.status_code=422",
            1.0,
        ),
        ("orderup.notifications", "function=notify,outcome=dead", 1.0),
        (
            "orderup.notifications",
            "function=notify,outcome=delivered",
            1.0,
        ),
        (
            "orderup.notifications",
            "function=vendor-notify,outcome=delivered",
            2.0,
        ),
        (
            "orderup.notifications",
            "function=vendor-notify,outcome=later,class=paused",
            1.0,
        ),
        (
            "orderup.notifications",
            "function=vendor-notify,outcome=later,class=rate-limited",
            1.0,
        ),
        ("orderup.dead", "function=notify,reason=EmailRefused", 1.0),
        ("orderup.notification.age", "function=notify", 2.0),
        ("orderup.notification.age", "function=vendor-notify", 2.0),
        ("orderup.breaker.open", "provider=vendor:florist", 1.0),
        ("orderup.provider.duration", "provider=acs,result=ok", 1.0),
        (
            "orderup.provider.duration",
            "provider=acs,result=refused",
            1.0,
        ),
        (
            "orderup.provider.duration",
            "provider=vendor:bakery,result=ok",
            2.0,
        ),
        (
            "orderup.provider.duration",
            "provider=vendor:florist,result=rate-limited",
            1.0,
        ),
        // Three orders, a copy for each time that the florist was not told, and one that is condemned.
        ("orderup.bus.send.duration", "result=ok", 6.0),
    ];
    let expected = expected.map(|(name, labels, value)| (name, labels.to_owned(), value));
    assert_eq!(all, expected);
    let page = include_str!("../../docs/TELEMETRY.md");
    for metric in &metrics {
        assert!(
            page.contains(&format!("`{}`", metric.name)),
            "{}",
            metric.name
        );
    }
    let age = metrics
        .iter()
        .find(|metric| metric.name == "orderup.notification.age")
        .unwrap();
    let Some(Data::Histogram(histogram)) = &age.data else {
        panic!("{age:?}");
    };
    assert_eq!(
        histogram.aggregation_temporality(),
        AggregationTemporality::Delta
    );
    let oldest = histogram.data_points[0].max.unwrap();
    assert!((3600.0..3700.0).contains(&oldest), "{oldest}");
    let buckets: u64 = histogram.data_points[0].bucket_counts.iter().sum();
    assert_eq!(buckets, 2);

    // The log says the same.
    let lines: Vec<Value> = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let sum = |function: &str, field: &str| -> u64 {
        let of_function = lines
            .iter()
            .filter(|line| line["span"]["function"] == function);
        of_function.filter_map(|line| line[field].as_u64()).sum()
    };
    assert_eq!((sum("notify", "delivered"), sum("notify", "dead")), (1, 1));
    assert_eq!(
        (
            sum("vendor-notify", "delivered"),
            sum("vendor-notify", "later")
        ),
        (2, 2)
    );
    let has = |field: &str, value: &str| lines.iter().any(|line| line[field] == value);
    assert!(has("classes", "rate-limited:1") && has("classes", "paused:1"));
    assert!(has("reasons", "EmailRefused:1"));
    let age = lines.iter().filter_map(|line| line["age_s"].as_u64()).max();
    assert!((3600..3700).contains(&age.unwrap()));
    let took = lines
        .iter()
        .filter(|line| line["provider_ms"].is_u64() && line["span"]["function"] == "notify")
        .count();
    assert_eq!(took, 2);
}

/// Whatever goes right or wrong, nobody can read in what is exported who ordered, how they pay, or a key.
#[tokio::test]
async fn nothing_personal_and_no_secret_is_exported() {
    let collector = Collector::start().await;
    let handler = exporting(
        &collector,
        &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2")],
    )
    .await;
    let quoting = || {
        Reply::text(
            400,
            r#"{"error":{"code":"InvalidRecipient","message":"Ada Lovelace <ada@example.net> is not known"}}"#,
        )
    };
    handler
        .bus
        .reply_once(Reply::text(400, "Ada Lovelace <ada@example.net>"));
    handler.post("/api/checkout", &order()).await;
    let mut wrong = order();
    wrong["customer"]["email"] = json!("ada@example@net");
    handler.post("/api/checkout", &wrong).await;
    handler.provider.reply_once(quoting());
    handler.bakery.reply_once(quoting());
    let odd = json!({
        "MessageId": "ada@example.net", "DeliveryCount": 1,
        "ApplicationProperties": { "audience": "Ada Lovelace", "tracestate": "a=ada@example.net",
            "repeats": "ada@example.net", "vendor": "Ada Lovelace" }
    });
    let message = order_placed().to_string();
    for function in ["notify", "vendor-notify", "till", "book"] {
        handler
            .trigger_copy(function, &order_placed(), &json!({}))
            .await;
        handler
            .trigger_with(function, message.as_bytes(), &odd)
            .await;
        handler.trigger_with(function, b"Ada Lovelace", &odd).await;
    }
    let path = "/api/orders/01935a1e-9c00-7000-8000-000000000001/cancel";
    handler
        .post(
            path,
            &json!({ "reason": "Ada Lovelace", "order": order_placed()["data"] }),
        )
        .await;
    handler.stop().await;
    assert!(!collector.so_far().is_empty() && !collector.metrics_so_far().is_empty());
    for export in collector.take_exports() {
        let body = String::from_utf8_lossy(&export.body);
        for personal in [
            "Ada", "ada@", "Lovelace", "cnon:", "hunter2", "Pancake", "c2VjcmV0", "whsec",
        ] {
            assert!(!body.contains(personal), "{personal}: {body}");
        }
    }
}

/// The writer is ours, and the reader OpenTelemetry's: nothing is left over and nothing unknown.
#[tokio::test]
async fn what_is_exported_is_otlp_and_no_byte_more() {
    use opentelemetry_proto::tonic::collector::{
        metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
    };
    let collector = Collector::start().await;
    let handler = exporting(&collector, &[]).await;
    checkout(&handler).await;
    handler
        .trigger_copy("notify", &order_placed(), &json!({}))
        .await;
    handler.stop().await;
    let mut paths = std::collections::BTreeSet::new();
    for export in collector.take_exports() {
        paths.insert(export.path.clone());
        // A field that the reader does not know would be gone from what it writes.
        let written = match export.path.as_str() {
            "/v1/traces" => ExportTraceServiceRequest::decode(&*export.body)
                .unwrap()
                .encode_to_vec(),
            _ => ExportMetricsServiceRequest::decode(&*export.body)
                .unwrap()
                .encode_to_vec(),
        };
        assert_eq!(written.len(), export.body.len());
    }
    assert!(paths.iter().eq(["/v1/metrics", "/v1/traces"]), "{paths:?}");
}
