//! A local, durable stand-in for an Azure Service Bus namespace.
//!
//! It knows queues, topics, subscriptions and rules, and nothing of what is sent through them. The core
//! (`broker`) is a pure state machine: every command takes the time as an argument, and what must survive
//! a crash comes out as a list of changes. `ServiceBus` is the running thing: one owner applies the
//! commands, commits their changes in batches and only then answers. `rest` is the REST data plane over it.

mod config_json;
mod message;
mod path;
mod rule;
mod sql;
mod sql_dialect;
mod sql_evaluation;
mod sql_parser;
#[cfg(test)]
mod sql_tests;
mod topology;
mod topology_references;
mod topology_rules;
#[cfg(test)]
mod topology_tests;

pub use message::{MAX_MESSAGE_SIZE, Message, MessageState, ReceiveMode, ReceivedMessage, Value};
pub use path::{EntityPath, InvalidPath};
pub use topology::{Topology, TopologyError};
