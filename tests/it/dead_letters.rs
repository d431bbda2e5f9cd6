//! `orderup dead-letters` against the real local Service Bus, and against scripted ones where time or a fault matters.

use std::{process::Output, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, Response},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::Command,
    sync::{Notify, mpsc},
};

use crate::{
    asyncapi::check_replay,
    scripted_server::{Received, Reply, ScriptedServer},
    service_bus::ServiceBus,
};

const BODY: &str = r#"{"customer":"Ada Lovelace","email":"ada@example.net"}"#;
const VENDORS: &str = "orders/subscriptions/vendors";

/// The command with the settings of the connection and no others.
pub fn orderup(bus: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orderup"));
    command
        .args(arguments.split_whitespace())
        .env_clear()
        .env("ServiceBusConnection", "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;")
        .env("SERVICEBUS_REST_ENDPOINT", bus)
        .kill_on_drop(true);
    command
}

struct Ended {
    code: Option<i32>,
    /// Each line of stdout is a JSON object.
    lines: Vec<Value>,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        for secret in ["SAS_KEY_VALUE", "sig=", "SharedAccessSignature"] {
            assert!(!stdout.contains(secret) && !stderr.contains(secret));
        }
        Self {
            code: output.status.code(),
            lines: stdout
                .lines()
                .map(|line| {
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
                })
                .collect(),
            stderr,
        }
    }

    /// That value of every line that has it.
    fn each(&self, name: &str) -> Vec<&str> {
        let values = self.lines.iter().filter_map(|line| line[name].as_str());
        values.collect()
    }

    fn summary(&self) -> &Value {
        &self.lines.last().expect("a summary")["summary"]
    }

    fn is_impersonal(&self) {
        let printed = format!("{:?}{}", self.lines, self.stderr);
        for personal in ["Ada", "Lovelace", "example.net"] {
            assert!(!printed.contains(personal), "{printed}");
        }
    }
}

async fn run(bus: &ServiceBus, arguments: &str) -> Ended {
    Ended::of(orderup(&bus.url(""), arguments).output().await.unwrap())
}

async fn list(bus: &ServiceBus, filters: &str) -> Vec<String> {
    let ended = run(bus, &format!("dead-letters list {filters}")).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.is_impersonal();
    ended
        .each("messageId")
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_list_has_a_json_line_for_each_dead_letter_and_leaves_it_where_it_is() {
    let bus = ServiceBus::start().await;
    bus.dead_letter("customers", "o-1:placed", &[], BODY.as_bytes())
        .await;
    let properties = [
        ("vendor", "\"bakery\""),
        ("failures", "4"),
        ("last-error", "\"busy: 503\""),
        ("dead-letter-reason", "\"gave-up\""),
        ("dead-letter-time", "\"2026-11-22T10:00:00Z\""),
    ];
    bus.dead_letter("vendors", "o-2:placed", &properties, BODY.as_bytes())
        .await;
    for _ in 0..2 {
        let ended = run(&bus, "dead-letters list").await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        ended.is_impersonal();
        let [first, second] = &ended.lines[..] else {
            panic!("{:?}", ended.lines);
        };
        assert_eq!(first["audience"], "customers");
        assert_eq!(first["orderId"], "o-1");
        assert_eq!(first["vendor"], Value::Null);
        assert_eq!(first["reason"], "MaxDeliveryCountExceeded");
        assert_eq!(second["audience"], "vendors");
        assert_eq!(second["label"], "order.placed");
        assert_eq!(second["vendor"], "bakery");
        assert_eq!(second["reason"], "gave-up");
        assert_eq!(second["failures"], 4);
        assert_eq!(second["lastError"], "busy: 503");
        assert!(second["ageSeconds"].is_u64() && second["sequenceNumber"].is_i64());
    }
}

#[tokio::test]
async fn filters_and_a_limit_choose_from_the_dead_letters() {
    let bus = ServiceBus::start().await;
    let old = [
        ("vendor", "\"bakery\""),
        ("dead-letter-time", "\"2020-01-01T00:00:00Z\""),
    ];
    let gave_up = [("dead-letter-reason", "\"gave-up\"")];
    bus.dead_letter("customers", "o-1:placed", &[], b"{}").await;
    bus.dead_letter("vendors", "o-2:placed", &old, b"{}").await;
    bus.dead_letter("vendors", "o-3:placed", &gave_up, b"{}")
        .await;
    for (filters, found) in [
        ("", &["o-2:placed", "o-3:placed"][..]),
        ("--vendor bakery", &["o-2:placed"]),
        ("--reason Gave-Up", &["o-3:placed"]),
        ("--reason maxdeliverycountexceeded", &["o-2:placed"]),
        ("--older-than 300d", &["o-2:placed"]),
        ("--newer-than 1d", &["o-3:placed"]),
        ("--vendor bakery --newer-than 1d", &[]),
    ] {
        let filters = format!("--audience vendors {filters}");
        assert_eq!(list(&bus, &filters).await, found, "{filters}");
    }
    assert_eq!(list(&bus, "--audience customers").await, ["o-1:placed"]);
    let limited = run(&bus, "dead-letters list --limit 2").await;
    assert_eq!(limited.each("messageId"), ["o-1:placed", "o-2:placed"]);
    assert!(limited.stderr.contains("more than 2"), "{}", limited.stderr);
    let all = run(&bus, "dead-letters list --limit 3").await;
    assert_eq!((all.lines.len(), all.stderr.as_str()), (3, ""));
}

#[tokio::test]
async fn one_is_shown_by_number_or_id_and_its_body_only_when_asked() {
    let bus = ServiceBus::start().await;
    let properties = [("generation", "2")];
    bus.dead_letter("vendors", "o-1:placed", &properties, BODY.as_bytes())
        .await;
    let shown = run(&bus, "dead-letters show o-1:placed").await;
    assert_eq!(shown.code, Some(0));
    shown.is_impersonal();
    let shown = &shown.lines[0];
    assert_eq!(shown["brokerProperties"]["MessageId"], "o-1:placed");
    assert_eq!(shown["contentType"], "application/cloudevents+json");
    let properties = &shown["properties"];
    assert_eq!(properties["generation"], 2);
    assert_eq!(properties["deadletterreason"], "MaxDeliveryCountExceeded");

    let number = &shown["brokerProperties"]["SequenceNumber"];
    let arguments = format!("dead-letters show {number} --audience vendors --body");
    let with_body = run(&bus, &arguments).await;
    assert_eq!(with_body.lines[0]["body"], BODY);

    let missing = run(&bus, "dead-letters show o-2:placed").await;
    assert_eq!((missing.code, missing.lines.len()), (Some(1), 0));
    assert!(missing.stderr.contains("no dead letter o-2:placed"));
}

#[tokio::test]
async fn a_replayed_dead_letter_reaches_its_audience_only_and_begins_anew() {
    let bus = ServiceBus::start().await;
    let properties = [
        ("vendor", "\"bakery\""),
        ("generation", "\"3\""),
        ("failures", "9"),
        ("first-seen", "\"2026-11-22T10:00:00Z\""),
        ("dead-letter-reason", "\"gave-up\""),
        ("unconfirmed-since", "\"2026-11-22T10:00:00Z\""),
    ];
    bus.dead_letter("vendors", "o-1:placed", &properties, BODY.as_bytes())
        .await;

    let ended = run(&bus, "dead-letters replay").await;

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ended.is_impersonal();
    assert_eq!(ended.lines[0]["outcome"], "replayed");
    assert_eq!(ended.lines[0]["messageId"], "o-1:placed");
    let summary =
        json!({ "replayed": 1, "wouldBeReplayed": 0, "failed": 0, "skipped": 0, "notMatched": 0 });
    assert_eq!(ended.summary(), &summary);
    assert!(list(&bus, "").await.is_empty());
    let copy = bus.receive(VENDORS, 0).await.expect("the copy");
    assert_eq!(copy.body, BODY);
    assert_eq!(copy.broker_properties["CorrelationId"], "o-1");
    assert_eq!(copy.broker_properties["Label"], "order.placed");
    let id = copy.broker_properties["MessageId"].as_str().unwrap();
    assert!(id.starts_with("replay:"), "{id}");
    for (name, value) in [
        ("audience", Some("\"vendors\"")),
        ("vendor", Some("\"bakery\"")),
        ("generation", Some("3")),
        ("unconfirmed-since", Some("\"2026-11-22T10:00:00Z\"")),
        ("failures", None),
        ("first-seen", None),
        ("dead-letter-reason", None),
        ("deadletterreason", Some("\"gave-up\"")),
        ("deadlettererrordescription", None),
    ] {
        assert_eq!(copy.property(name), value, "{name}");
    }
    check_replay(&copy.headers);
    assert!(bus.receive("notifications", 0).await.is_none());

    // It dies again, and is a dead letter like any other.
    bus.unlock(&copy).await;
    let again = run(&bus, "dead-letters replay").await;
    assert_eq!(again.each("outcome"), ["replayed"]);
    let copy = bus.receive(VENDORS, 0).await.expect("the second copy");
    assert_ne!(copy.broker_properties["MessageId"], id);
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let bus = ServiceBus::start().await;
    bus.dead_letter("customers", "o-1:placed", &[], BODY.as_bytes())
        .await;
    bus.dead_letter("vendors", "o-2:placed", &[], &[0xff]).await;
    bus.dead_letter("vendors", "o-3\u{7}", &[], b"{}").await;
    let ended = run(&bus, "dead-letters replay --dry-run").await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.each("outcome"),
        ["wouldBeReplayed", "failed", "failed"]
    );
    assert_eq!(ended.summary()["wouldBeReplayed"], 1);
    assert_eq!(
        list(&bus, "").await,
        ["o-1:placed", "o-2:placed", "o-3\u{7}"]
    );
    assert!(bus.receive("notifications", 0).await.is_none());
    assert!(bus.receive(VENDORS, 0).await.is_none());
}

#[tokio::test]
async fn what_is_not_meant_or_can_not_be_sent_stays() {
    let bus = ServiceBus::start().await;
    bus.dead_letter("customers", "o-1:placed", &[], &[0xff, 0xfe])
        .await;
    let other = [("dead-letter-reason", "\"rejected\"")];
    bus.dead_letter("customers", "o-2:placed", &other, b"{}")
        .await;
    bus.dead_letter("customers", "o-3:placed", &[], b"{}").await;
    bus.dead_letter("customers", "o-4:placed", &[], b"{}").await;

    let arguments = "dead-letters replay --reason MaxDeliveryCountExceeded --limit 2";
    let ended = run(&bus, arguments).await;

    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.each("outcome"), ["failed", "replayed"]);
    assert_eq!(ended.each("why"), ["not text"]);
    let summary =
        json!({ "replayed": 1, "wouldBeReplayed": 0, "failed": 1, "skipped": 0, "notMatched": 1 });
    assert_eq!(ended.summary(), &summary);
    assert_eq!(
        list(&bus, "").await,
        ["o-1:placed", "o-2:placed", "o-4:placed"]
    );
}

/// Lets everything through to the bus but the requests of one kind: these it names and never answers.
async fn holding(
    bus: &ServiceBus,
    method: Method,
    path: &'static str,
) -> (String, mpsc::UnboundedReceiver<()>) {
    let (held, is_held) = mpsc::unbounded_channel();
    let to = bus.url("");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let router = Router::new().fallback(async move |request: Request| {
        let (mut head, body) = request.into_parts();
        if head.method == method && head.uri.path().contains(path) {
            let _ = held.send(());
            std::future::pending::<()>().await;
        }
        head.headers.remove("host");
        let url = format!("{to}{}", &head.uri.to_string()[1..]);
        let request = http.request(head.method, url).headers(head.headers);
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let answer = request.body(body).send().await.unwrap();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        *response.body_mut() = Body::from(answer.bytes().await.unwrap());
        response
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, is_held)
}

/// Kills a replay while such a request waits for its answer, and runs another one.
async fn kill_and_run_again(method: Method, path: &'static str) {
    let bus = ServiceBus::start().await;
    bus.dead_letter("vendors", "o-1:placed", &[], BODY.as_bytes())
        .await;
    let (url, mut is_held) = holding(&bus, method.clone(), path).await;
    let arguments = "dead-letters replay --audience vendors";
    let mut killed = orderup(&url, arguments).spawn().unwrap();
    is_held.recv().await.unwrap();
    killed.kill().await.unwrap();

    // Comes when the lock of the killed process has ended.
    let dead = bus
        .receive(&format!("{VENDORS}/$deadletterqueue"), 60)
        .await;
    let dead = dead.unwrap_or_else(|| panic!("{method}: the dead letter is lost"));
    bus.unlock(&dead).await;
    let next = run(&bus, arguments).await;

    assert_eq!(next.each("outcome"), ["replayed"], "{method}");
    let copy = bus.receive(VENDORS, 0).await.expect("the copy");
    bus.complete(&copy).await;
    let second = bus.receive(VENDORS, 0).await;
    assert!(second.is_none(), "{method}: told twice");
    assert!(list(&bus, "").await.is_empty(), "{method}");
}

#[tokio::test]
async fn killed_at_any_moment_a_replay_loses_nothing_and_tells_nobody_twice() {
    // Before the broker has the copy, and between that and the end of the dead letter.
    tokio::join!(
        kill_and_run_again(Method::POST, "/orders/messages"),
        kill_and_run_again(Method::DELETE, "/$deadletterqueue/messages/"),
    );
}

/// A locked message as the service hands it over.
fn locked(number: u64, token: u64, changes: &Value) -> Reply {
    let mut properties = json!({
        "SequenceNumber": number, "MessageId": format!("o-{number}:placed"), "CorrelationId": format!("o-{number}"),
        "LockToken": token_text(token), "EnqueuedTimeUtc": "Sun, 06 Nov 1994 08:49:37 GMT",
    });
    for (name, value) in changes.as_object().unwrap() {
        properties[name] = value.clone();
    }
    Reply::Answer {
        status: 201,
        headers: vec![
            ("brokerproperties", properties.to_string()),
            ("location", "http://elsewhere.example/x".to_owned()),
            (
                "deadletterreason",
                "\"MaxDeliveryCountExceeded\"".to_owned(),
            ),
        ],
        body: "{}".to_owned(),
    }
}

fn token_text(token: u64) -> String {
    uuid::Uuid::from_u128(token.into()).to_string()
}

async fn run_scripted(bus: &ScriptedServer, arguments: &str) -> Ended {
    let command = orderup(&bus.url(), arguments).output();
    Ended::of(command.await.unwrap())
}

/// What was asked of messages, as `{method} {sequence number}/{lock}`, or of the topic.
fn settled(received: &[Received]) -> Vec<String> {
    let asked = received
        .iter()
        .filter(|it| !it.path_and_query.contains("/head"));
    let mut asked: Vec<_> = asked
        .map(|it| {
            let message = it.path_and_query.rsplit("/messages").next().unwrap();
            format!("{} {message}", it.method)
        })
        .collect();
    asked.sort();
    asked
}

#[tokio::test]
async fn a_message_whose_lock_expires_meanwhile_is_listed_once_and_unlocked_by_its_new_lock() {
    let bus = ScriptedServer::start([
        locked(1, 11, &json!({})),
        locked(2, 12, &json!({})),
        locked(1, 21, &json!({})),
        locked(3, 13, &json!({})),
        Reply::status(204),
        Reply::status(200),
    ])
    .await;
    let ended = run_scripted(&bus, "dead-letters list --audience vendors").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.each("orderId"), ["o-1", "o-2", "o-3"]);
    let unlocked = [(1, 21), (2, 12), (3, 13)];
    let unlocked = unlocked.map(|(number, token)| format!("PUT /{number}/{}", token_text(token)));
    assert_eq!(settled(&bus.rest()), unlocked);
}

#[tokio::test]
async fn a_walk_that_can_not_get_to_the_end_says_so() {
    for (command, code) in [("list", 0), ("replay --reason other", 1)] {
        let mut script = vec![locked(1, 11, &json!({})), locked(2, 12, &json!({}))];
        script.extend([1, 2, 1].map(|number| locked(number, 30, &json!({}))));
        script.push(Reply::status(200));
        let bus = ScriptedServer::start(script).await;
        let arguments = format!("dead-letters {command} --audience vendors");
        let ended = run_scripted(&bus, &arguments).await;
        assert_eq!(ended.code, Some(code), "{command}");
        assert!(
            ended.stderr.contains("vendors may hold more"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn what_dies_while_a_replay_runs_is_left_for_the_next() {
    let bus = ScriptedServer::start([
        locked(1, 11, &json!({})),
        Reply::status(201),
        Reply::status(200),
        locked(
            2,
            12,
            &json!({ "EnqueuedTimeUtc": "Fri, 31 Dec 2100 00:00:00 GMT" }),
        ),
        Reply::status(204),
        Reply::status(200),
    ])
    .await;
    let ended = run_scripted(&bus, "dead-letters replay --audience vendors --rate 1000/s").await;
    assert_eq!(ended.code, Some(1), "not all are replayed");
    assert_eq!(ended.each("outcome"), ["replayed", "skipped"]);
    let received = bus.rest();
    let asked = [
        format!("DELETE /1/{}", token_text(11)),
        "POST ".to_owned(),
        format!("PUT /2/{}", token_text(12)),
    ];
    assert_eq!(settled(&received), asked);
}

#[tokio::test]
async fn a_signal_ends_a_replay_after_the_message_in_hand_and_unlocks_the_rest() {
    for signal in ["-INT", "-TERM"] {
        let release = Arc::new(Notify::new());
        let bus = ScriptedServer::start([
            // Of another order: too new to be meant, and held until the end.
            locked(
                1,
                11,
                &json!({ "EnqueuedTimeUtc": "Fri, 31 Dec 2100 00:00:00 GMT" }),
            ),
            locked(2, 12, &json!({})),
            Reply::Held(release.clone(), 201, String::new()),
            Reply::status(200),
        ])
        .await;
        let arguments = "dead-letters replay --audience vendors --older-than 1d";
        let mut command = orderup(&bus.url(), arguments);
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        for _ in 0..3 {
            bus.next().await;
        }
        let pid = child.id().unwrap().to_string();
        let mut kill = Command::new("kill");
        assert!(kill.args([signal, &pid]).status().await.unwrap().success());
        // The broker answers only now, after the signal.
        release.notify_one();
        let ended = Ended::of(child.wait_with_output().await.unwrap());
        assert_eq!(ended.code, Some(130), "{signal}");
        assert_eq!(ended.each("outcome"), ["replayed"], "{signal}");
        assert_eq!(ended.summary()["notMatched"], 1, "{signal}");
        let asked = [
            format!("DELETE /2/{}", token_text(12)),
            format!("PUT /1/{}", token_text(11)),
        ];
        assert_eq!(settled(&bus.rest()), asked, "{signal}");
    }
}

#[tokio::test]
async fn a_passing_failure_and_a_token_that_is_not_taken_any_more_are_got_over() {
    let bus = ScriptedServer::start([
        Reply::status(401),
        Reply::status(503),
        locked(1, 11, &json!({})),
        Reply::status(204),
        Reply::status(200),
    ])
    .await;
    let ended = run_scripted(&bus, "dead-letters list --audience vendors").await;
    assert_eq!((ended.code, ended.lines.len()), (Some(0), 1));
}

#[tokio::test]
async fn a_queue_that_is_not_there_or_not_readable_is_named_with_the_right_it_needs() {
    let paused = "<Error><Code>403</Code><Detail>The messaging entity 'orders' is currently disabled.</Detail></Error>";
    for (status, body, words) in [
        (401, "", "the key or the token"),
        (403, "", "Data Receiver"),
        (403, paused, "is paused"),
        (404, "", "there is no"),
        (410, "", "ORDERS_TOPIC"),
    ] {
        let bus = ScriptedServer::start([Reply::text(status, body)]).await;
        let ended = run_scripted(&bus, "dead-letters list").await;
        assert_eq!((ended.code, ended.lines.len()), (Some(1), 0));
        for words in [words, "notifications", VENDORS] {
            assert!(ended.stderr.contains(words), "{status}: {}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn a_topic_that_does_not_take_the_copy_leaves_the_dead_letter_and_ends_the_replay() {
    let bus = ScriptedServer::start([
        locked(1, 11, &json!({})),
        Reply::status(403),
        Reply::status(200),
    ])
    .await;
    let ended = run_scripted(&bus, "dead-letters replay").await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.each("outcome"), ["failed"]);
    assert!(ended.stderr.contains("Send"), "{}", ended.stderr);
    let asked = ["POST ".to_owned(), format!("PUT /1/{}", token_text(11))];
    assert_eq!(settled(&bus.rest()), asked);
}

#[tokio::test]
async fn arguments_are_explained_and_wrong_ones_end_with_2() {
    let run = async |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orderup"));
        command.args(arguments.split_whitespace()).env_clear();
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, stdout, _) = run("dead-letters --help").await;
    assert_eq!(code, Some(0));
    assert!(stdout.contains("personal data"), "{stdout}");
    let (code, stdout, _) = run("--version").await;
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("orderup "), "{stdout}");
    for arguments in ["serve", "dead-letters purge", "dead-letters list --colour"] {
        let (code, stdout, stderr) = run(arguments).await;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments}");
        assert!(
            stderr.contains("see `orderup --help`"),
            "{arguments}: {stderr}"
        );
    }
    let (code, _, stderr) = run("dead-letters list").await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("ServiceBusConnection"), "{stderr}");
}
