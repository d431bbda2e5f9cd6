//! Why and when devhost ends: a signal, or what would end the host in Azure.
//!
//! The first reason counts. Everything that runs on its own waits for it and winds down.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// SIGINT or SIGTERM: the process ends well.
    Signal,
    /// The host would stop; the words say why.
    HostStopped(String),
}

/// Shared by everything that can stop devhost or must know of it.
#[derive(Debug, Clone)]
pub struct Stopping(Arc<watch::Sender<Option<Reason>>>);

impl Default for Stopping {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Stopping {
    /// Stops devhost, unless it is stopping already.
    pub fn stop(&self, reason: Reason) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason);
            }
            first
        });
    }

    /// Waits for the reason.
    pub async fn stopped(&self) -> Reason {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`.
        match receiver
            .wait_for(Option::is_some)
            .await
            .map(|reason| reason.clone())
        {
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => Reason::Signal,
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.0.borrow().is_some()
    }
}
