//! The tests of devhost: its pure parts by themselves, and the real binary with a scripted handler.

mod answers;
mod app;
mod building;
mod configuration;
mod envelopes;
mod faults;
mod functions;
mod host;
mod invocations;
mod journal;
mod receivers;
mod restarts;
mod routes;
mod settings;
mod square;
mod stand_ins;
mod timers;
