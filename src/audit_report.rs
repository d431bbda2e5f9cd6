//! What `orderup audit` prints: for people on a terminal, one JSON object a line in a pipe, and a summary for either.
//!
//! Nothing here is personal data: orders are their ids, and what somebody else wrote is not repeated.

use std::io::{self, IsTerminal};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    audit_verdict::{Finding, Kind, Standing},
    dead_letter_report::{cut, line, plain, print as print_text, short, table},
    order::OrderId,
    told::Notification,
};

const HEADINGS: [&str; 7] = [
    "FINDING", "ORDER", "AUDIENCE", "VENDOR", "ABOUT", "AGE", "WHY",
];

/// How many orders stand how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    since: OffsetDateTime,
    told: usize,
    waiting: usize,
    dead: usize,
    missing: usize,
    /// Not orders, but what happened to them and is not on the bus yet.
    outbox: usize,
}

impl Summary {
    pub fn new(since: OffsetDateTime, outbox: usize) -> Self {
        Self {
            since,
            told: 0,
            waiting: 0,
            dead: 0,
            missing: 0,
            outbox,
        }
    }

    pub fn count(&mut self, standing: Standing) {
        match standing {
            Standing::Told => self.told += 1,
            Standing::Waiting => self.waiting += 1,
            Standing::Dead => self.dead += 1,
            Standing::Missing => self.missing += 1,
        }
    }

    /// In one line.
    pub fn text(&self) -> String {
        let Self {
            since,
            told,
            waiting,
            dead,
            missing,
            outbox,
        } = self;
        let orders = told + waiting + dead + missing;
        let since = since.replace_nanosecond(0).unwrap_or(*since);
        let since = since.format(&Rfc3339).unwrap_or_default();
        format!(
            "{orders} orders since {since}: {told} told, {waiting} waiting, {dead} dead, {missing} missing; outbox {outbox}"
        )
    }
}

/// A line for a finding.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    finding: Kind,
    order_id: Option<OrderId>,
    audience: Option<&'a str>,
    vendor: Option<&'a str>,
    /// The type of the event that it is about.
    label: Option<String>,
    /// The object that it is about.
    object: Option<&'a str>,
    #[serde(with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    age_seconds: Option<u64>,
    failures: u32,
    why: &'a str,
}

/// The findings. `json` asks for JSON on a terminal too.
///
/// # Errors
/// If nobody reads stdout any more.
pub fn print(findings: &[Finding], now: OffsetDateTime, json: bool) -> io::Result<()> {
    if json || !io::stdout().is_terminal() {
        let lines = findings.iter().map(|finding| line(&row(finding, now)));
        return print_text(&lines.collect::<String>());
    }
    if findings.is_empty() {
        return print_text("nothing to report\n");
    }
    let rows: Vec<_> = findings.iter().map(|it| cells(it, now)).collect();
    print_text(&table(HEADINGS, &rows))
}

fn row(finding: &Finding, now: OffsetDateTime) -> Row<'_> {
    let notification = finding.notification.as_ref();
    Row {
        finding: finding.kind,
        order_id: finding.order,
        audience: notification.map(|it| it.audience.as_str()),
        vendor: notification.and_then(|it| it.vendor.as_deref()),
        label: notification.map(label),
        object: finding.name.as_deref(),
        since: finding.since,
        age_seconds: age(finding, now).map(|age| age.as_secs()),
        failures: finding.failures,
        why: &finding.why,
    }
}

fn cells(finding: &Finding, now: OffsetDateTime) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let notification = finding.notification.as_ref();
    let about = notification.map(label).or_else(|| finding.name.clone());
    let cells = [
        finding.kind.name().to_owned(),
        or_dash(finding.order.map(|order| order.to_string())),
        or_dash(notification.map(|it| it.audience.clone())),
        or_dash(notification.and_then(|it| it.vendor.clone())),
        or_dash(about),
        or_dash(age(finding, now).map(short)),
        finding.why.clone(),
    ];
    cells.map(|cell| cut(&plain(&cell)))
}

fn label(notification: &Notification) -> String {
    format!("order.{}", notification.what)
}

fn age(finding: &Finding, now: OffsetDateTime) -> Option<std::time::Duration> {
    let age = now - finding.since?;
    Some(age.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 20:40 UTC);

    fn findings() -> [Finding; 2] {
        let order = OrderId(Uuid::from_u128(1));
        let since = Some(NOW - time::Duration::minutes(61));
        [
            Finding {
                notification: Some(Notification {
                    audience: "vendors".to_owned(),
                    vendor: Some("bakery".to_owned()),
                    what: "placed".to_owned(),
                }),
                failures: 3,
                ..Finding::new(Kind::Dead, Some(order), since, "UnknownVendor")
            },
            Finding {
                name: Some("outbox/\u{1b}[31m.json".to_owned()),
                ..Finding::new(Kind::InOutbox, None, None, "the bus has not taken it")
            },
        ]
    }

    #[test]
    fn a_person_gets_a_table() {
        let rows = findings().map(|finding| cells(&finding, NOW));
        assert_eq!(
            table(HEADINGS, &rows),
            "FINDING    ORDER                                 AUDIENCE  VENDOR  ABOUT              AGE  WHY\n\
             dead       00000000-0000-0000-0000-000000000001  vendors   bakery  order.placed       1h   UnknownVendor\n\
             in-outbox  -                                     -         -       outbox/ [31m.json  -    the bus has not taken it\n"
        );
    }

    #[test]
    fn a_pipe_gets_a_json_object_a_line() {
        let lines = findings().map(|finding| line(&row(&finding, NOW)));
        assert_eq!(
            lines[0],
            "{\"finding\":\"dead\",\"orderId\":\"00000000-0000-0000-0000-000000000001\",\"audience\":\"vendors\",\
             \"vendor\":\"bakery\",\"label\":\"order.placed\",\"object\":null,\"since\":\"2026-11-22T19:39:00Z\",\
             \"ageSeconds\":3660,\"failures\":3,\"why\":\"UnknownVendor\"}\n"
        );
        assert!(lines[1].contains("\"orderId\":null"), "{}", lines[1]);
        assert!(
            lines[1].contains("\"object\":\"outbox/\\u001b[31m.json\""),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn a_summary_counts_orders_by_the_worst_that_is_found_of_them() {
        let mut summary = Summary::new(NOW, 1);
        for standing in [
            Standing::Told,
            Standing::Told,
            Standing::Waiting,
            Standing::Dead,
            Standing::Missing,
        ] {
            summary.count(standing);
        }
        assert_eq!(
            summary.text(),
            "5 orders since 2026-11-22T20:40:00Z: 2 told, 1 waiting, 1 dead, 1 missing; outbox 1"
        );
    }
}
