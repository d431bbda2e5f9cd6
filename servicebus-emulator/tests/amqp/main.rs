//! AMQP over a real socket, frame by frame: what the SDKs never send, and what they cannot see.
//!
//! Each test has a namespace of its own on a free port, in memory. A [`client::Client`] says exactly what it is told to, and
//! sees every frame. Nothing waits for a duration: each wait is for a frame or for the end of the connection.

mod client;
mod connections;
mod frames;
mod links;
mod receivers;
mod requests;
mod sessions;
mod transactions;
