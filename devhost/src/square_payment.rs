//! Payments of the stand-in Square: what `POST /v2/payments` may say, and how the test cards behave.

use axum::http::StatusCode;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    square_error::SquareError,
    square_fields::{Fields, Money},
};

/// Square's limit for the idempotency keys of payments.
pub const LONGEST_KEY: usize = 45;

/// A payment, as the journal keeps it. The source is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    pub id: String,
    /// By which `POST /v2/payments/cancel` finds it.
    pub idempotency_key: String,
    pub status: PaymentStatus,
    pub amount_money: Money,
    pub source_type: SourceType,
    pub location_id: String,
    pub order_id: Option<String>,
    pub reference_id: Option<String>,
    pub delay_duration: Option<String>,
    pub external_details: Option<Value>,
    pub note: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub captured_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PaymentStatus {
    /// The money is held, and not taken.
    Approved,
    Completed,
    Canceled,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SourceType {
    Card,
    /// Paid elsewhere, and only recorded.
    External,
}

/// How a card behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Card {
    Accepted,
    /// The payment is made, and fails.
    Declined(SquareError),
    /// There is no payment: the token is worth nothing.
    Worthless(SquareError),
    /// It fails twice for each idempotency key.
    Temporary,
}

/// The body of `POST /v2/payments`.
#[derive(Debug)]
pub struct PaymentRequest<'a> {
    pub idempotency_key: &'a str,
    pub source_id: &'a str,
    pub amount_money: Money,
    pub order_id: Option<&'a str>,
    pub autocomplete: bool,
    payment: Payment,
}

impl<'a> PaymentRequest<'a> {
    pub fn parse(body: &'a Value, now: Timestamp) -> Result<Self, SquareError> {
        let fields = Fields::of_body(
            body,
            &[
                "idempotency_key",
                "source_id",
                "amount_money",
                "order_id",
                "location_id",
                "reference_id",
                "autocomplete",
                "delay_duration",
                "delay_action",
                "external_details",
                "note",
                "customer_id",
                "verification_token",
                "statement_description_identifier",
            ],
        )?;
        let idempotency_key = fields.required_text("idempotency_key", LONGEST_KEY)?;
        let source_id = fields.required_text("source_id", 500)?;
        let amount_money = fields.money("amount_money")?;
        let amount_money = fields.required("amount_money", amount_money)?;
        let order_id = fields.text("order_id", 192)?;
        let location = fields.location("location_id")?;
        let autocomplete = fields.flag("autocomplete")?.unwrap_or(true);
        for (name, most) in [
            ("customer_id", 191),
            ("verification_token", 4096),
            ("statement_description_identifier", 20),
        ] {
            fields.text(name, most)?;
        }
        if !matches!(
            fields.text("delay_action", 8)?,
            None | Some("CANCEL" | "COMPLETE")
        ) {
            return Err(
                SquareError::invalid("INVALID_VALUE", "It is CANCEL or COMPLETE.")
                    .of_field("delay_action"),
            );
        }
        let delay_duration = fields.text("delay_duration", 50)?;
        if delay_duration.is_some_and(|delay| delay.parse::<Span>().is_err()) {
            return Err(
                SquareError::invalid("INVALID_VALUE", "It is a duration like PT168H.")
                    .of_field("delay_duration"),
            );
        }
        let is_external = source_id == "EXTERNAL";
        let external_details = external_details(&fields, is_external)?;
        if is_external && !autocomplete {
            return Err(SquareError::bad_request(
                "An EXTERNAL payment cannot be authorised first: autocomplete must be true.",
            )
            .of_field("autocomplete"));
        }
        Ok(Self {
            payment: Payment {
                id: format!("GQ{}", Uuid::new_v4().simple()),
                idempotency_key: idempotency_key.to_owned(),
                status: PaymentStatus::Failed,
                amount_money: amount_money.clone(),
                source_type: if is_external {
                    SourceType::External
                } else {
                    SourceType::Card
                },
                location_id: location.unwrap_or(crate::square::LOCATION_ID).to_owned(),
                order_id: order_id.map(str::to_owned),
                reference_id: fields.text("reference_id", 40)?.map(str::to_owned),
                delay_duration: delay_duration.map(str::to_owned),
                external_details,
                note: fields.text("note", 500)?.map(str::to_owned),
                created_at: now,
                updated_at: now,
                captured_at: None,
            },
            idempotency_key,
            source_id,
            amount_money,
            order_id,
            autocomplete,
        })
    }

    /// What the source does, as in Square's sandbox.
    pub fn card(&self) -> Card {
        let declined = |status: u16, code: &'static str| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            Card::Declined(SquareError::payment_method(status, code))
        };
        let worthless = |code: &'static str, detail: &str| {
            Card::Worthless(SquareError::invalid(code, detail).of_field("source_id"))
        };
        match self.source_id {
            "EXTERNAL" | "cnon:card-nonce-ok" | "ccof:customer-card-id-ok" => Card::Accepted,
            "cnon:card-nonce-declined" => declined(402, "GENERIC_DECLINE"),
            "cnon:card-nonce-rejected-cvv" => declined(400, "CVV_FAILURE"),
            "cnon:card-nonce-rejected-postalcode" => declined(400, "ADDRESS_VERIFICATION_FAILURE"),
            "cnon:card-nonce-rejected-expiration" => declined(400, "INVALID_EXPIRATION"),
            "cnon:card-nonce-already-used" => {
                worthless("CARD_TOKEN_USED", "Card nonce already used")
            }
            "cnon:card-nonce-expired" => worthless("CARD_TOKEN_EXPIRED", "Card nonce expired"),
            "cnon:card-nonce-temporary" => Card::Temporary,
            _ => Card::Worthless(
                SquareError::not_found("Card nonce not found").of_field("source_id"),
            ),
        }
    }

    /// The payment with this outcome.
    pub fn payment(&self, status: PaymentStatus) -> Payment {
        Payment {
            status,
            captured_at: (status == PaymentStatus::Completed).then_some(self.payment.created_at),
            ..self.payment.clone()
        }
    }
}

fn external_details(fields: &Fields<'_>, needed: bool) -> Result<Option<Value>, SquareError> {
    let Some(value) = fields.get("external_details") else {
        return if needed {
            fields.required("external_details", None)
        } else {
            Ok(None)
        };
    };
    let path = fields.at("external_details");
    let details = Fields::of(
        value,
        path,
        &["type", "source", "source_id", "source_fee_money"],
    )?;
    details.required_text("type", 50)?;
    details.required_text("source", 255)?;
    details.text("source_id", 255)?;
    details.money("source_fee_money")?;
    Ok(Some(value.clone()))
}

impl Payment {
    /// The payment after a change.
    #[must_use]
    pub fn changed(&self, status: PaymentStatus, now: Timestamp) -> Self {
        Self {
            status,
            updated_at: now,
            captured_at: match status {
                PaymentStatus::Completed => Some(now),
                PaymentStatus::Approved | PaymentStatus::Canceled | PaymentStatus::Failed => {
                    self.captured_at
                }
            },
            ..self.clone()
        }
    }

    /// As Square shows it.
    pub fn shown(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "status": self.status,
            "amount_money": self.amount_money,
            "total_money": self.amount_money,
            "source_type": self.source_type,
            "location_id": self.location_id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        });
        for (name, text) in [
            ("order_id", &self.order_id),
            ("reference_id", &self.reference_id),
            ("delay_duration", &self.delay_duration),
            ("note", &self.note),
        ] {
            if let Some(text) = text {
                shown[name] = text.as_str().into();
            }
        }
        if let Some(details) = &self.external_details {
            shown["external_details"] = details.clone();
        }
        if self.source_type == SourceType::Card {
            let status = match self.status {
                PaymentStatus::Approved => "AUTHORIZED",
                PaymentStatus::Completed => "CAPTURED",
                PaymentStatus::Canceled => "VOIDED",
                PaymentStatus::Failed => "FAILED",
            };
            shown["card_details"] = json!({ "status": status });
        }
        shown
    }

    /// As `/_dev/till` shows it.
    pub fn for_people(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "orderId": self.order_id,
            "referenceId": self.reference_id,
            "status": self.status,
            "amount": self.amount_money,
            "sourceType": self.source_type,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        });
        if let Some(at) = self.captured_at {
            shown["capturedAt"] = json!(at);
        }
        shown
    }
}
