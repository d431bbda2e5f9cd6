//! What `OrdersTopic` puts on the wire, and what it makes of each answer.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use orderup::config::Settings;
use orderup::connection::TopicSettings;
use orderup::data_plane::SendLimits;
use orderup::http_client;
use orderup::orders_topic::{OrdersTopic, Outgoing, PropertyValue, PublishError};
use sha2::Sha256;
use time::macros::datetime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::scripted_server::{Reply, ScriptedServer};

const KEY: &str = "a2V5LWZvci10ZXN0cw==";

const LIMITS: SendLimits = SendLimits {
    attempt: Duration::from_secs(10),
    total: Duration::from_secs(20),
    first_backoff: Duration::from_millis(1),
};

/// For answers that stay the same: each attempt has a second at least.
const OUTAGE: SendLimits = SendLimits {
    attempt: Duration::from_secs(4),
    total: Duration::from_secs(3),
    first_backoff: Duration::from_millis(300),
};

/// For silence: the test takes this long.
const IMPATIENT: SendLimits = SendLimits {
    attempt: Duration::from_millis(500),
    total: Duration::from_millis(1500),
    first_backoff: Duration::from_millis(1),
};

fn settings(url: &str) -> TopicSettings {
    let connection = format!(
        "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey={KEY};UseDevelopmentEmulator=true;"
    );
    TopicSettings::read(&Settings::from_pairs([
        ("ServiceBusConnection", &connection),
        ("SERVICEBUS_REST_ENDPOINT", url),
    ]))
    .unwrap()
}

fn topic(url: &str, limits: SendLimits) -> OrdersTopic {
    let client = http_client::outgoing(&Settings::from_pairs([])).unwrap();
    OrdersTopic::with_limits(&settings(url), &client, limits)
}

fn message(message_id: &str) -> Outgoing {
    Outgoing {
        message_id: message_id.to_owned(),
        label: "order.placed".to_owned(),
        correlation_id: "o-1".to_owned(),
        content_type: "application/cloudevents+json".into(),
        body: r#"{"id":"o-1:placed","data":{"name":"Zoë"}}"#.to_owned(),
        scheduled_enqueue_time: None,
        properties: vec![],
    }
}

fn error_xml(code: u16, detail: &str) -> String {
    format!("<Error><Code>{code}</Code><Detail>{detail}</Detail></Error>")
}

#[tokio::test]
async fn a_message_is_this_request() {
    let bus = ScriptedServer::start([Reply::status(201)]).await;
    let message = Outgoing {
        label: "créé".to_owned(),
        scheduled_enqueue_time: Some(datetime!(2026-12-24 19:00:05.5 +02:00)),
        properties: vec![
            (
                "audience".to_owned(),
                PropertyValue::Text("vendors".to_owned()),
            ),
            ("generation".to_owned(), PropertyValue::Integer(1)),
        ],
        ..message("o-1:placed:vendors:1")
    };
    topic(&bus.url(), LIMITS).publish(&message).await.unwrap();

    let received = bus.next().await;
    assert_eq!(received.method, "POST");
    assert_eq!(received.path_and_query, "/orders/messages");
    assert_eq!(received.body, message.body);
    let mut headers: Vec<String> = received
        .headers
        .iter()
        .filter(|(name, _)| *name != "authorization")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "accept: */*".to_owned(),
            r#"audience: "vendors""#.to_owned(),
            r#"brokerproperties: {"CorrelationId":"o-1","Label":"cr\u00e9\u00e9","MessageId":"o-1:placed:vendors:1","ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2026 17:00:06 GMT"}"#.to_owned(),
            format!("content-length: {}", message.body.len()),
            "content-type: application/cloudevents+json".to_owned(),
            "generation: 1".to_owned(),
            format!("host: {}", bus.address),
            format!("user-agent: orderup/{}", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[tokio::test]
async fn one_token_for_the_topic_signs_every_message() {
    let bus = ScriptedServer::start([Reply::status(201)]).await;
    let topic = topic(&bus.url(), LIMITS);
    topic.publish(&message("m-1")).await.unwrap();
    topic.publish(&message("m-2")).await.unwrap();

    let first = bus.next().await;
    let token = first.header("authorization");
    assert_eq!(bus.next().await.header("authorization"), token);

    let fields = token.strip_prefix("SharedAccessSignature ").unwrap();
    let field = |name: &str| {
        let prefix = format!("{name}=");
        fields
            .split('&')
            .find_map(|field| field.strip_prefix(&prefix))
            .unwrap()
    };
    let resource = format!("{}/orders", bus.url())
        .replace(':', "%3A")
        .replace('/', "%2F");
    assert_eq!(field("sr"), resource);
    assert_eq!(field("skn"), "RootManageSharedAccessKey");
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{resource}\n{}", field("se")).as_bytes());
    let signature = BASE64_STANDARD
        .encode(mac.finalize().into_bytes())
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    assert_eq!(field("sig"), signature);
}

#[tokio::test]
async fn a_passing_failure_is_followed_by_the_same_message() {
    let failures = [408, 429, 500, 502, 503, 504].map(Reply::status);
    let bus = ScriptedServer::start(failures.into_iter().chain([Reply::status(201)])).await;
    topic(&bus.url(), LIMITS)
        .publish(&message("o-1:placed"))
        .await
        .unwrap();
    let received = bus.rest();
    assert_eq!(received.len(), 7);
    for request in &received {
        assert!(
            request
                .header("brokerproperties")
                .contains(r#""MessageId":"o-1:placed""#)
        );
        assert_eq!(request.headers, received[0].headers);
        assert_eq!(request.body, received[0].body);
    }
}

#[tokio::test]
async fn messages_share_one_connection() {
    let bus = ScriptedServer::start([
        Reply::status(201),
        Reply::text(503, &error_xml(503, "busy")),
        Reply::status(201),
    ])
    .await;
    let topic = topic(&bus.url(), LIMITS);
    for number in 0..20 {
        let message = message(&format!("m-{number}"));
        topic.clone().publish(&message).await.unwrap();
    }
    let received = bus.rest();
    let connections: HashSet<_> = received.iter().map(|request| request.peer).collect();
    assert_eq!((received.len(), connections.len()), (21, 1));
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_in_the_services_words() {
    for status in [400, 403, 404, 410] {
        let words = "The value Hello of the HTTP header world is invalid.";
        let bus = ScriptedServer::start([Reply::text(status, &error_xml(status, words))]).await;
        let error = topic(&bus.url(), LIMITS)
            .publish(&message("m-1"))
            .await
            .unwrap_err();
        assert!(!error.is_transient());
        let PublishError::Rejected {
            status: told,
            detail,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((told, detail.as_str()), (status, words));
        assert_eq!(bus.rest().len(), 1);
    }
}

#[tokio::test]
async fn an_unauthorised_message_is_sent_once_more() {
    let bus = ScriptedServer::start([Reply::status(401), Reply::status(201)]).await;
    topic(&bus.url(), LIMITS)
        .publish(&message("m-1"))
        .await
        .unwrap();
    assert_eq!(bus.rest().len(), 2);

    let words = "InvalidSignature: The token has an invalid signature.";
    let bus = ScriptedServer::start([Reply::text(401, &error_xml(401, words))]).await;
    let error = topic(&bus.url(), LIMITS)
        .publish(&message("m-1"))
        .await
        .unwrap_err();
    assert!(matches!(&error, PublishError::Rejected { status: 401, detail } if detail == words));
    assert_eq!(bus.rest().len(), 2);
}

#[tokio::test]
async fn only_201_means_that_the_broker_has_the_message() {
    for reply in [
        Reply::status(200),
        Reply::status(202),
        Reply::with_header(302, "location", "/elsewhere"),
    ] {
        let bus = ScriptedServer::start([reply]).await;
        let error = topic(&bus.url(), LIMITS)
            .publish(&message("m-1"))
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::Rejected { .. }), "{error}");
        assert_eq!(bus.rest().len(), 1);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_apart() {
    for reply in [
        Reply::status(413),
        Reply::text(
            403,
            &error_xml(403, "The message size exceeds the limit of 262144 bytes."),
        ),
    ] {
        let bus = ScriptedServer::start([reply]).await;
        let error = topic(&bus.url(), LIMITS)
            .publish(&message("m-1"))
            .await
            .unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_long_retry_after_is_handed_on_instead_of_waited_for() {
    let bus = ScriptedServer::start([
        Reply::with_header(429, "retry-after", "60"),
        Reply::status(201),
    ])
    .await;
    let error = topic(&bus.url(), LIMITS)
        .publish(&message("m-1"))
        .await
        .unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert!(matches!(error, PublishError::Busy { status: 429, .. }));
    assert_eq!(bus.rest().len(), 1);
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for() {
    let bus = ScriptedServer::start([
        Reply::with_header(503, "retry-after", "1"),
        Reply::status(201),
    ])
    .await;
    topic(&bus.url(), LIMITS)
        .publish(&message("m-1"))
        .await
        .unwrap();
    assert_eq!(bus.rest().len(), 2);
}

#[tokio::test]
async fn an_outage_ends_with_the_last_answer() {
    let body = error_xml(503, "50009 please wait 2 seconds");
    let bus = ScriptedServer::start([Reply::text(503, &body)]).await;
    let error = topic(&bus.url(), OUTAGE)
        .publish(&message("m-1"))
        .await
        .unwrap_err();
    assert!(error.is_transient());
    assert!(
        matches!(&error, PublishError::Busy { status: 503, detail, retry_after: None }
            if detail == "50009 please wait 2 seconds"),
        "{error}"
    );
    assert!(bus.rest().len() > 1);
}

#[tokio::test]
async fn a_refused_connection_means_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = topic(&url, OUTAGE)
        .publish(&message("m-1"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::Unreachable { reason } if reason.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn silence_is_an_unanswered_message() {
    let bus = ScriptedServer::start([Reply::Hang]).await;
    let error = topic(&bus.url(), IMPATIENT)
        .publish(&message("m-1"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::Unanswered { reason } if reason.contains("timed out")),
        "{error}"
    );
    assert!(bus.rest().len() > 1);
}

#[tokio::test]
async fn silence_is_followed_by_the_same_message() {
    let bus = ScriptedServer::start([Reply::Hang, Reply::status(201)]).await;
    let limits = SendLimits {
        attempt: Duration::from_secs(1),
        ..LIMITS
    };
    topic(&bus.url(), limits)
        .publish(&message("m-1"))
        .await
        .unwrap();
    let received = bus.rest();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers, received[1].headers);
}

async fn read_request(connection: &mut TcpStream, body: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(body.as_bytes()) {
        assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
    }
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_followed_by_the_same_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let topic = topic(
        &format!("http://{}", listener.local_addr().unwrap()),
        LIMITS,
    );
    let message = message("m-1");
    let serve = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let first = read_request(&mut connection, &message.body).await;
        drop(connection);
        let (mut connection, _) = listener.accept().await.unwrap();
        let second = read_request(&mut connection, &message.body).await;
        connection
            .write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        (first, second)
    };
    let ((first, second), published) = tokio::join!(serve, topic.publish(&message));
    published.unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_broker_that_goes_away_without_an_answer_may_have_the_message() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let topic = topic(
        &format!("http://{}", listener.local_addr().unwrap()),
        OUTAGE,
    );
    let message = message("m-1");
    let serve = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        read_request(&mut connection, &message.body).await;
        drop(listener);
    };
    let ((), published) = tokio::join!(serve, topic.publish(&message));
    let error = published.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unanswered { reason } if reason.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn a_message_that_can_not_be_sent_does_not_reach_the_broker() {
    let bus = ScriptedServer::start([Reply::status(201)]).await;
    let topic = topic(&bus.url(), LIMITS);
    for (name, value) in [
        ("注文", "v"),
        ("authorization", "Bearer mine"),
        ("note", "a\r\nx-injected: 1"),
    ] {
        let message = Outgoing {
            properties: vec![(name.to_owned(), PropertyValue::Text(value.to_owned()))],
            ..message("bad")
        };
        let error = topic.publish(&message).await.unwrap_err();
        assert!(matches!(error, PublishError::Unsendable(_)), "{error}");
    }
    let early = Outgoing {
        scheduled_enqueue_time: Some(datetime!(1066-10-14 9:00 UTC)),
        ..message("bad")
    };
    assert!(topic.publish(&early).await.is_err());

    topic.publish(&message("good")).await.unwrap();
    let received = bus.rest();
    assert_eq!(received.len(), 1);
    assert!(received[0].header("brokerproperties").contains("good"));
}

#[tokio::test]
async fn no_signature_is_printed_even_if_the_other_side_repeats_it() {
    let bus = ScriptedServer::start([Reply::Echo(400)]).await;
    let topic = topic(&bus.url(), LIMITS);
    let error = topic.publish(&message("m-1")).await.unwrap_err();
    let printed = format!("{error} {error:?} {topic:?} {:?}", settings(&bus.url()));
    assert!(printed.contains("[authorization]"), "{printed}");
    for secret in ["sig=", KEY] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
