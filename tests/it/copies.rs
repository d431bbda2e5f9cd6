//! The copies in which a message goes on whose recipient cannot be told now, and the three traps that would lose or
//! multiply them. Through the real binary, one delivery at a time.

use std::{collections::BTreeMap, ops::Index, sync::Arc};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Notify;

use crate::{
    handler::{Handler, order_placed},
    scripted_server::{Received, Reply},
    triggers::assert_completed,
};

/// A message that the handler sent to the topic.
#[derive(Debug)]
pub struct Copy {
    pub body: String,
    pub broker: Value,
    properties: BTreeMap<String, String>,
}

impl Copy {
    pub async fn next(handler: &Handler) -> Self {
        Self::of(handler.bus.next().await)
    }

    pub fn of(sent: Received) -> Self {
        assert_eq!(sent.path_and_query, "/orders/messages");
        let properties = sent
            .headers
            .iter()
            .map(|(name, value)| {
                let value = value.to_str().unwrap();
                let text = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                (name.to_string(), text.unwrap_or(value).to_owned())
            })
            .collect();
        Self {
            broker: serde_json::from_str(sent.header("brokerproperties")).unwrap(),
            body: sent.body,
            properties,
        }
    }

    pub fn id(&self) -> &str {
        self.broker["MessageId"].as_str().unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// In how many seconds it comes, counted from now.
    pub fn due_in(&self) -> i64 {
        let due = self.broker["ScheduledEnqueueTimeUtc"]
            .as_str()
            .expect("it is scheduled");
        let due = OffsetDateTime::from(httpdate::parse_http_date(due).unwrap());
        (due - OffsetDateTime::now_utc()).whole_seconds()
    }

    /// The properties as the host gives them to the next delivery.
    pub fn properties(&self) -> Value {
        let known = [
            "audience",
            "vendor",
            "generation",
            "failures",
            "first-seen",
            "last-error",
            "unconfirmed-since",
            "held-seconds",
            "dead-letter-reason",
            "dead-letter-description",
            "dead-letter-time",
        ];
        known
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), json!(self.properties.get(name)?))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

impl Index<&str> for Copy {
    type Output = String;

    fn index(&self, name: &str) -> &String {
        let found = self.properties.get(name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.properties))
    }
}

pub const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

/// A call and its quick retries.
pub const TRIES: usize = 3;

pub fn down(server: &crate::scripted_server::ScriptedServer, times: usize) {
    for _ in 0..times {
        server.reply_once(Reply::status(503));
    }
}

pub fn at(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap()
}

#[tokio::test]
async fn an_email_that_is_not_taken_comes_again_for_customers_only() {
    let handler = Handler::start().await;
    down(&handler.provider, TRIES);
    let response = handler
        .trigger_copy(
            "notify",
            &order_placed(),
            &json!({ "audience": "customers", "generation": 0 }),
        )
        .await;
    assert_completed(response).await;
    assert_eq!(handler.provider.rest().len(), TRIES);
    let copy = Copy::next(&handler).await;
    assert_eq!(copy.id(), format!("{ORDER}:placed:customers:1"));
    assert_eq!(copy.broker["Label"], "order.placed");
    assert_eq!(copy.broker["CorrelationId"], ORDER);
    assert_eq!(copy.body, order_placed().to_string());
    assert_eq!(copy["content-type"], "application/cloudevents+json");
    assert_eq!(copy["audience"], "customers");
    assert_eq!(copy["generation"], "1");
    assert_eq!(copy["failures"], "1");
    assert!(copy["last-error"].starts_with("transient: ACS could not take it now: 503"));
    assert!((28..=39).contains(&copy.due_in()), "{}", copy.due_in());
    assert!(!copy.has("vendor") && !copy.has("dead-letter-reason"));
    assert!(handler.bus.rest().is_empty());

    // The copy fails as well: one generation on, a longer wait, and the same beginning.
    down(&handler.provider, 1);
    handler.provider.reply_once(Reply::status(400));
    handler.provider.reply_once(Reply::status(503));
    handler
        .trigger_copy("notify", &order_placed(), &copy.properties())
        .await;
    let next = Copy::next(&handler).await;
    assert_eq!(next.id(), format!("{ORDER}:placed:customers:2"));
    assert_eq!(next["failures"], "2");
    assert_eq!(next["first-seen"], copy["first-seen"]);
    assert!((58..=77).contains(&next.due_in()), "{}", next.due_in());
}

#[tokio::test]
async fn the_copy_is_on_the_bus_before_the_host_is_told_to_complete() {
    let handler = Handler::start().await;
    down(&handler.florist, TRIES);
    let release = Arc::new(Notify::new());
    handler
        .bus
        .reply_once(Reply::Held(release.clone(), 201, String::new()));
    let message = order_placed().to_string();
    let mut answer = std::pin::pin!(handler.trigger("vendor-notify", message.as_bytes()));
    tokio::select! {
        _ = &mut answer => panic!("answered before the bus had the copy"),
        copy = Copy::next(&handler) => assert_eq!(copy["vendor"], "florist"),
    }
    release.notify_one();
    assert_completed(answer.await).await;
}

/// Trap 1: a copy with the id of what it replaces is dropped by the topic, and with it the notification. And what is sent
/// again, after a lost answer or a crash, has to be known again.
#[tokio::test]
async fn every_copy_has_an_id_of_its_own_and_the_same_copy_the_same() {
    let handler = Handler::start().await;
    let mut ids = vec![format!("{ORDER}:placed")];
    for generation in 0..3 {
        let properties = json!({ "audience": "vendors", "generation": generation });
        let mut sent = Vec::new();
        for _ in 0..2 {
            for vendor in [&handler.bakery, &handler.florist] {
                vendor.reply_once(Reply::with_header(503, "retry-after", "20"));
            }
            let response = handler
                .trigger_copy("vendor-notify", &order_placed(), &properties)
                .await;
            assert_completed(response).await;
            let mut pair = [Copy::next(&handler).await, Copy::next(&handler).await]
                .map(|copy| copy.id().to_owned());
            pair.sort();
            sent.push(pair);
        }
        assert_eq!(
            sent[0], sent[1],
            "the same delivery again sends the same copies"
        );
        ids.extend(sent.swap_remove(0));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
}

/// Trap 2: the original is delivered again although its copy is on the bus, and so both are processed. Whoever hears of
/// both can tell that they are one.
#[tokio::test]
async fn original_and_copy_say_the_same_under_the_same_key() {
    let handler = Handler::start().await;
    handler
        .florist
        .reply_once(Reply::with_header(503, "retry-after", "20"));
    let message = order_placed().to_string();
    assert_completed(handler.trigger("vendor-notify", message.as_bytes()).await).await;
    let copy = Copy::next(&handler).await;
    let first = handler.florist.next().await;
    handler.bakery.next().await;
    let response = handler
        .trigger_copy("vendor-notify", &order_placed(), &copy.properties())
        .await;
    assert_completed(response).await;
    let again = handler.florist.next().await;
    assert_eq!(first.header("webhook-id"), again.header("webhook-id"));
    assert_eq!(first.body, again.body);

    // The provider is asked before it gets an email a second time.
    handler
        .provider
        .reply_once(Reply::text(200, r#"{"id":"x","status":"Running"}"#));
    let metadata = json!({ "DeliveryCount": "2" });
    let response = handler
        .trigger_with("notify", message.as_bytes(), &metadata)
        .await;
    assert_completed(response).await;
    let asked = handler.provider.rest();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, "GET");
}

/// Trap 3: a copy for one vendor reaches the others too. (That it reaches no other subscription is the rules', see
/// `end_to_end.rs`.)
#[tokio::test]
async fn a_vendor_that_is_down_delays_only_its_own_copy() {
    let handler = Handler::start().await;
    down(&handler.florist, TRIES);
    let message = order_placed().to_string();
    assert_completed(handler.trigger("vendor-notify", message.as_bytes()).await).await;
    assert_eq!(handler.bakery.rest().len(), 1);
    assert_eq!(handler.florist.rest().len(), TRIES);
    let copy = Copy::next(&handler).await;
    assert_eq!(copy.id(), format!("{ORDER}:placed:vendors:florist:1"));
    assert_eq!(copy["audience"], "vendors");
    assert_eq!(copy["vendor"], "florist");
    assert!(handler.bus.rest().is_empty());

    let response = handler
        .trigger_copy("vendor-notify", &order_placed(), &copy.properties())
        .await;
    assert_completed(response).await;
    assert_eq!(handler.florist.rest().len(), 1);
    assert!(handler.bakery.rest().is_empty());
    assert!(handler.bus.rest().is_empty());
}
