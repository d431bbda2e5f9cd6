//! What `orderup dead-letters` prints: for people on a terminal, one JSON object a line in a pipe.
//!
//! Nothing here prints a body but [`Report::shown`], which is asked to. Text on a terminal is without
//! characters that do something to it, because somebody else wrote it.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::dead_letter::DeadLetter;

/// Columns of the table, and the longest cell: what is longer is for `show`.
const HEADINGS: [&str; 9] = [
    "SEQUENCE",
    "AUDIENCE",
    "VENDOR",
    "ORDER",
    "LABEL",
    "REASON",
    "AGE",
    "FAILURES",
    "LAST ERROR",
];
const LONGEST_CELL: usize = 60;

/// Erases the line and goes to its beginning.
const ERASE_LINE: &str = "\r\x1b[K";

/// What became of a dead letter that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has the copy, and the dead letter is gone.
    Replayed,
    /// Of a dry run.
    WouldBeReplayed,
    /// Left alone, and worth another run.
    Skipped(&'static str),
    /// Still there, as far as is known.
    Failed(String),
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::WouldBeReplayed => "wouldBeReplayed",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Replayed | Self::WouldBeReplayed => None,
            Self::Skipped(why) => Some(why),
            Self::Failed(why) => Some(why),
        }
    }
}

/// How a replay went.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub replayed: usize,
    /// Of a dry run.
    pub would_be_replayed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// The filter means others.
    pub not_matched: usize,
}

impl Summary {
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Replayed => self.replayed += 1,
            Outcome::WouldBeReplayed => self.would_be_replayed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
            Outcome::Failed(_) => self.failed += 1,
        }
    }

    /// How many were taken in hand.
    pub fn matched(&self) -> usize {
        self.replayed + self.would_be_replayed + self.failed
    }

    /// In one line.
    pub fn text(&self, dry_run: bool) -> String {
        let (number, done) = if dry_run {
            (self.would_be_replayed, "would be replayed")
        } else {
            (self.replayed, "replayed")
        };
        format!(
            "{number} {done}, {} failed, {} skipped, {} not matched",
            self.failed, self.skipped, self.not_matched
        )
    }
}

/// A line of a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    sequence_number: i64,
    audience: &'static str,
    vendor: Option<String>,
    order_id: &'a str,
    label: &'a str,
    reason: Option<String>,
    age_seconds: Option<u64>,
    failures: Option<i64>,
    last_error: Option<String>,
    message_id: &'a str,
}

/// A line of a replay.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutcomeLine<'a> {
    outcome: &'static str,
    audience: &'static str,
    sequence_number: i64,
    message_id: &'a str,
    vendor: Option<String>,
    order_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

/// The last line of a replay.
#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: &'a Summary,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    audience: &'static str,
    broker_properties: &'a Map<String, Value>,
    content_type: Option<&'a str>,
    properties: &'a BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    /// Of a body that is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_too_large: Option<bool>,
}

/// Where it is printed.
pub struct Report {
    terminal: bool,
    progress: bool,
}

impl Report {
    /// For the process's own stdout and stderr.
    pub fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            progress: io::stderr().is_terminal(),
        }
    }

    /// The rows of a list.
    ///
    /// # Errors
    /// If nobody reads stdout any more, as everywhere here.
    pub fn list(&self, dead_letters: &[DeadLetter], now: SystemTime) -> io::Result<()> {
        self.erase_progress();
        if self.terminal {
            let rows: Vec<_> = dead_letters.iter().map(|it| cells(it, now)).collect();
            if rows.is_empty() {
                return print("no dead letters\n");
            }
            return print(&table(HEADINGS, &rows));
        }
        let lines = dead_letters.iter().map(|it| line(&row(it, now)));
        print(&lines.collect::<String>())
    }

    /// Everything about one dead letter; the body, which holds personal data, only `with_body`.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub fn shown(&self, dead_letter: &DeadLetter, with_body: bool) -> io::Result<()> {
        let body = dead_letter.body.as_deref().filter(|_| with_body);
        let too_large = with_body && body.is_none();
        let body_text = body.and_then(|body| std::str::from_utf8(body).ok());
        if !self.terminal {
            let bytes = body.filter(|_| body_text.is_none());
            return print(&line(&Shown {
                audience: dead_letter.audience.name(),
                broker_properties: &dead_letter.broker_properties,
                content_type: dead_letter.content_type.as_deref(),
                properties: &dead_letter.properties,
                body: body_text,
                body_base64: bytes.map(|bytes| BASE64_STANDARD.encode(bytes)),
                body_too_large: too_large.then_some(true),
            }));
        }
        let content_type = Value::from(dead_letter.content_type.as_deref());
        let mut text = format!("audience: {}\n", dead_letter.audience.name());
        for (name, value) in dead_letter
            .broker_properties
            .iter()
            .chain([(&"ContentType".to_owned(), &content_type)])
            .chain(&dead_letter.properties)
        {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            text.push_str(&format!("{}: {}\n", plain(name), plain(&value)));
        }
        if with_body {
            let body = match body_text {
                Some(body) => body,
                None if too_large => "(the body is larger than 1 MB)",
                None => "(the body is not text; a pipe gets it in base64)",
            };
            text.push('\n');
            for line in body.lines() {
                text.push_str(&plain(line));
                text.push('\n');
            }
        }
        print(&text)
    }

    /// What became of one dead letter, and how far the replay is.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub fn outcome(&self, dead_letter: &DeadLetter, outcome: &Outcome) -> io::Result<()> {
        if self.terminal {
            self.erase_progress();
            let [sequence, audience, vendor, order, ..] = cells(dead_letter, SystemTime::now());
            let end = match outcome {
                Outcome::WouldBeReplayed => "would be replayed".to_owned(),
                Outcome::Replayed => "replayed".to_owned(),
                Outcome::Skipped(why) => format!("skipped: {why}"),
                Outcome::Failed(why) => format!("failed: {}", plain(why)),
            };
            return print(&format!(
                "{sequence}  {audience}  {vendor}  {order}  {end}\n"
            ));
        }
        print(&line(&OutcomeLine {
            outcome: outcome.name(),
            audience: dead_letter.audience.name(),
            sequence_number: dead_letter.sequence_number,
            message_id: dead_letter.message_id(),
            vendor: dead_letter.vendor(),
            order_id: dead_letter.correlation_id(),
            why: outcome.why(),
        }))
    }

    /// The last line of a replay.
    ///
    /// # Errors
    /// See [`Self::list`].
    pub fn summary(&self, summary: &Summary, dry_run: bool) -> io::Result<()> {
        self.erase_progress();
        if self.terminal {
            print(&format!("{}\n", summary.text(dry_run)))
        } else {
            print(&line(&SummaryLine { summary }))
        }
    }

    /// One line on stderr that is written over again and again, where somebody can see it.
    pub fn progress(&self, text: &str) {
        if self.progress {
            tell(&format!("{ERASE_LINE}{text}"));
        }
    }

    /// A line on stderr for a person, and for nobody else.
    pub fn remark(&self, text: &str) {
        if self.progress {
            self.say(text);
        }
    }

    /// A line on stderr for whoever runs this.
    pub fn say(&self, text: &str) {
        self.erase_progress();
        tell(&format!("{}\n", plain(text)));
    }

    fn erase_progress(&self) {
        self.progress("");
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// When nobody reads stderr, there is nobody to tell.
fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// One JSON object and the end of its line.
pub(crate) fn line(value: &impl Serialize) -> String {
    // Nothing here has a key that is not text, or a number that JSON can't have.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}

fn row(dead_letter: &DeadLetter, now: SystemTime) -> Row<'_> {
    Row {
        sequence_number: dead_letter.sequence_number,
        audience: dead_letter.audience.name(),
        vendor: dead_letter.vendor(),
        order_id: dead_letter.correlation_id(),
        label: dead_letter.label(),
        reason: dead_letter.reason(),
        age_seconds: dead_letter.age(now).map(|age| age.as_secs()),
        failures: dead_letter.failures(),
        last_error: dead_letter.error(),
        message_id: dead_letter.message_id(),
    }
}

fn cells(dead_letter: &DeadLetter, now: SystemTime) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = [
        dead_letter.sequence_number.to_string(),
        dead_letter.audience.name().to_owned(),
        or_dash(dead_letter.vendor()),
        dead_letter.correlation_id().to_owned(),
        dead_letter.label().to_owned(),
        or_dash(dead_letter.reason()),
        or_dash(dead_letter.age(now).map(short)),
        or_dash(dead_letter.failures().map(|failures| failures.to_string())),
        or_dash(dead_letter.error()),
    ];
    cells.map(|cell| cut(&plain(&cell)))
}

/// The headings, and a line for each row, with everything below its heading.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let headings = headings.map(str::to_owned);
    let lines = || std::iter::once(&headings).chain(rows);
    let width = |column: usize| {
        lines()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines() {
        let padded = line.iter().zip(widths);
        let padded: Vec<_> = padded
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `45s`, `12m`, `7h`, `3d`: one number is enough to see which ones belong together.
pub(crate) fn short(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(crate) fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST_CELL {
        return text.to_owned();
    }
    text.chars().take(LONGEST_CELL - 1).chain(['…']).collect()
}

/// The text without what moves the cursor, changes colours or turns the direction of writing around.
pub(crate) fn plain(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.replace(acts, " ")
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;
    use crate::redelivery::Audience;

    fn dead_letter(broker: &'static str, last_error: &str) -> DeadLetter {
        let mut headers = HeaderMap::new();
        headers.insert("brokerproperties", HeaderValue::from_static(broker));
        let quoted = format!("\"{last_error}\"");
        headers.insert(
            "last-error",
            HeaderValue::from_bytes(quoted.as_bytes()).unwrap(),
        );
        headers.insert("failures", HeaderValue::from_static("3"));
        DeadLetter::read(
            Audience::Vendors,
            &headers,
            Some(b"ada@example.net".to_vec()),
        )
        .unwrap()
    }

    const BROKER: &str = r#"{"SequenceNumber":17,"MessageId":"o-1:placed","Label":"order.placed",
 "CorrelationId":"o-1","EnqueuedTimeUtc":"Thu, 01 Jan 1970 00:00:00 GMT"}"#;

    #[test]
    fn a_table_has_a_column_for_each_heading() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(7_300);
        let one_line: &str = Box::leak(BROKER.replace('\n', "").into_boxed_str());
        let rows = [cells(&dead_letter(one_line, "busy: 503"), now)];
        assert_eq!(
            table(HEADINGS, &rows),
            "SEQUENCE  AUDIENCE  VENDOR  ORDER  LABEL         REASON  AGE  FAILURES  LAST ERROR\n\
             17        vendors   -       o-1    order.placed  -       2h   3         busy: 503\n"
        );
    }

    #[test]
    fn a_cell_does_nothing_to_the_terminal_and_has_its_limit() {
        let broker = r#"{"SequenceNumber":1,"Label":"a\u001b[31mb\u202ec\u009bd"}"#;
        let [.., label, _, _, _, error] =
            cells(&dead_letter(broker, &"é".repeat(200)), SystemTime::now());
        assert_eq!(label, "a [31mb c d");
        assert_eq!(error.chars().count(), LONGEST_CELL);
        assert!(error.ends_with('…'));
    }

    #[test]
    fn a_row_has_no_body() {
        let dead_letter = dead_letter(r#"{"SequenceNumber":1}"#, "x");
        let row = line(&row(&dead_letter, SystemTime::now()));
        assert_eq!(
            row,
            "{\"sequenceNumber\":1,\"audience\":\"vendors\",\"vendor\":null,\"orderId\":\"\",\"label\":\"\",\
             \"reason\":null,\"ageSeconds\":null,\"failures\":3,\"lastError\":\"x\",\"messageId\":\"\"}\n"
        );
    }

    #[test]
    fn an_age_is_one_number() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7_199, "1h"),
            (86_400, "1d"),
            (1_000_000, "11d"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_summary_counts_every_outcome() {
        let mut summary = Summary::default();
        for outcome in [
            Outcome::Replayed,
            Outcome::Replayed,
            Outcome::Skipped("x"),
            Outcome::Failed("y".to_owned()),
        ] {
            summary.count(&outcome);
        }
        assert_eq!(summary.matched(), 3);
        assert_eq!(
            line(&SummaryLine { summary: &summary }),
            "{\"summary\":{\"replayed\":2,\"wouldBeReplayed\":0,\"failed\":1,\"skipped\":1,\"notMatched\":0}}\n"
        );
        assert_eq!(
            summary.text(false),
            "2 replayed, 1 failed, 1 skipped, 0 not matched"
        );
    }
}
