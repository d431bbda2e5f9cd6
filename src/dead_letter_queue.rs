//! The receiving side of one dead-letter queue over REST: lock the next message, complete it, unlock it.
//!
//! Used by `orderup dead-letters` only; the handler receives nothing itself. Every operation is asked again after a
//! passing failure, some times and with pauses, and then is a [`QueueError`] that says which entity it is about and
//! what is missing. A lock that is never given back ends by itself, after a minute unless the entity says otherwise.

use std::time::{Duration, SystemTime};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, RETRY_AFTER},
};
use thiserror::Error;

use crate::{
    connection::TopicSettings,
    data_plane::{Authorization, LONGEST_BACKOFF, LONGEST_ERROR},
    dead_letter::DeadLetter,
    http_client::{read_at_most, reason},
    publish_error::{PASSING, PublishError, service_text},
    redelivery::Audience,
    retry,
};

/// How long the service looks for a message: it answers at once if there is one, and an empty queue costs this.
const WAIT: Duration = Duration::from_secs(1);

/// One request, from the connection to the end of the answer. The service answers in some ten milliseconds.
const ATTEMPT: Duration = Duration::from_secs(10);

/// With the pauses between them, some seconds: less than a lock lives.
const ATTEMPTS: u32 = 5;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// The largest message of the Standard and Premium tiers by default, and some more.
const LONGEST_BODY: usize = 1024 * 1024 + 64 * 1024;

/// Why an operation was not carried out, or is not known to have been.
#[derive(Debug, Clone, Error)]
pub enum QueueError {
    #[error(
        "there is no {entity}: the namespace, ORDERS_TOPIC or the topology is another one ({status}: {detail})"
    )]
    NotFound {
        entity: String,
        status: u16,
        detail: String,
    },
    #[error(
        "Service Bus does not let this connection read {entity}: it needs the right Listen on it, with an identity the \
         role Azure Service Bus Data Receiver ({status}: {detail})"
    )]
    NotAllowed {
        entity: String,
        status: u16,
        detail: String,
    },
    /// It can be sent to, and nobody may receive, dead letters included.
    #[error(
        "{entity} is paused: its status lets nobody receive, and has to be Active for that ({status}: {detail})"
    )]
    Paused {
        entity: String,
        status: u16,
        detail: String,
    },
    #[error(
        "Service Bus does not accept the key or the token of this connection for {entity} ({status}: {detail})"
    )]
    NotAccepted {
        entity: String,
        status: u16,
        detail: String,
    },
    /// Only of a message: the lock has expired, or the message is gone.
    #[error("the lock of the message is lost")]
    LockLost,
    #[error("Service Bus can't be asked about {entity} now: {reason}")]
    Unavailable { entity: String, reason: String },
    #[error("{entity}: an answer that is not Service Bus's: {reason}")]
    NotServiceBus { entity: String, reason: String },
    #[error("{entity}: {error}")]
    NoToken { entity: String, error: PublishError },
}

/// A message that is ours for a while, and what proves it.
pub struct Locked {
    pub dead_letter: DeadLetter,
    pub lock: Lock,
}

#[derive(Clone)]
pub struct Lock {
    sequence_number: i64,
    token: String,
}

pub struct DeadLetterQueue {
    pub audience: Audience,
    /// The queue or subscription, without `/$deadletterqueue`.
    pub entity: String,
    base_url: Url,
    authorization: Authorization,
    client: reqwest::Client,
    lost_an_answer: bool,
}

impl DeadLetterQueue {
    /// No I/O.
    pub fn new(
        audience: Audience,
        entity: String,
        settings: &TopicSettings,
        client: &reqwest::Client,
    ) -> Self {
        Self {
            audience,
            authorization: Authorization::new(settings, &entity, client),
            entity,
            base_url: settings.base_url.clone(),
            client: client.clone(),
            lost_an_answer: false,
        }
    }

    /// The message at the head, under a lock; nothing if there is none that is not locked.
    ///
    /// # Errors
    /// Every [`QueueError`] but `LockLost`.
    pub async fn lock_next(&mut self) -> Result<Option<Locked>, QueueError> {
        let mut url = self.url("head");
        url.set_query(Some(&format!("timeout={}", WAIT.as_secs())));
        let answer = self.ask(&Method::POST, url, WAIT).await?;
        self.lost_an_answer |= answer.lost_one;
        let not_service_bus = |reason: &str| QueueError::NotServiceBus {
            entity: self.entity.clone(),
            reason: reason.to_owned(),
        };
        match answer.status {
            StatusCode::NO_CONTENT => return Ok(None),
            StatusCode::CREATED => {}
            status => return Err(self.refused(status, &answer.detail)),
        }
        let body = (answer.body.len() <= LONGEST_BODY).then_some(answer.body);
        let dead_letter = DeadLetter::read(self.audience, &answer.headers, body)
            .ok_or_else(|| not_service_bus("a message without a sequence number"))?;
        let token = dead_letter
            .broker_properties
            .get("LockToken")
            .and_then(|token| token.as_str())
            .and_then(|token| uuid::Uuid::parse_str(token).ok())
            .ok_or_else(|| not_service_bus("a message without a lock"))?;
        let lock = Lock {
            sequence_number: dead_letter.sequence_number,
            token: token.to_string(),
        };
        Ok(Some(Locked { dead_letter, lock }))
    }

    /// Removes the message.
    ///
    /// # Errors
    /// Every [`QueueError`]; the message may be gone all the same.
    pub async fn complete(&self, lock: &Lock) -> Result<(), QueueError> {
        self.settle(&Method::DELETE, lock).await
    }

    /// Gives the message back, to its old place.
    ///
    /// # Errors
    /// Every [`QueueError`].
    pub async fn unlock(&self, lock: &Lock) -> Result<(), QueueError> {
        self.settle(&Method::PUT, lock).await
    }

    /// Whether an answer did not come that may have locked a message: nobody sees that one before its lock ends.
    pub fn may_hide_a_message(&self) -> bool {
        self.lost_an_answer
    }

    async fn settle(&self, method: &Method, lock: &Lock) -> Result<(), QueueError> {
        // Not the answer's `Location`, which may name a host that is not the one we reach the namespace by.
        let url = self.url(&format!("{}/{}", lock.sequence_number, lock.token));
        let answer = self.ask(method, url, Duration::ZERO).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(QueueError::LockLost),
            status => Err(self.refused(status, &answer.detail)),
        }
    }

    fn url(&self, message: &str) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!(
            "{}/$deadletterqueue/messages/{message}",
            self.entity
        ));
        url
    }

    fn refused(&self, status: StatusCode, detail: &str) -> QueueError {
        let (entity, detail) = (self.entity.clone(), detail.to_owned());
        let number = status.as_u16();
        match number {
            401 => QueueError::NotAccepted {
                entity,
                status: number,
                detail,
            },
            // It answers so to a right that is missing and to an entity that is paused; its words tell them apart.
            403 if detail.to_ascii_lowercase().contains("disabled") => QueueError::Paused {
                entity,
                status: number,
                detail,
            },
            403 => QueueError::NotAllowed {
                entity,
                status: number,
                detail,
            },
            404 | 410 => QueueError::NotFound {
                entity,
                status: number,
                detail,
            },
            _ => QueueError::NotServiceBus {
                entity,
                reason: format!("{number}: {detail}"),
            },
        }
    }

    /// Asks until there is an answer that counts.
    async fn ask(&self, method: &Method, url: Url, wait: Duration) -> Result<Answer, QueueError> {
        let mut attempts = 0;
        let mut renewed = false;
        let mut lost_one = false;
        loop {
            let authorization =
                self.authorization
                    .header()
                    .await
                    .map_err(|error| QueueError::NoToken {
                        entity: self.entity.clone(),
                        error,
                    })?;
            let request = self
                .client
                .request(method.clone(), url.clone())
                .header(AUTHORIZATION, &authorization)
                .timeout(ATTEMPT + wait);
            let mut pause = Duration::ZERO;
            let failure = match answer(request, authorization.to_str().unwrap_or_default()).await {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.authorization.forget(&authorization);
                    continue;
                }
                Ok(answer) if PASSING.contains(&answer.status.as_u16()) => {
                    pause = answer.retry_after.unwrap_or_default();
                    format!("{}: {}", answer.status.as_u16(), answer.detail)
                }
                Ok(answer) => return Ok(Answer { lost_one, ..answer }),
                Err(error) => {
                    lost_one |= !error.is_connect();
                    reason(&error)
                }
            };
            attempts += 1;
            pause = pause.max(retry::backoff(
                FIRST_BACKOFF,
                LONGEST_BACKOFF,
                attempts - 1,
                retry::chance(),
            ));
            if attempts == ATTEMPTS || pause > LONGEST_BACKOFF {
                return Err(QueueError::Unavailable {
                    entity: self.entity.clone(),
                    reason: failure,
                });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    /// One byte more than the longest body, if it is too long.
    body: Vec<u8>,
    /// The service's words, of a refusal.
    detail: String,
    retry_after: Option<Duration>,
    /// An attempt before this one was not answered.
    lost_one: bool,
}

async fn answer(request: reqwest::RequestBuilder, secret: &str) -> Result<Answer, reqwest::Error> {
    let mut response: Response = request.send().await?;
    let status = response.status();
    let limit = if status.is_success() {
        LONGEST_BODY + 1
    } else {
        LONGEST_ERROR
    };
    let body = read_at_most(&mut response, limit).await?;
    let detail = if status.is_success() {
        String::new()
    } else {
        service_text(&String::from_utf8_lossy(&body), secret)
    };
    let headers = std::mem::take(response.headers_mut());
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry::retry_after(value, SystemTime::now()));
    Ok(Answer {
        status,
        headers,
        body,
        detail,
        retry_after,
        lost_one: false,
    })
}
