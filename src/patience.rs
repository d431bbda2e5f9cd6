//! The patience with which a copy is put onto the bus: the original must not be completed before.
//!
//! Runs at the end of a delivery, under the lock of its message. A failure would bring the message back within a tenth of a
//! second and burn one of its deliveries, so that it comes only when there is no time left.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tracing::warn;

use crate::{orders_topic::PublishError, retry};

/// Until when an invocation tries to get its copies onto the bus. The host renews the lock for five minutes, and ends the
/// process of an invocation that takes as long (`host.json`); a failure before that would only bring the message back
/// at once, and burn one of its deliveries.
pub const PUBLISH_UNTIL: Duration = Duration::from_secs(4 * 60);

/// The longest that one [`crate::orders_topic::OrdersTopic::publish`] takes, which has to fit before that.
const ONE_PUBLISH: Duration = Duration::from_secs(24);

/// Unless the bus asks for more: whoever waits for it holds a lock and a place among the concurrent calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Tries for minutes: as long as the copy is not on the bus, the original must not be completed. No attempt begins that
/// could outlast `until` after `started`; `random`, from 0 to 1, is for the pauses.
///
/// # Errors
/// The last one, or the first that no later attempt can mend.
pub async fn publish_patiently<F, Fut>(
    started: Instant,
    until: Duration,
    random: f64,
    publish: F,
) -> Result<(), PublishError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), PublishError>>,
{
    let mut retries = 0;
    let mut error = PublishError::Unreachable {
        reason: "the time of the invocation is over".to_owned(),
    };
    loop {
        let left = until.saturating_sub(started.elapsed() + ONE_PUBLISH);
        if left.is_zero() {
            return Err(error);
        }
        if retries > 0 {
            // Who asks for more time than there is gets all that there is: a failure would come back at once.
            let pause = retry::backoff(Duration::from_secs(1), LONGEST_PAUSE, retries - 1, random)
                .max(error.retry_after().unwrap_or_default())
                .min(left);
            warn!(retry = retries, %error, "the bus does not take the copy of a message, whose lock is held meanwhile");
            tokio::time::sleep(pause).await;
        }
        retries += 1;
        error = match publish().await {
            Ok(()) => return Ok(()),
            // No later attempt is another.
            Err(error @ (PublishError::Unsendable(_) | PublishError::TooLarge { .. })) => {
                return Err(error);
            }
            // A right that is missing is one that somebody may give back in a minute.
            Err(
                error @ (PublishError::Rejected { .. }
                | PublishError::Busy { .. }
                | PublishError::Unreachable { .. }
                | PublishError::Unanswered { .. }
                | PublishError::NoToken(_)),
            ) => error,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_ends_before_the_host_ends_the_process() {
        let host: serde_json::Value = serde_json::from_str(include_str!("../host.json")).unwrap();
        assert_eq!(host["functionTimeout"], "00:05:00");
        assert_eq!(
            host["extensions"]["serviceBus"]["maxAutoLockRenewalDuration"],
            "00:05:00"
        );
        assert!(PUBLISH_UNTIL < Duration::from_secs(5 * 60));
        assert!(crate::data_plane::SendLimits::default().total <= ONE_PUBLISH);
    }

    /// However long the bus asks to be left alone, and however quickly it says so.
    #[tokio::test(start_paused = true)]
    async fn a_bus_that_says_no_at_once_holds_the_message_for_minutes() {
        for retry_after in [None, Some(Duration::ZERO), Some(Duration::from_secs(300))] {
            let started = Instant::now();
            let calls = std::cell::Cell::new(0);
            let published = publish_patiently(started, PUBLISH_UNTIL, 0.5, async || {
                calls.set(calls.get() + 1);
                Err(PublishError::Busy {
                    status: 503,
                    detail: String::new(),
                    retry_after,
                })
            })
            .await;
            assert!(published.is_err());
            assert!(calls.get() >= 2);
            let took = started.elapsed();
            assert!(
                took >= PUBLISH_UNTIL - ONE_PUBLISH && took < PUBLISH_UNTIL,
                "{took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_publish_begins_that_the_host_would_not_let_end() {
        let started = Instant::now();
        tokio::time::advance(PUBLISH_UNTIL - ONE_PUBLISH).await;
        let never = async || panic!("it is too late");
        assert!(
            publish_patiently(started, PUBLISH_UNTIL, 0.5, never)
                .await
                .is_err()
        );
    }
}
