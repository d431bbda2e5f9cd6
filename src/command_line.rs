//! What the process is asked to do, from its arguments.
//!
//! The Functions host passes none: that is the handler, and nothing here runs then. [`parse`] is pure; what it can't
//! read is a [`UsageError`], which ends the process with the usage and exit code 2.

use std::{ffi::OsString, num::NonZeroUsize, time::Duration};

use lexopt::{
    Arg::{Long, Short, Value},
    ValueExt,
};
use thiserror::Error;

use crate::{
    dead_letter::Filter,
    durations::{self, plain_number},
    redelivery::Audience,
};

pub const USAGE: &str = "\
Usage: orderup                                 the handler, as the Functions host starts it
       orderup dead-letters list [FILTER]...
       orderup dead-letters show SEQUENCE|MESSAGE-ID [--audience A] [--body]
       orderup dead-letters replay [FILTER]... [--rate N/s|N/m] [--dry-run]
       orderup audit [--since 24h] [--json]
       orderup --help | --version

dead-letters looks at what could not be delivered to customers and vendors, and sends it to the topic again. audit looks
for orders of which somebody should know who does not, and nothing says why.

Filters of dead-letters:
  --audience customers|vendors   the dead-letter queue of one audience only
  --reason REASON                given up for this reason, in any case
  --vendor ID                    the copy of this vendor only; a first copy is for all vendors of its order, and is not
                                 found by this
  --older-than 2h                given up longer ago than that (s, m, h, d)
  --newer-than 30m               given up less long ago than that
  --limit N                      at most so many (list: 100, replay: all)

list                 A table on a terminal, JSON lines in a pipe.
show                 All properties of a message. --body prints the body too: it holds personal data.
replay               Sends a copy to the topic and removes the dead letter once the broker has the copy. Dead letters that
                     come while it runs are left for the next run.
  --rate N/s|N/m     so many a second or a minute (10/s)
  --dry-run          says what it would do; every message stays where it is

All of them lock what they look at, for about a minute at a time, and unlock it at the end: others do not see it
meanwhile, and its delivery count grows, which does no harm in a dead-letter queue.

Settings: ServiceBusConnection or ServiceBusConnection__fullyQualifiedNamespace, SERVICEBUS_REST_ENDPOINT, ORDERS_TOPIC.
Rights: Listen on the queue and the subscription (Azure Service Bus Data Receiver); replay also Send on the topic (Data
Sender).
Exit code: 0 done; 1 something failed, was skipped or not reached; 2 wrong arguments; 130 interrupted.

audit                Only reads the order book. A table on a terminal, JSON lines in a pipe; what each finding means, and
                     what to do, is in docs/AUDIT.md.
  --since 24h        the orders that were placed not longer ago than that (s, m, h, d)
  --json             JSON lines on a terminal too

Settings: those of the order book (ORDER_BOOK, AzureWebJobsStorage), TILL, VENDOR_NOTIFY_ON.
Rights: to read the order book (Storage Blob Data Reader).
Exit code: 0 everybody was told, or waits, or was given up as a dead letter (these are listed: see dead-letters); 1 something
is missing or wrong, or the order book cannot be read; 2 wrong arguments.
";

/// How many rows a list has that does not say so.
const LIST_LIMIT: usize = 100;

/// 10 a second: a provider that has just come back is not run over.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// How far back an audit looks that does not say so.
const AUDIT_SINCE: Duration = Duration::from_secs(24 * 60 * 60);

/// 1000 a second: one message after the other never gets there.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Version,
    DeadLetters(DeadLetters),
    Audit(Audit),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Audit {
    /// How long ago an order may have been placed.
    pub since: Duration,
    /// Even on a terminal.
    pub json: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum DeadLetters {
    List {
        filter: Filter,
        limit: usize,
    },
    Show {
        audience: Option<Audience>,
        /// A sequence number or a message id.
        wanted: String,
        body: bool,
    },
    Replay {
        filter: Filter,
        limit: Option<usize>,
        /// The time from one copy to the next.
        interval: Duration,
        dry_run: bool,
    },
}

#[derive(Debug, Error)]
pub enum UsageError {
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    #[error("there is no command")]
    NoCommand,
    #[error("{0:?} means nothing here")]
    UnknownWord(String),
    #[error("there is no option {0} here")]
    UnknownOption(String),
    #[error("show needs a sequence number or a message id")]
    NothingToShow,
    #[error("{0} is not an audience: it is customers or vendors")]
    Audience(String),
    #[error("{0} is not a length of time, as in 90s, 30m, 2h or 7d")]
    Age(String),
    #[error("{0} is not a rate, as in 10/s or 30/m, at most 1000/s")]
    Rate(String),
}

/// Options that every command but `show` has.
const FILTERS: [&str; 6] = [
    "--audience",
    "--reason",
    "--vendor",
    "--older-than",
    "--newer-than",
    "--limit",
];

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// The first argument that can't be read, or does not belong to the command.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut words = Vec::new();
    let mut given = Vec::new();
    let mut filter = Filter::default();
    let (mut limit, mut interval) = (None, DEFAULT_INTERVAL);
    let mut since = AUDIT_SINCE;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("version") => return Ok(Command::Version),
            Value(word) => words.push(word.string()?),
            Long(name) => {
                let name = format!("--{name}");
                match name.as_str() {
                    "--body" | "--dry-run" | "--json" => {}
                    "--audience" => filter.audience = Some(audience(&value(&mut parser)?)?),
                    "--reason" => filter.reason = Some(value(&mut parser)?),
                    "--vendor" => filter.vendor = Some(value(&mut parser)?),
                    "--older-than" => filter.older_than = Some(age(&value(&mut parser)?)?),
                    "--newer-than" => filter.newer_than = Some(age(&value(&mut parser)?)?),
                    "--limit" => limit = Some(parser.value()?.parse::<NonZeroUsize>()?.get()),
                    "--since" => since = age(&value(&mut parser)?)?,
                    "--rate" => interval = rate(&value(&mut parser)?)?,
                    _ => return Err(UsageError::UnknownOption(name)),
                }
                given.push(name);
            }
            Short(_) => return Err(argument.unexpected().into()),
        }
    }
    let has = |option: &str| given.iter().any(|name| name == option);
    let allowing = |allowed: &[&str], command: Command| match given
        .iter()
        .find(|name| !allowed.contains(&name.as_str()))
    {
        None => Ok(command),
        Some(name) => Err(UsageError::UnknownOption(name.clone())),
    };
    let only = |allowed: &[&str], command| allowing(allowed, Command::DeadLetters(command));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["dead-letters", "list"] => only(
            &FILTERS,
            DeadLetters::List {
                filter,
                limit: limit.unwrap_or(LIST_LIMIT),
            },
        ),
        ["dead-letters", "show", wanted] => only(
            &["--audience", "--body"],
            DeadLetters::Show {
                audience: filter.audience,
                wanted: wanted.to_owned(),
                body: has("--body"),
            },
        ),
        ["dead-letters", "replay"] => only(
            &[&FILTERS[..], &["--rate", "--dry-run"]].concat(),
            DeadLetters::Replay {
                filter,
                limit,
                interval,
                dry_run: has("--dry-run"),
            },
        ),
        ["audit"] => {
            let json = has("--json");
            allowing(
                &["--since", "--json"],
                Command::Audit(Audit { since, json }),
            )
        }
        ["dead-letters", "show"] => Err(UsageError::NothingToShow),
        [] | ["dead-letters"] => Err(UsageError::NoCommand),
        ["dead-letters", "list" | "replay" | "show", .., word]
        | ["dead-letters", word, ..]
        | ["audit", word, ..]
        | [word, ..] => Err(UsageError::UnknownWord(word.to_owned())),
    }
}

fn value(parser: &mut lexopt::Parser) -> Result<String, lexopt::Error> {
    parser.value()?.string()
}

fn audience(text: &str) -> Result<Audience, UsageError> {
    Audience::ALL
        .into_iter()
        .find(|audience| audience.name() == text)
        .ok_or_else(|| UsageError::Audience(text.to_owned()))
}

fn age(text: &str) -> Result<Duration, UsageError> {
    durations::parse(text).ok_or_else(|| UsageError::Age(text.to_owned()))
}

/// The time from one message to the next at `10/s` or `30/m`.
fn rate(text: &str) -> Result<Duration, UsageError> {
    let interval = text.split_once('/').and_then(|(number, unit)| {
        let interval = durations::parse_unit(unit)?.checked_div(plain_number(number)?)?;
        (interval >= SHORTEST_INTERVAL).then_some(interval)
    });
    interval.ok_or_else(|| UsageError::Rate(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str) -> Result<Command, UsageError> {
        parse(arguments.split_whitespace().map(OsString::from))
    }

    fn dead_letters(arguments: &str) -> DeadLetters {
        match read(arguments) {
            Ok(Command::DeadLetters(command)) => command,
            other => panic!("{arguments}: {other:?}"),
        }
    }

    #[test]
    fn a_list_has_filters_in_any_order_and_a_limit() {
        assert_eq!(
            dead_letters("dead-letters list"),
            DeadLetters::List {
                filter: Filter::default(),
                limit: 100
            }
        );
        assert_eq!(
            dead_letters(
                "dead-letters --limit=5 list --audience vendors --reason rejected --vendor bakery \
                 --older-than 2h --newer-than 7d"
            ),
            DeadLetters::List {
                filter: Filter {
                    audience: Some(Audience::Vendors),
                    reason: Some("rejected".to_owned()),
                    vendor: Some("bakery".to_owned()),
                    older_than: Some(Duration::from_secs(7200)),
                    newer_than: Some(Duration::from_secs(604_800)),
                },
                limit: 5
            }
        );
    }

    #[test]
    fn show_takes_a_sequence_number_or_an_id_and_prints_the_body_only_when_asked() {
        assert_eq!(
            dead_letters("dead-letters show 17"),
            DeadLetters::Show {
                audience: None,
                wanted: "17".to_owned(),
                body: false
            }
        );
        assert_eq!(
            dead_letters("dead-letters show o-1:placed --body --audience customers"),
            DeadLetters::Show {
                audience: Some(Audience::Customers),
                wanted: "o-1:placed".to_owned(),
                body: true
            }
        );
    }

    #[test]
    fn replay_has_a_rate() {
        let interval = |arguments: &str| match dead_letters(arguments) {
            DeadLetters::Replay {
                interval, dry_run, ..
            } => (interval.as_millis(), dry_run),
            other => panic!("{other:?}"),
        };
        assert_eq!(interval("dead-letters replay"), (100, false));
        assert_eq!(interval("dead-letters replay --rate 5/s"), (200, false));
        assert_eq!(
            interval("dead-letters replay --rate 2/m --dry-run"),
            (30_000, true)
        );
    }

    #[test]
    fn an_audit_looks_a_day_back_unless_told() {
        let audit = |arguments: &str| match read(arguments) {
            Ok(Command::Audit(Audit { since, json })) => (since.as_secs(), json),
            other => panic!("{arguments}: {other:?}"),
        };
        assert_eq!(audit("audit"), (86_400, false));
        assert_eq!(audit("audit --since 7d --json"), (604_800, true));
        assert_eq!(audit("--since=90s audit"), (90, false));
    }

    #[test]
    fn help_and_version_are_found_anywhere() {
        for arguments in [
            "-h",
            "--help",
            "dead-letters -h",
            "dead-letters list --help",
        ] {
            assert_eq!(read(arguments).unwrap(), Command::Help, "{arguments}");
        }
        assert_eq!(read("--version").unwrap(), Command::Version);
    }

    #[test]
    fn what_can_not_be_read_is_named() {
        for (arguments, named) in [
            ("", "no command"),
            ("serve", "serve"),
            ("dead-letters", "no command"),
            ("dead-letters purge", "purge"),
            ("dead-letters show", "show needs"),
            ("dead-letters show 1 2", "\"2\""),
            ("dead-letters list 7", "\"7\""),
            ("dead-letters list -x", "-x"),
            ("dead-letters list --colour red", "--colour"),
            ("dead-letters list --body", "--body"),
            ("dead-letters list --dry-run", "--dry-run"),
            ("dead-letters show 1 --reason x", "--reason"),
            ("dead-letters replay --body", "--body"),
            ("dead-letters list --audience everyone", "everyone"),
            ("dead-letters list --limit 0", "0"),
            ("dead-letters list --limit", "--limit"),
            ("dead-letters list --dry-run=x", "--dry-run"),
            ("dead-letters list --since 2h", "--since"),
            ("dead-letters replay --json", "--json"),
            ("audit everything", "everything"),
            ("audit --since", "--since"),
            ("audit --since yesterday", "yesterday"),
            ("audit --limit 7", "--limit"),
            ("audit --json=x", "--json"),
        ] {
            let error = read(arguments).unwrap_err().to_string();
            assert!(error.contains(named), "{arguments}: {error}");
        }
    }

    #[test]
    fn a_length_of_time_is_a_number_and_a_unit() {
        assert_eq!(age("0s").unwrap(), Duration::ZERO);
        assert_eq!(age("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(age("30m").unwrap(), Duration::from_secs(1800));
        assert!(age("4294967295d").is_ok());
        for text in [
            "",
            "h",
            "2",
            "-2h",
            "+2h",
            "2 h",
            "2H",
            "1.5h",
            "2é",
            "4294967296s",
        ] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_for_a_unit() {
        assert_eq!(rate("1000/s").unwrap(), SHORTEST_INTERVAL);
        assert_eq!(rate("1/m").unwrap(), Duration::from_secs(60));
        for text in [
            "", "/s", "0/s", "5", "5/w", "-5/s", "1001/s", "5/s/s", "é/s",
        ] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
