//! A till of the shop's own, by the HTTP contract in `docs/till.openapi.json`.
//!
//! One request hands over the whole order with its payment; the till takes it, declines the payment, refuses the order, or
//! says that it will tell later. The caller's key is the `Idempotency-Key`: after a lost answer the same request, or the
//! question what became of the order, brings the outcome to light. Of the customer only the name is sent, which a
//! till prints on its ticket.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Method, RequestBuilder,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    config::{ConfigError, Settings},
    failure::Class,
    order::{Order, OrderId, Payment},
    provider_http::{self, Answer, Tracing},
    till_error::{TillError, TillFailure, plain_code_of},
};

const TILL: &str = "the till";

/// For one call in all. A till that needs longer answers 202.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// The contract's answers have a few hundred bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A client of one till.
#[derive(Clone)]
pub struct PosClient {
    base: String,
    bearer: Option<HeaderValue>,
    location_id: Option<String>,
    http: reqwest::Client,
    timeout: Duration,
}

/// The token stays out of what is printed.
impl fmt::Debug for PosClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PosClient")
            .field("base", &self.base)
            .field("location_id", &self.location_id)
            .finish_non_exhaustive()
    }
}

/// What the till did with an order that it did not refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It has the order, and the payment is captured or recorded.
    Accepted {
        external_id: String,
        /// The till's own sum, in minor units, if it says one.
        total: Option<i64>,
    },
    /// It will decide later. [`PosClient::find`] tells then.
    Pending {
        external_id: Option<String>,
        retry_after: Option<Duration>,
    },
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Submitted(Submitted),
    Declined { code: String },
    Rejected { code: String },
    Cancelled,
}

impl PosClient {
    /// Reads `TILL_URL`, `TILL_TOKEN` and `TILL_LOCATION_ID`; only the first is required. It connects to nothing.
    pub fn from_settings(settings: &Settings, http: &reqwest::Client) -> Result<Self, ConfigError> {
        Self::with_timeout(settings, http, TIMEOUT)
    }

    /// As [`Self::from_settings`], with another timeout.
    pub fn with_timeout(
        settings: &Settings,
        http: &reqwest::Client,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        const URL: &str = "TILL_URL";
        const TOKEN: &str = "TILL_TOKEN";
        let base = settings.required(URL, "the https:// URL of the till")?;
        let token = settings.optional(TOKEN).map(SecretString::from);
        Ok(Self {
            base: provider_http::base_url(URL, &base)?,
            bearer: token
                .map(|token| provider_http::bearer(TOKEN, &token, "a bearer token of the till"))
                .transpose()?,
            location_id: settings.optional("TILL_LOCATION_ID"),
            http: http.clone(),
            timeout,
        })
    }

    /// Hands over the order, and its payment for capture or as a record.
    pub async fn submit(&self, order: &Order, key: Uuid) -> Result<Submitted, TillError> {
        let request = self
            .request(Method::POST, "/orders")
            // A structured field's string, hence the quotes (draft-ietf-httpapi-idempotency-key-header).
            .header("Idempotency-Key", format!("\"{key}\""))
            .header(CONTENT_TYPE, "application/json")
            .body(self.body(order).to_string());
        let answer = self.ask(request).await?;
        match answer.status {
            200..=202 => match read(&answer, order.order_id)? {
                Found::Submitted(submitted) => Ok(submitted),
                // As the answer to a repetition may say.
                Found::Declined { code } => Err(TillError::Declined { till: TILL, code }),
                Found::Rejected { code } => Err(TillError::Rejected { till: TILL, code }),
                Found::Cancelled => Err(invalid_state(&answer, "cancelled")),
            },
            _ => Err(refusal(&answer)),
        }
    }

    /// Asks what became of the order; `None` if the till never had it.
    pub async fn find(&self, order_id: OrderId) -> Result<Option<Found>, TillError> {
        let request = self.request(Method::GET, &format!("/orders/{order_id}"));
        let answer = self.ask(request).await?;
        match answer.status {
            200 => read(&answer, order_id).map(Some),
            404 => Ok(None),
            _ => Err(TillFailure::of_status(&answer, None, retry_after(&answer)).into()),
        }
    }

    /// Cancels the order and voids or refunds what the till took for it. Cancelling it again changes nothing.
    pub async fn cancel(&self, external_id: &str) -> Result<(), TillError> {
        if !is_external_id(external_id) {
            let answer = "its id for the order is none of the contract's".to_owned();
            return Err(TillFailure::Refused { till: TILL, answer }.into());
        }
        let request = self.request(Method::POST, &format!("/orders/{external_id}/cancel"));
        let answer = self.ask(request).await?;
        match answer.status {
            200 | 204 => Ok(()),
            404 => {
                let answer = answer.told(None);
                Err(TillFailure::NotFound { till: TILL, answer }.into())
            }
            _ => Err(refusal(&answer)),
        }
    }

    fn body(&self, order: &Order) -> Value {
        let lines: Vec<_> = order
            .line_items
            .iter()
            .map(|item| {
                json!({
                    "vendor_id": item.vendor_id,
                    "sku": item.sku,
                    "name": item.name,
                    "quantity": item.quantity,
                    "unit_price": item.unit_price.amount,
                })
            })
            .collect();
        let mut body = json!({
            "order_id": order.order_id,
            // All line items have the total's currency.
            "currency": order.total.currency,
            "lines": lines,
            "total": order.total.amount,
            "customer": { "name": order.customer.name },
        });
        if let Some(location_id) = &self.location_id {
            body["location_id"] = location_id.as_str().into();
        }
        if let Some(payment) = &order.payment {
            body["payment"] = written(payment, order.total.amount);
        }
        body
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer.clone()),
            None => request,
        }
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Answer, TillError> {
        provider_http::exchange(
            TILL,
            request,
            self.timeout,
            LONGEST_ANSWER,
            Tracing::Continued,
        )
        .await
        .map_err(|no_answer| TillFailure::of_no_answer(TILL, no_answer).into())
    }
}

fn written(payment: &Payment, amount: i64) -> Value {
    if payment.is_external() {
        json!({ "mode": "external", "amount": amount })
    } else {
        json!({ "mode": "capture", "token": payment.source, "amount": amount })
    }
}

/// Reads a success. One that is about another order, or about none, is not taken for one.
pub(crate) fn read(answer: &Answer, order_id: OrderId) -> Result<Found, TillError> {
    #[derive(Deserialize)]
    struct Body {
        order_id: Uuid,
        status: Status,
        external_id: Option<String>,
        total: Option<i64>,
        code: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Status {
        Accepted,
        Pending,
        Declined,
        Rejected,
        Cancelled,
    }
    let pending = |external_id| {
        Found::Submitted(Submitted::Pending {
            external_id,
            retry_after: retry_after(answer),
        })
    };
    let unreadable = || TillError::from(TillFailure::unreadable(answer));
    let Ok(body) = serde_json::from_slice::<Body>(&answer.body) else {
        // 202 says it all, and whoever has the order can be asked for more.
        return match answer.status {
            202 => Ok(pending(None)),
            _ => Err(unreadable()),
        };
    };
    let is_usable = body.external_id.as_deref().is_none_or(is_external_id);
    if body.order_id != order_id.0 || !is_usable {
        return Err(unreadable());
    }
    let code = || plain_code_of(body.code.as_deref());
    match body.status {
        Status::Accepted => Ok(Found::Submitted(Submitted::Accepted {
            external_id: body.external_id.ok_or_else(unreadable)?,
            total: body.total,
        })),
        Status::Pending => Ok(pending(body.external_id)),
        Status::Declined => Ok(Found::Declined { code: code() }),
        Status::Rejected => Ok(Found::Rejected { code: code() }),
        Status::Cancelled => Ok(Found::Cancelled),
    }
}

/// What an answer means that is no success: the type of its problem, else its status.
pub(crate) fn refusal(answer: &Answer) -> TillError {
    #[derive(Deserialize)]
    struct Body {
        r#type: String,
        code: Option<String>,
    }
    // Whatever stands before the till has problems of its own, and answers 402 when nobody paid for it.
    let is_problem = answer
        .header(CONTENT_TYPE.as_str())
        .is_some_and(|media_type| media_type.starts_with("application/problem+json"));
    let problem = is_problem
        .then(|| serde_json::from_slice::<Body>(&answer.body).ok())
        .flatten();
    let (name, code) = match &problem {
        Some(problem) => (
            problem.r#type.rsplit('/').next().unwrap_or_default(),
            problem.code.as_deref(),
        ),
        None => ("", None),
    };
    let failed = |class| TillFailure::of_class(answer, class, code, retry_after(answer)).into();
    match (answer.status, name) {
        (402, "payment-declined") => TillError::declined(TILL, code),
        (409 | 422, "order-rejected") => TillError::rejected(TILL, code),
        (409 | 422, "key-reused") => failed(Class::KnownOtherwise),
        (409 | 422, "invalid-state") => invalid_state(answer, code.unwrap_or(name)),
        (402, _) => failed(Class::ChannelBroken),
        _ => failed(answer.class()),
    }
}

fn invalid_state(answer: &Answer, code: &str) -> TillError {
    TillFailure::InvalidState {
        till: TILL,
        answer: answer.told(Some(code)),
    }
    .into()
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    answer.retry_after(SystemTime::now())
}

/// The contract's ids fit into a path as they are.
fn is_external_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '~' | '-');
    id.len() <= 128 && id.chars().all(fits) && id.starts_with(|c: char| c.is_ascii_alphanumeric())
}
