//! What the order book's facts about an order come to: its status, and what happened when.
//!
//! Runs whenever somebody asks for an order's status ([`crate::order_status`]). [`needed`] says which of the facts are worth
//! reading, [`tell`] makes the answer of what was in them. It is for the order's caller, and so it says what happened to the
//! order, who was told and who was not, and nothing of the customer; the reason of a cancellation is what its caller wrote.
//! A fact that cannot be read is named, and the rest is told all the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use crate::{
    event::Event,
    order::{Money, OrderId},
    order_book::{self, CANCELLED, CONFIRMED, Cancelled, Confirmed, Decision, PLACED},
    redelivery::Audience,
    told::{self, Note, Notification, Progress, Trail},
};

/// Below it, the steps at the till.
const TILL: &str = "till/";

/// What was in the facts, by their names.
pub type Contents = BTreeMap<String, Bytes>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The order book has nothing of it yet.
    Accepted,
    Placed,
    Confirmed,
    /// It is decided at least, and the order goes no further.
    Cancelled,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    order_id: OrderId,
    status: Status,
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    placed_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation: Option<Cancellation>,
    timeline: Vec<Entry>,
    /// The notifications that are not over.
    waiting: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<String>,
    links: Links,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Cancellation {
    reason: String,
    /// `false` where it is known; nothing where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Links {
    #[serde(rename = "self")]
    this: String,
    cancel: String,
}

/// What an entry says happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum What {
    #[serde(rename = "placed")]
    Placed,
    #[serde(rename = "confirmed")]
    Confirmed,
    #[serde(rename = "cancelled")]
    Cancelled,
    #[serde(rename = "till.order")]
    TillOrder,
    #[serde(rename = "till.payment")]
    TillPayment,
    #[serde(rename = "till.paid")]
    TillPaid,
    #[serde(rename = "till.voided")]
    TillVoided,
    #[serde(rename = "told")]
    Told,
    #[serde(rename = "superseded")]
    Superseded,
    #[serde(rename = "waiting")]
    Waiting,
    #[serde(rename = "given-up")]
    GivenUp,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    /// The type of the event that somebody is told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    /// What the till says of a payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    next_attempt: Option<OffsetDateTime>,
    /// The class of the last failure, or the reason for which it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<u32>,
}

impl Entry {
    fn new(at: OffsetDateTime, what: What) -> Self {
        Self {
            at,
            what,
            who: None,
            vendor: None,
            about: None,
            status: None,
            next_attempt: None,
            last_error: None,
            failures: None,
        }
    }

    fn about(who: &'static str, notification: &Notification, what: What, note: Note) -> Self {
        Self {
            who: Some(who),
            vendor: notification.vendor.clone(),
            about: Some(format!("order.{}", notification.what)),
            next_attempt: note.due,
            last_error: note.error,
            failures: (note.failures > 0).then_some(note.failures),
            ..Self::new(note.at, what)
        }
    }
}

/// A step at the till, of which only this is told.
#[derive(Deserialize)]
struct Step {
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    status: Option<String>,
}

/// The facts that the answer is made of, of all that there are. An attempt that failed and was followed by another is not.
pub fn needed(names: &BTreeSet<String>) -> Vec<String> {
    let decision = decision(names);
    let steps = names.iter().filter(|name| {
        matches!(name.as_str(), PLACED | CONFIRMED | CANCELLED)
            || **name == decision
            || step(name).is_some()
    });
    let mut needed: Vec<String> = steps.cloned().collect();
    for (notification, trail) in trails(names) {
        let facts = telling(&trail).map(|progress| notification.fact(progress));
        needed.extend(facts);
    }
    needed
}

/// The answer. `self_link` is where it was asked for.
pub fn tell(
    order: OrderId,
    names: &BTreeSet<String>,
    contents: &Contents,
    self_link: String,
) -> Timeline {
    let mut reader = Reader::new(contents);
    let placed = reader.placed(order);
    let confirmed: Option<Confirmed> = reader.read(CONFIRMED);
    let decision: Option<Decision> = reader.read(&decision(names));
    let cancelled: Option<Cancelled> = reader.read(CANCELLED);
    let decided = match decision {
        Some(Decision::Cancel(cancelled)) => Some(cancelled),
        Some(Decision::Charge { .. }) | None => None,
    };
    let cancelled = cancelled.or(decided);

    let mut timeline = Vec::new();
    let mut add = |at: Option<OffsetDateTime>, what| {
        timeline.extend(at.map(|at| Entry::new(at, what)));
    };
    add(placed.as_ref().map(|placed| placed.time), What::Placed);
    add(confirmed.map(|confirmed| confirmed.at), What::Confirmed);
    add(
        cancelled.as_ref().map(|cancelled| cancelled.at),
        What::Cancelled,
    );
    for name in names {
        let Some(what) = step(name) else { continue };
        timeline.extend(reader.read(name).map(|step: Step| Entry {
            status: step.status.filter(|status| is_word(status)),
            ..Entry::new(step.at, what)
        }));
    }
    for (notification, trail) in trails(names) {
        let Some(who) = who(&notification) else {
            continue;
        };
        for progress in telling(&trail) {
            let Some(note) = reader.read(&notification.fact(progress)) else {
                continue;
            };
            timeline.push(Entry::about(who, &notification, meaning(progress), note));
        }
    }
    timeline.sort_by_key(|entry| entry.at);
    let waits = |entry: &&Entry| entry.what == What::Waiting;
    let waiting = timeline.iter().filter(waits).cloned().collect();

    let is_known = |name: &str| names.contains(name);
    // That a fact is there counts, even where it cannot be read.
    let status = if cancelled.is_some() || is_known(CANCELLED) {
        Status::Cancelled
    } else if is_known(CONFIRMED) {
        Status::Confirmed
    } else if names.is_empty() {
        Status::Accepted
    } else {
        Status::Placed
    };
    Timeline {
        order_id: order,
        status,
        placed_at: placed
            .as_ref()
            .map(|placed| placed.order.placed_at.unwrap_or(placed.time)),
        total: placed.map(|placed| placed.order.total),
        cancellation: cancelled.map(|cancelled| Cancellation {
            reason: cancelled.reason,
            charged: cancelled.not_charged.then_some(false),
        }),
        timeline,
        waiting,
        unreadable: reader.unreadable.into_iter().collect(),
        links: Links {
            this: self_link,
            cancel: format!("/api/orders/{order}/cancel"),
        },
    }
}

/// The name of the decision that counts.
fn decision(names: &BTreeSet<String>) -> String {
    order_book::decision(order_book::round(|name| names.contains(name)))
}

/// What a step at the till is called here. One that is not known is not told of.
fn step(name: &str) -> Option<What> {
    let file = name.strip_prefix(TILL)?.strip_suffix(".json")?;
    let numbered = |prefix: &str| {
        let digits = file.strip_prefix(prefix);
        digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match file {
        "order" => Some(What::TillOrder),
        "paid" => Some(What::TillPaid),
        _ if numbered("payment-") => Some(What::TillPayment),
        _ if numbered("voided-") => Some(What::TillVoided),
        _ => None,
    }
}

fn trails(names: &BTreeSet<String>) -> BTreeMap<Notification, Trail> {
    let mut trails = told::trails(names.iter().map(String::as_str));
    trails.retain(|notification, _| who(notification).is_some());
    trails
}

/// Who is told. The order book is nobody.
fn who(notification: &Notification) -> Option<&'static str> {
    let audience = Audience::ALL
        .into_iter()
        .find(|audience| audience.name() == notification.audience)?;
    match audience {
        Audience::Customers => Some("customer"),
        Audience::Vendors => Some("vendor"),
        Audience::Till => Some("till"),
        Audience::Book => None,
    }
}

/// The facts of a notification that are worth an entry: how far it got, and that it was given up before.
fn telling(trail: &Trail) -> impl Iterator<Item = Progress> {
    let last = trail.last();
    let given_up = trail
        .dead
        .map(|generation| Progress::Dead { generation })
        .filter(|dead| last != Some(*dead));
    given_up.into_iter().chain(last)
}

fn meaning(progress: Progress) -> What {
    match progress {
        Progress::Intended | Progress::Later { .. } => What::Waiting,
        Progress::Dead { .. } => What::GivenUp,
        Progress::Superseded => What::Superseded,
        Progress::Sent => What::Told,
    }
}

/// One word, as a till's status is; of other texts nobody knows what is in them.
fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

/// Reads what was in the facts, and keeps the names of those in which something else is.
pub(crate) struct Reader<'a> {
    contents: &'a Contents,
    pub(crate) unreadable: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(contents: &'a Contents) -> Self {
        Self {
            contents,
            unreadable: BTreeSet::new(),
        }
    }

    pub(crate) fn read<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        self.read_with(name, |body| serde_json::from_slice(body).ok())
    }

    pub(crate) fn placed(&mut self, order: OrderId) -> Option<Event> {
        self.read_with(PLACED, |body| {
            let placed = Event::from_json(body).ok();
            placed.filter(|placed| placed.order_id() == order)
        })
    }

    fn read_with<T>(&mut self, name: &str, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let value = read(self.contents.get(name)?);
        if value.is_none() {
            self.unreadable.insert(name.to_owned());
        }
        value
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::tests::order_placed;

    pub(crate) fn facts(pairs: &[(&str, Value)]) -> Contents {
        let placed = serde_json::from_str(&order_placed().to_json()).unwrap();
        let placed = (PLACED, placed);
        let pairs = pairs.iter().chain(std::iter::once(&placed));
        pairs
            .map(|(name, value)| ((*name).to_owned(), value.to_string().into()))
            .collect()
    }

    fn told(contents: &Contents) -> Value {
        let names = contents.keys().cloned().collect();
        let needed = needed(&names);
        let read = |name: String| contents.get(&name).cloned().map(|body| (name, body));
        let contents = needed.into_iter().filter_map(read).collect();
        let order = order_placed().order_id();
        serde_json::to_value(tell(order, &names, &contents, "/here".to_owned())).unwrap()
    }

    fn at(minute: u32) -> String {
        format!("2026-11-22T19:{minute:02}:00Z")
    }

    fn whats(told: &Value) -> Vec<&str> {
        let timeline = told["timeline"].as_array().unwrap();
        timeline
            .iter()
            .map(|entry| entry["what"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn an_order_s_whole_life_is_told_in_its_order_and_without_its_customer() {
        let told = told(&facts(&[
            ("told/customers/placed/intent.json", json!({ "at": at(41) })),
            ("told/customers/placed/sent.json", json!({ "at": at(41) })),
            ("till/asked.json", json!({ "at": at(41) })),
            ("till/order.json", json!({ "at": at(42), "id": "o" })),
            (
                "till/payment-1.json",
                json!({ "at": at(43), "id": "p", "status": "APPROVED", "card": "Ada" }),
            ),
            ("till/paid.json", json!({ "at": at(44) })),
            (
                "decision.json",
                json!({ "decision": "charge", "at": at(42) }),
            ),
            ("confirmed.json", json!({ "at": at(45) })),
            (
                "told/vendors/bakery/confirmed/sent.json",
                json!({ "at": at(46) }),
            ),
        ]));
        assert_eq!(
            told,
            json!({
                "orderId": "01935a1e-9c00-7000-8000-000000000001",
                "status": "confirmed",
                "placedAt": "2026-11-22T19:40:00Z",
                "total": { "amount": 3400, "currency": "AUD" },
                "timeline": [
                    { "at": at(40), "what": "placed" },
                    { "at": at(41), "what": "told", "who": "customer", "about": "order.placed" },
                    { "at": at(42), "what": "till.order" },
                    { "at": at(43), "what": "till.payment", "status": "APPROVED" },
                    { "at": at(44), "what": "till.paid" },
                    { "at": at(45), "what": "confirmed" },
                    { "at": at(46), "what": "told", "who": "vendor", "vendor": "bakery",
                      "about": "order.confirmed" },
                ],
                "waiting": [],
                "links": {
                    "self": "/here",
                    "cancel": "/api/orders/01935a1e-9c00-7000-8000-000000000001/cancel"
                }
            })
        );
    }

    #[test]
    fn of_several_attempts_only_the_last_one_waits() {
        let later = |failures: u32, due: u32| json!({ "at": at(due - 1), "due": at(due), "error": "transient", "failures": failures });
        let bakery = "told/vendors/bakery/placed";
        let mut contents = facts(&[
            (
                "told/vendors/bakery/placed/intent.json",
                json!({ "at": at(41) }),
            ),
            (
                "told/vendors/bakery/placed/later-0000000000.json",
                later(1, 45),
            ),
            (
                "told/vendors/bakery/placed/later-0000000001.json",
                later(2, 50),
            ),
            (
                "told/vendors/florist/placed/intent.json",
                json!({ "at": at(42) }),
            ),
        ]);
        let names = contents.keys().cloned().collect();
        assert_eq!(needed(&names).len(), 3, "{:?}", needed(&names));
        let waiting = json!([
            { "at": at(42), "what": "waiting", "who": "vendor", "vendor": "florist",
              "about": "order.placed" },
            { "at": at(49), "what": "waiting", "who": "vendor", "vendor": "bakery",
              "about": "order.placed", "nextAttempt": at(50), "lastError": "transient", "failures": 2 },
        ]);
        let answer = told(&contents);
        assert_eq!(answer["waiting"], waiting);
        assert_eq!(whats(&answer), ["placed", "waiting", "waiting"]);

        let dead = json!({ "at": at(55), "error": "DeadlineExceeded", "failures": 3 });
        let mut add = |name: &str, value: &Value| {
            contents.insert(format!("{bakery}/{name}.json"), value.to_string().into());
            told(&contents)
        };
        let answer = add("dead-0000000002", &dead);
        assert_eq!(whats(&answer), ["placed", "waiting", "given-up"]);
        assert_eq!(answer["timeline"][2]["lastError"], "DeadlineExceeded");
        assert_eq!(answer["waiting"].as_array().unwrap().len(), 1);

        // An operator has replayed it.
        let answer = add("sent", &json!({ "at": at(58) }));
        assert_eq!(whats(&answer), ["placed", "waiting", "given-up", "told"]);
        assert_eq!(answer["waiting"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_status_is_what_counts_most() {
        let cancel = json!({ "decision": "cancel", "at": at(41), "reason": "Ordered twice" });
        let cancelled = json!({ "at": at(42), "reason": "payment_declined", "notCharged": true });
        let charge = json!({ "decision": "charge", "at": at(41) });
        let confirmed = json!({ "at": at(41) });
        let status = |pairs: &[(&str, Value)]| {
            let told = told(&facts(pairs));
            (told["status"].clone(), told["cancellation"].clone())
        };
        assert_eq!(status(&[]), (json!("placed"), Value::Null));
        assert_eq!(
            status(&[("decision.json", charge)]),
            (json!("placed"), Value::Null)
        );
        assert_eq!(
            status(&[(CONFIRMED, confirmed.clone())]),
            (json!("confirmed"), Value::Null)
        );
        assert_eq!(
            status(&[("decision.json", cancel)]),
            (json!("cancelled"), json!({ "reason": "Ordered twice" }))
        );
        assert_eq!(
            status(&[(CONFIRMED, confirmed), (CANCELLED, cancelled)]),
            (
                json!("cancelled"),
                json!({ "reason": "payment_declined", "charged": false })
            )
        );
        let told = told(&Contents::new());
        assert_eq!(told["status"], "accepted");
        assert_eq!(
            (&told["timeline"], &told["waiting"]),
            (&json!([]), &json!([]))
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_told() {
        let mut contents = facts(&[
            (CONFIRMED, json!({ "at": "yesterday, by Ada" })),
            ("till/order.json", json!({ "at": at(42) })),
            (
                "till/payment-1.json",
                json!({ "at": at(43), "status": "by Ada Lovelace" }),
            ),
            ("told/customers/placed/sent.json", json!({})),
            // Nobody knows these names.
            ("till/refund-1.json", json!("Ada")),
            ("till/payment-Ada.json", json!("Ada")),
            ("told/neighbours/placed/sent.json", json!("Ada")),
            ("told/book/placed/dead-0000000000.json", json!("Ada")),
            ("notes.txt", json!("Ada")),
        ]);
        let answer = told(&contents);
        assert_eq!(answer["status"], "confirmed");
        assert_eq!(
            answer["unreadable"],
            json!(["confirmed.json", "told/customers/placed/sent.json"])
        );
        assert_eq!(whats(&answer), ["placed", "till.order", "till.payment"]);

        let mut other = order_placed();
        other.order.order_id = OrderId(uuid::Uuid::from_u128(1));
        contents.insert(PLACED.to_owned(), other.to_json().into());
        let answer = told(&contents);
        assert_eq!(answer["unreadable"][1], "placed.json");
        assert_eq!(answer.get("total"), None);
        for personal in ["Ada", "Lovelace", "example.net", "cnon"] {
            assert!(!answer.to_string().contains(personal), "{answer}");
        }
    }
}
