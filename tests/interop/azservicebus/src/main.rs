//! Takes the steps of the local Service Bus with the crate `azservicebus`, each with an emulator of its own.
//!
//! Without arguments all of them, otherwise those named. A line per part of a step says whether it passed; with all of them the table's
//! columns are written, too. Exit status 1 says that one failed.

use std::{collections::BTreeMap, pin::Pin, process::ExitCode, sync::Arc, time::Duration};

use azservicebus_interop::{
    limits, outage, rules, sending, sessions, settling, stage::Stage, table, times, topics,
    transactions, types,
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

/// A step that takes longer has failed.
const TIME_LIMIT: Duration = Duration::from_secs(90);
/// How many are taken at once; most of them wait most of the time.
const AT_ONCE: usize = 6;

type Play = fn(Stage) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One part of a step.
struct Part {
    step: &'static str,
    name: &'static str,
    play: Play,
}

macro_rules! parts {
    ($($step:literal: $($module:ident::$part:ident),+;)+) => {
        [$($(Part {
            step: $step,
            name: stringify!($part),
            play: |stage| Box::pin($module::$part(stage)),
        }),+),+]
    };
}

const TRANSACTIONS: &str = "transactions";

const NOT_IN_THE_SDK: [(&str, &str); 3] = [
    (
        TRANSACTIONS,
        "azservicebus has no transactions; fe2o3-amqp, on an older version of which it is built, has",
    ),
    (
        "admin-entities",
        "azservicebus has no administration client",
    ),
    ("admin-rules", "azservicebus has no administration client"),
];

const NOTES: [(&str, &str); 2] = [
    (
        "lock-lost",
        "azservicebus does not wait for what the bus says to a settlement, only to a renewal",
    ),
    (
        "types-round-trip",
        "azservicebus sends bodies of one data section only",
    ),
];

#[tokio::main]
async fn main() -> ExitCode {
    let parts = parts! {
        "reconnect-after-kill": outage::reconnect_after_kill;
        "hundred-receivers": limits::hundred_receivers;
        "session-lock": sessions::session_lock;
        "renew-lock": times::renew_lock;
        "lock-lost": times::lock_lost;
        "single-send": sending::single_send;
        "batch-send": sending::batch_send;
        "peek": sending::peek;
        "receive-and-delete": sending::receive_and_delete;
        "complete": settling::complete, sending::prefetched;
        "abandon-with-properties": settling::abandon_with_properties;
        "dead-letter-with-reason": settling::dead_letter_with_reason;
        "dead-letter-queue": settling::dead_letter_queue;
        "defer": settling::defer, settling::abandon_deferred;
        "schedule": times::schedule;
        "cancel-scheduled": times::cancel_scheduled;
        "time-to-live": times::time_to_live;
        "duplicate-detection": times::duplicate_detection;
        "topic-fan-out": topics::topic_fan_out;
        "sql-filter-and-action": topics::sql_filter_and_action;
        "correlation-filter": topics::correlation_filter;
        "forwarding": topics::forwarding;
        "rules": rules::rules;
        "session-named": sessions::session_named, sessions::session_of_a_subscription;
        "session-next": sessions::session_next;
        "session-state": sessions::session_state;
        "large-message": limits::large_message;
        "message-too-large": limits::message_too_large;
        "unknown-entity": limits::unknown_entity;
        "bad-key": limits::bad_key;
        "types-round-trip": types::types_round_trip;
        "rest-to-amqp": types::rest_to_amqp;
        "amqp-to-rest": types::amqp_to_rest;
        "transactions": transactions::sends, transactions::settlements, transactions::across_entities, transactions::left_open;
    };
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = parts
        .into_iter()
        .filter(|part| wanted.is_empty() || wanted.iter().any(|step| step == part.step));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for part in chosen {
        let slots = Arc::clone(&slots);
        running.spawn(async move {
            let _slot = slots.acquire_owned().await;
            (part.step, part.name, passes(part.play).await)
        });
    }
    let mut results = BTreeMap::new();
    while let Some(done) = running.join_next().await {
        let Ok((step, name, passed)) = done else {
            continue;
        };
        println!("{} {step} ({name})", if passed { "PASS" } else { "FAIL" });
        let so_far = results.entry(step).or_insert("pass");
        if !passed {
            *so_far = "fail";
        }
    }
    let failed = results.values().any(|result| *result == "fail");
    if wanted.is_empty() {
        write_columns(results);
    }
    ExitCode::from(u8::from(failed))
}

/// A panic is an assertion that failed, and has been printed.
async fn passes(play: Play) -> bool {
    let played = tokio::spawn(async move { play(Stage::new().await).await });
    let stop = played.abort_handle();
    match timeout(TIME_LIMIT, played).await {
        Ok(played) => played.is_ok(),
        Err(_) => {
            stop.abort();
            eprintln!("it took too long");
            false
        }
    }
}

fn write_columns(mut results: BTreeMap<&str, &str>) {
    let transactions = results.remove(TRANSACTIONS).unwrap_or("fail");
    let steps = [(TRANSACTIONS, transactions)].into();
    table::write(
        "rust-fe2o3-amqp",
        "fe2o3-amqp",
        "0.18.4",
        &steps,
        &BTreeMap::new(),
    );
    results.extend(NOT_IN_THE_SDK.map(|(step, _)| (step, "not in the SDK")));
    let notes = NOTES.into_iter().chain(NOT_IN_THE_SDK).collect();
    table::write("rust", "azservicebus", "0.25.1", &results, &notes);
}
