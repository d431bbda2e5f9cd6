//! `docs/asyncapi.json` and `docs/vendor.openapi.json` against what the real binary puts onto the bus and sends to vendors, and
//! their examples against what it reads.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, StatusCode};
use orderup::{event::Event, history::Standing, retry_policy::RetryPolicy};
use serde_json::{Map, Value, json};
use time::macros::datetime;

use crate::{
    api_document::{ApiDocument, step},
    handler::{Folder, Handler, SECRET, order, order_placed},
    scripted_server::{Received, Reply, ScriptedServer},
};

const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

/// Headers of requests and answers of Service Bus's REST API, which are no properties.
const OF_HTTP: [&str; 10] = [
    "accept",
    "authorization",
    "brokerproperties",
    "content-length",
    "content-type",
    "date",
    "host",
    "location",
    "transfer-encoding",
    "user-agent",
];

struct Messages(ApiDocument);

impl Messages {
    fn new() -> Self {
        Self(ApiDocument::asyncapi().closed())
    }

    /// Holds application properties against those of the message.
    #[track_caller]
    fn check_properties(&self, name: &str, headers: &HeaderMap) {
        let place = format!("/components/messages/{name}/headers");
        let documented = self.0.at(&place)["properties"].as_object().unwrap();
        let mut properties = Map::new();
        for (header, value) in headers {
            let header = header.as_str();
            if OF_HTTP.contains(&header) {
                continue;
            }
            // They compare without regard to case.
            let mut names = documented.keys();
            let known = names.find(|name| name.eq_ignore_ascii_case(header));
            // A text is in quotes, and a number is not.
            let value = value.to_str().unwrap();
            let value = serde_json::from_str(value).unwrap_or_else(|_| panic!("{header}: {value}"));
            properties.insert(known.map_or(header, |known| known).to_owned(), value);
        }
        self.0.schema(&place).assert(&properties.into());
    }

    /// Holds what came to the bus against the message of that name.
    #[track_caller]
    fn check(&self, name: &str, sent: &Received) {
        let place = format!("/components/messages/{name}");
        let message = self.0.at(&place);
        assert_eq!(sent.path_and_query, "/orders/messages");
        self.check_properties(name, &sent.headers);
        let mut broker: Value = serde_json::from_str(sent.header("brokerproperties")).unwrap();
        broker["ContentType"] = sent.header("content-type").into();
        self.0
            .schema(&format!("{place}/x-broker-properties"))
            .assert(&broker);
        if let Ok(body) = serde_json::from_str(&sent.body) {
            self.0.schema(&format!("{place}/payload")).assert(&body);
            // Whoever goes by the document finds the order where it says that it is.
            let pointer = self.0.resolve(&message["correlationId"])["location"].clone();
            let pointer = pointer
                .as_str()
                .unwrap()
                .strip_prefix("$message.payload#")
                .unwrap();
            assert_eq!(body.pointer(pointer), Some(&broker["CorrelationId"]));
        } else {
            assert_eq!(name, "condemnedCopy");
        }
    }
}

/// Holds a copy that `orderup dead-letters replay` has made against the document, as it was received.
#[track_caller]
pub fn check_replay(headers: &HeaderMap) {
    Messages::new().check_properties("replay", headers);
}

/// Examples of a message: their properties and bodies.
fn examples(document: &ApiDocument, message: &str) -> Vec<(Value, Value)> {
    let examples = document.at(&format!("/components/messages/{message}/examples"));
    let examples = examples.as_array().unwrap().iter();
    examples
        .map(|example| (example["headers"].clone(), example["payload"].clone()))
        .collect()
}

async fn next(handler: &Handler) -> Received {
    handler.bus.next().await
}

#[tokio::test]
async fn what_checkout_and_cancel_say_is_as_the_document_has_it() {
    let messages = Messages::new();
    let handler = Handler::start().await;
    handler.post("/api/checkout", &order()).await;
    messages.check("orderPlaced", &next(&handler).await);
    let least = json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net" },
        "lineItems": [order()["lineItems"][0]], "payment": { "source": "EXTERNAL" }
    });
    let traced = handler
        .http
        .post(handler.url("/api/checkout"))
        .header("content-type", "application/json")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    traced.body(least.to_string()).send().await.unwrap();
    let placed = next(&handler).await;
    messages.check("orderPlaced", &placed);
    let trace = placed.header("traceparent");
    assert!(
        trace.starts_with("\"00-0af7651916cd43dd8448eb211c80319c-"),
        "{trace}"
    );
    let cancellation = json!({ "reason": "Ordered twice", "order": least });
    handler
        .post(&format!("/api/orders/{ORDER}/cancel"), &cancellation)
        .await;
    messages.check("orderCancelled", &next(&handler).await);
}

#[tokio::test]
async fn what_the_till_says_is_as_the_document_has_it() {
    let messages = Messages::new();
    let accepted = json!({ "order_id": ORDER, "status": "accepted", "external_id": "T-1" });
    let declined = json!({ "type": "https://till.example/payment-declined", "code": "no_funds" });
    let declined = Reply::Answer {
        status: 402,
        headers: vec![("content-type", "application/problem+json".to_owned())],
        body: declined.to_string(),
    };
    // Asked afterwards, a till that has declined does not have the order.
    let nothing = Reply::status(404);
    for (answers, said) in [
        (
            vec![Reply::text(201, &accepted.to_string())],
            "orderConfirmed",
        ),
        (vec![declined, nothing], "orderCancelled"),
    ] {
        let till = ScriptedServer::start(answers).await;
        let book = Folder::new();
        let handler = Handler::start_with(&[
            ("ORDER_BOOK", book.0.to_str().unwrap()),
            ("TILL", "pos"),
            ("TILL_URL", &till.url()),
        ])
        .await;
        let response = handler
            .trigger("till", order_placed().to_string().as_bytes())
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        let sent = next(&handler).await;
        messages.check(said, &sent);
        assert!(
            !sent.body.contains("cnon"),
            "the token is for the till only"
        );
        if said == "orderCancelled" {
            assert_eq!(sent.json()["data"]["cancellation"]["charged"], false);
        }
    }
}

#[tokio::test]
async fn the_copies_in_which_messages_go_on_are_as_the_document_has_them() {
    let messages = Messages::new();
    let handler = Handler::start_with(&[("VENDOR_NOTIFY_ON", "placed")]).await;
    let event = order_placed();
    let trace = json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" });
    // Down, too many, gone, and with an answer that was lost.
    for status in [503, 429, 410] {
        for _ in 0..3 {
            handler.bakery.reply_once(Reply::status(status));
        }
        handler.trigger_copy("vendor-notify", &event, &trace).await;
        messages.check("delayedCopy", &next(&handler).await);
    }
    handler.provider.reply_once(Reply::status(502));
    handler.provider.reply_once(Reply::status(502));
    handler.provider.reply_once(Reply::status(502));
    handler.trigger_copy("notify", &event, &trace).await;
    let copy = next(&handler).await;
    messages.check("delayedCopy", &copy);
    assert!(copy.headers.contains_key("unconfirmed-since"), "{copy:?}");

    // Refused, of a vendor that nobody knows, and none of ours.
    let refused = r#"{"error":{"code":"InvalidRecipient","message":"\"no\""}}"#;
    let handler = Handler::start_with(&[("VENDOR_NOTIFY_ON", "placed")]).await;
    handler.provider.reply_once(Reply::text(400, refused));
    handler.provider.reply_once(Reply::status(404));
    handler.trigger_copy("notify", &event, &trace).await;
    messages.check("condemnedCopy", &next(&handler).await);
    let stranger = event.to_string().replace("florist", "stranger");
    handler.trigger("vendor-notify", stranger.as_bytes()).await;
    messages.check("condemnedCopy", &next(&handler).await);
    handler.trigger("notify", b"hello").await;
    let unreadable = next(&handler).await;
    messages.check("condemnedCopy", &unreadable);
    assert_eq!(unreadable.body, "hello");
}

#[test]
fn examples_of_events_are_read_as_they_are_and_written_again() {
    let document = ApiDocument::asyncapi();
    let mut kinds = BTreeSet::new();
    for message in [
        "orderPlaced",
        "orderConfirmed",
        "orderCancelled",
        "delayedCopy",
        "condemnedCopy",
        "replay",
    ] {
        for (_, payload) in examples(&document, message) {
            let event = Event::from_json(payload.to_string().as_bytes()).unwrap();
            let written: Value = serde_json::from_str(&event.to_json()).unwrap();
            assert_eq!(written, payload);
            kinds.insert(event.kind.name());
        }
    }
    assert_eq!(kinds.len(), 3);
}

#[test]
fn examples_of_messages_are_as_their_schemas_say() {
    let document = ApiDocument::asyncapi().closed();
    for (name, message) in document.at("/components/messages").as_object().unwrap() {
        let place = format!("/components/messages/{name}");
        let examples = examples(&document, name);
        assert!(!examples.is_empty(), "{name}");
        for (headers, payload) in examples {
            document
                .schema(&format!("{place}/headers"))
                .assert(&headers);
            document
                .schema(&format!("{place}/payload"))
                .assert(&payload);
        }
        assert!(message["contentType"].is_string());
    }
}

#[test]
fn examples_of_copies_are_read_as_what_they_are() {
    let document = ApiDocument::asyncapi();
    let policy = RetryPolicy::default();
    let now = datetime!(2026-11-22 19:45 UTC);
    let standing = |message: &str| {
        let (headers, _) = examples(&document, message).remove(0);
        Standing::read(headers.as_object().unwrap(), Some(now), &policy, now)
    };
    let Standing::Live(first) = standing("orderPlaced") else {
        panic!("it is condemned");
    };
    assert_eq!(
        (first.generation, first.failures, first.is_replay),
        (0, 0, false)
    );
    let Standing::Live(delayed) = standing("delayedCopy") else {
        panic!("it is condemned");
    };
    assert_eq!(delayed.audience.as_deref(), Some("vendors"));
    assert_eq!(delayed.vendor.as_deref(), Some("bakery"));
    assert_eq!((delayed.generation, delayed.failures), (3, 2));
    assert_eq!(delayed.first_seen, datetime!(2026-11-22 19:40:01.2 UTC));
    assert!(delayed.last_failure.is_some());
    assert_eq!(standing("condemnedCopy"), Standing::Condemned);
    let Standing::Live(replay) = standing("replay") else {
        panic!("it is condemned");
    };
    assert!(replay.is_replay);
}

/// `{name}` of each `pub const NAME: &str = "{name}";`.
fn constants(source: &str) -> BTreeSet<String> {
    let lines = source.lines();
    let values = lines.filter_map(|line| {
        let (_, value) = line.strip_prefix("pub const ")?.split_once(": &str = \"")?;
        value.strip_suffix("\";").map(str::to_owned)
    });
    values.collect()
}

#[test]
fn the_properties_are_those_that_the_code_knows() {
    let known = constants(include_str!("../../src/properties.rs"));
    assert!(known.len() > 10, "{known:?}");
    let document = ApiDocument::asyncapi();
    let schemas = document.at("/components/schemas").as_object().unwrap();
    let properties = schemas
        .keys()
        .filter_map(|name| name.strip_prefix("property-"));
    assert_eq!(
        properties.map(str::to_owned).collect::<BTreeSet<_>>(),
        known
    );
    let mut used = BTreeSet::new();
    for (_, message) in document.at("/components/messages").as_object().unwrap() {
        if message.get("x-broker-properties").is_some() || message["name"] == "replay" {
            let headers = message["headers"]["properties"].as_object().unwrap();
            used.extend(headers.keys().cloned());
        }
    }
    assert_eq!(used, known);
}

#[test]
fn the_reasons_are_those_for_which_the_code_gives_up() {
    let source = include_str!("../../src/outcome.rs");
    let names = source.lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        let name = name.strip_suffix("\",")?;
        (variant == name).then(|| Value::from(name))
    });
    let document = ApiDocument::asyncapi();
    let documented = document.at("/components/schemas/property-dead-letter-reason/enum");
    assert_eq!(documented, &Value::from(names.collect::<Vec<_>>()));
}

#[test]
fn the_channels_are_the_entities_of_the_topology() {
    let document = ApiDocument::asyncapi();
    let mut documented = BTreeMap::new();
    for (name, channel) in document.at("/channels").as_object().unwrap() {
        if name != "vendorWebhook" {
            let address = channel["address"].as_str().unwrap().to_owned();
            let rule = (channel["x-rule"].clone(), channel["x-forwards-to"].clone());
            documented.insert(address, rule);
        }
    }
    let topology: Value = serde_json::from_str(include_str!("../../servicebus.json")).unwrap();
    let namespace = &topology["UserConfig"]["Namespaces"][0];
    let mut entities = BTreeMap::new();
    for queue in namespace["Queues"].as_array().unwrap() {
        let name = queue["Name"].as_str().unwrap().to_owned();
        entities.insert(name, (Value::Null, Value::Null));
    }
    for topic in namespace["Topics"].as_array().unwrap() {
        let topic_name = topic["Name"].as_str().unwrap();
        entities.insert(topic_name.to_owned(), (Value::Null, Value::Null));
        for subscription in topic["Subscriptions"].as_array().unwrap() {
            let name = subscription["Name"].as_str().unwrap();
            let rule = &subscription["Rules"][0]["Properties"];
            let rule = json!({
                "filter": rule["SqlFilter"]["SqlExpression"],
                "action": rule["Action"]["SqlExpression"],
            });
            let forwards = &subscription["Properties"]["ForwardTo"];
            let forwards = if *forwards == "" {
                &Value::Null
            } else {
                forwards
            };
            entities.insert(
                format!("{topic_name}/subscriptions/{name}"),
                (rule, forwards.clone()),
            );
        }
    }
    assert_eq!(documented, entities);
}

/// A webhook as the bakery or the florist got it, held against both documents.
#[track_caller]
fn check_webhook(received: &Received) -> Value {
    let body = received.json();
    let kind = body["type"].as_str().unwrap();
    let vendor = ApiDocument::vendor().closed();
    let operation = format!("/webhooks/{}/post", step(kind));
    let content = format!("{operation}/requestBody/content/application~1json/schema");
    assert_eq!(received.header("content-type"), "application/json");
    vendor.schema(&content).assert(&body);
    let parameters = vendor
        .at(&format!("{operation}/parameters"))
        .as_array()
        .unwrap();
    let mut told = BTreeSet::new();
    for parameter in parameters {
        let place = parameter["$ref"]
            .as_str()
            .unwrap()
            .strip_prefix('#')
            .unwrap();
        let parameter = vendor.resolve(parameter);
        let name = parameter["name"].as_str().unwrap();
        if parameter["required"] == false && !received.headers.contains_key(name) {
            continue;
        }
        let value = received.header(name).into();
        vendor.schema(&format!("{place}/schema")).assert(&value);
        told.insert(name.to_owned());
    }
    let sent = received.headers.keys().map(|name| name.to_string());
    let sent = sent.filter(|name| name.starts_with("webhook-")).collect();
    assert_eq!(told, sent);
    body
}

#[tokio::test]
async fn each_webhook_is_as_the_documents_have_it() {
    let document = ApiDocument::asyncapi();
    let book = Folder::new();
    let placed = [("VENDOR_NOTIFY_ON", "placed")];
    // With a till, vendors hear of what is confirmed. It is not asked here.
    let confirmed = [
        ("TILL", "pos"),
        ("TILL_URL", "http://127.0.0.1:9/"),
        ("ORDER_BOOK", book.0.to_str().unwrap()),
    ];
    for (settings, first) in [
        (&placed[..], "orderPlaced"),
        (&confirmed[..], "orderConfirmed"),
    ] {
        let handler = Handler::start_with(settings).await;
        let mut sent = BTreeSet::new();
        for message in ["orderPlaced", "orderConfirmed", "orderCancelled"] {
            let (_, event) = examples(&document, message).remove(0);
            let response = handler
                .trigger("vendor-notify", event.to_string().as_bytes())
                .await;
            assert_eq!(response.status(), StatusCode::OK);
            let received = [handler.bakery.rest(), handler.florist.rest()];
            for webhook in received.into_iter().flatten() {
                let body = check_webhook(&webhook);
                // The examples of the documents are the webhooks of their events.
                let (example_headers, example) =
                    examples(&document, &format!("{message}Webhook")).remove(0);
                if body["data"]["vendorId"] == example["data"]["vendorId"] {
                    assert_eq!(body, example);
                    let headers: HeaderMap = webhook.headers.clone();
                    for (name, _) in example_headers.as_object().unwrap() {
                        assert!(headers.contains_key(name.as_str()), "{name}");
                    }
                    sent.insert(message);
                }
                if body["data"]["vendorId"] == "bakery" {
                    let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
                    verifier
                        .verify(webhook.body.as_bytes(), &webhook.headers)
                        .unwrap();
                }
            }
        }
        assert_eq!(sent, BTreeSet::from([first, "orderCancelled"]));
    }
}

#[test]
fn both_documents_tell_the_same_of_webhooks() {
    let (bus, vendor) = (ApiDocument::asyncapi(), ApiDocument::vendor());
    for (kind, message) in [
        ("order.placed", "orderPlacedWebhook"),
        ("order.confirmed", "orderConfirmedWebhook"),
        ("order.cancelled", "orderCancelledWebhook"),
    ] {
        let message = bus.at(&format!("/components/messages/{message}"));
        let operation = vendor.at(&format!("/webhooks/{}/post", step(kind)));
        let content = &operation["requestBody"]["content"]["application/json"];
        assert_eq!(message["payload"], content["schema"]);
        assert_eq!(
            message["examples"][0]["payload"],
            content["examples"]["event"]["value"]
        );
        let mut headers = Map::new();
        for parameter in operation["parameters"].as_array().unwrap() {
            let parameter = vendor.resolve(parameter);
            let mut schema = parameter["schema"].clone();
            schema["description"] = parameter["description"].clone();
            headers.insert(parameter["name"].as_str().unwrap().to_owned(), schema);
        }
        assert_eq!(message["headers"]["properties"], Value::from(headers));
    }
    let of_vendor = vendor.at("/components/schemas").as_object().unwrap();
    for (name, schema) in of_vendor {
        assert_eq!(
            bus.at(&format!("/components/schemas/{name}")),
            schema,
            "{name}"
        );
    }
}
