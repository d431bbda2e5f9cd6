//! A local, durable stand-in for an Azure Service Bus namespace.
//!
//! It knows queues, topics, subscriptions and rules, and nothing of what is sent through them. The core
//! (`broker`) is a pure state machine: every command takes the time as an argument, and what must survive
//! a crash comes out as a list of changes. [`ServiceBus`] is the running thing: one owner applies the
//! commands, commits their changes in batches and only then answers. [`rest`] is the REST data plane over it, and the management API.

pub mod amqp;
mod atom;
mod atom_entries;
mod atom_request;
mod atom_rules;
mod atom_xml;
mod attributes;
mod batch;
mod body;
mod broker;
mod broker_properties;
mod cold;
mod config_json;
mod custom_properties;
mod description;
mod entity;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod iso_8601;
mod journal;
mod message;
mod namespace;
mod owner;
mod path;
pub mod rest;
mod rest_error;
mod routing;
mod rule;
#[cfg(test)]
mod sample;
mod sas;
mod service;
mod sessions;
mod sql;
mod sql_dialect;
mod sql_evaluation;
mod sql_parser;
#[cfg(test)]
mod sql_tests;
mod store;
mod topology;
mod topology_limits;
mod topology_references;
mod topology_rules;
#[cfg(test)]
mod topology_tests;
mod waiting;

pub use message::{
    AcceptedSession, Body, Changes, MAX_MESSAGE_SIZE, Message, MessageState, Operation,
    ReceiveMode, ReceivedMessage, Settlement, Value,
};
pub use namespace::Namespace;
pub use path::{EntityPath, InvalidPath};
pub use service::{EntityCounts, Error, Limits, OpenError, ServiceBus};
pub use topology::{Topology, TopologyError};
