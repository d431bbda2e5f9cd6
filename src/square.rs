//! Square, by its Orders and Payments APIs: an order is created, a payment authorised for it, and the order paid with it.
//!
//! Every call that changes something has the caller's key, under which a repetition is answered as the first call was, so
//! that after a lost answer the same call brings its outcome to light. How long Square remembers a key it does not
//! publish. Nothing personal is sent: what Square needs of the customer is in the payment token.

use std::{fmt, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    config::{ConfigError, Settings},
    order::{Currency, LineItem, Money, Order},
    provider_http::{self, Answer, Tracing},
    square_errors,
    till_error::{TillError, TillFailure},
};

const TILL: &str = "Square";

/// The version of the API by which requests are written and answers read. Without it the account's own would count.
const API_VERSION: &str = "2026-09-16";

/// For one call in all. Authorising a card takes seconds at its issuer.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// An order comes back whole, with about a kilobyte for each of at most 500 line items.
const LONGEST_ANSWER: usize = 2 * 1024 * 1024;

/// How long an authorised payment waits to be captured before Square cancels it: a week, the longest that issuers grant.
const AUTHORISED_FOR: &str = "PT168H";

/// The longest text that Square takes as the id of a payment elsewhere.
const LONGEST_REFERENCE: usize = 255;

/// What an id is written with in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A client of one location of one Square account.
#[derive(Clone)]
pub struct SquareClient {
    base: String,
    bearer: HeaderValue,
    location_id: String,
    http: reqwest::Client,
    timeout: Duration,
}

/// The token stays out of what is printed.
impl fmt::Debug for SquareClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SquareClient")
            .field("base", &self.base)
            .field("location_id", &self.location_id)
            .finish_non_exhaustive()
    }
}

/// An order as Square has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SquareOrder {
    pub id: String,
    /// Rises with each change.
    pub version: i64,
    pub state: SquareOrderState,
    /// By Square's own sum. Only if it is the customer's may anything be charged.
    pub total: Money,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SquareOrderState {
    Open,
    /// Paid.
    Completed,
    Canceled,
    Draft,
    #[serde(other)]
    Unknown,
}

/// A payment as Square has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SquarePayment {
    pub id: String,
    pub status: SquarePaymentStatus,
    pub amount: Money,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SquarePaymentStatus {
    /// Not authorised yet; it may still become anything else.
    Pending,
    /// Authorised and not captured.
    Approved,
    /// Captured, or recorded.
    Completed,
    Canceled,
    Failed,
    #[serde(other)]
    Unknown,
}

impl SquareClient {
    /// Reads `SQUARE_ACCESS_TOKEN`, `SQUARE_LOCATION_ID` and `SQUARE_BASE_URL`, which for Square's sandbox is
    /// `https://connect.squareupsandbox.com`. It connects to nothing.
    pub fn from_settings(settings: &Settings, http: &reqwest::Client) -> Result<Self, ConfigError> {
        Self::with_timeout(settings, http, TIMEOUT)
    }

    /// As [`Self::from_settings`], with another timeout.
    pub fn with_timeout(
        settings: &Settings,
        http: &reqwest::Client,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        const TOKEN: &str = "SQUARE_ACCESS_TOKEN";
        const EXPECTED: &str = "an access token of Square, as in EAAA…";
        const BASE: &str = "SQUARE_BASE_URL";
        let token = settings.secret(TOKEN, EXPECTED)?;
        let location = "the id of a location of the Square account, as in L88917AVBK2S5";
        let base = settings.optional(BASE);
        let base = base.as_deref().unwrap_or("https://connect.squareup.com");
        Ok(Self {
            bearer: provider_http::bearer(TOKEN, &token, EXPECTED)?,
            location_id: settings.required("SQUARE_LOCATION_ID", location)?,
            base: provider_http::base_url(BASE, base)?,
            http: http.clone(),
            timeout,
        })
    }

    /// Creates the order, without anything paid.
    pub async fn create_order(&self, order: &Order, key: Uuid) -> Result<SquareOrder, TillError> {
        let line_items: Vec<_> = order
            .line_items
            .iter()
            .enumerate()
            .map(|(index, item)| line_item(index, item))
            .collect();
        let body = json!({
            "idempotency_key": key,
            "order": {
                "location_id": self.location_id,
                "reference_id": order.order_id,
                "source": { "name": "orderup" },
                "line_items": line_items,
                "metadata": { "order_id": order.order_id },
            },
        });
        let answer = self.send(Method::POST, "/v2/orders", Some(body)).await;
        answer
            .and_then(|answer| read_order(&answer))
            .map_err(nothing_named)
    }

    /// Authorises the order's total on what the token `source` stands for. It is not captured before
    /// [`Self::pay_order`].
    ///
    /// `Ok` may still be [`SquarePaymentStatus::Pending`], or [`SquarePaymentStatus::Canceled`]: then nothing is authorised
    /// under this key any more.
    pub async fn create_payment(
        &self,
        order: &Order,
        square_order_id: &str,
        key: Uuid,
        source: &str,
    ) -> Result<SquarePayment, TillError> {
        let mut body = self.payment(order, square_order_id, key);
        body["source_id"] = source.into();
        body["autocomplete"] = false.into();
        body["delay_duration"] = AUTHORISED_FOR.into();
        self.pay(body).await
    }

    /// Records that the shop has the order's total already. Nothing is charged; such a payment is completed at once,
    /// and with it the order. `reference` is the payment's id where it was made.
    pub async fn record_external_payment(
        &self,
        order: &Order,
        square_order_id: &str,
        key: Uuid,
        reference: Option<&str>,
    ) -> Result<SquarePayment, TillError> {
        let mut body = self.payment(order, square_order_id, key);
        body["source_id"] = "EXTERNAL".into();
        body["external_details"] = json!({ "type": "OTHER", "source": "Orderup" });
        if let Some(reference) = reference {
            let reference: String = reference.chars().take(LONGEST_REFERENCE).collect();
            body["external_details"]["source_id"] = reference.into();
        }
        self.pay(body).await
    }

    /// Captures the payment, and with it completes the order. Other payments that are authorised for it are voided.
    pub async fn pay_order(
        &self,
        square_order_id: &str,
        payment_id: &str,
        key: Uuid,
    ) -> Result<SquareOrder, TillError> {
        self.pay_with(square_order_id, &[payment_id], key).await
    }

    /// Completes an order whose total is zero, for which Square takes no payment.
    pub async fn pay_free_order(
        &self,
        square_order_id: &str,
        key: Uuid,
    ) -> Result<SquareOrder, TillError> {
        self.pay_with(square_order_id, &[], key).await
    }

    async fn pay_with(
        &self,
        square_order_id: &str,
        payment_ids: &[&str],
        key: Uuid,
    ) -> Result<SquareOrder, TillError> {
        let path = format!("/v2/orders/{}/pay", segment(square_order_id));
        let body = json!({ "idempotency_key": key, "payment_ids": payment_ids });
        read_order(&self.send(Method::POST, &path, Some(body)).await?)
    }

    pub async fn get_order(&self, square_order_id: &str) -> Result<SquareOrder, TillError> {
        let path = format!("/v2/orders/{}", segment(square_order_id));
        read_order(&self.send(Method::GET, &path, None).await?)
    }

    pub async fn get_payment(&self, payment_id: &str) -> Result<SquarePayment, TillError> {
        let path = format!("/v2/payments/{}", segment(payment_id));
        read_payment(&self.send(Method::GET, &path, None).await?)
    }

    /// Voids an authorised payment. One that is completed or cancelled already is [`TillFailure::InvalidState`].
    pub async fn cancel_payment(&self, payment_id: &str) -> Result<SquarePayment, TillError> {
        let path = format!("/v2/payments/{}/cancel", segment(payment_id));
        read_payment(&self.send(Method::POST, &path, None).await?)
    }

    /// Voids whatever [`Self::create_payment`] made under this key, if it made anything: Square answers the same if it
    /// never did. One that is completed already is [`TillFailure::InvalidState`].
    pub async fn cancel_payment_by_key(&self, key: Uuid) -> Result<(), TillError> {
        let body = json!({ "idempotency_key": key });
        let answer = self
            .send(Method::POST, "/v2/payments/cancel", Some(body))
            .await?;
        if square_errors::errors(&answer.body).is_empty() {
            return Ok(());
        }
        Err(square_errors::error(&answer))
    }

    /// Cancels an order that is not paid. The key is one for this version: under a key that has been used Square
    /// changes nothing and answers 200 all the same, which is [`TillFailure::InvalidState`] here.
    pub async fn cancel_order(
        &self,
        square_order_id: &str,
        version: i64,
        key: Uuid,
    ) -> Result<SquareOrder, TillError> {
        let path = format!("/v2/orders/{}", segment(square_order_id));
        let body = json!({
            "idempotency_key": key,
            "order": {
                "location_id": self.location_id,
                "version": version,
                "state": "CANCELED",
            },
        });
        let answer = self.send(Method::PUT, &path, Some(body)).await?;
        let order = read_order(&answer)?;
        if order.state == SquareOrderState::Canceled {
            return Ok(order);
        }
        Err(invalid_state(&answer, "NOT_CANCELED"))
    }

    /// What all payments of an order have in common.
    fn payment(&self, order: &Order, square_order_id: &str, key: Uuid) -> Value {
        json!({
            "idempotency_key": key,
            "amount_money": order.total,
            "order_id": square_order_id,
            "location_id": self.location_id,
            "reference_id": order.order_id,
        })
    }

    async fn pay(&self, body: Value) -> Result<SquarePayment, TillError> {
        let answer = self.send(Method::POST, "/v2/payments", Some(body)).await?;
        let payment = read_payment(&answer)?;
        match payment.status {
            SquarePaymentStatus::Pending
            | SquarePaymentStatus::Approved
            | SquarePaymentStatus::Completed
            | SquarePaymentStatus::Canceled => Ok(payment),
            SquarePaymentStatus::Failed => {
                let errors = square_errors::errors(&answer.body);
                let code = errors.first().map_or("FAILED", |error| &error.code);
                Err(TillError::declined(TILL, Some(code)))
            }
            SquarePaymentStatus::Unknown => Err(TillFailure::unreadable(&answer).into()),
        }
    }

    /// Sends the request. What comes back is a success, which has yet to be read.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, TillError> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.bearer.clone())
            .header("Square-Version", API_VERSION);
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let answer =
            provider_http::exchange(TILL, request, self.timeout, LONGEST_ANSWER, Tracing::Own)
                .await
                .map_err(|no_answer| TillFailure::of_no_answer(TILL, no_answer))?;
        match answer.status {
            200..300 => Ok(answer),
            _ => Err(square_errors::error(&answer)),
        }
    }
}

/// Vendor and SKU are for the shop's own reports. They are well below Square's limit of 255 characters, as is the
/// name below 512.
fn line_item(index: usize, item: &LineItem) -> Value {
    json!({
        "uid": format!("l{}", index + 1),
        "name": item.name,
        "quantity": item.quantity.to_string(),
        "base_price_money": item.unit_price,
        "metadata": { "vendor_id": item.vendor_id, "sku": item.sku },
    })
}

fn segment(id: &str) -> impl fmt::Display {
    utf8_percent_encode(id, SEGMENT)
}

/// A new order names nothing that could be missing, so what is not there is the API itself: our address of it is wrong.
fn nothing_named(error: TillError) -> TillError {
    match error {
        TillError::Failed(TillFailure::NotFound { till, answer }) => {
            TillFailure::Unauthorized { till, answer }.into()
        }
        error => error,
    }
}

fn invalid_state(answer: &Answer, code: &str) -> TillError {
    TillFailure::InvalidState {
        till: TILL,
        answer: answer.told(Some(code)),
    }
    .into()
}

#[derive(Deserialize)]
struct SquareMoney {
    amount: i64,
    currency: Currency,
}

impl From<SquareMoney> for Money {
    fn from(money: SquareMoney) -> Self {
        Self {
            amount: money.amount,
            currency: money.currency,
        }
    }
}

pub(crate) fn read_order(answer: &Answer) -> Result<SquareOrder, TillError> {
    #[derive(Deserialize)]
    struct Body {
        order: Order,
    }
    #[derive(Deserialize)]
    struct Order {
        id: String,
        version: i64,
        state: SquareOrderState,
        total_money: SquareMoney,
    }
    let Body { order } = read(answer, |body: &Body| &body.order.id)?;
    Ok(SquareOrder {
        id: order.id,
        version: order.version,
        state: order.state,
        total: order.total_money.into(),
    })
}

pub(crate) fn read_payment(answer: &Answer) -> Result<SquarePayment, TillError> {
    #[derive(Deserialize)]
    struct Body {
        payment: Payment,
    }
    #[derive(Deserialize)]
    struct Payment {
        id: String,
        status: SquarePaymentStatus,
        amount_money: SquareMoney,
    }
    let Body { payment } = read(answer, |body: &Body| &body.payment.id)?;
    Ok(SquarePayment {
        id: payment.id,
        status: payment.status,
        amount: payment.amount_money.into(),
    })
}

/// What a success says; its id has to be one that a path can hold.
fn read<T: DeserializeOwned>(answer: &Answer, id: impl Fn(&T) -> &String) -> Result<T, TillError> {
    match serde_json::from_slice(&answer.body) {
        Ok(body) if !id(&body).trim_matches('.').is_empty() => Ok(body),
        Err(_) if !square_errors::errors(&answer.body).is_empty() => {
            Err(square_errors::error(answer))
        }
        Ok(_) | Err(_) => Err(TillFailure::unreadable(answer).into()),
    }
}
