//! Whether everybody who has to know of an order knows, by the order book's facts alone.
//!
//! [`judge`] says for one order which notifications its facts call for and what became of each: told; waiting, for a time
//! that is given; dead, which is given up for a reason that is given; or missing, which nothing explains. It also knows a
//! few things that must not last, such as a payment of a cancelled order. Pure: [`crate::audit`] reads, and gives the time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use time::{Duration, OffsetDateTime};

use crate::{
    event::Event,
    order::OrderId,
    order_book::{self, CANCELLED, CONFIRMED, Cancelled, Confirmed, Decision, PLACED},
    outcome::Reason,
    redelivery::Audience,
    timeline::{Contents, Reader},
    told::{self, Note, Notification, Progress, Trail},
    vendor_notify_on::VendorNotifyOn,
};

/// So long everything may take without anybody having to say why: a message is delivered within seconds, and one whose
/// process was killed when its lock expires.
pub const GRACE: Duration = Duration::minutes(5);

/// So late a copy may come: many that are due at once wait for each other, and for the instances that take them.
const LATE: Duration = Duration::minutes(15);

/// Below it, the steps at the till.
const TILL: &str = "till/";
const ASKED: &str = "till/asked.json";
const PAYMENT: &str = "till/payment-";
const VOIDED: &str = "till/voided-";

/// How an order stands, the worst of all that is found of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Told,
    Waiting,
    /// Something was given up: it is a dead letter, with its reason.
    Dead,
    /// Something is missing, or wrong in another way.
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A notification that was given up.
    Dead,
    /// A notification of which nobody knows.
    Missing,
    /// It was decided to cancel the order, and it is not.
    NotCancelled,
    /// It was decided to charge for the order, and it has come to no end.
    NotSettled,
    /// A payment of a cancelled order that was not undone.
    NotVoided,
    /// There are facts about an order that was never placed.
    NotPlaced,
    /// An object in which something else is than was written there.
    Unreadable,
    /// An order that the bus has not taken yet.
    InOutbox,
    /// Something that was in the outbox and can't be published.
    Unsendable,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Missing => "missing",
            Self::NotCancelled => "not-cancelled",
            Self::NotSettled => "not-settled",
            Self::NotVoided => "not-voided",
            Self::NotPlaced => "not-placed",
            Self::Unreadable => "unreadable",
            Self::InOutbox => "in-outbox",
            Self::Unsendable => "unsendable",
        }
    }

    fn standing(self) -> Standing {
        match self {
            Self::Dead => Standing::Dead,
            Self::Missing
            | Self::NotCancelled
            | Self::NotSettled
            | Self::NotVoided
            | Self::NotPlaced
            | Self::Unreadable
            | Self::InOutbox
            | Self::Unsendable => Standing::Missing,
        }
    }
}

/// What an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub order: Option<OrderId>,
    pub notification: Option<Notification>,
    /// Of that object.
    pub name: Option<String>,
    /// Since when it is so, as far as is known.
    pub since: Option<OffsetDateTime>,
    pub why: String,
    pub failures: u32,
}

impl Finding {
    pub fn new(
        kind: Kind,
        order: Option<OrderId>,
        since: Option<OffsetDateTime>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            order,
            notification: None,
            name: None,
            since,
            why: why.into(),
            failures: 0,
        }
    }
}

/// What holds for every order.
#[derive(Debug, Clone)]
pub struct Rules {
    pub now: OffsetDateTime,
    pub has_till: bool,
    pub vendors_on: VendorNotifyOn,
    /// What the bus has not taken yet: an order, and what happened to it.
    pub outbox: HashSet<(OrderId, String)>,
}

impl Rules {
    fn is_young(&self, since: OffsetDateTime) -> bool {
        since >= self.now - GRACE
    }
}

/// An order's facts: their names, when each was written, and what is in those that [`needed`] asks for.
#[derive(Debug)]
pub struct Facts<'a> {
    pub order: OrderId,
    pub names: &'a BTreeMap<String, OffsetDateTime>,
    pub contents: &'a Contents,
}

/// The facts without which nothing can be said, besides the order itself.
pub fn needed(names: &BTreeMap<String, OffsetDateTime>) -> Vec<String> {
    let is_known = |name: &str| names.contains_key(name);
    let is_over = is_known(CONFIRMED) || is_known(CANCELLED);
    let mut needed: Vec<String> = [CONFIRMED, CANCELLED].map(str::to_owned).into();
    if !is_over {
        needed.push(decision(names));
    }
    needed.retain(|name| is_known(name));
    for (notification, trail) in told::trails(names.keys().map(String::as_str)) {
        match trail.last() {
            Some(progress @ (Progress::Later { .. } | Progress::Dead { .. })) => {
                needed.push(notification.fact(progress));
            }
            Some(Progress::Intended) => needed.push(notification.fact(Progress::Intended)),
            Some(Progress::Sent | Progress::Superseded) | None => {}
        }
    }
    if !is_over {
        // The till goes on from there, or can't.
        needed.extend(steps(names).map(str::to_owned));
    } else if is_known(CANCELLED) {
        needed.extend(unvoided(names).map(str::to_owned));
    }
    needed
}

/// The name of the decision that counts.
fn decision(names: &BTreeMap<String, OffsetDateTime>) -> String {
    order_book::decision(order_book::round(|name| names.contains_key(name)))
}

/// What has happened at the till.
fn steps(names: &BTreeMap<String, OffsetDateTime>) -> impl Iterator<Item = &str> {
    names
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with(TILL))
}

/// The payments at the till that were not undone.
fn unvoided(names: &BTreeMap<String, OffsetDateTime>) -> impl Iterator<Item = &str> {
    let payments = names.keys().filter_map(|name| {
        let number = name.strip_prefix(PAYMENT)?;
        let digits = number.strip_suffix(".json")?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some((name.as_str(), number))
    });
    payments
        .filter(|(_, number)| !names.contains_key(&format!("{VOIDED}{number}")))
        .map(|(name, _)| name)
}

/// How the order stands, and what there is to look at.
pub fn judge(facts: &Facts<'_>, rules: &Rules) -> (Standing, Vec<Finding>) {
    let mut reader = Reader::new(facts.contents);
    let placed = reader.placed(facts.order);
    let mut judge = Judge {
        trails: told::trails(facts.names.keys().map(String::as_str)),
        confirmed: reader.read(CONFIRMED),
        cancelled: reader.read(CANCELLED),
        decision: reader.read(&decision(facts.names)),
        reader,
        facts,
        rules,
        standing: Standing::Told,
        findings: Vec::new(),
    };
    match placed {
        Some(placed) => judge.all(&placed),
        None if !facts.names.contains_key(PLACED) => judge.not_placed(),
        // It is among the unreadable.
        None => {}
    }
    if judge.confirmed.is_none() && judge.cancelled.is_none() {
        for step in steps(facts.names) {
            let _: Option<IgnoredAny> = judge.reader.read(step);
        }
    }
    let unreadable = std::mem::take(&mut judge.reader.unreadable);
    for name in unreadable {
        let finding = Finding {
            name: Some(name),
            ..judge.finding(Kind::Unreadable, None, "it is not what was written there")
        };
        judge.add(finding);
    }
    (judge.standing, judge.findings)
}

struct Judge<'a> {
    facts: &'a Facts<'a>,
    rules: &'a Rules,
    reader: Reader<'a>,
    trails: BTreeMap<Notification, Trail>,
    confirmed: Option<Confirmed>,
    cancelled: Option<Cancelled>,
    decision: Option<Decision>,
    standing: Standing,
    findings: Vec<Finding>,
}

/// What became of a notification.
enum State {
    Told,
    Waiting,
    Dead(Note),
    /// Since when, and why it is taken for missing.
    Missing(OffsetDateTime, String),
}

/// Of a payment at the till, what counts here.
#[derive(Deserialize)]
struct Payment {
    status: Option<String>,
}

impl Judge<'_> {
    fn all(&mut self, placed: &Event) {
        // Besides those that are called for, those that were begun: by settings that were others then.
        // Filled as in `OrderBook::names`.
        let mut notifications: BTreeSet<Notification> = BTreeSet::new();
        let begun = self.trails.keys().filter(|notification| {
            [Audience::Customers, Audience::Vendors]
                .map(Audience::name)
                .contains(&notification.audience.as_str())
        });
        notifications.extend(begun.cloned());
        notifications.extend(self.expected(placed));
        let settles = self.settles(placed);
        for notification in notifications {
            let since = self.since(&notification.what, placed);
            let state = match self.state(&notification, since) {
                State::Missing(..)
                    if settles
                        && notification.what != "placed"
                        && !self.trails.contains_key(&notification) =>
                {
                    State::Waiting
                }
                state => state,
            };
            self.note(notification, state);
        }
        self.till(placed);
        self.cancellation();
        self.payments(placed);
    }

    /// The till is yet to tell the bus what came of the order.
    fn settles(&mut self, placed: &Event) -> bool {
        let till = Notification {
            audience: Audience::Till.name().to_owned(),
            vendor: None,
            what: "placed".to_owned(),
        };
        let since = self.since("placed", placed);
        self.trails.contains_key(&till) && matches!(self.state(&till, since), State::Waiting)
    }

    /// The notifications that the order's facts call for, but for the till's.
    fn expected(&self, placed: &Event) -> Vec<Notification> {
        let notification = |audience: Audience, vendor: Option<&str>, what: &str| Notification {
            audience: audience.name().to_owned(),
            vendor: vendor.map(str::to_owned),
            what: what.to_owned(),
        };
        let (is_confirmed, is_cancelled) = (self.is_known(CONFIRMED), self.is_known(CANCELLED));
        let customers = |what| notification(Audience::Customers, None, what);
        let mut expected = vec![customers("placed")];
        match (is_confirmed, is_cancelled) {
            // Who has cancelled need not hear that it was confirmed before.
            (_, true) => expected.push(customers("cancelled")),
            (true, false) => expected.push(customers("confirmed")),
            (false, false) => {}
        }
        let lines = &placed.order.line_items;
        let mut vendors: BTreeSet<&str> = BTreeSet::new();
        vendors.extend(lines.iter().map(|line| line.vendor_id.as_str()));
        for vendor in vendors {
            let of = |what| notification(Audience::Vendors, Some(vendor), what);
            match self.rules.vendors_on {
                VendorNotifyOn::Placed => expected.push(of("placed")),
                VendorNotifyOn::Confirmed if is_confirmed => expected.push(of("confirmed")),
                VendorNotifyOn::Confirmed => {}
            }
            let may_know = match self.rules.vendors_on {
                VendorNotifyOn::Placed => true,
                VendorNotifyOn::Confirmed => told::knows_of(|name| self.is_known(name), vendor),
            };
            if is_cancelled && may_know {
                expected.push(of("cancelled"));
            }
        }
        expected
    }

    /// What became of a notification of something that happened at `since`.
    fn state(&mut self, notification: &Notification, since: OffsetDateTime) -> State {
        let last = self.trails.get(notification).and_then(Trail::last);
        let note = last.and_then(|last| self.reader.read::<Note>(&notification.fact(last)));
        let event = (self.facts.order, notification.what.clone());
        match last {
            Some(Progress::Sent | Progress::Superseded) => State::Told,
            Some(Progress::Dead { .. }) => State::Dead(note.unwrap_or(Note {
                at: since,
                due: None,
                error: None,
                failures: 0,
            })),
            _ if self.rules.is_young(since) || self.rules.outbox.contains(&event) => State::Waiting,
            Some(Progress::Later { .. }) => match note {
                Some(note) => self.later(&note),
                None => State::Missing(since, "its last attempt cannot be read".to_owned()),
            },
            Some(Progress::Intended) => match note {
                Some(note) if self.rules.is_young(note.at) => State::Waiting,
                note => State::Missing(
                    note.map_or(since, |note| note.at),
                    "it was begun, and its outcome is not known".to_owned(),
                ),
            },
            None => State::Missing(since, "nobody has tried".to_owned()),
        }
    }

    fn later(&self, note: &Note) -> State {
        let due = note.due.unwrap_or(note.at);
        if due >= self.rules.now - LATE {
            return State::Waiting;
        }
        let error = note.error.as_deref().unwrap_or("unknown");
        let why = format!("it was not tried again in time; the last failure: {error}");
        State::Missing(due, why)
    }

    fn note(&mut self, notification: Notification, state: State) {
        let (kind, since, why, failures) = match state {
            State::Told => return,
            State::Waiting => return self.wait(),
            State::Dead(note) => {
                let why = note.error.unwrap_or_else(|| "unknown".to_owned());
                (Kind::Dead, note.at, why, note.failures)
            }
            State::Missing(since, why) => (Kind::Missing, since, why, 0),
        };
        let finding = Finding {
            notification: Some(notification),
            failures,
            ..self.finding(kind, Some(since), why)
        };
        self.add(finding);
    }

    /// The till has told all when the order is confirmed or cancelled, whatever else is known of it.
    fn till(&mut self, placed: &Event) {
        let about = |what: &str| Notification {
            audience: Audience::Till.name().to_owned(),
            vendor: None,
            what: what.to_owned(),
        };
        let cancelled = about("cancelled");
        if self.trails.contains_key(&cancelled) {
            let state = self.till_cancelled(placed);
            self.note(cancelled, state);
        }
        let charged_since = match self.decision {
            Some(Decision::Charge { at }) => Some(at),
            // See `cancellation`.
            Some(Decision::Cancel(_)) => return,
            None => None,
        };
        let till = about("placed");
        let is_asked = self.rules.has_till || charged_since.is_some();
        if !is_asked && !self.trails.contains_key(&till) {
            return;
        }
        let is_over = self.is_known(CONFIRMED) || self.is_known(CANCELLED);
        let since = self.since("placed", placed);
        match self.state(&till, since) {
            State::Dead(note) if !is_over || is_too_late(&note) => {
                self.note(till, State::Dead(note));
            }
            _ if is_over => {}
            State::Waiting | State::Dead(_) => self.wait(),
            State::Told | State::Missing(..) => match charged_since {
                Some(since) if self.rules.is_young(since) => self.wait(),
                Some(since) => {
                    let why = "it was to be charged, and is neither confirmed nor cancelled";
                    let finding = self.finding(Kind::NotSettled, Some(since), why);
                    self.add(finding);
                }
                None if self.rules.is_young(since) => self.wait(),
                None => {
                    let why = "it is neither confirmed nor cancelled".to_owned();
                    self.note(till, State::Missing(since, why));
                }
            },
        }
    }

    /// Where nothing was asked of the till, or what was paid is undone, there is nothing left to do there.
    fn till_cancelled(&mut self, placed: &Event) -> State {
        let notification = Notification {
            audience: Audience::Till.name().to_owned(),
            vendor: None,
            what: "cancelled".to_owned(),
        };
        let since = self.since("cancelled", placed);
        match self.state(&notification, since) {
            State::Missing(..)
                if !self.is_known(ASKED)
                    || self.facts.names.keys().any(|name| name.starts_with(VOIDED)) =>
            {
                State::Told
            }
            state => state,
        }
    }

    fn cancellation(&mut self) {
        let Some(Decision::Cancel(decided)) = &self.decision else {
            return;
        };
        let since = decided.at;
        let event = (self.facts.order, "cancelled".to_owned());
        if self.is_known(CANCELLED) {
            return;
        }
        if self.rules.is_young(since) || self.rules.outbox.contains(&event) {
            return self.wait();
        }
        let why = "it was decided to cancel it, and there is no cancelled.json";
        let finding = self.finding(Kind::NotCancelled, Some(since), why);
        self.add(finding);
    }

    fn payments(&mut self, placed: &Event) {
        let decided = matches!(self.decision, Some(Decision::Cancel(_)));
        if !decided && !self.is_known(CANCELLED) {
            return;
        }
        let since = match &self.decision {
            Some(Decision::Cancel(decided)) if !self.is_known(CANCELLED) => decided.at,
            _ => self.since("cancelled", placed),
        };
        let is_waiting =
            self.rules.is_young(since) || matches!(self.till_cancelled(placed), State::Waiting);
        let payments: Vec<String> = unvoided(self.facts.names).map(str::to_owned).collect();
        for name in payments {
            let payment: Option<Payment> = self.reader.read(&name);
            let status = payment.and_then(|payment| payment.status);
            if status.is_some_and(|status| has_no_money(&status)) {
                continue;
            }
            if is_waiting {
                self.wait();
                continue;
            }
            let why = "the order is cancelled, and this payment is not undone";
            let finding = Finding {
                name: Some(name),
                ..self.finding(Kind::NotVoided, Some(since), why)
            };
            self.add(finding);
        }
    }

    fn not_placed(&mut self) {
        let oldest = self.facts.names.values().min().copied();
        let event = (self.facts.order, "placed".to_owned());
        if oldest.is_none_or(|oldest| self.rules.is_young(oldest))
            || self.rules.outbox.contains(&event)
        {
            return self.wait();
        }
        let why = "there are facts about it, and no placed.json";
        let finding = self.finding(Kind::NotPlaced, oldest, why);
        self.add(finding);
    }

    /// When it happened, or the book came to know it, or the topic: an event may have waited for either.
    fn since(&self, what: &str, placed: &Event) -> OffsetDateTime {
        let (name, at) = match what {
            "confirmed" => (CONFIRMED, self.confirmed.as_ref().map(|fact| fact.at)),
            "cancelled" => (CANCELLED, self.cancelled.as_ref().map(|fact| fact.at)),
            _ => (PLACED, None),
        };
        let (written, published) = (
            self.facts.names.get(name).copied(),
            self.facts.names.get(&order_book::published(what)).copied(),
        );
        at.max(written)
            .max(published)
            .map_or(placed.time, |since| since.max(placed.time))
    }

    fn is_known(&self, name: &str) -> bool {
        self.facts.names.contains_key(name)
    }

    fn wait(&mut self) {
        self.standing = self.standing.max(Standing::Waiting);
    }

    fn finding(
        &self,
        kind: Kind,
        since: Option<OffsetDateTime>,
        why: impl Into<String>,
    ) -> Finding {
        Finding::new(kind, Some(self.facts.order), since, why)
    }

    fn add(&mut self, finding: Finding) {
        self.standing = self.standing.max(finding.kind.standing());
        self.findings.push(finding);
    }
}

/// It is for a person to undo, whatever became of the order.
fn is_too_late(note: &Note) -> bool {
    note.error.as_deref() == Some(Reason::CancelledTooLate.name())
}

/// A payment that came to nothing, or was undone by somebody else.
fn has_no_money(status: &str) -> bool {
    ["FAILED", "CANCELED", "CANCELLED", "DECLINED", "VOIDED"]
        .iter()
        .any(|none| status.eq_ignore_ascii_case(none))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use time::{format_description::well_known::Rfc3339, macros::datetime};

    use super::*;
    use crate::event::tests::order_placed;

    /// An hour after the order was placed.
    const NOW: OffsetDateTime = datetime!(2026-11-22 20:40 UTC);

    fn minutes_ago(minutes: i64) -> String {
        (NOW - Duration::minutes(minutes)).format(&Rfc3339).unwrap()
    }

    fn rules(has_till: bool) -> Rules {
        Rules {
            now: NOW,
            has_till,
            vendors_on: if has_till {
                VendorNotifyOn::Confirmed
            } else {
                VendorNotifyOn::Placed
            },
            outbox: HashSet::new(),
        }
    }

    /// A word for each fact: its name without `.json`, how many minutes ago it was written, and, after a `+`, what an attempt
    /// says of the minutes to the next.
    fn facts(words: &str) -> (BTreeMap<String, OffsetDateTime>, Contents) {
        let (mut names, mut contents) = (BTreeMap::new(), Contents::new());
        for word in words.split_whitespace() {
            let (name, minutes) = word.split_once('@').unwrap_or((word, "60"));
            let (minutes, due) = minutes.split_once('+').unwrap_or((minutes, "0"));
            let (minutes, due): (i64, i64) = (minutes.parse().unwrap(), due.parse().unwrap());
            let at = minutes_ago(minutes);
            let (name, body) = match name {
                "placed" => (
                    PLACED,
                    serde_json::from_str(&order_placed().to_json()).unwrap(),
                ),
                "charge" => ("decision.json", json!({ "decision": "charge", "at": at })),
                "cancel" => (
                    "decision.json",
                    json!({ "decision": "cancel", "at": at, "reason": "x" }),
                ),
                "cancelled" => (CANCELLED, json!({ "at": at, "reason": "x" })),
                "failed-payment" => (
                    "till/payment-1.json",
                    json!({ "at": at, "status": "FAILED" }),
                ),
                name => {
                    let mut body = json!({ "at": at, "status": "APPROVED", "failures": 1 });
                    if name.contains("/dead-") {
                        body["error"] = json!("EmailRefused");
                    }
                    if name.contains("/late-") {
                        body["error"] = json!("CancelledTooLate");
                    }
                    if name.contains("/later-") {
                        body["error"] = json!("transient");
                        body["due"] = json!(minutes_ago(minutes - due));
                    }
                    (name, body)
                }
            };
            let name = name
                .replace("C/", "told/customers/")
                .replace("T/", "told/till/");
            let name = name.replace("B/", "told/vendors/bakery/");
            let name = name
                .replace("F/", "told/vendors/florist/")
                .replace("/late-", "/dead-");
            let name = format!("{}.json", name.trim_end_matches(".json"));
            names.insert(name.clone(), NOW - Duration::minutes(minutes));
            contents.insert(name, body.to_string().into());
        }
        (names, contents)
    }

    fn judged(words: &str, rules: &Rules) -> (Standing, Vec<Finding>) {
        let (names, contents) = facts(words);
        let needed = needed(&names);
        // What was not asked for is not read.
        let contents: Contents = contents
            .into_iter()
            .filter(|(name, _)| name == PLACED || needed.contains(name))
            .collect();
        let facts = Facts {
            order: order_placed().order_id(),
            names: &names,
            contents: &contents,
        };
        judge(&facts, rules)
    }

    fn short(findings: &[Finding]) -> Vec<String> {
        let one = |finding: &Finding| {
            let about = finding.notification.as_ref().map(|it| {
                let vendor = it.vendor.as_deref().unwrap_or(&it.audience);
                format!("{vendor} {}", it.what)
            });
            let name = finding.name.clone();
            let words = [Some(finding.kind.name().to_owned()), about, name];
            words.into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        findings.iter().map(one).collect()
    }

    fn check(has_till: bool, words: &str, standing: Standing, findings: &[&str]) {
        let judged = judged(words, &rules(has_till));
        assert_eq!(
            (judged.0, short(&judged.1)),
            (
                standing,
                findings.iter().map(|it| (*it).to_owned()).collect()
            ),
            "{words}"
        );
    }

    use Standing::{Dead, Missing, Told, Waiting};

    const ALL: &str = "placed C/placed/sent B/placed/intent B/placed/sent F/placed/sent ";

    #[test]
    fn an_order_without_a_till_is_done_when_customer_and_vendors_know() {
        for (more, standing, findings) in [
            ("", Told, &[][..]),
            (
                "something/else notes told/neighbours/placed/intent",
                Told,
                &[],
            ),
            // The florist never knew of it.
            ("cancelled@30 C/cancelled/sent B/cancelled/sent", Told, &[]),
            (
                "cancelled@30 C/cancelled/sent",
                Missing,
                &["missing bakery cancelled", "missing florist cancelled"],
            ),
            ("cancelled@3", Waiting, &[]),
        ] {
            let more = match more.starts_with("cancelled@30 C/cancelled/sent B") {
                true => format!("{more} F/cancelled/superseded"),
                false => more.to_owned(),
            };
            check(false, &format!("{ALL}{more}"), standing, findings);
        }
        let superseded = "placed C/placed/superseded F/placed/superseded B/placed/superseded cancelled C/cancelled/sent \
                          F/cancelled/sent B/cancelled/sent";
        check(false, superseded, Told, &[]);
        check(
            false,
            "placed C/placed/sent B/placed/sent",
            Missing,
            &["missing florist placed"],
        );
        check(
            false,
            "placed",
            Missing,
            &[
                "missing customers placed",
                "missing bakery placed",
                "missing florist placed",
            ],
        );
        check(false, "placed@4", Waiting, &[]);
        check(
            false,
            "placed@6",
            Missing,
            &[
                "missing customers placed",
                "missing bakery placed",
                "missing florist placed",
            ],
        );
    }

    #[test]
    fn an_attempt_says_what_became_of_a_notification() {
        let with = |more: &str| format!("placed B/placed/sent F/placed/sent {more}");
        for (more, standing, findings) in [
            ("C/placed/intent@4", Waiting, &[][..]),
            ("C/placed/intent@6", Missing, &["missing customers placed"]),
            (
                "C/placed/intent C/placed/later-0000000000@55+45",
                Waiting,
                &[],
            ),
            (
                "C/placed/later-0000000000@55+39",
                Missing,
                &["missing customers placed"],
            ),
            ("C/placed/later-0000000000@55+41", Waiting, &[]),
            (
                "C/placed/later-0000000000@55+1 C/placed/later-0000000001@50+90",
                Waiting,
                &[],
            ),
            (
                "C/placed/later-0000000000@55+1 C/placed/dead-0000000001@50",
                Dead,
                &["dead customers placed"],
            ),
            (
                "C/placed/dead-0000000001@50 C/placed/later-1795376400@20+30",
                Waiting,
                &[],
            ),
            ("C/placed/dead-0000000001@50 C/placed/sent@20", Told, &[]),
            (
                "C/placed/sent C/confirmed/intent@30",
                Missing,
                &["missing customers confirmed"],
            ),
        ] {
            check(false, &with(more), standing, findings);
        }
        let (_, findings) = judged(&with("C/placed/dead-0000000001@50"), &rules(false));
        assert_eq!(
            (findings[0].why.as_str(), findings[0].failures),
            ("EmailRefused", 1)
        );
    }

    #[test]
    fn an_order_with_a_till_is_done_when_that_has_come_to_an_end() {
        let told = "placed C/placed/sent ";
        for (more, standing, findings) in [
            ("", Missing, &["missing till placed"][..]),
            ("T/placed/later-0000000000@55+90", Waiting, &[]),
            (
                "T/placed/later-0000000000@55+5",
                Missing,
                &["missing till placed"],
            ),
            (
                "charge T/placed/later-0000000000@55+5",
                Missing,
                &["not-settled"],
            ),
            ("charge T/placed/later-0000000000@55+90", Waiting, &[]),
            (
                "charge T/placed/dead-0000000000@55",
                Dead,
                &["dead till placed"],
            ),
            ("charge@4", Waiting, &[]),
            ("charge@6 T/placed/sent", Missing, &["not-settled"]),
            (
                "charge confirmed C/confirmed/sent B/confirmed/sent F/confirmed/sent T/placed/later-0000000000@55+5",
                Told,
                &[],
            ),
            (
                "charge confirmed C/confirmed/sent",
                Missing,
                &["missing bakery confirmed", "missing florist confirmed"],
            ),
            // The bus has not taken it yet.
            (
                "charge confirmed T/placed/later-0000000000@10+20",
                Waiting,
                &[],
            ),
            (
                "charge confirmed C/confirmed/sent B/confirmed/sent published-confirmed@4",
                Waiting,
                &[],
            ),
            // No vendor knew.
            (
                "cancelled C/cancelled/sent T/placed/dead-0000000000@55",
                Told,
                &[],
            ),
            (
                "cancelled C/cancelled/sent T/placed/late-0000000000@55",
                Dead,
                &["dead till placed"],
            ),
            ("cancel@4", Waiting, &[]),
            ("cancel@6", Missing, &["not-cancelled"]),
        ] {
            check(true, &format!("{told}{more}"), standing, findings);
        }
    }

    #[test]
    fn a_cancelled_order_keeps_no_money() {
        let cancelled =
            |ago: u32| format!("placed C/placed/sent C/cancelled/sent cancelled@{ago} till/asked ");
        let pay = "till/payment-1";
        for (ago, more, standing, findings) in [
            (30, pay, Missing, &["not-voided till/payment-1.json"][..]),
            (4, pay, Waiting, &[]),
            (30, "till/payment-1 till/voided-1", Told, &[]),
            (
                30,
                "till/payment-1 till/voided-1 till/payment-2",
                Missing,
                &["not-voided till/payment-2.json"],
            ),
            (30, "failed-payment", Told, &[]),
            (
                30,
                "till/payment-1 T/cancelled/later-0000000000@20+15",
                Waiting,
                &[],
            ),
            (
                30,
                "till/payment-1 T/cancelled/dead-0000000000@20",
                Missing,
                &["dead till cancelled", "not-voided till/payment-1.json"],
            ),
            (
                30,
                "T/cancelled/intent@20",
                Missing,
                &["missing till cancelled"],
            ),
            (
                30,
                "till/payment-1 till/voided-1 T/cancelled/intent@20",
                Told,
                &[],
            ),
        ] {
            check(
                true,
                &format!("{}{more}", cancelled(ago)),
                standing,
                findings,
            );
        }
        check(
            true,
            "placed C/placed/sent cancel@6 till/payment-1",
            Missing,
            &["not-cancelled", "not-voided till/payment-1.json"],
        );
    }

    #[test]
    fn what_waits_for_the_bus_is_not_missing() {
        let order = order_placed().order_id();
        let mut rules = rules(false);
        rules.outbox.insert((order, "placed".to_owned()));
        assert_eq!(judged("placed", &rules), (Waiting, vec![]));
        assert_eq!(judged("charge", &rules), (Waiting, vec![]));
        let rules = Rules {
            outbox: HashSet::from([(order, "cancelled".to_owned())]),
            ..rules
        };
        assert_eq!(judged(&format!("{ALL}cancel"), &rules), (Waiting, vec![]));
        assert_eq!(
            judged(&format!("{ALL}cancelled"), &rules),
            (Waiting, vec![])
        );
    }

    #[test]
    fn facts_without_their_order_and_facts_that_are_none_are_told() {
        check(false, "C/placed/sent@6", Missing, &["not-placed"]);
        check(false, "C/placed/sent@4", Waiting, &[]);
        let (names, mut contents) = facts(&format!("{ALL}confirmed C/confirmed/sent"));
        let mut judged = |name: &str, body: Value| {
            contents.insert(name.to_owned(), body.to_string().into());
            let facts = Facts {
                order: order_placed().order_id(),
                names: &names,
                contents: &contents,
            };
            let (standing, findings) = judge(&facts, &rules(false));
            assert_eq!(standing, Missing);
            short(&findings)
        };
        assert_eq!(judged(CONFIRMED, json!("x")), ["unreadable confirmed.json"]);
        assert_eq!(
            judged(PLACED, json!({})),
            ["unreadable confirmed.json", "unreadable placed.json"]
        );
    }
}
