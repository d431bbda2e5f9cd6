//! Tells each trace as a tree of text: what happened to an order, when, how long it took, and what repeats what.
//!
//! Devhost knows nothing of orders but what the spans say of themselves.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::traces::Span;

/// The stories of these spans, the oldest first; only those of that trace or order, if one is named.
pub fn told(spans: Vec<Span>, wanted: Option<&str>) -> String {
    let mut traces: BTreeMap<Vec<u8>, Vec<Span>> = BTreeMap::new();
    for span in spans {
        traces.entry(span.trace.clone()).or_default().push(span);
    }
    let stories = traces.into_values().map(Story::new);
    let mut stories: Vec<Story> = stories
        .filter(|story| wanted.is_none_or(|wanted| story.is_about(wanted)))
        .collect();
    stories.sort_by_key(Story::started);
    let told: Vec<String> = stories.iter().map(Story::told).collect();
    told.join("\n")
}

/// The spans of one trace, in the order of time.
struct Story {
    spans: Vec<Span>,
    orders: Vec<String>,
}

impl Story {
    fn new(mut spans: Vec<Span>) -> Self {
        spans.sort_by_key(|span| (span.started, span.ended));
        let mut orders: Vec<String> = Vec::new();
        for span in &spans {
            let order = ["orderup.order.id", "messaging.message.conversation_id"]
                .into_iter()
                .find_map(|name| span.attributes.get(name));
            if let Some(order) = order
                && !orders.contains(order)
            {
                orders.push(order.clone());
            }
        }
        Self { spans, orders }
    }

    fn started(&self) -> u64 {
        self.spans.first().map_or(0, |span| span.started)
    }

    fn trace(&self) -> String {
        self.spans
            .first()
            .map_or_else(String::new, |span| hex(&span.trace))
    }

    fn is_about(&self, wanted: &str) -> bool {
        let wanted = wanted.to_ascii_lowercase();
        self.trace() == wanted || self.orders.contains(&wanted)
    }

    fn told(&self) -> String {
        let mut text = String::new();
        let ended = self.spans.iter().map(|span| span.ended).max().unwrap_or(0);
        let begun = Timestamp::from_nanosecond(self.started().into())
            .map_or_else(|_| String::new(), |time| format!("{time:.3}"));
        let orders = match &self.orders[..] {
            [] => "no order".to_owned(),
            orders => format!("order {}", orders.join(", ")),
        };
        let _ = writeln!(
            text,
            "{orders}\ntrace {}, {} spans within {}, begun {begun}\n",
            self.trace(),
            self.spans.len(),
            seconds(ended.saturating_sub(self.started())),
        );
        let is_root = |span: &&Span| !self.spans.iter().any(|other| other.id == span.parent);
        for root in self.spans.iter().filter(is_root) {
            self.tell(&mut text, root, "", "");
        }
        text
    }

    /// The span's line, and below it those of its parts. `first` is before its own line, `rest` before theirs.
    fn tell(&self, text: &mut String, span: &Span, first: &str, rest: &str) {
        let _ = writeln!(
            text,
            "{:>10} {:>9}  {first}[{}] {}{}",
            format!("+{}", seconds(span.started.saturating_sub(self.started()))),
            milliseconds(span.ended.saturating_sub(span.started)),
            self.number(&span.id).unwrap_or_default(),
            span.name,
            self.facts(span),
        );
        let parts: Vec<&Span> = self
            .spans
            .iter()
            .filter(|part| part.parent == span.id)
            .collect();
        for (index, part) in parts.iter().enumerate() {
            let is_last = index + 1 == parts.len();
            let (branch, below) = if is_last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            self.tell(
                text,
                part,
                &format!("{rest}{branch}"),
                &format!("{rest}{below}"),
            );
        }
    }

    /// By which the reader finds a span again: its place in time, from 1.
    fn number(&self, id: &[u8]) -> Option<usize> {
        let place = self.spans.iter().position(|span| span.id == id)?;
        Some(place + 1)
    }

    /// What it came to, in a few words.
    fn facts(&self, span: &Span) -> String {
        let get = |name: &str| span.attributes.get(name).map(String::as_str);
        let mut facts = Vec::new();
        facts.extend(get("orderup.function").filter(|_| span.kind != SpanKind::Server));
        facts.extend(get("messaging.message.id").map(|id| self.without_order(id)));
        facts.extend(get("http.response.status_code"));
        facts.extend(get("orderup.sink").filter(|sink| *sink != "topic"));
        facts.extend(get("orderup.result"));
        facts.extend(get("orderup.outcome"));
        facts.extend(get("orderup.classes"));
        let is_known = |error: &&str| !facts.contains(error);
        let error = get("error.type")
            .filter(|_| span.has_failed)
            .filter(is_known);
        facts.extend(error);
        facts.extend(
            get("orderup.replay")
                .filter(|flag| *flag == "true")
                .map(|_| "a replay"),
        );
        let mut text = String::new();
        for fact in facts {
            let _ = write!(text, "  {fact}");
        }
        // Every copy is a part of the same, and linked to it as well.
        let links = span.links.iter().filter(|link| **link != span.parent);
        let repeated = links.filter_map(|link| self.number(link));
        for number in repeated.filter(|_| span.kind == SpanKind::Consumer) {
            let _ = write!(text, "  repeats [{number}]");
        }
        text
    }

    /// A message's id without the order's, which is above.
    fn without_order<'a>(&self, id: &'a str) -> &'a str {
        let mut orders = self.orders.iter();
        orders
            .find_map(|order| id.strip_prefix(order.as_str()))
            .map_or(id, |rest| rest.trim_start_matches(':'))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn seconds(nanoseconds: u64) -> String {
    format!("{:.3} s", nanoseconds as f64 / 1e9)
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.1} ms", nanoseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "01935a1e-9c00-7000-8000-000000000001";

    fn span(
        id: u8,
        parent: u8,
        kind: SpanKind,
        name: &str,
        at: u64,
        facts: &[(&str, &str)],
    ) -> Span {
        let bytes = |number: u8| if number == 0 { vec![] } else { vec![number; 8] };
        let facts = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Span {
            trace: vec![0xab; 16],
            id: bytes(id),
            parent: bytes(parent),
            name: name.to_owned(),
            kind,
            started: at * 1_000_000,
            ended: (at + 2) * 1_000_000,
            has_failed: false,
            attributes: facts.collect(),
            links: vec![],
        }
    }

    #[test]
    fn a_story_is_a_tree_in_the_order_of_time() {
        let message = format!("{ORDER}:placed");
        let mut repeated = span(
            4,
            2,
            SpanKind::Consumer,
            "process notifications",
            900,
            &[("orderup.outcome", "delivered")],
        );
        repeated.links = vec![vec![3; 8], vec![2; 8]];
        // As they come: parts before what they are parts of.
        let spans = vec![
            span(
                5,
                3,
                SpanKind::Client,
                "POST acs",
                31,
                &[
                    ("http.response.status_code", "503"),
                    ("orderup.result", "transient"),
                ],
            ),
            repeated,
            span(
                3,
                2,
                SpanKind::Consumer,
                "process notifications",
                30,
                &[("orderup.outcome", "later"), ("orderup.function", "notify")],
            ),
            span(
                2,
                1,
                SpanKind::Producer,
                "send orders",
                11,
                &[("messaging.message.id", &message)],
            ),
            span(
                1,
                9,
                SpanKind::Server,
                "POST /api/checkout",
                10,
                &[
                    ("orderup.order.id", ORDER),
                    ("orderup.function", "checkout"),
                ],
            ),
        ];
        let expected = format!(
            "order {ORDER}\ntrace {}, 5 spans within 0.892 s, begun 1970-01-01T00:00:00.010Z\n\n\
             \u{20} +0.000 s    2.0 ms  [1] POST /api/checkout\n\
             \u{20} +0.001 s    2.0 ms  └─ [2] send orders  placed\n\
             \u{20} +0.020 s    2.0 ms     ├─ [3] process notifications  notify  later\n\
             \u{20} +0.021 s    2.0 ms     │  └─ [4] POST acs  503  transient\n\
             \u{20} +0.890 s    2.0 ms     └─ [5] process notifications  delivered  repeats [3]\n",
            "ab".repeat(16)
        );
        assert_eq!(told(spans.clone(), None), expected);
        assert_eq!(told(spans.clone(), Some(ORDER)), expected);
        assert_eq!(told(spans.clone(), Some(&"AB".repeat(16))), expected);
        assert_eq!(told(spans, Some("another")), "");
    }
}
