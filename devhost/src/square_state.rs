//! What the stand-in Square knows: orders, payments, and what it answered under which key.
//!
//! One request at a time changes it, so two with the same key never both take effect. Every change is one line of
//! a journal, written before the answer; reading the lines again at the start gives the same state. Clearing hides
//! orders and payments from `/_dev/till` and forgets nothing: a retry under an old key still gets its first answer.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    journal::{Entry, Journal},
    square_error::SquareError,
    square_order::Order,
    square_payment::Payment,
};

/// The state, and the journal that it comes from.
#[derive(Debug)]
pub struct Square {
    journal: Journal<Line>,
    state: Mutex<State>,
    calls: AtomicU64,
}

/// What one request changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<Payment>,
    /// The key under which a card failed for the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_for_now: Option<String>,
}

/// A line of the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Line {
    change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cleared: bool,
}

impl Entry for Line {
    fn key(&self) -> Option<(String, String)> {
        None
    }
}

/// The first answer under a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answered {
    key: String,
    /// The hash by which a retry with another body is told from one with the same.
    request_sha256: String,
    answer: Answer,
}

/// Status and body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl From<&SquareError> for Answer {
    fn from(error: &SquareError) -> Self {
        Self {
            status: error.status.as_u16(),
            body: error.body(),
        }
    }
}

/// A request that may come again.
#[derive(Debug)]
pub struct Keyed<'a> {
    /// What is done; keys of different operations have nothing to do with each other.
    pub operation: &'static str,
    /// What of the path goes into it.
    pub subject: &'a str,
    pub key: Option<&'a str>,
    pub body: &'a Value,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Done {
    pub change: Change,
    pub answer: Answer,
    /// Whether the same key gets this answer from now on.
    pub is_final: bool,
}

impl Done {
    pub fn ok(change: Change, body: Value) -> Self {
        let answer = Answer { status: 200, body };
        Self {
            change,
            answer,
            is_final: true,
        }
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub orders: BTreeMap<String, Order>,
    pub payments: BTreeMap<String, Payment>,
    /// How often each key has failed for the moment.
    pub failed_for_now: BTreeMap<String, u32>,
    pub controls: Controls,
    answered: BTreeMap<String, Answered>,
    /// The ids since the last clearing, in the order of creation.
    shown_orders: Vec<String>,
    shown_payments: Vec<String>,
}

/// What `PUT /_dev/till` switches on; a restart switches it off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controls {
    /// By how much the prices of new orders differ from those that were sent.
    pub price_change_percent: i64,
    /// No order can be made.
    pub location_closed: bool,
}

impl Controls {
    /// Reads them; the error names the field that makes no sense.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return Err("the body must be a JSON object".to_owned());
        };
        let mut controls = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "priceChangePercent" => {
                    controls.price_change_percent = value
                        .as_i64()
                        .filter(|percent| (-100..=1000).contains(percent))
                        .ok_or(
                            "`priceChangePercent` must be a whole number from -100 to 1000"
                                .to_owned(),
                        )?;
                }
                "locationClosed" => {
                    controls.location_closed = value
                        .as_bool()
                        .ok_or("`locationClosed` must be true or false".to_owned())?;
                }
                _ => {
                    return Err(format!(
                        "`{name}` is neither `priceChangePercent` nor `locationClosed`"
                    ));
                }
            }
        }
        Ok(controls)
    }
}

impl State {
    fn apply(&mut self, line: Line) {
        let change = line.change;
        if line.cleared {
            self.shown_orders.clear();
            self.shown_payments.clear();
        }
        if let Some(order) = change.order {
            let id = order.id.clone();
            if self.orders.insert(id.clone(), order).is_none() {
                self.shown_orders.push(id);
            }
        }
        for payment in change.payments {
            let id = payment.id.clone();
            if self.payments.insert(id.clone(), payment).is_none() {
                self.shown_payments.push(id);
            }
        }
        if let Some(key) = change.failed_for_now {
            *self.failed_for_now.entry(key).or_default() += 1;
        }
        if let Some(answered) = line.answered {
            self.answered.insert(answered.key.clone(), answered);
        }
    }
}

impl Square {
    /// Opens the journal, or makes it; the error names it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let journal = Journal::open(path)?;
        let mut state = State::default();
        for line in journal.shown() {
            state.apply(Line::clone(&line));
        }
        Ok(Self {
            journal,
            state: Mutex::new(state),
            calls: AtomicU64::new(0),
        })
    }

    /// Does what was asked, unless it has been done under this key before; nothing else happens in between.
    pub fn run(
        &self,
        keyed: &Keyed<'_>,
        make: impl FnOnce(&State) -> Result<Done, SquareError>,
    ) -> Answer {
        let mut state = self.lock();
        let answered = keyed
            .key
            .map(|key| (format!("{}/{key}", keyed.operation), request_sha256(keyed)));
        if let Some((key, request_sha256)) = &answered
            && let Some(first) = state.answered.get(key)
        {
            return if first.request_sha256 == *request_sha256 {
                first.answer.clone()
            } else {
                let detail = "Different request parameters used for the same idempotency_key.";
                let error = SquareError::invalid("IDEMPOTENCY_KEY_REUSED", detail)
                    .of_field("idempotency_key");
                Answer::from(&error)
            };
        }
        let done = match make(&state) {
            Ok(done) => done,
            Err(error) => return Answer::from(&error),
        };
        let answered = answered
            .filter(|_| done.is_final)
            .map(|(key, request_sha256)| Answered {
                key,
                request_sha256,
                answer: done.answer.clone(),
            });
        let line = Line {
            change: done.change,
            answered,
            cleared: false,
        };
        match self.keep(&mut state, line) {
            Ok(()) => done.answer,
            Err(error) => Answer::from(&error),
        }
    }

    /// Answers from what is known.
    pub fn look(&self, find: impl FnOnce(&State) -> Result<Value, SquareError>) -> Answer {
        match find(&self.lock()) {
            Ok(body) => Answer { status: 200, body },
            Err(error) => Answer::from(&error),
        }
    }

    fn keep(&self, state: &mut State, line: Line) -> Result<(), SquareError> {
        if line == Line::default() {
            return Ok(());
        }
        self.journal
            .accept(|_| (Some(line.clone()), ()))
            .map_err(|why| SquareError::api(format!("The change could not be kept: {why}")))?;
        state.apply(line);
        Ok(())
    }

    /// Counts a request, whatever becomes of it.
    pub fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub fn set_controls(&self, controls: Controls) {
        self.lock().controls = controls;
    }

    /// Hides what there is so far, and switches the controls off.
    pub fn clear(&self) -> Result<(), String> {
        let mut state = self.lock();
        let cleared = Line {
            cleared: true,
            ..Line::default()
        };
        self.keep(&mut state, cleared)
            .map_err(|error| error.detail)?;
        state.controls = Controls::default();
        self.calls.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// As `/_dev/till` shows it.
    pub fn for_people(&self) -> Value {
        let state = self.lock();
        let orders = state
            .shown_orders
            .iter()
            .filter_map(|id| state.orders.get(id));
        let payments = state
            .shown_payments
            .iter()
            .filter_map(|id| state.payments.get(id));
        json!({
            "orders": orders.map(Order::for_people).collect::<Vec<_>>(),
            "payments": payments.map(Payment::for_people).collect::<Vec<_>>(),
            "calls": self.calls.load(Ordering::Relaxed),
            "controls": state.controls,
        })
    }

    /// A panic elsewhere leaves the state whole: it changes only after all that can fail.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time, as fine as Square tells it.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

/// Members in another order make no other request.
fn request_sha256(keyed: &Keyed<'_>) -> String {
    let text = format!("{}\n{}", keyed.subject, keyed.body);
    STANDARD.encode(Sha256::digest(text))
}
