//! `orderup audit`: which orders somebody should know of who does not, where nothing says why.
//!
//! Runs instead of the handler, on an operator's machine, in the container or on a timer of theirs, and only reads the order
//! book. It lists all of it once, and then reads of each order that was placed since then what [`crate::audit_verdict`] asks
//! for. Exit code 0 says that of all these orders everybody was told, or will be at a time that is known, or was given up for
//! a reason that is known; 1 that something is missing or wrong, or that the order book cannot be read.

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
};

use futures_util::{StreamExt, TryStreamExt, future::LocalBoxFuture, stream};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    audit_report::{self, Summary},
    audit_verdict::{self, Facts, Finding, GRACE, Kind, Rules, Standing},
    book_store::BookStore,
    command_line,
    config::{ConfigError, Settings},
    dead_letter_report::Report,
    event::Event,
    http_client,
    order::OrderId,
    order_book::{self, BookError, ORDERS, OrderBook, PLACED},
    outbox::{OUTBOX, UNSENDABLE, read_path},
    till::Till,
    timeline::Contents,
    vendor_notify_on::VendorNotifyOn,
};

/// So many orders are read at the same time, one object of each.
const READS_AT_ONCE: usize = 16;

/// How far the store's clock may be from those of whoever places orders.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// What came out.
#[derive(Debug)]
pub struct Audited {
    /// Oldest first.
    pub findings: Vec<Finding>,
    pub summary: Summary,
}

/// Carries out the command.
pub fn run(command: command_line::Audit) -> LocalBoxFuture<'static, ExitCode> {
    // Boxed here, or the compiler puts all that it calls into the crate of `main` once more.
    Box::pin(carry_out(command))
}

async fn carry_out(command: command_line::Audit) -> ExitCode {
    let report = Report::new();
    let now = OffsetDateTime::now_utc();
    let since = now
        .checked_sub(command.since.try_into().unwrap_or(Duration::MAX))
        .map_or(OffsetDateTime::UNIX_EPOCH, |since| {
            since.max(OffsetDateTime::UNIX_EPOCH)
        });
    let (book, rules) = match from_settings(&Settings::from_env(), now) {
        Ok(read) => read,
        Err(errors) => {
            for error in errors {
                report.say(&format!("orderup: {error}"));
            }
            return ExitCode::FAILURE;
        }
    };
    let progress = |done: usize, of: usize| report.progress(&format!("{done} of {of} orders"));
    let audited = match audit(&book, rules, since, progress).await {
        Ok(audited) => audited,
        Err(error) => {
            report.say(&format!("orderup: {error}"));
            return ExitCode::FAILURE;
        }
    };
    report.progress("");
    let printed = audit_report::print(&audited.findings, now, command.json);
    report.say(&audited.summary.text());
    match printed {
        Ok(()) if audited.is_clean() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn from_settings(
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<(OrderBook, Rules), Vec<ConfigError>> {
    let has_till = Till::is_configured(settings);
    let vendors_on = VendorNotifyOn::from_settings(settings, has_till);
    let store =
        http_client::outgoing(settings).and_then(|client| BookStore::to_read(settings, &client));
    match (vendors_on, store) {
        (Ok(vendors_on), Ok(store)) => {
            let rules = Rules {
                now,
                has_till,
                vendors_on,
                outbox: [].into(),
            };
            Ok((OrderBook::new(store), rules))
        }
        (vendors_on, store) => Err([vendors_on.err(), store.err()]
            .into_iter()
            .flatten()
            .collect()),
    }
}

impl Audited {
    /// Dead letters are explained, and stay until somebody replays them: they are listed, and are no alarm.
    pub fn is_clean(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.kind == Kind::Dead)
    }
}

/// Walks through the book: all orders that were placed at `since` or later.
///
/// # Errors
/// If it cannot be read: what is not known then would look like what is missing.
pub async fn audit(
    book: &OrderBook,
    rules: Rules,
    since: OffsetDateTime,
    progress: impl Fn(usize, usize),
) -> Result<Audited, BookError> {
    book.store()?.is_there().await?;
    // Listed first: what leaves it meanwhile is told of within the grace.
    let (rules, mut findings, waiting) = outbox(book, rules).await?;
    let orders = orders(book).await?;
    let mut summary = Summary::new(since, waiting);
    let (mut done, all) = (0, orders.len());
    let walk = stream::iter(&orders).map(|(order, names)| one(book, *order, names, &rules, since));
    let mut walk = walk.buffer_unordered(READS_AT_ONCE);
    while let Some(judged) = walk.try_next().await? {
        done += 1;
        if done % 100 == 0 {
            progress(done, all);
        }
        if let Some((standing, found)) = judged {
            summary.count(standing);
            findings.extend(found);
        }
    }
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.since, finding.order.map(|order| order.0));
        key(a).cmp(&key(b))
    });
    Ok(Audited { findings, summary })
}

/// The names of each order's facts, and when each was written. What is none of ours is left alone.
async fn orders(
    book: &OrderBook,
) -> Result<HashMap<OrderId, BTreeMap<String, OffsetDateTime>>, BookError> {
    let mut orders: HashMap<OrderId, BTreeMap<String, OffsetDateTime>> = HashMap::new();
    for listed in book.store()?.walk(ORDERS).await? {
        let path = listed.path.strip_prefix(ORDERS).unwrap_or_default();
        let Some((order, name)) = path.split_once('/') else {
            continue;
        };
        let Some(order) = parse_order(order) else {
            continue;
        };
        let names = orders.entry(order).or_default();
        names.insert(name.to_owned(), listed.last_modified);
    }
    Ok(orders)
}

/// What waits there, in the rules; what waits there for too long or was set aside; and how many wait in all.
async fn outbox(
    book: &OrderBook,
    mut rules: Rules,
) -> Result<(Rules, Vec<Finding>, usize), BookError> {
    let listed = book.store()?.walk(OUTBOX).await?;
    let mut findings = Vec::new();
    for listed in &listed {
        let entry = read_path(&listed.path);
        let since = entry.map_or(listed.last_modified, |(since, ..)| since);
        if since < rules.now - GRACE {
            let order = entry.map(|(_, order, _)| order);
            findings.push(Finding {
                name: Some(listed.path.clone()),
                ..Finding::new(
                    Kind::InOutbox,
                    order,
                    Some(since),
                    "the bus has not taken it",
                )
            });
        }
        rules
            .outbox
            .extend(entry.map(|(_, order, what)| (order, what.to_owned())));
    }
    for set_aside in book.store()?.walk(UNSENDABLE).await? {
        let path = set_aside.path.replacen(UNSENDABLE, OUTBOX, 1);
        let order = read_path(&path).map(|(_, order, _)| order);
        let since = Some(set_aside.last_modified);
        let why = "it can't be published; the log of the function outbox says why";
        findings.push(Finding {
            name: Some(set_aside.path),
            ..Finding::new(Kind::Unsendable, order, since, why)
        });
    }
    Ok((rules, findings, listed.len()))
}

/// As we write it; a UUID has other forms.
fn parse_order(text: &str) -> Option<OrderId> {
    let order = OrderId(Uuid::try_parse(text).ok()?);
    (order.to_string() == text).then_some(order)
}

/// How the order stands; nothing if it was placed earlier.
async fn one(
    book: &OrderBook,
    order: OrderId,
    names: &BTreeMap<String, OffsetDateTime>,
    rules: &Rules,
    since: OffsetDateTime,
) -> Result<Option<(Standing, Vec<Finding>)>, BookError> {
    // Nothing is known of an order before it is placed, so that old ones need not be read.
    let known_since = names.get(PLACED).or_else(|| names.values().max());
    if known_since.is_none_or(|known| *known < since - CLOCK_SKEW) {
        return Ok(None);
    }
    let store = book.store()?;
    let mut contents = Contents::new();
    if names.contains_key(PLACED)
        && let Some(body) = store.get(&order_book::path(order, PLACED)).await?
    {
        if Event::from_json(&body).is_ok_and(|placed| placed.time < since) {
            return Ok(None);
        }
        contents.insert(PLACED.to_owned(), body);
    }
    for name in audit_verdict::needed(names) {
        let body = store.get(&order_book::path(order, &name)).await?;
        contents.extend(body.map(|body| (name, body)));
    }
    let facts = Facts {
        order,
        names,
        contents: &contents,
    };
    Ok(Some(audit_verdict::judge(&facts, rules)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{event::tests::order_placed, order_book::tests::TestBook};

    async fn put(book: &OrderBook, path: &str, body: &Value) {
        let body = body.to_string().into_bytes();
        book.store().unwrap().put_once(path, body).await.unwrap();
    }

    /// Keeps an order that was placed then, and facts of these names.
    async fn place(book: &OrderBook, id: u128, at: OffsetDateTime, names: &[&str]) -> OrderId {
        let mut placed = order_placed();
        placed.time = at;
        placed.order.order_id = OrderId(Uuid::from_u128(id));
        book.keep_placed(&placed).await.unwrap();
        let order = placed.order_id();
        for name in names {
            let path = order_book::path(order, name);
            put(book, &path, &json!({ "at": "2026-11-22T19:40:00Z" })).await;
        }
        order
    }

    const TOLD: [&str; 3] = [
        "told/customers/placed/sent.json",
        "told/vendors/bakery/placed/sent.json",
        "told/vendors/florist/placed/sent.json",
    ];

    fn rules(now: OffsetDateTime) -> Rules {
        let (_, rules) = from_settings(&Settings::from_pairs([]), now).unwrap();
        rules
    }

    #[tokio::test]
    async fn the_whole_book_is_walked_through() {
        let book = TestBook::new();
        // What is written now is old enough then.
        let now = OffsetDateTime::now_utc() + Duration::minutes(10);
        let placed = now - Duration::minutes(10);
        for id in 1..=40 {
            place(&book, id, placed, &TOLD).await;
        }
        let lost = place(&book, 41, placed, &TOLD[1..]).await;
        let dead = "told/customers/placed/dead-0000000003.json";
        let dead = place(&book, 42, placed, &[&TOLD[1..], &[dead]].concat()).await;
        let waits = place(&book, 43, placed, &[]).await;
        // Too long ago to count.
        place(&book, 44, now - Duration::hours(25), &[]).await;
        let unplaced = OrderId(Uuid::from_u128(45));
        let path = order_book::path(unplaced, "cancelled.json");
        put(
            &book,
            &path,
            &json!({ "at": "2026-11-22T19:40:00Z", "reason": "x" }),
        )
        .await;
        put(&book, "orders/README.txt", &json!("none of ours")).await;
        put(&book, "orders/else/placed.json", &json!("none of ours")).await;
        let millis = |age: i64| (now - Duration::minutes(age)).unix_timestamp() * 1000;
        let entry = format!("outbox/{}-{waits}-placed.json", millis(6));
        put(&book, &entry, &json!({})).await;
        put(
            &book,
            &format!("outbox/{}-{lost}-cancelled.json", millis(4)),
            &json!({}),
        )
        .await;

        let since = now - Duration::hours(24);
        let audited = audit(&book, rules(now), since, |_, _| {}).await.unwrap();
        let found: Vec<_> = audited
            .findings
            .iter()
            .map(|it| (it.kind, it.order.unwrap()))
            .collect();
        assert_eq!(found.len(), 4, "{found:?}");
        for finding in [
            (Kind::Missing, lost),
            (Kind::Dead, dead),
            (Kind::NotPlaced, unplaced),
            (Kind::InOutbox, waits),
        ] {
            assert!(found.contains(&finding), "{finding:?} {found:?}");
        }
        assert!(!audited.is_clean());
        let summary = audited.summary.text();
        let expected = "44 orders since ";
        assert!(summary.starts_with(expected), "{summary}");
        let expected = ": 40 told, 1 waiting, 1 dead, 2 missing; outbox 2";
        assert!(summary.ends_with(expected), "{summary}");
    }

    #[tokio::test]
    async fn dead_letters_are_listed_and_are_no_alarm() {
        let book = TestBook::new();
        let now = OffsetDateTime::now_utc();
        let dead = "told/customers/placed/dead-0000000003.json";
        place(&book, 1, now, &[&TOLD[1..], &[dead]].concat()).await;
        let audited = audit(&book, rules(now), now - Duration::hours(1), |_, _| {}).await;
        let audited = audited.unwrap();
        assert_eq!(audited.findings.len(), 1);
        assert!(audited.is_clean());
    }

    #[tokio::test]
    async fn without_a_book_there_is_nothing_to_audit() {
        let now = OffsetDateTime::now_utc();
        let error = audit(&OrderBook::none(), rules(now), now, |_, _| {}).await;
        assert!(matches!(error, Err(BookError::NotKept)));
    }
}
