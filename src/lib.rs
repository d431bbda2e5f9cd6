//! Orderup: takes orders at once, and tells everyone who must know in the background.
//!
//! This crate is the custom handler behind the Azure Functions host, which posts each invocation to a route that has
//! the function's name. The modules, from the outside in:
//!
//! - the functions, one file each: [`checkout`], [`cancel`], [`notify`], [`vendor_notify`];
//! - the two protocols they answer: [`request`] (HTTP API, with [`problem`]) and [`invocation`] (triggers);
//! - a triggered delivery from end to end: [`delivery`], which asks [`history`] what a message's past is, [`outcome`] what
//!   becomes of it, and [`redelivery`] for the copies in which it goes on, which [`patience`] puts onto the bus;
//! - when anybody may be called: [`channel`], with its [`breaker`] and [`rate_limit`], and [`retry_policy`];
//! - what they are about: [`order`], [`place_order`], [`event`], [`order_email`];
//! - the way out: [`orders_topic`], [`email`] and its providers, [`webhook`];
//! - for operators, in another process of the same binary: [`command_line`], [`dead_letters`].

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef, Request},
    http::{StatusCode, Uri},
    middleware::map_request,
    routing::{get, post},
};

pub mod acs;
pub mod announce;
pub mod attempt;
pub mod blob_container;
pub mod blob_list;
pub mod book_folder;
pub mod book_path;
pub mod book_pause;
pub mod book_store;
pub mod breaker;
pub mod cancel;
pub mod cancelled_orders;
pub mod card_number;
pub mod channel;
pub mod checkout;
pub mod command_line;
pub mod config;
pub mod connection;
pub mod data_plane;
pub mod dead_letter;
pub mod dead_letter_copy;
pub mod dead_letter_queue;
pub mod dead_letter_report;
pub mod dead_letter_walk;
pub mod dead_letters;
pub mod delivery;
pub mod delivery_summary;
pub mod durations;
pub mod email;
pub mod event;
pub mod failure;
pub mod fields;
pub mod history;
pub mod http_client;
pub mod identity;
pub mod invocation;
pub mod json;
pub mod locale;
pub mod notify;
pub mod order;
pub mod order_email;
mod order_email_words;
pub mod orders_topic;
pub mod outcome;
pub mod patience;
pub mod place_order;
pub mod pos;
pub mod problem;
pub mod properties;
mod provider_http;
pub mod public_address;
pub mod publish_error;
pub mod rate_limit;
pub mod redelivery;
pub mod request;
pub mod resend;
pub mod retry;
pub mod retry_policy;
pub mod sas;
pub mod sendgrid;
pub mod shared_key;
pub mod smtp;
pub mod square;
mod square_errors;
pub mod storage_account;
pub mod store_error;
pub mod till_error;
pub mod trace;
pub mod vendor_notify;
pub mod vendors;
pub mod webhook;

use cancelled_orders::CancelledOrders;
use channel::Channel;
use config::{ConfigError, Settings};
use connection::TopicSettings;
use delivery::Deliverer;
use email::EmailSender;
use orders_topic::OrdersTopic;
use problem::Problem;
use rate_limit::RateLimit;
use retry_policy::RetryPolicy;
use vendors::Vendors;
use webhook::WebhookClient;

/// The longest envelope that is taken from the host. A message of 1 MB is 1.4 MB in base64, and up to four times its
/// size where the host escapes it twice; `Metadata` comes on top.
const LONGEST_ENVELOPE: usize = 8 * 1024 * 1024;

/// What the functions share. Clones are cheap, and share what is in memory.
#[derive(Clone)]
pub struct App {
    pub deliverer: Deliverer,
    pub emails: EmailSender,
    pub email_channel: Channel,
    pub vendors: Vendors,
    pub webhooks: WebhookClient,
    pub cancelled_orders: CancelledOrders,
}

impl App {
    /// Reads all settings, without touching the network. Every setting that is missing or wrong is told at once.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<ConfigError>> {
        let http = http_client::outgoing(settings).map_err(|error| vec![error])?;
        let topic = TopicSettings::read(settings);
        let policy = RetryPolicy::from_settings(settings);
        let emails = EmailSender::from_settings(settings, &http);
        // The others are read all the same, so that every mistake is told.
        let any_policy = policy.clone().unwrap_or_default();
        let vendors = Vendors::from_settings(settings, &any_policy);
        let default_limit = emails
            .as_ref()
            .map_or("none", EmailSender::default_rate_limit);
        let limit = RateLimit::from_settings(settings, default_limit);
        match (topic, policy, emails, vendors, limit) {
            (Ok(topic), Ok(policy), Ok(emails), Ok(vendors), Ok(limit)) => Ok(Self {
                email_channel: Channel::new("the email provider", &policy, Some(limit)),
                deliverer: Deliverer {
                    topic: OrdersTopic::new(&topic, &http),
                    policy,
                    publish_until: patience::PUBLISH_UNTIL,
                },
                emails,
                vendors,
                webhooks: WebhookClient::new(webhook::TIMEOUT),
                cancelled_orders: CancelledOrders::default(),
            }),
            (topic, policy, emails, vendors, limit) => Err([
                topic.err(),
                policy.err(),
                emails.err(),
                vendors.err(),
                limit.err(),
            ]
            .into_iter()
            .flatten()
            .collect()),
        }
    }
}

impl FromRef<App> for OrdersTopic {
    fn from_ref(app: &App) -> Self {
        app.deliverer.topic.clone()
    }
}

/// The routes: `/api/…` for HTTP functions, as the host forwards them, and `/{function}` for triggers, in exact case.
///
/// The host compares the routes of HTTP functions without regard to case and to a slash at the end, and passes on what
/// the caller wrote.
pub fn router(app: App) -> Router {
    // What a layer changes of the path counts only for the routes within it.
    Router::new()
        .fallback_service(routes(app))
        .layer(map_request(async |mut request: Request| {
            if let Some(uri) = canonical(request.uri()) {
                *request.uri_mut() = uri;
            }
            request
        }))
}

/// The path of an HTTP function as the routes have it, where the caller wrote it in another way.
fn canonical(uri: &Uri) -> Option<Uri> {
    let path = uri.path().to_ascii_lowercase();
    let path = path.strip_suffix('/').unwrap_or(&path);
    if !path.starts_with("/api/") || path == uri.path() {
        return None;
    }
    path.parse().ok()
}

fn routes(app: App) -> Router {
    Router::new()
        .route("/", get(ready))
        .route("/api/checkout", post(checkout::checkout))
        .route("/api/orders/{order_id}/cancel", post(cancel::cancel))
        .route("/notify", post(notify::notify))
        .route("/vendor-notify", post(vendor_notify::vendor_notify))
        .layer(DefaultBodyLimit::max(LONGEST_ENVELOPE))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "There is nothing here."))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "This route does not take that method.",
            )
        })
        .with_state(app)
}

/// The host asks this every 25 ms until it is answered.
async fn ready() -> &'static str {
    "orderup\n"
}
