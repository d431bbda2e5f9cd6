//! Why the order book did not take or give something, as its callers see it.
//!
//! The reasons are for the log: a status and Azure's error code, or an operating system's words. No URL is in
//! them, because a shared access signature would be part of it.

use std::io;

use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// It is down, or does not answer in time. Whether a write was carried out is unknown.
    #[error("the order book can't be reached: {reason}")]
    Unavailable { reason: String },
    /// It works, and does not let us in: a person has to mend that.
    #[error("the order book does not let us in: {reason}")]
    Unauthorized { reason: String },
    /// There is no room for what was to be written.
    #[error("the order book is full: {reason}")]
    Full { reason: String },
    /// It works, and asking again would get the same answer.
    #[error("the order book does not do that: {reason}")]
    Refused { reason: String },
    /// It failed a few times in a row just now, and was not asked.
    #[error("the order book failed a moment ago and was not asked")]
    Paused,
}

impl StoreError {
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
        }
    }

    pub(crate) fn unauthorized(reason: impl Into<String>) -> Self {
        Self::Unauthorized {
            reason: reason.into(),
        }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        let reason = error.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Unauthorized { reason }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { reason },
            io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidFilename => {
                Self::Refused { reason }
            }
            _ => Self::Unavailable { reason },
        }
    }
}
