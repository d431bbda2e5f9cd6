//! The stand-ins for the vendors: endpoints that verify each webhook and keep it.
//!
//! Verification is by the crate `standardwebhooks`, which shares nothing with the handler's signer: any of the
//! vendor's secrets will do. A webhook that fails it is kept as well, with `verified: false`, and answered 401.

use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use standardwebhooks::Webhook;

use crate::{
    journal::{Entry, Journal},
    settings::Settings,
};

/// A vendor of the app's own list.
#[derive(Debug, Clone)]
pub struct Vendor {
    pub id: String,
    /// Everything of its entry, to be written out again.
    entry: Map<String, Value>,
    /// Resolved, and not to be shown.
    secrets: Vec<String>,
}

/// One delivery of a webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedWebhook {
    pub vendor: String,
    /// The header `webhook-id`.
    pub id: Option<String>,
    /// The header `webhook-timestamp`: seconds since 1970.
    pub timestamp: Option<i64>,
    /// `type` of the body.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub verified: bool,
    /// Whether this vendor had a verified webhook of this id before.
    pub duplicate: bool,
    /// As JSON, or as text when it is not.
    pub body: Value,
    pub headers: BTreeMap<String, String>,
    pub received_at: Timestamp,
}

/// A webhook as `/_dev/webhooks` shows it: once, however often it came, as a vendor counts who keeps to the standard.
#[derive(Debug, Serialize)]
pub struct ShownWebhook<'a> {
    #[serde(flatten)]
    first: &'a ReceivedWebhook,
    /// How often it came, verified and under the same id.
    deliveries: usize,
}

/// The webhooks of these deliveries, in the order in which each came first.
pub fn by_id(deliveries: &[Arc<ReceivedWebhook>]) -> Vec<ShownWebhook<'_>> {
    let mut shown: Vec<ShownWebhook<'_>> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for delivery in deliveries {
        let place = delivery
            .key()
            .map(|(key, _)| *places.entry(key).or_insert(shown.len()));
        match place.and_then(|place| shown.get_mut(place)) {
            Some(known) => known.deliveries += 1,
            None => shown.push(ShownWebhook {
                first: delivery,
                deliveries: 1,
            }),
        }
    }
    shown
}

impl Entry for ReceivedWebhook {
    fn key(&self) -> Option<(String, String)> {
        let id = self.id.as_deref().filter(|_| self.verified)?;
        Some((webhook_key(&self.vendor, id), String::new()))
    }
}

/// A vendor's id has no slash.
fn webhook_key(vendor: &str, id: &str) -> String {
    format!("{vendor}/{id}")
}

/// The webhooks so far.
pub type Webhooks = Journal<ReceivedWebhook>;

impl Vendor {
    /// Reads a vendor list; the error names the file and what is wrong in it.
    pub fn read_all(file: &FilePath, settings: &Settings) -> Result<Vec<Self>, String> {
        let at = |why: String| format!("{}: {why}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| at(error.to_string()))?;
        // The message of a type error quotes the value, which may be a secret.
        let entries: Vec<Map<String, Value>> = serde_json::from_str(&text).map_err(|error| {
            at(format!(
                "line {}, column {}: this is not a JSON list of objects",
                error.line(),
                error.column()
            ))
        })?;
        let mut vendors = Vec::<Self>::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let name = entry.get("id").and_then(Value::as_str).map_or_else(
                || format!("vendor {index}"),
                |id| format!("vendor {index} (`{id}`)"),
            );
            let vendor = Self::read(entry, settings).map_err(|why| at(format!("{name}: {why}")))?;
            if vendors.iter().any(|known| known.id == vendor.id) {
                return Err(at(format!("{name}: its id appears twice")));
            }
            vendors.push(vendor);
        }
        Ok(vendors)
    }

    fn read(entry: Map<String, Value>, settings: &Settings) -> Result<Self, String> {
        let id = entry
            .get("id")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty() && !id.contains('/'))
            .ok_or("`id` is missing, empty or has a slash")?
            .to_owned();
        if entry.get("name").and_then(Value::as_str).is_none() {
            return Err("`name` is missing".to_owned());
        }
        check_url(&entry)?;
        let listed = entry
            .get("secrets")
            .and_then(Value::as_array)
            .filter(|secrets| !secrets.is_empty())
            .ok_or("`secrets` must be a list with at least one")?;
        let mut secrets = Vec::new();
        for secret in listed {
            let secret = secret
                .as_str()
                .ok_or("`secrets` holds something that is not a string")?;
            let secret = match secret.strip_prefix("env:") {
                None => secret,
                Some(name) => settings
                    .get(name)
                    .ok_or_else(|| format!("the setting `{name}` of its secret is not set"))?,
            };
            if secret.trim_start_matches("whsec_").is_empty() || Webhook::new(secret).is_err() {
                return Err("a secret is not `whsec_` and base64".to_owned());
            }
            secrets.push(secret.to_owned());
        }
        Ok(Self { id, entry, secrets })
    }

    /// Its entry in the list that the handler gets: as it was, but with the stand-in's address.
    pub fn entry_at(&self, outside_port: u16) -> Value {
        let mut entry = self.entry.clone();
        entry.insert(
            "url".to_owned(),
            format!("http://127.0.0.1:{outside_port}/vendors/{}", self.id).into(),
        );
        entry.insert("allowPrivate".to_owned(), true.into());
        entry.into()
    }

    fn verifies(&self, body: &[u8], headers: &HeaderMap) -> bool {
        self.secrets.iter().any(|secret| {
            Webhook::new(secret).is_ok_and(|webhook| webhook.verify(body, headers).is_ok())
        })
    }
}

/// The handler gets the stand-in's address here, but this one in Azure.
fn check_url(entry: &Map<String, Value>) -> Result<(), String> {
    let url: Option<Uri> = entry
        .get("url")
        .and_then(Value::as_str)
        .and_then(|url| url.parse().ok());
    let url = url
        .filter(|url| url.host().is_some_and(|host| !host.is_empty()))
        .ok_or("`url` is not an absolute http or https URL")?;
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if entry.get("allowPrivate") == Some(&Value::Bool(true)) => Ok(()),
        Some("http") => Err("`url` with http:// needs \"allowPrivate\": true".to_owned()),
        _ => Err("`url` is not an absolute http or https URL".to_owned()),
    }
}

#[derive(Clone)]
struct Stand {
    vendors: Arc<Vec<Vendor>>,
    webhooks: Arc<Webhooks>,
}

pub fn router(vendors: Vec<Vendor>, webhooks: Arc<Webhooks>) -> Router {
    Router::new()
        .route("/vendors/{id}", post(receive))
        .layer(DefaultBodyLimit::max(4 * 1024 * 1024))
        .with_state(Stand {
            vendors: Arc::new(vendors),
            webhooks,
        })
}

async fn receive(
    State(stand): State<Stand>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(vendor) = stand.vendors.iter().find(|vendor| vendor.id == id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let verified = vendor.verifies(&body, &headers);
    let json = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
    let mut webhook = ReceivedWebhook {
        vendor: id,
        id: header("webhook-id").map(str::to_owned),
        timestamp: header("webhook-timestamp").and_then(|seconds| seconds.parse().ok()),
        kind: json["type"].as_str().map(str::to_owned),
        verified,
        duplicate: false,
        body: json,
        headers: headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        received_at: Timestamp::now(),
    };
    let kept = stand.webhooks.accept(|known| {
        webhook.duplicate = webhook
            .id
            .as_deref()
            .is_some_and(|id| known.contains_key(&webhook_key(&webhook.vendor, id)));
        (Some(webhook), ())
    });
    match (kept, verified) {
        (Err(_), _) => StatusCode::INTERNAL_SERVER_ERROR,
        (Ok(()), true) => StatusCode::OK,
        (Ok(()), false) => StatusCode::UNAUTHORIZED,
    }
    .into_response()
}
