//! `/_dev/`: what people and tests look at and switch on a local stack. Azure has nothing of it.

use std::{path, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use servicebus_emulator::{EntityPath, Error, MessageState, ReceivedMessage, ServiceBus};

use crate::{
    acs::Emails,
    envelope::property_json,
    faults::{Fault, Faults, Target},
    journal::{Entry, Journal},
    json_response::{json_response, problem},
    square_state::{Controls, Square},
    story,
    timer::Timer,
    traces::Traces,
    vendors::{Webhooks, by_id},
};

/// What the stand-ins have accepted.
#[derive(Debug, Clone)]
pub struct Journals {
    pub emails: Arc<Emails>,
    pub webhooks: Arc<Webhooks>,
    pub square: Arc<Square>,
    pub traces: Arc<Traces>,
}

impl Journals {
    /// Opens them in the data folder; the error names the file.
    pub fn open(data: &path::Path) -> Result<Self, String> {
        Ok(Self {
            emails: Arc::new(Journal::open(&data.join("emails.jsonl"))?),
            webhooks: Arc::new(Journal::open(&data.join("webhooks.jsonl"))?),
            square: Arc::new(Square::open(&data.join("till.jsonl"))?),
            traces: Arc::default(),
        })
    }
}

/// What the endpoints show.
#[derive(Clone)]
pub struct Dev {
    pub journals: Journals,
    pub bus: ServiceBus,
    pub faults: Faults,
    pub timers: Vec<Arc<Timer>>,
    /// The ids of vendors that a fault can be set for.
    pub vendors: Vec<String>,
    /// The setting by which emails go to the user's own provider, out of reach of faults.
    pub own_email: Option<&'static str>,
    /// Whether payments go to the user's own till, or to none, out of reach of faults.
    pub has_own_till: bool,
    /// Whether webhooks go to the user's own vendors, out of reach of faults.
    pub has_own_vendors: bool,
}

pub fn router(dev: Dev) -> Router {
    Router::new()
        .route("/_dev", get(index))
        .route("/_dev/", get(index))
        .route("/_dev/emails", get(emails).delete(clear_emails))
        .route("/_dev/webhooks", get(webhooks).delete(clear_webhooks))
        .route(
            "/_dev/till",
            get(till).put(set_till_controls).delete(clear_till),
        )
        .route("/_dev/traces", get(traces).delete(clear_traces))
        .route("/_dev/traces/{id}", get(trace))
        .route("/_dev/timers/{function}", post(run_timer))
        .route("/_dev/entities", get(entities))
        .route("/_dev/entities/{*path}", get(messages))
        .route("/_dev/faults", get(faults))
        .route("/_dev/faults/{*target}", put(set_fault).delete(clear_fault))
        .with_state(dev)
}

async fn index() -> Response {
    json_response(
        StatusCode::OK,
        &json!([
            "GET, DELETE /_dev/emails",
            "GET, DELETE /_dev/webhooks",
            "GET, PUT, DELETE /_dev/till",
            "GET, DELETE /_dev/traces",
            "GET /_dev/traces/{order id or trace id}",
            "POST /_dev/timers/{function}",
            "GET /_dev/entities",
            "GET /_dev/entities/{path}/messages?state=active|locked|scheduled|deadLetter",
            "GET /_dev/faults",
            "PUT, DELETE /_dev/faults/{email|vendors|vendors/{id}|till|till/{orders|payments|pay|cancel}|bus}",
        ]),
    )
}

async fn emails(State(dev): State<Dev>) -> Response {
    let emails = dev.journals.emails.shown();
    let emails: Vec<_> = emails.iter().map(Arc::as_ref).collect();
    json_response(StatusCode::OK, &emails)
}

async fn clear_emails(State(dev): State<Dev>) -> Response {
    cleared(&dev.journals.emails)
}

async fn webhooks(State(dev): State<Dev>) -> Response {
    let deliveries = dev.journals.webhooks.shown();
    json_response(StatusCode::OK, &by_id(&deliveries))
}

async fn clear_webhooks(State(dev): State<Dev>) -> Response {
    cleared(&dev.journals.webhooks)
}

fn cleared<T: Entry>(journal: &Journal<T>) -> Response {
    match journal.clear() {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn till(State(dev): State<Dev>) -> Response {
    json_response(StatusCode::OK, &dev.journals.square.for_people())
}

async fn set_till_controls(State(dev): State<Dev>, body: Bytes) -> Response {
    if let Some(why) = out_of_reach(&dev, &Target::Till) {
        return problem(StatusCode::CONFLICT, &why);
    }
    match Controls::parse(&body) {
        Ok(controls) => {
            dev.journals.square.set_controls(controls);
            json_response(StatusCode::OK, &controls)
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

async fn clear_till(State(dev): State<Dev>) -> Response {
    match dev.journals.square.clear() {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => problem(StatusCode::INTERNAL_SERVER_ERROR, &why),
    }
}

/// All stories that the handler has told, as text.
async fn traces(State(dev): State<Dev>) -> String {
    story::told(dev.journals.traces.all(), None)
}

/// That of one order, or of one trace.
async fn trace(State(dev): State<Dev>, Path(id): Path<String>) -> Response {
    match story::told(dev.journals.traces.all(), Some(&id)) {
        none if none.is_empty() => {
            let why = "there is no span of this order or trace; the handler exports them a moment after they end";
            problem(StatusCode::NOT_FOUND, why)
        }
        story => story.into_response(),
    }
}

async fn clear_traces(State(dev): State<Dev>) -> StatusCode {
    dev.journals.traces.clear();
    StatusCode::NO_CONTENT
}

/// Answers when the invocation has ended; `status` is null where the handler gave no answer.
async fn run_timer(State(dev): State<Dev>, Path(function): Path<String>) -> Response {
    let timer = dev
        .timers
        .iter()
        .find(|timer| timer.function.eq_ignore_ascii_case(&function));
    let Some(timer) = timer.map(Arc::clone) else {
        let why = format!("there is no function `{function}` with a timerTrigger");
        return problem(StatusCode::NOT_FOUND, &why);
    };
    // A task of its own: a caller who goes away does not end the invocation.
    match tokio::spawn(async move { timer.run_now().await }).await {
        Ok(ended) => json_response(
            StatusCode::OK,
            &json!({ "status": ended.status, "succeeded": ended.succeeded }),
        ),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn entities(State(dev): State<Dev>) -> Response {
    match dev.bus.entities().await {
        Ok(entities) => json_response(StatusCode::OK, &entities),
        Err(error) => bus_problem(&error),
    }
}

/// `GET /_dev/entities/{path}/messages?state=active|locked|scheduled|deadLetter`
async fn messages(State(dev): State<Dev>, Path(path): Path<String>, uri: Uri) -> Response {
    let Some(entity) = path.strip_suffix("/messages") else {
        return problem(
            StatusCode::NOT_FOUND,
            &format!(
                "the messages are at /_dev/entities/{path}/messages?state=active|locked|scheduled|deadLetter"
            ),
        );
    };
    let mut entity: EntityPath = match entity.parse() {
        Ok(entity) => entity,
        Err(error) => return problem(StatusCode::NOT_FOUND, &format!("{error}")),
    };
    let state = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "state")
        .map_or_else(
            || "active".to_owned(),
            |(_, state)| state.to_ascii_lowercase(),
        );
    let state = match state.as_str() {
        "active" => MessageState::Active,
        "locked" => MessageState::Locked,
        "scheduled" => MessageState::Scheduled,
        "deadletter" => {
            entity = entity.dead_letter();
            MessageState::Active
        }
        _ => {
            return problem(
                StatusCode::BAD_REQUEST,
                "`state` must be active, locked, scheduled or deadLetter",
            );
        }
    };
    match dev.bus.browse(&entity, state).await {
        Ok(messages) => {
            let messages: Vec<Value> = messages.iter().map(message_json).collect();
            json_response(StatusCode::OK, &messages)
        }
        Err(error) => bus_problem(&error),
    }
}

fn message_json(received: &ReceivedMessage) -> Value {
    let message = &received.message;
    let properties: Map<String, Value> = message
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), property_json(value)))
        .collect();
    let body = message.body.data();
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
    json!({
        "sequenceNumber": received.sequence_number,
        "messageId": message.message_id,
        "correlationId": message.correlation_id,
        "label": message.label,
        "contentType": message.content_type,
        "deliveryCount": received.delivery_count,
        "enqueuedTime": received.enqueued_time,
        "scheduledEnqueueTime": message.scheduled_enqueue_time,
        "expiresAt": received.expires_at,
        "deadLetterReason": properties.get("DeadLetterReason"),
        "deadLetterErrorDescription": properties.get("DeadLetterErrorDescription"),
        "deadLetterSource": received.dead_letter_source,
        "properties": properties,
        "body": body,
    })
}

fn bus_problem(error: &Error) -> Response {
    let status = match error {
        Error::EntityNotFound(_) | Error::MessageNotFound(_) => StatusCode::NOT_FOUND,
        Error::NotSupported(_) | Error::InvalidMessage(_) => StatusCode::BAD_REQUEST,
        Error::MessageLockLost
        | Error::SessionLockLost
        | Error::SessionCannotBeLocked(_)
        | Error::MessageTooLarge { .. }
        | Error::QuotaExceeded(_)
        | Error::EntityDisabled(_)
        | Error::EntityExists(_)
        | Error::Closed
        | Error::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &error.to_string())
}

async fn faults(State(dev): State<Dev>) -> Response {
    let all: Map<String, Value> = dev
        .faults
        .all()
        .into_iter()
        .filter_map(|(target, fault)| Some((target, serde_json::to_value(fault).ok()?)))
        .collect();
    json_response(StatusCode::OK, &all)
}

async fn set_fault(State(dev): State<Dev>, Path(target): Path<String>, body: Bytes) -> Response {
    let target = match find_target(&dev, &target) {
        Ok(target) => target,
        Err(response) => return *response,
    };
    if let Some(why) = out_of_reach(&dev, &target) {
        return problem(StatusCode::CONFLICT, &why);
    }
    match Fault::parse(&body) {
        Ok(fault) => {
            dev.faults.set(target, fault.clone());
            json_response(StatusCode::OK, &fault)
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}

/// Why a fault would never strike.
fn out_of_reach(dev: &Dev, target: &Target) -> Option<String> {
    match target {
        Target::Email => dev
            .own_email
            .map(|name| format!("emails go to your own provider, because {name} is yours")),
        Target::Vendors | Target::Vendor(_) => dev
            .has_own_vendors
            .then(|| "webhooks go to your own vendors, because VENDORS_FILE is yours".to_owned()),
        Target::Till | Target::TillStep(_) => dev
            .has_own_till
            .then(|| "no payment goes to the stand-in, because TILL is yours".to_owned()),
        Target::Bus => None,
    }
}

async fn clear_fault(State(dev): State<Dev>, Path(target): Path<String>) -> Response {
    match find_target(&dev, &target) {
        Ok(target) => {
            dev.faults.clear(&target);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => *response,
    }
}

fn find_target(dev: &Dev, path: &str) -> Result<Target, Box<Response>> {
    let unknown = |why: &str| Box::new(problem(StatusCode::NOT_FOUND, why));
    match Target::parse(path) {
        None => Err(unknown(
            "faults are for email, vendors, vendors/{id}, till, till/{orders|payments|pay|cancel} or bus",
        )),
        Some(Target::Vendor(id)) if !dev.vendors.contains(&id) => {
            Err(unknown(&format!("there is no vendor `{id}`")))
        }
        Some(target) => Ok(target),
    }
}
