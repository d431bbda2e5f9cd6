//! `orderup dead-letters`: what an operator does about messages that could not be delivered.
//!
//! Runs instead of the handler, on an operator's machine or in the container, with the settings of the connection only.
//! `list` and `show` change nothing but delivery counts. `replay` sends a copy of each dead letter that is meant to
//! the topic, and removes the dead letter only when the broker has the copy: killed at any time, it leaves each
//! message as a dead letter, as a copy, or as both, and then the copy's id tells (see [`crate::dead_letter_copy`]).
//!
//! The first SIGINT or SIGTERM ends it after the message in hand; the second at once.

use std::{
    collections::HashSet,
    io,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};

use crate::{
    command_line,
    config::Settings,
    connection::TopicSettings,
    dead_letter::{DeadLetter, Filter},
    dead_letter_copy::copy,
    dead_letter_queue::DeadLetterQueue,
    dead_letter_report::{Outcome, Report, Summary},
    dead_letter_walk::Walk,
    http_client,
    orders_topic::{OrdersTopic, PublishError},
    redelivery::Audience,
};

const INTERRUPTED: u8 = 130;

/// Why a run is no success.
enum Ended {
    /// Told already, or nobody reads what we print.
    Failed,
    Interrupted,
}

/// Carries out one command.
pub fn run(command: command_line::DeadLetters) -> LocalBoxFuture<'static, ExitCode> {
    // Boxed here, or the compiler puts all that it calls into the crate of `main` once more.
    Box::pin(async {
        let report = Report::new();
        match carry_out(command, &report).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(Ended::Failed) => ExitCode::FAILURE,
            Err(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        }
    })
}

async fn carry_out(command: command_line::DeadLetters, report: &Report) -> Result<(), Ended> {
    let failed = |error: &dyn std::fmt::Display| {
        report.say(&format!("orderup: {error}"));
        Ended::Failed
    };
    let stop = Stop::on_signals().map_err(|error| failed(&error))?;
    let settings = Settings::from_env();
    let connection = TopicSettings::read(&settings).map_err(|error| failed(&error))?;
    let client = http_client::outgoing(&settings).map_err(|error| failed(&error))?;
    report.remark(&format!(
        "{}, topic {}",
        connection.base_url.as_str().trim_end_matches('/'),
        connection.topic
    ));
    let operator = Operator {
        connection,
        client,
        report,
        stop,
        started: SystemTime::now(),
    };
    let (audience, mut work) = match command {
        command_line::DeadLetters::List { filter, limit } => (
            filter.audience,
            Work::List {
                filter,
                limit,
                rows: Vec::new(),
                more: false,
            },
        ),
        command_line::DeadLetters::Show {
            audience,
            wanted,
            body,
        } => (
            audience,
            Work::Show {
                wanted,
                body,
                found: Vec::new(),
            },
        ),
        command_line::DeadLetters::Replay {
            filter,
            limit,
            interval,
            dry_run,
        } => (
            filter.audience,
            Work::Replay(Replay {
                topic: OrdersTopic::new(&operator.connection, &operator.client),
                filter,
                limit: limit.unwrap_or(usize::MAX),
                interval,
                dry_run,
                sent: HashSet::new(),
                summary: Summary::default(),
            }),
        ),
    };
    let ended = operator.walk(audience, &mut work).await;
    operator.finish(work, ended)
}

/// What all commands work with.
struct Operator<'a> {
    connection: TopicSettings,
    client: reqwest::Client,
    report: &'a Report,
    stop: Stop,
    started: SystemTime,
}

/// What is done with the dead letters that a walk comes to.
enum Work {
    List {
        filter: Filter,
        limit: usize,
        rows: Vec<DeadLetter>,
        /// The filter means others than those in the rows.
        more: bool,
    },
    Show {
        /// A sequence number or a message id. Neither is unique: each queue has its own numbers, and a first copy has
        /// one id in both.
        wanted: String,
        body: bool,
        found: Vec<DeadLetter>,
    },
    Replay(Replay),
}

struct Replay {
    topic: OrdersTopic,
    filter: Filter,
    limit: usize,
    interval: Duration,
    dry_run: bool,
    /// Whose copies were sent.
    sent: HashSet<Notification>,
    summary: Summary,
}

/// What a dead letter is about, in every life that it had: audience, order, event and vendor; the id of what is none of ours.
type Notification = (&'static str, String, String, Option<String>);

fn notification(dead_letter: &DeadLetter) -> Notification {
    let order = match dead_letter.correlation_id() {
        "" => dead_letter.message_id(),
        order => order,
    };
    (
        dead_letter.audience.name(),
        order.to_owned(),
        dead_letter.label().to_owned(),
        dead_letter.vendor(),
    )
}

/// What a step means for the walk.
enum Step {
    On,
    Enough,
}

/// How a walk through one queue came to its end.
enum End {
    Reached,
    Enough,
    /// Told on stderr already. The other queue may be readable all the same.
    Unreadable,
}

impl Operator<'_> {
    async fn step(
        &self,
        work: &mut Work,
        walk: &mut Walk,
        dead_letter: DeadLetter,
    ) -> Result<Step, Ended> {
        match work {
            Work::List {
                filter,
                limit,
                rows,
                more,
            } => {
                if !filter.matches(&dead_letter, self.started) {
                    return Ok(Step::On);
                }
                if rows.len() == *limit {
                    *more = true;
                    return Ok(Step::Enough);
                }
                rows.push(DeadLetter {
                    body: None,
                    ..dead_letter
                });
                self.report.progress(&format!("{} found", rows.len()));
                Ok(Step::On)
            }
            Work::Show { wanted, found, .. } => {
                let is_wanted = dead_letter.message_id() == wanted
                    || dead_letter.sequence_number.to_string() == *wanted;
                if is_wanted {
                    found.push(dead_letter);
                }
                Ok(Step::On)
            }
            Work::Replay(replay) => self.replay_one(replay, walk, &dead_letter).await,
        }
    }

    /// Prints what came out, however the walk ended.
    fn finish(&self, work: Work, ended: Result<(), Ended>) -> Result<(), Ended> {
        let (printed, done) = match work {
            Work::List {
                rows, limit, more, ..
            } => {
                let printed = self.report.list(&rows, self.started);
                if more {
                    self.report
                        .say(&format!("there are more than {limit}: see --limit"));
                }
                (printed, true)
            }
            Work::Show {
                wanted,
                body,
                found,
            } => {
                let printed = found.iter().try_for_each(|it| self.report.shown(it, body));
                if found.is_empty() && ended.is_ok() {
                    self.report
                        .say(&format!("orderup: there is no dead letter {wanted}"));
                }
                (printed, !found.is_empty())
            }
            Work::Replay(replay) => {
                let printed = self.report.summary(&replay.summary, replay.dry_run);
                if ended.is_ok() && replay.summary.matched() == 0 {
                    self.report.remark("no dead letter matches");
                }
                (printed, replay.summary.failed + replay.summary.skipped == 0)
            }
        };
        if let Err(Ended::Interrupted) = ended {
            self.report
                .remark("interrupted; what was not taken in hand stays where it is");
        }
        ended?;
        match printed {
            Ok(()) if done => Ok(()),
            _ => Err(Ended::Failed),
        }
    }

    /// One dead letter of a replay. It ends when the turn of the next one has come, so that no lock waits for its turn.
    async fn replay_one(
        &self,
        replay: &mut Replay,
        walk: &mut Walk,
        dead_letter: &DeadLetter,
    ) -> Result<Step, Ended> {
        if !replay.filter.matches(dead_letter, self.started) {
            replay.summary.not_matched += 1;
            return Ok(Step::On);
        }
        let turn = Instant::now() + replay.interval;
        let (outcome, goes_on) = self.send(replay, walk, dead_letter).await;
        replay.summary.count(&outcome);
        let printed = self.report.outcome(dead_letter, &outcome);
        if !goes_on || printed.is_err() {
            return Err(Ended::Failed);
        }
        self.report.progress(&replay.summary.text(replay.dry_run));
        if replay.summary.matched() >= replay.limit {
            return Ok(Step::Enough);
        }
        if outcome == Outcome::Replayed {
            self.stop.or(tokio::time::sleep_until(turn)).await;
        }
        Ok(Step::On)
    }

    /// Sends the copy, removes the dead letter, and answers too whether there is a point in going on.
    async fn send(
        &self,
        replay: &mut Replay,
        walk: &mut Walk,
        dead_letter: &DeadLetter,
    ) -> (Outcome, bool) {
        // Without this, one that dies again and again would be replayed again and again.
        if replay.sent.contains(&notification(dead_letter))
            || dead_letter.time().is_some_and(|time| time > self.started)
        {
            return (Outcome::Skipped("it came while this ran"), true);
        }
        let copy = match copy(dead_letter, &walk.queue.entity) {
            Ok(copy) => copy,
            Err(error) => return (Outcome::Failed(error.to_string()), true),
        };
        if replay.dry_run {
            let outcome = match copy.check() {
                Ok(()) => Outcome::WouldBeReplayed,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            return (outcome, true);
        }
        let published = replay.topic.publish(&copy).await;
        replay.sent.insert(notification(dead_letter));
        if let Err(error) = published {
            let topic = &self.connection.topic;
            let why = why_to_stop(&error, topic);
            if let Some(why) = &why {
                self.report.say(&format!("orderup: {why}"));
            }
            return (Outcome::Failed(error.to_string()), why.is_none());
        }
        match walk.complete(dead_letter).await {
            Ok(()) => (Outcome::Replayed, true),
            Err(error) => {
                let why = format!(
                    "the topic has the copy, but the dead letter may still be here ({error}); replayed again within \
                     ten minutes, the topic drops the second copy"
                );
                (Outcome::Failed(why), true)
            }
        }
    }

    /// Does the work with each dead letter of the queues until that is enough, and unlocks what is left at the end
    /// of each, however it ends.
    async fn walk(&self, only: Option<Audience>, work: &mut Work) -> Result<(), Ended> {
        let mut incomplete = false;
        let topic = &self.connection.topic;
        let entities = Audience::ALL
            .into_iter()
            .filter(|audience| only.is_none_or(|only| only == *audience))
            .flat_map(|audience| {
                audience
                    .entities(topic)
                    .into_iter()
                    .map(move |it| (audience, it))
            });
        for (audience, entity) in entities {
            let queue = DeadLetterQueue::new(audience, entity, &self.connection, &self.client);
            let mut walk = Walk::new(queue);
            let end = self.through(&mut walk, work).await;
            let entity = walk.queue.entity.clone();
            if matches!(end, Ok(End::Reached)) && walk.may_be_more() {
                // A list that says so is a list; a replay that is not complete must not look like one.
                incomplete |= matches!(work, Work::Replay(_));
                self.report.say(&format!(
                    "{entity} may hold more than could be looked at: its locks expire before its end is reached, \
                     or an answer was lost; run this again"
                ));
            }
            let kept = walk.end().await;
            if kept > 0 {
                self.report.say(&format!(
                    "{entity}: {kept} dead letters could not be unlocked; they are visible again when their locks expire"
                ));
            }
            match end? {
                End::Reached => {}
                End::Enough => break,
                End::Unreadable => incomplete = true,
            }
        }
        if incomplete {
            return Err(Ended::Failed);
        }
        Ok(())
    }

    async fn through(&self, walk: &mut Walk, work: &mut Work) -> Result<End, Ended> {
        while !self.stop.is_requested() {
            match walk.next().await {
                Ok(Some(dead_letter)) => match self.step(work, walk, dead_letter).await? {
                    Step::On => {}
                    Step::Enough => return Ok(End::Enough),
                },
                Ok(None) => return Ok(End::Reached),
                Err(error) => {
                    self.report.say(&format!("orderup: {error}"));
                    return Ok(End::Unreadable);
                }
            }
        }
        Err(Ended::Interrupted)
    }
}

/// Why the copy of every other dead letter would fail like this one; nothing if only this message is at fault.
fn why_to_stop(error: &PublishError, topic: &str) -> Option<String> {
    match error {
        PublishError::Unsendable(_) | PublishError::TooLarge { .. } => None,
        PublishError::Rejected { status: 401, .. } => {
            Some("Service Bus does not accept the key or the token of this connection".to_owned())
        }
        PublishError::Rejected { status: 403, .. } => Some(format!(
            "Service Bus does not let this connection send to {topic}: it needs the right Send on it, with an \
             identity the role Azure Service Bus Data Sender"
        )),
        PublishError::Rejected {
            status: 404 | 410, ..
        } => Some(format!(
            "there is no topic {topic}: the namespace or ORDERS_TOPIC is another one"
        )),
        PublishError::Rejected { .. } => None,
        PublishError::Busy { .. }
        | PublishError::Unreachable { .. }
        | PublishError::Unanswered { .. }
        | PublishError::NoToken(_) => Some(format!(
            "{topic} can't be sent to now; the dead letters stay where they are, run this again later"
        )),
    }
}

/// Whether a signal has come.
struct Stop(watch::Receiver<bool>);

impl Stop {
    fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (stop, stopped) = watch::channel(false);
        let wait = async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                // The second: locks that are left expire by themselves.
                if stop.send_replace(true) {
                    std::process::exit(INTERRUPTED.into());
                }
            }
        };
        tokio::spawn(wait.boxed());
        Ok(Self(stopped))
    }

    fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the other, or for a signal.
    async fn or(&self, other: impl Future<Output = ()>) {
        let mut stopped = self.0.clone();
        tokio::select! {
            // The sender lives until the second signal, with which the process ends.
            _ = stopped.wait_for(|stop| *stop) => {}
            () = other => {}
        }
    }
}
