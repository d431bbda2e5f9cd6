//! SIGINT and SIGTERM, which end devhost well.

use std::io;

use crate::stopping::{Reason, Stopping};

/// Waits for a signal and stops devhost; returns after a second one, which is to end it at once.
pub(crate) async fn watch(mut signals: Signals, stopping: Stopping) {
    if signals.next().await.is_ok() {
        crate::console::plain("Stopping; a second signal ends devhost at once.");
        stopping.stop(Reason::Signal);
        if signals.next().await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Listens from its making on: a signal that comes while nobody waits is kept for the next who does.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Ok(())
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}
