//! One token of an identity: kept, renewed long before it expires, and asked for by one at a time.
//!
//! [`KeptToken::get`] is called for every request. A token in its first half is given out at once. In its second half it is
//! given out at once too, and a new one is fetched beside that: nobody waits for a renewal, and an identity endpoint that is
//! down has half the token's life to come back (MSAL does the same with tokens of more than two hours). Only who finds
//! no usable token waits, for the one question that is under way.
//!
//! Time is the monotonic clock: a step of the machine's clock makes no token invalid or eternal. A clock that was wrong when
//! the token came is found out by the service's 401, see [`KeptToken::forget`].

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use crate::retry;

/// How long a caller without a token waits. The question goes on without it.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A token that is used for a request should outlive it.
const LEAST_VALIDITY: Duration = Duration::from_secs(30);

/// A token that has expired or is about to, by our clock, is used so long all the same: the clock may be wrong, and the
/// service is the judge.
const SHORTEST_USE: Duration = Duration::from_secs(60);

/// Tokens of managed identities live for a day, the longest there are.
const LONGEST_USE: Duration = Duration::from_secs(24 * 60 * 60);

/// However short a token's life, the next one is not asked for sooner.
const SOONEST_RENEWAL: Duration = Duration::from_secs(10);

/// After a failure nobody asks for so long; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// An endpoint that asks for more time than this gets no more.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// A rejected token is replaced once in this time: if the new one is rejected as well, the token is not what is wrong.
const BETWEEN_REPLACEMENTS: Duration = Duration::from_secs(60);

/// A token that was just given.
pub(crate) struct Granted {
    pub(crate) secret: SecretString,
    /// What is left of its life by our clock, zero for the past.
    pub(crate) lifetime: Duration,
}

/// No token.
pub(crate) struct Denied {
    pub(crate) reason: String,
    /// How long the endpoint asked to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// The token for one service. Clones share it.
#[derive(Clone)]
pub(crate) struct KeptToken {
    scope: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    question: Option<watch::Receiver<Option<Answer>>>,
    /// Nobody asks before that, and why.
    rest: Option<(Instant, String)>,
    failures: u32,
    replaced_at: Option<Instant>,
}

type Answer = Result<SecretString, String>;

struct Token {
    secret: SecretString,
    renew_at: Instant,
    expires_at: Instant,
    rejected: bool,
}

impl KeptToken {
    pub(crate) fn new(scope: &'static str) -> Self {
        Self {
            scope,
            state: Arc::default(),
        }
    }

    /// The token, valid for half a minute at least where that can be had. `ask` is called if it is time for a new one
    /// and nobody is asking.
    ///
    /// # Errors
    /// The reason, if there is no valid token and none comes within 8 s.
    pub(crate) async fn get<Asking>(&self, ask: impl FnOnce() -> Asking) -> Answer
    where
        Asking: Future<Output = Result<Granted, Denied>> + Send + 'static,
    {
        let mut question = {
            let mut state = self.state();
            let now = Instant::now();
            let fresh = state
                .token
                .as_ref()
                .filter(|token| !token.rejected && now + LEAST_VALIDITY < token.expires_at);
            if let Some(token) = fresh
                && now < token.renew_at
            {
                return Ok(token.secret.clone());
            }
            let fresh = fresh.map(|token| token.secret.clone());
            let question = match (&state.question, &state.rest) {
                // One whose task is gone never gets its answer.
                (Some(question), _) if question.has_changed().is_ok() => question.clone(),
                (_, Some((until, reason))) if now < *until => {
                    return fresh.or(state.last(now)).ok_or_else(|| reason.clone());
                }
                _ => {
                    let question = self.ask(ask());
                    state.question = Some(question.clone());
                    question
                }
            };
            if let Some(secret) = fresh {
                return Ok(secret);
            }
            question
        };
        let answered = question.wait_for(Option::is_some);
        let answer = match tokio::time::timeout(LONGEST_WAIT, answered).await {
            Ok(Ok(answer)) => answer.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Err("the identity endpoint has not answered yet".to_owned())),
        };
        match answer.unwrap_or_else(|| Err("nobody asks for it any more".to_owned())) {
            Ok(secret) => Ok(secret),
            Err(reason) => self.state().last(Instant::now()).ok_or(reason),
        }
    }

    /// The service did not take this token: the next call waits for a new one, if this is still the current one and none was
    /// replaced within the last minute. Until there is a new one the old one is the last resort.
    pub(crate) fn forget(&self, rejected: &str) {
        let mut state = self.state();
        let now = Instant::now();
        let is_soon = state
            .replaced_at
            .is_some_and(|last| now < last + BETWEEN_REPLACEMENTS);
        if let Some(token) = &mut state.token
            && token.secret.expose_secret() == rejected
            && !token.rejected
            && !is_soon
        {
            token.rejected = true;
            state.replaced_at = Some(now);
        }
    }

    /// In a task of its own, which goes on if whoever asked first is gone: the others wait for the same answer.
    fn ask(
        &self,
        asking: impl Future<Output = Result<Granted, Denied>> + Send + 'static,
    ) -> watch::Receiver<Option<Answer>> {
        let (sender, receiver) = watch::channel(None);
        let kept = self.clone();
        let task = async move {
            // A fault of ours is one that the next question meets as well: it rests like any other.
            let asked = AssertUnwindSafe(asking).catch_unwind().await;
            let answer = kept.keep(asked.unwrap_or_else(|_| {
                Err(Denied {
                    reason: "asking for it panicked".to_owned(),
                    retry_after: None,
                })
            }));
            sender.send_replace(Some(answer));
        };
        // Boxed: the runtime's code for a task is in the program twice for each type of future.
        tokio::spawn(task.in_current_span().boxed());
        receiver
    }

    fn keep(&self, answer: Result<Granted, Denied>) -> Answer {
        let mut state = self.state();
        let now = Instant::now();
        state.question = None;
        match answer {
            Ok(granted) => {
                if granted.lifetime < SHORTEST_USE {
                    tracing::warn!(
                        scope = self.scope,
                        "the token expires at once by this machine's clock; it is used all the same"
                    );
                }
                state.token = Some(Token::new(granted.secret.clone(), granted.lifetime, now));
                state.failures = 0;
                state.rest = None;
                Ok(granted.secret)
            }
            Err(Denied {
                reason,
                retry_after,
            }) => {
                let rest =
                    retry::backoff(FIRST_REST, LONGEST_REST, state.failures, retry::chance())
                        .max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER));
                state.failures = state.failures.saturating_add(1);
                state.rest = Some((now + rest, reason.clone()));
                let again_in_s = rest.as_secs_f32();
                match state.token.as_ref().map(|token| token.expires_at) {
                    Some(expires_at) if now < expires_at => tracing::warn!(
                        scope = self.scope,
                        reason,
                        again_in_s,
                        valid_for_s = (expires_at - now).as_secs(),
                        "no new token; the last one is used"
                    ),
                    Some(_) | None => {
                        tracing::error!(scope = self.scope, reason, again_in_s, "no token");
                    }
                }
                Err(reason)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The last token while it is valid, even if a service has rejected it.
    fn last(&self, now: Instant) -> Option<SecretString> {
        self.token
            .as_ref()
            .filter(|token| now < token.expires_at)
            .map(|token| token.secret.clone())
    }
}

impl Token {
    fn new(secret: SecretString, lifetime: Duration, now: Instant) -> Self {
        let lifetime = lifetime.min(LONGEST_USE);
        Self {
            secret,
            renew_at: now + (lifetime / 2).max(SOONEST_RENEWAL),
            expires_at: now + lifetime.max(SHORTEST_USE),
            rejected: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// An endpoint that counts its questions, and whose tokens are called after them.
    #[derive(Clone, Default)]
    struct Endpoint(Arc<AtomicU32>);

    impl Endpoint {
        fn asked(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }

        fn gives(
            &self,
            lifetime: Duration,
            after: Duration,
        ) -> impl FnOnce() -> std::pin::Pin<
            Box<dyn Future<Output = Result<Granted, Denied>> + Send>,
        > + use<> {
            let count = self.0.clone();
            move || {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                Box::pin(async move {
                    tokio::time::sleep(after).await;
                    let secret = SecretString::from(format!("token {number}"));
                    Ok(Granted { secret, lifetime })
                })
            }
        }

        fn denies(
            &self,
            retry_after: Option<Duration>,
        ) -> impl FnOnce() -> std::pin::Pin<
            Box<dyn Future<Output = Result<Granted, Denied>> + Send>,
        > + use<> {
            let count = self.0.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
                let reason = "it is down".to_owned();
                Box::pin(async move {
                    Err(Denied {
                        reason,
                        retry_after,
                    })
                })
            }
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const AT_ONCE: Duration = Duration::ZERO;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn text(answer: Answer) -> Result<String, String> {
        answer.map(|secret| secret.expose_secret().to_owned())
    }

    async fn landed(kept: &KeptToken) {
        while kept.state().question.is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_who_come_at_once_ask_once() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let all = (0..50).map(|_| kept.get(endpoint.gives(HOUR, seconds(2))));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(text(answer), Ok("token 1".to_owned()));
        }
        assert_eq!(endpoint.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_may_leave_and_the_others_get_the_answer() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let first = kept.get(endpoint.gives(HOUR, seconds(2)));
        tokio::time::timeout(seconds(1), first).await.unwrap_err();
        let second = kept.get(endpoint.gives(HOUR, seconds(2))).await;
        assert_eq!(text(second), Ok("token 1".to_owned()));
        assert_eq!(endpoint.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn in_its_second_half_a_token_is_renewed_while_it_serves() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        tokio::time::advance(HOUR / 2 - seconds(1)).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        assert_eq!(endpoint.asked(), 1);

        tokio::time::advance(seconds(1)).await;
        let before = Instant::now();
        for _ in 0..50 {
            let answer = kept.get(endpoint.gives(HOUR, seconds(5))).await;
            assert_eq!(text(answer), Ok("token 1".to_owned()));
        }
        assert_eq!(Instant::now(), before, "nobody waits");
        assert_eq!(endpoint.asked(), 2);
        tokio::time::sleep(seconds(6)).await;
        let answer = kept.get(endpoint.gives(HOUR, AT_ONCE)).await;
        assert_eq!(text(answer), Ok("token 2".to_owned()));
        assert_eq!(endpoint.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_endpoint_is_down_the_last_token_serves_until_its_end() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        tokio::time::advance(HOUR / 2).await;
        for _ in 0..1799 {
            let answer = kept.get(endpoint.denies(None)).await;
            assert_eq!(text(answer), Ok("token 1".to_owned()));
            landed(&kept).await;
            tokio::time::advance(seconds(1)).await;
        }
        // Every half minute or so, and not with every request.
        assert!(
            (50..150).contains(&endpoint.asked()),
            "{}",
            endpoint.asked()
        );
        tokio::time::advance(seconds(1)).await;
        let answer = kept.get(endpoint.denies(None)).await;
        assert_eq!(text(answer), Err("it is down".to_owned()));

        tokio::time::advance(LONGEST_REST).await;
        let answer = kept.get(endpoint.gives(HOUR, AT_ONCE)).await;
        assert!(text(answer).is_ok(), "it is asked again by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_token_a_failure_is_told_at_once_until_it_is_time_to_ask_again() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let wait = Some(seconds(60));
        for _ in 0..50 {
            let answer = kept.get(endpoint.denies(wait)).await;
            assert_eq!(text(answer), Err("it is down".to_owned()));
        }
        assert_eq!(endpoint.asked(), 1);
        tokio::time::advance(seconds(59)).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap_err();
        tokio::time::advance(seconds(1)).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        assert_eq!(endpoint.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_endpoint_puts_off_the_next_question_for_longer_than_five_minutes() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        kept.get(endpoint.denies(Some(HOUR))).await.unwrap_err();
        tokio::time::advance(LONGEST_RETRY_AFTER).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs_holds_nobody_for_longer_than_eight_seconds() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let before = Instant::now();
        let answer = kept.get(endpoint.gives(HOUR, seconds(20))).await;
        assert!(text(answer).unwrap_err().contains("not answered"));
        assert_eq!(before.elapsed(), LONGEST_WAIT);
        tokio::time::sleep(seconds(13)).await;
        // The answer that came too late for the first is there for the next.
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        assert_eq!(endpoint.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_is_replaced_once_a_minute() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let get = async || text(kept.get(endpoint.gives(HOUR, AT_ONCE)).await).unwrap();
        assert_eq!(get().await, "token 1");
        kept.forget("another");
        assert_eq!(get().await, "token 1");
        // All that were rejected at the same time say so.
        for _ in 0..50 {
            kept.forget("token 1");
        }
        assert_eq!(get().await, "token 2");
        kept.forget("token 1");
        kept.forget("token 2");
        assert_eq!(get().await, "token 2");
        tokio::time::advance(BETWEEN_REPLACEMENTS).await;
        kept.forget("token 2");
        assert_eq!(get().await, "token 3");
        assert_eq!(endpoint.asked(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_token_is_the_last_resort() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        kept.forget("token 1");
        let answer = kept.get(endpoint.denies(None)).await;
        assert_eq!(text(answer), Ok("token 1".to_owned()));
        assert_eq!(endpoint.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_has_expired_by_our_clock_is_used_and_not_asked_for_each_time() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        for _ in 0..50 {
            let answer = kept.get(endpoint.gives(Duration::ZERO, AT_ONCE)).await;
            assert_eq!(text(answer), Ok("token 1".to_owned()));
        }
        tokio::time::advance(SOONEST_RENEWAL).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
        landed(&kept).await;
        assert_eq!(endpoint.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_token_is_used_for_longer_than_a_day() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let year = 365 * LONGEST_USE;
        kept.get(endpoint.gives(year, AT_ONCE)).await.unwrap();
        tokio::time::advance(LONGEST_USE).await;
        let answer = kept.get(endpoint.gives(HOUR, AT_ONCE)).await;
        assert_eq!(text(answer), Ok("token 2".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_panicked_is_asked_again_after_a_rest() {
        let (kept, endpoint) = (KeptToken::new("s"), Endpoint::default());
        let lost = kept.get(|| async { panic!("a fault in the credential") });
        assert!(text(lost.await).unwrap_err().contains("panicked"));
        for _ in 0..50 {
            let answer = kept.get(endpoint.gives(HOUR, AT_ONCE)).await;
            assert!(text(answer).unwrap_err().contains("panicked"));
        }
        assert_eq!(endpoint.asked(), 0);
        tokio::time::advance(FIRST_REST).await;
        kept.get(endpoint.gives(HOUR, AT_ONCE)).await.unwrap();
    }
}
