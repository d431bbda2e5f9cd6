//! The REST data plane over a real listener: with the client crate that the project sends with, and with bare requests.
//!
//! Each test has a namespace of its own on a free port, in memory. Nothing waits for a duration: what a send has
//! answered can be received, and a receive that must find nothing asks with `timeout=0`.

mod atom;
mod atom_entities;
mod atom_program;
mod atom_refusals;
mod atom_rules;
mod batches;
mod client;
mod entities;
mod locks;
mod namespace;
mod program;
mod properties;
mod refusals;
mod signatures;
