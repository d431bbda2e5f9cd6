//! What an attempt to tell one recipient came to.
//!
//! A function makes one for each recipient of a delivery, through that recipient's [`crate::channel::Channel`];
//! [`crate::outcome::decide`] says what becomes of the message.

use std::time::Duration;

use crate::{failure::Failure, outcome::Dead};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The recipient was told.
    Told,
    /// The recipient need not be told any more.
    Overtaken,
    /// No call was made.
    Held(Held),
    Failed(Failure),
    /// There is nobody who could be told.
    Impossible(Dead),
}

/// Why no call is made now, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The other side is left alone. Who waits comes back spread over the time `spread` after the `wait`.
    Paused {
        why: Pause,
        wait: Duration,
        spread: Duration,
    },
    /// It is not this message's turn by the rate limit.
    Paced { wait: Duration },
    /// An operator has parked the vendor.
    Parked,
}

/// Why the other side is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It is down.
    Failing,
    /// It takes nothing from us.
    Refusing,
    /// It works, and asked for time.
    Throttling,
    /// It is a vendor that has said that it is gone.
    Gone,
}
