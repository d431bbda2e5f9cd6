//! The local Service Bus as the unmodified crate `azservicebus` sees it.
//!
//! `steps` takes the scripted steps that every client's suite takes and asserts what comes of them; `throughput` measures. Both
//! start emulators of their own, each with an empty namespace of `../servicebus.json`.

pub mod emulator;
pub mod forwarder;
pub mod limits;
pub mod messages;
pub mod outage;
pub mod rest;
pub mod rules;
pub mod sending;
pub mod sessions;
pub mod settling;
pub mod stage;
pub mod table;
pub mod times;
pub mod topics;
pub mod transactions;
pub mod types;
