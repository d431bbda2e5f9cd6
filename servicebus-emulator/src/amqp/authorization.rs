//! What the client of a connection may use.
//!
//! With the policy's name and key in SASL PLAIN it may use everything, otherwise what its tokens cover that it has put to
//! `$cbs`. It is asked when a link is attached; a link that is open stays open when the token runs out.

use jiff::Timestamp;

use crate::sas::Grant;

/// The SDKs put one token for each entity that they use, and again before it runs out.
const MOST_GRANTS: usize = 1000;

#[derive(Debug, Default)]
pub(crate) struct Authorization {
    everything: bool,
    grants: Vec<Grant>,
}

impl Authorization {
    pub(crate) fn everything() -> Self {
        Self {
            everything: true,
            grants: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, grant: Grant, now: Timestamp) {
        self.grants
            .retain(|known| !known.is_expired(now) && !known.is_renewed_by(&grant));
        if self.grants.len() >= MOST_GRANTS {
            self.grants.remove(0);
        }
        self.grants.push(grant);
    }

    /// Whether that path may be used.
    pub(crate) fn covers(&self, path: &[String], now: Timestamp) -> bool {
        self.everything || self.grants.iter().any(|grant| grant.covers(path, now))
    }

    /// Whether anything may be used.
    pub(crate) fn is_any(&self, now: Timestamp) -> bool {
        self.everything || self.grants.iter().any(|grant| !grant.is_expired(now))
    }
}
