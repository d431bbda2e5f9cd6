//! What everything that reads outside data must keep to, whatever it is given.
//!
//! One module, and one function `check`, for each target: it takes any bytes, and panics if what was promised does not hold.
//! libFuzzer calls it through `fuzz_targets/` (nightly Rust, see the README); the tests here call it on stable Rust with all
//! seeds, all inputs that were found to break it once, and some thousand mutations of them.

pub mod blob_list;
pub mod connection_strings;
pub mod dead_letter;
pub mod event;
pub mod invocation;
pub mod order_token;
pub mod place_order;
#[cfg(test)]
mod replay;
pub mod request_headers;
pub mod retry_after;
pub mod settings;
pub mod till_answers;
pub mod vendors;

/// Service Bus SQL: filters and actions.
pub mod bus_sql {
    pub use servicebus_emulator::fuzzing::sql as check;
}

/// AMQP frames and what is in them.
pub mod bus_amqp_frames {
    pub use servicebus_emulator::fuzzing::amqp_frames as check;
}

/// Any AMQP value.
pub mod bus_amqp_values {
    pub use servicebus_emulator::fuzzing::amqp_values as check;
}

/// Messages, batches of them, and requests to `$management` and `$cbs`.
pub mod bus_amqp_messages {
    pub use servicebus_emulator::fuzzing::amqp_messages as check;
}

/// Headers, batches and tokens of the REST data plane.
pub mod bus_rest {
    pub use servicebus_emulator::fuzzing::rest as check;
}

/// Requests of the management API.
pub mod bus_atom {
    pub use servicebus_emulator::fuzzing::atom as check;
}

/// `servicebus.json`.
pub mod bus_topology {
    pub use servicebus_emulator::fuzzing::topology as check;
}

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by name.
pub const TARGETS: [Target; 19] = [
    ("blob_list", blob_list::check),
    ("bus_amqp_frames", bus_amqp_frames::check),
    ("bus_amqp_messages", bus_amqp_messages::check),
    ("bus_amqp_values", bus_amqp_values::check),
    ("bus_atom", bus_atom::check),
    ("bus_rest", bus_rest::check),
    ("bus_sql", bus_sql::check),
    ("bus_topology", bus_topology::check),
    ("connection_strings", connection_strings::check),
    ("dead_letter", dead_letter::check),
    ("event", event::check),
    ("invocation", invocation::check),
    ("order_token", order_token::check),
    ("place_order", place_order::check),
    ("request_headers", request_headers::check),
    ("retry_after", retry_after::check),
    ("settings", settings::check),
    ("till_answers", till_answers::check),
    ("vendors", vendors::check),
];

/// The first line, and the rest.
fn first_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}
