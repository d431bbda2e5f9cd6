//! The local Functions host: the handler, the bus and stand-ins for the outside, in one process.
//!
//! [`stack`] puts it together. The handler is a child process that is spoken to as Azure's host does ([`worker`],
//! [`invocation`], [`envelope`], [`answer`]); HTTP comes in by [`front_door`], messages by [`pump`], from the bus itself or over
//! AMQP ([`receiver`]), and what is due by [`timer`]. The
//! stand-ins ([`acs`], [`square`], [`vendors`], and [`traces`], which [`story`] tells) and the fault switches ([`faults`]) are devhost's own. Nothing here knows what the
//! messages mean, and no type is shared with the handler.

pub mod acs;
pub mod acs_email;
pub mod acs_signature;
pub mod admin;
mod amqp_connection;
mod amqp_message;
mod amqp_outcomes;
pub mod amqp_receiver;
mod amqp_request;
pub mod answer;
pub mod arguments;
mod banner;
mod cargo_build;
pub mod connection;
mod console;
pub mod data_folder;
pub mod dev_api;
pub mod envelope;
pub mod exec_handler;
pub mod faults;
pub mod front_door;
pub mod function_json;
pub mod handler_client;
pub mod handler_port;
pub mod handler_process;
pub mod host_json;
pub mod http_envelope;
pub mod invocation;
pub mod journal;
mod json_response;
mod local_only;
pub mod ncrontab;
pub mod pump;
pub mod receiver;
pub mod route;
mod route_constraint;
pub mod settings;
mod signals;
pub mod square;
pub mod square_error;
pub mod square_fields;
pub mod square_order;
mod square_orders;
pub mod square_payment;
mod square_payments;
pub mod square_state;
pub mod stack;
pub mod stand_ins;
pub mod stopping;
pub mod story;
pub mod time_span;
pub mod timer;
pub mod traces;
pub mod vendors;
pub mod worker;

use std::time::Duration;

pub use arguments::Arguments;
use signals::Signals;

/// How long what runs may take to be dropped when devhost ends at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Why the stack did not end well.
#[derive(Debug)]
pub enum Ended {
    /// What is wrong, for people.
    Error(String),
    /// A second signal: nothing in flight was waited for.
    AtOnce,
}

/// Runs the local stack until a signal or an error ends it.
pub fn run(arguments: Arguments) -> Result<(), Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Ended::Error(format!("the runtime could not be started: {error}")))?;
    let stopping = stopping::Stopping::default();
    let result = runtime.block_on(async {
        // Before anything else: until then a signal ends the process in the system's own way.
        let signals = Signals::listen()
            .map_err(|error| Ended::Error(format!("signals cannot be received: {error}")))?;
        // A task of its own: a signal is answered whatever the stack is busy with.
        let signals = tokio::spawn(signals::watch(signals, stopping.clone()));
        tokio::select! {
            result = stack::run(arguments, stopping) => result.map_err(Ended::Error),
            _ = signals => Err(Ended::AtOnce),
        }
    });
    if matches!(result, Err(Ended::AtOnce)) {
        // Dropping the task that owns the handler kills it, also where it does not die with devhost.
        runtime.shutdown_timeout(AT_ONCE);
    } else {
        // Connections that hang on purpose are not worth waiting for.
        runtime.shutdown_background();
    }
    result
}
