//! The way to one provider or vendor: whether it may be called now, and what its answers say of it.
//!
//! One for the email provider and one for each vendor, in the memory of one instance. What it decides is pure
//! ([`crate::breaker`], [`crate::rate_limit`]); here it is shared between invocations and told in the log, once when
//! the way is closed and once when it is open again.

use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    attempt::{Attempt, Held},
    breaker::{Breaker, Change, Signal, Ticket},
    failure::{Class, Failure},
    metrics::{self, Figure},
    rate_limit::{RateLimit, SHORT_TURN},
    retry_policy::RetryPolicy,
};

/// Clones share it.
#[derive(Clone)]
pub struct Channel {
    name: Arc<str>,
    provider: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    breaker: Breaker,
    limit: Option<RateLimit>,
}

impl Channel {
    /// `name` is for the log, as in `the vendor bakery`; `provider` for metrics, as in `vendor:bakery`.
    pub fn new(name: &str, provider: &str, policy: &RetryPolicy, limit: Option<RateLimit>) -> Self {
        Self {
            name: name.into(),
            provider: provider.into(),
            state: Arc::new(Mutex::new(State {
                breaker: Breaker::new(policy),
                limit,
            })),
        }
    }

    /// Whether a call may be made at `now`; if so, its result has to be recorded. `has_waited` says that the message
    /// was held before.
    fn admit(&self, now: Instant, has_waited: bool) -> Result<Ticket, Held> {
        let mut state = self.lock();
        let ticket = state.breaker.admit(now).map_err(|hold| Held::Paused {
            why: hold.why,
            wait: hold.wait,
            spread: hold.spread,
        })?;
        if let Some(limit) = &mut state.limit
            && let Err(wait) = limit.admit(now, has_waited)
        {
            state.breaker.not_called(now);
            return Err(Held::Paced { wait });
        }
        Ok(ticket)
    }

    /// What an admitted call came to.
    fn record(&self, now: Instant, ticket: Ticket, result: Result<(), &Failure>) {
        let signal = result.map_or_else(signal, |()| Signal::Alive);
        let change = self.lock().breaker.record(now, ticket, signal);
        let name = &*self.name;
        if let Some(change) = change {
            let is_open = f64::from(change != Change::Closed);
            metrics::set(
                Figure::BreakerOpen,
                is_open,
                &[("provider", &self.provider)],
            );
        }
        match (change, result) {
            (Some(Change::Opened { pause }), Err(failure)) => {
                let pause_s = pause.as_secs();
                if matches!(failure.class, Class::ChannelBroken | Class::Gone) {
                    error!(
                        channel = name,
                        pause_s,
                        "{name} takes nothing until somebody mends it; its messages wait: {failure}"
                    );
                } else {
                    warn!(
                        channel = name,
                        pause_s, "{name} is left alone for a while; its messages wait: {failure}"
                    );
                }
            }
            (Some(Change::Closed), _) => info!(channel = name, "{name} works again"),
            (None | Some(Change::Opened { .. }), _) => {}
        }
    }

    /// Makes the call, if it may be made, and once or twice more after a clear no. `call` gives nothing when it is not wanted
    /// any more; `has_waited` says that the message was held before; `random`, from 0 to 1, is for the pauses.
    ///
    /// Killed while it pauses, the process leaves the message as the last call left it.
    pub async fn attempt<F, Fut>(&self, has_waited: bool, random: f64, call: F) -> Attempt
    where
        F: Fn() -> Option<Fut>,
        Fut: Future<Output = Result<(), Failure>>,
    {
        let started = Instant::now();
        let mut tries = 0;
        let mut failed = None;
        let mut has_waited = has_waited;
        loop {
            let Some(call) = call() else {
                return Attempt::Overtaken;
            };
            let ticket = match self.admit(Instant::now(), has_waited) {
                Ok(ticket) => ticket,
                Err(Held::Paced { wait })
                    if wait <= SHORT_TURN && started.elapsed() < SHORT_TURN =>
                {
                    tokio::time::sleep(wait).await;
                    has_waited = true;
                    continue;
                }
                Err(held) => return failed.map_or(Attempt::Held(held), Attempt::Failed),
            };
            // Also after a panic the channel has to know that the call is over.
            let result = AssertUnwindSafe(call).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Failure::handler_fault()));
            self.record(Instant::now(), ticket, result.as_ref().copied());
            let Err(failure) = result else {
                return Attempt::Told;
            };
            tries += 1;
            let Some(pause) = failure.quick_retry(tries, started.elapsed(), random) else {
                return Attempt::Failed(failure);
            };
            failed = Some(failure);
            // Its place in the line was taken by the first try.
            has_waited = true;
            tokio::time::sleep(pause).await;
        }
    }

    /// No `.await` happens under it; a panic elsewhere leaves the state whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn signal(failure: &Failure) -> Signal {
    let retry_after = failure.retry_after;
    match failure.class {
        Class::Transient | Class::Ambiguous => Signal::Failing { retry_after },
        Class::RateLimited => Signal::Throttling { retry_after },
        Class::ChannelBroken => Signal::Refusing,
        Class::Gone => Signal::Gone,
        // It judged this message, so it works; or we do not.
        Class::Deferred | Class::Refused | Class::KnownOtherwise | Class::HandlerFault => {
            Signal::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;
    use crate::{
        attempt::Pause, config::Settings, failure::tests::failure, retry_policy::tests::policy,
    };

    fn channel(limit: &str) -> Channel {
        let limit = RateLimit::from_settings(&Settings::from_pairs([]), limit).unwrap();
        Channel::new("the email provider", "acs", &policy(), Some(limit))
    }

    /// One attempt whose calls all end so.
    async fn attempt(channel: &Channel, result: Result<(), Class>) -> Attempt {
        let call = || Some(async move { result.map_err(failure) });
        channel.attempt(false, 0.0, call).await
    }

    fn is_paused(attempt: &Attempt) -> bool {
        matches!(attempt, Attempt::Held(Held::Paused { .. }))
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_message_does_not_close_the_way_for_others() {
        let channel = channel("none");
        for class in [
            Class::Refused,
            Class::Deferred,
            Class::KnownOtherwise,
            Class::HandlerFault,
        ] {
            for _ in 0..20 {
                let failed = Attempt::Failed(failure(class));
                assert_eq!(attempt(&channel, Err(class)).await, failed);
            }
        }
        for _ in 0..5 {
            assert!(!is_paused(&attempt(&channel, Err(Class::Ambiguous)).await));
        }
        assert!(is_paused(&attempt(&channel, Ok(())).await));
    }

    #[tokio::test]
    async fn credentials_that_are_refused_close_it_at_once() {
        for class in [Class::ChannelBroken, Class::RateLimited] {
            let channel = channel("none");
            attempt(&channel, Err(class)).await;
            assert!(is_paused(&attempt(&channel, Ok(())).await));
        }
        let channel = channel("none");
        attempt(&channel, Err(Class::Gone)).await;
        let held = attempt(&channel, Ok(())).await;
        assert!(matches!(
            held,
            Attempt::Held(Held::Paused {
                why: Pause::Gone,
                ..
            })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_the_limit_holds_back_leaves_the_way_to_the_next() {
        let channel = channel("1/m");
        attempt(&channel, Err(Class::ChannelBroken)).await;
        tokio::time::advance(Duration::from_secs(30)).await;
        let held = attempt(&channel, Ok(())).await;
        assert!(
            matches!(held, Attempt::Held(Held::Paced { .. })),
            "{held:?}"
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        let call = || Some(async { Ok(()) });
        assert_eq!(channel.attempt(true, 0.0, call).await, Attempt::Told);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clear_no_is_tried_again_as_long_as_it_is_wanted() {
        let channel = channel("none");
        let calls = Cell::new(0);
        let call = || {
            calls.set(calls.get() + 1);
            Some(async { Err(failure(Class::Transient)) })
        };
        let failed = Attempt::Failed(failure(Class::Transient));
        assert_eq!(channel.attempt(false, 0.0, call).await, failed);
        assert_eq!(calls.get(), 3);

        let wanted = Cell::new(true);
        let call = || {
            wanted
                .replace(false)
                .then_some(async { Err(failure(Class::Transient)) })
        };
        assert_eq!(channel.attempt(false, 0.0, call).await, Attempt::Overtaken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_panics_leaves_the_way_to_the_next() {
        let channel = channel("none");
        attempt(&channel, Err(Class::ChannelBroken)).await;
        tokio::time::advance(Duration::from_secs(30)).await;
        let call = || Some(async { panic!("ada@example.net") });
        let panicked = channel.attempt(false, 0.0, call).await;
        assert_eq!(panicked, Attempt::Failed(Failure::handler_fault()));
        assert_eq!(attempt(&channel, Ok(())).await, Attempt::Told);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_comes_soon_is_waited_for() {
        let channel = channel("1/s");
        for _ in 0..2 {
            assert_eq!(attempt(&channel, Ok(())).await, Attempt::Told);
        }
        let ahead = (0..3).map(|_| attempt(&channel, Ok(())));
        let told = futures_util::future::join_all(ahead).await;
        assert!(
            matches!(told[..], [Attempt::Told, Attempt::Told, Attempt::Held(_)]),
            "{told:?}"
        );
    }
}
