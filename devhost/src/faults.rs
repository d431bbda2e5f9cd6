//! Faults that can be switched on: in the email provider, the till, the vendors, and the bus's REST data plane.
//!
//! A fault is set with `PUT /_dev/faults/{target}` and holds until it is deleted or has struck `times` times. It
//! strikes before the stand-in looks at the request, except for `"drop": "after"`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use crate::{acs::Refusal, connection::Cut, console, square_error::SquareError};

/// Where a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Email,
    /// Every vendor.
    Vendors,
    /// One vendor; its fault goes before that of all.
    Vendor(String),
    /// Every request to the till.
    Till,
    /// One kind of request to the till; its fault goes before that of all.
    TillStep(TillStep),
    Bus,
}

/// The steps by which an order is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TillStep {
    /// Making and reading orders.
    Orders,
    /// Making and reading payments.
    Payments,
    /// Paying an order by what was approved.
    Pay,
    /// Canceling payments and orders.
    Cancel,
}

impl TillStep {
    const ALL: [Self; 4] = [Self::Orders, Self::Payments, Self::Pay, Self::Cancel];

    fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Pay => "pay",
            Self::Cancel => "cancel",
        }
    }

    /// The step of a request; an order is changed only to cancel it.
    fn of(method: &Method, path: &str) -> Self {
        let is_order = path.starts_with("/v2/orders");
        match path.rsplit('/').next() {
            Some("pay") => Self::Pay,
            Some("cancel") => Self::Cancel,
            _ if is_order && method == Method::PUT => Self::Cancel,
            _ if is_order => Self::Orders,
            _ => Self::Payments,
        }
    }
}

impl Target {
    /// `email`, `vendors`, `vendors/{id}`, `till`, `till/{orders|payments|pay|cancel}` or `bus`.
    pub fn parse(path: &str) -> Option<Self> {
        match path.split_once('/') {
            None if path == "email" => Some(Self::Email),
            None if path == "vendors" => Some(Self::Vendors),
            None if path == "till" => Some(Self::Till),
            None if path == "bus" => Some(Self::Bus),
            Some(("till", name)) => TillStep::ALL
                .into_iter()
                .find(|step| step.name() == name)
                .map(Self::TillStep),
            Some(("vendors", id)) if !id.is_empty() && !id.contains('/') => {
                Some(Self::Vendor(id.to_owned()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Email => f.write_str("email"),
            Self::Vendors => f.write_str("vendors"),
            Self::Vendor(id) => write!(f, "vendors/{id}"),
            Self::Till => f.write_str("till"),
            Self::TillStep(step) => write!(f, "till/{}", step.name()),
            Self::Bus => f.write_str("bus"),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Answer with this status instead.
    pub status: Option<u16>,
    /// With the status: `Retry-After` in seconds.
    pub retry_after: Option<u64>,
    /// Wait before anything else happens.
    pub latency_ms: u64,
    /// Never answer, and never do what was asked; with `"drop": "after"` do it, and never answer.
    pub hang: bool,
    /// Close the connection without an answer.
    pub drop: Option<Drop>,
    /// How many more requests it strikes; all of them without it.
    pub times: Option<u64>,
}

/// When a connection is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drop {
    /// Before the request takes effect.
    Before,
    /// After it has taken effect.
    After,
}

/// The longest latency, in milliseconds: longer than any sensible client waits.
const MOST_LATENCY: u64 = 600_000;

impl Fault {
    /// Reads a fault; the error names the field that makes no sense.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return Err("the body must be a JSON object".to_owned());
        };
        let mut fault = Self::default();
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            let number = |least: u64, most: u64| {
                value
                    .as_u64()
                    .filter(|number| (least..=most).contains(number))
                    .ok_or(format!(
                        "`{name}` must be a whole number from {least} to {most}"
                    ))
            };
            match name.as_str() {
                "status" => fault.status = Some(u16::try_from(number(300, 599)?).unwrap_or(503)),
                "retryAfter" => fault.retry_after = Some(number(0, u32::MAX.into())?),
                "latencyMs" => fault.latency_ms = number(0, MOST_LATENCY)?,
                "times" => fault.times = Some(number(1, u32::MAX.into())?),
                "hang" => {
                    fault.hang = value
                        .as_bool()
                        .ok_or("`hang` must be true or false".to_owned())?;
                }
                "drop" => {
                    fault.drop = Some(match value.as_str() {
                        Some("before") => Drop::Before,
                        Some("after") => Drop::After,
                        _ => return Err("`drop` must be \"before\" or \"after\"".to_owned()),
                    });
                }
                _ => return Err(format!("`{name}` is not a field of a fault")),
            }
        }
        fault.check()
    }

    fn check(self) -> Result<Self, String> {
        if self.retry_after.is_some() && self.status.is_none() {
            return Err("`retryAfter` goes with a `status`".to_owned());
        }
        if self.hang && self.status.is_some() {
            return Err("`hang` never answers, so it cannot go with a `status`".to_owned());
        }
        if self.drop.is_some() && self.status.is_some() {
            return Err("`drop` does not go with a `status`".to_owned());
        }
        if self.status.is_none() && !self.hang && self.drop.is_none() && self.latency_ms == 0 {
            return Err(
                "`status`, `latencyMs`, `hang` or `drop` must say what goes wrong".to_owned(),
            );
        }
        Ok(self)
    }
}

/// The faults that are switched on; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<BTreeMap<Target, Fault>>>);

impl Faults {
    pub fn set(&self, target: Target, fault: Fault) {
        self.lock().insert(target, fault);
    }

    pub fn clear(&self, target: &Target) {
        self.lock().remove(target);
    }

    /// All of them, by target.
    pub fn all(&self) -> Vec<(String, Fault)> {
        let faults = self.lock();
        faults
            .iter()
            .map(|(target, fault)| (target.to_string(), fault.clone()))
            .collect()
    }

    /// The fault that strikes now, of the first target that has one; its `times` go down.
    fn strike(&self, targets: &[Target]) -> Option<(Target, Fault)> {
        let mut faults = self.lock();
        let target = targets.iter().find(|target| faults.contains_key(target))?;
        let fault = faults.get_mut(target)?;
        let struck = fault.clone();
        match &mut fault.times {
            None => {}
            Some(1) => {
                faults.remove(target);
            }
            Some(times) => *times -= 1,
        }
        Some((target.clone(), struck))
    }

    /// A panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Target, Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Middleware of the bus's REST data plane.
pub async fn on_bus(
    State(faults): State<Faults>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    apply(faults.strike(&[Target::Bus]), cut, request, next).await
}

/// Middleware of the stand-ins of the outside world.
pub async fn on_outside(
    State(faults): State<Faults>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let targets = match path.strip_prefix("/vendors/") {
        Some(id) => vec![Target::Vendor(id.to_owned()), Target::Vendors],
        None if path.starts_with("/v2/") => {
            let step = TillStep::of(request.method(), path);
            vec![Target::TillStep(step), Target::Till]
        }
        None => vec![Target::Email],
    };
    apply(faults.strike(&targets), cut, request, next).await
}

async fn apply(
    struck: Option<(Target, Fault)>,
    cut: Cut,
    request: Request,
    next: Next,
) -> Response {
    let Some((target, fault)) = struck else {
        return next.run(request).await;
    };
    console::info(format_args!("The fault of {target} strikes."));
    tokio::time::sleep(Duration::from_millis(fault.latency_ms)).await;
    if fault.hang {
        if fault.drop == Some(Drop::After) {
            // It is done also if the client goes away meanwhile.
            let _ = tokio::spawn(next.run(request)).await;
        }
        // Until the client goes away, which drops this future.
        return std::future::pending().await;
    }
    if let Some(status) = fault.status {
        return refusal(&target, status, fault.retry_after);
    }
    match fault.drop {
        None => next.run(request).await,
        Some(Drop::Before) => {
            cut.close();
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Some(Drop::After) => {
            let response = next.run(request).await;
            cut.close();
            response
        }
    }
}

/// An error body as the thing that is faulty would write it.
fn refusal(target: &Target, status: u16, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let reason = status.canonical_reason().unwrap_or("Fault");
    let mut response = match target {
        Target::Email => Refusal {
            status,
            code: reason.replace(' ', ""),
            message: "A fault is switched on.".to_owned(),
        }
        .into_response(),
        Target::Bus => (
            status,
            [(header::CONTENT_TYPE, "application/xml; charset=utf-8")],
            format!(
                "<Error><Code>{}</Code><Detail>{reason}. A fault is switched on.</Detail></Error>",
                status.as_u16()
            ),
        )
            .into_response(),
        Target::Till | Target::TillStep(_) => {
            SquareError::of_status(status, "A fault is switched on.").into_response()
        }
        Target::Vendors | Target::Vendor(_) => status.into_response(),
    };
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
