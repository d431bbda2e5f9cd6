//! The host's admin API, as far as people use it locally: status, functions, and a run by hand.
//!
//! As under `func start`, no key is asked for.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    envelope::manual_envelope,
    front_door::REASON,
    function_json::{Function, Trigger},
    invocation::{HOST_VERSION, Invoker},
    json_response::{json_response, problem},
    timer::Timer,
};

/// What the admin API tells about.
#[derive(Debug)]
pub struct Admin {
    pub functions: Vec<Function>,
    pub invoker: Arc<Invoker>,
    pub timers: Vec<Arc<Timer>>,
    pub started: Instant,
    /// `http://localhost:7071/api/`
    pub base_url: String,
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/admin/host/status", get(status))
        .route("/admin/host/ping", get(ping).post(ping))
        .route("/admin/functions", get(functions))
        .route("/admin/functions/{name}", get(function).post(run))
        .with_state(Arc::new(admin))
}

async fn ping() -> StatusCode {
    StatusCode::OK
}

/// The host says `Running` even while the handler starts; `handlerReady` is devhost's own.
async fn status(State(admin): State<Arc<Admin>>) -> Response {
    json_response(
        StatusCode::OK,
        &json!({
            "id": "devhost",
            "state": "Running",
            "version": HOST_VERSION,
            "versionDetails": concat!("devhost ", env!("CARGO_PKG_VERSION")),
            "instanceId": "devhost",
            "processUptime": u64::try_from(admin.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "handlerReady": admin.invoker.worker.is_ready(),
        }),
    )
}

async fn functions(State(admin): State<Arc<Admin>>) -> Response {
    let all: Vec<Value> = admin
        .functions
        .iter()
        .map(|function| describe(&admin, function))
        .collect();
    json_response(StatusCode::OK, &all)
}

async fn function(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Response {
    match find(&admin, &name) {
        Some(function) => json_response(StatusCode::OK, &describe(&admin, function)),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn find<'a>(admin: &'a Admin, name: &str) -> Option<&'a Function> {
    admin
        .functions
        .iter()
        .find(|function| function.name.eq_ignore_ascii_case(name))
}

fn describe(admin: &Admin, function: &Function) -> Value {
    let url = match &function.trigger {
        Trigger::Http(trigger) => Some(format!("{}{}", admin.base_url, trigger.route.text())),
        Trigger::ServiceBus(_) | Trigger::Timer(_) => None,
    };
    json!({
        "name": function.name,
        "config": function.config,
        "language": "custom",
        "isDisabled": function.disabled,
        "isDirect": url.is_some(),
        "invoke_url_template": url,
    })
}

/// `{"input": "…"}`: 202 at once, and the invocation follows. Nothing is settled, for there is no message; a timer
/// makes nothing of the text.
async fn run(State(admin): State<Arc<Admin>>, Path(name): Path<String>, body: Bytes) -> Response {
    let Some(function) = find(&admin, &name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let input = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(mut object)) => match object.remove("input") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(input)) => input,
            Some(_) => {
                return problem(
                    StatusCode::BAD_REQUEST,
                    "`input` must be a string; JSON goes into it as text: {\"input\":\"{\\\"id\\\":1}\"}",
                );
            }
        },
        _ => {
            return problem(
                StatusCode::BAD_REQUEST,
                "the body must be {\"input\": \"…\"}",
            );
        }
    };
    let (name, invoker) = (function.name.clone(), Arc::clone(&admin.invoker));
    let trigger = match &function.trigger {
        Trigger::ServiceBus(trigger) => trigger.clone(),
        Trigger::Timer(_) => {
            let timer = admin.timers.iter().find(|timer| timer.function == name);
            if let Some(timer) = timer.map(Arc::clone) {
                tokio::spawn(async move { timer.run_now().await });
            }
            return StatusCode::ACCEPTED.into_response();
        }
        Trigger::Http(_) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "an HTTP function is called at its URL",
            );
        }
    };
    tokio::spawn(async move {
        let envelope = manual_envelope(&name, &trigger, &input, Timestamp::now());
        let exchange = |id| invoker.exchange(&name, id, &envelope);
        // The outcome has been logged, and there is nobody to tell.
        drop(invoker.run(&name, REASON, "", exchange).await);
    });
    StatusCode::ACCEPTED.into_response()
}
