//! SIGINT and SIGTERM, which end devhost well.

use crate::stopping::{Reason, Stopping};

/// Waits for a signal and stops devhost; returns after a second one, which is to end it at once.
pub(crate) async fn watch(stopping: Stopping) {
    // Without signals the process simply ends when it is told to.
    if wait().await.is_ok() {
        crate::console::plain("Stopping; a second signal ends devhost at once.");
        stopping.stop(Reason::Signal);
        if wait().await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
