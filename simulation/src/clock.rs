//! Virtual time: tokio's stopped clock, as the handler's and the bus's types have it.

use jiff::Timestamp;
use time::{OffsetDateTime, macros::datetime};
use tokio::time::Instant;

/// When every simulation begins.
const BEGIN: OffsetDateTime = datetime!(2026-11-25 00:00 UTC);

#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(self) -> OffsetDateTime {
        BEGIN + self.0.elapsed()
    }

    pub fn timestamp(self) -> Timestamp {
        timestamp(self.now())
    }

    /// When that time comes.
    pub fn instant(self, time: Timestamp) -> Instant {
        let wait = time.duration_since(timestamp(BEGIN));
        self.0 + std::time::Duration::try_from(wait).unwrap_or_default()
    }
}

pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp::from_nanosecond(time.unix_timestamp_nanos()).expect("a time of our century")
}
