//! The way to one provider or vendor: whether it may be called now, and what its answers say of it.
//!
//! One for the email provider and one for each vendor, in the memory of one instance. What it decides is pure
//! ([`crate::breaker`], [`crate::rate_limit`]); here it is shared between invocations and told in the log, once when
//! the way is closed and once when it is open again.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    breaker::{Breaker, Change, Signal},
    failure::{Class, Failure},
    outcome::Attempt,
    rate_limit::RateLimit,
    retry_policy::RetryPolicy,
};

/// A turn that comes as soon as this is waited for in the call: the way over the bus takes about as long.
const SHORT_TURN: Duration = Duration::from_secs(2);

/// Clones share it.
#[derive(Clone)]
pub struct Channel {
    name: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    breaker: Breaker,
    limit: Option<RateLimit>,
}

/// Why no call is made now, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The other side is down or asked for time. Who waits comes back spread over the time `spread` after the `wait`.
    Paused { wait: Duration, spread: Duration },
    /// It is not this message's turn by the rate limit.
    Paced { wait: Duration },
    /// An operator has parked the vendor.
    Parked,
}

impl Channel {
    /// `name` is for the log, as in `the vendor bakery`.
    pub fn new(name: &str, policy: &RetryPolicy, limit: Option<RateLimit>) -> Self {
        Self {
            name: name.into(),
            state: Arc::new(Mutex::new(State {
                breaker: Breaker::new(policy),
                limit,
            })),
        }
    }

    /// Whether a call may be made at `now`; if so, its result has to be recorded. `has_waited` says that the message
    /// was held before.
    pub fn admit(&self, now: Instant, has_waited: bool) -> Result<(), Held> {
        let mut state = self.lock();
        state.breaker.admit(now).map_err(|hold| Held::Paused {
            wait: hold.wait,
            spread: hold.spread,
        })?;
        let Some(limit) = &mut state.limit else {
            return Ok(());
        };
        let admitted = limit.admit(now, has_waited);
        admitted.map_err(|wait| {
            state.breaker.not_called(now);
            Held::Paced { wait }
        })
    }

    /// What an admitted call came to.
    pub fn record<T>(&self, now: Instant, result: &Result<T, Failure>) {
        let signal = match result {
            Ok(_) => Signal::Alive,
            Err(failure) => signal(failure),
        };
        let change = self.lock().breaker.record(now, signal);
        let name = &*self.name;
        match (change, result) {
            (None, _) => {}
            (Some(Change::Closed), _) => info!(channel = name, "{name} works again"),
            (Some(Change::Opened { pause }), Err(failure)) => {
                let pause_s = pause.as_secs();
                match failure.class {
                    Class::ChannelBroken | Class::Gone => error!(
                        channel = name,
                        pause_s,
                        "{name} takes nothing until somebody mends it; its messages wait: {failure}"
                    ),
                    Class::Transient | Class::RateLimited | Class::Ambiguous | Class::Refused => {
                        warn!(
                            channel = name,
                            pause_s,
                            "{name} is left alone for a while; its messages wait: {failure}"
                        )
                    }
                }
            }
            (Some(Change::Opened { .. }), Ok(_)) => {
                unreachable!("a success opens no breaker")
            }
        }
    }

    /// Makes the call, if it may be made, and once or twice more after a clear no. `has_waited` says that the
    /// message was held before; `random`, from 0 to 1, is for the pauses.
    ///
    /// Killed while it pauses, the process leaves the message as the last call left it.
    pub async fn attempt<F, Fut>(&self, has_waited: bool, random: f64, call: F) -> Attempt
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(), Failure>>,
    {
        let started = Instant::now();
        let mut tries = 0;
        let mut failed = None;
        let mut has_waited = has_waited;
        loop {
            match self.admit(Instant::now(), has_waited) {
                Ok(()) => {}
                Err(Held::Paced { wait })
                    if wait <= SHORT_TURN && started.elapsed() < SHORT_TURN =>
                {
                    tokio::time::sleep(wait).await;
                    has_waited = true;
                    continue;
                }
                Err(held) => return failed.map_or(Attempt::Held(held), Attempt::Failed),
            }
            let result = call().await;
            self.record(Instant::now(), &result);
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
        Class::ChannelBroken | Class::Gone => Signal::Refusing,
        // It judged this message, so it works.
        Class::Refused => Signal::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Settings, failure::tests::failure, retry_policy::tests::policy};

    fn channel(limit: &str) -> Channel {
        let limit = RateLimit::from_settings(&Settings::from_pairs([]), limit).unwrap();
        Channel::new("the email provider", &policy(), Some(limit))
    }

    fn failed(class: Class) -> Result<(), Failure> {
        Err(failure(class))
    }

    #[test]
    fn what_is_wrong_with_one_message_does_not_close_the_way_for_others() {
        let channel = channel("none");
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(channel.admit(now, false), Ok(()));
            channel.record(now, &failed(Class::Refused));
        }
        for _ in 0..5 {
            channel.record(now, &failed(Class::Ambiguous));
        }
        assert!(matches!(
            channel.admit(now, false),
            Err(Held::Paused { .. })
        ));
    }

    #[test]
    fn credentials_that_are_refused_close_it_at_once() {
        for class in [Class::ChannelBroken, Class::Gone, Class::RateLimited] {
            let channel = channel("none");
            let now = Instant::now();
            channel.record(now, &failed(class));
            assert!(matches!(
                channel.admit(now, false),
                Err(Held::Paused { .. })
            ));
        }
    }

    #[test]
    fn a_probe_that_the_limit_holds_back_leaves_the_way_to_the_next() {
        let channel = channel("1/m");
        let now = Instant::now();
        assert_eq!(channel.admit(now, false), Ok(()));
        channel.record(now, &failed(Class::ChannelBroken));
        let probe = now + Duration::from_secs(30);
        assert!(matches!(
            channel.admit(probe, true),
            Err(Held::Paced { .. })
        ));
        let probe = now + Duration::from_secs(60);
        assert_eq!(channel.admit(probe, true), Ok(()));
        channel.record(probe, &Ok(()));
        assert!(matches!(
            channel.admit(probe, true),
            Err(Held::Paced { .. })
        ));
    }
}
