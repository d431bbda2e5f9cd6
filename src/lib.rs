//! Orderup: takes orders at once, and tells everyone who must know in the background.
//!
//! This crate is the custom handler behind the Azure Functions host, which posts each invocation to a route that has
//! the function's name. The modules, from the outside in:
//!
//! - the functions, one file each: [`checkout`], [`cancel`], [`order_status`], [`problem_page`], [`notify`], [`vendor_notify`],
//!   [`till`], [`book`], [`outbox`];
//! - the two protocols they answer: [`request`] (HTTP API, with [`problem`] and [`problem_type`]) and [`invocation`] (triggers);
//! - a triggered delivery from end to end: [`delivery`], which reads a [`message`] and asks [`history`] what a message's past is, [`outcome`] what
//!   becomes of it, and [`redelivery`] for the copies in which it goes on, which [`patience`] puts onto the bus;
//! - when anybody may be called: [`channel`], with its [`breaker`] and [`rate_limit`], and [`retry_policy`];
//! - what they are about: [`order`], [`place_order`], [`event`], [`order_email`];
//! - what is known of an order: [`order_book`], [`told`] and [`timeline`], as objects of the [`book_store`];
//! - the way out: [`announce`], [`orders_topic`], [`email`] and its providers, [`webhook`], the tills [`square`] and [`pos`];
//! - what is told of it: the log, and, where [`telemetry`] says so, each [`span`] and the [`metrics`], by [`otlp_export`]; an order's
//!   [`trace`] goes along in any case;
//! - for operators, in another process of the same binary: [`command_line`], [`dead_letters`], [`audit`].

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Uri, header},
    middleware::{map_request, map_response},
    response::Response,
    routing::{get, post},
};

pub mod acs;
pub mod announce;
pub mod attempt;
pub mod audit;
pub mod audit_report;
pub mod audit_verdict;
pub mod blob_container;
pub mod blob_list;
pub mod book;
pub mod book_folder;
pub mod book_path;
pub mod book_pause;
pub mod book_store;
pub mod breaker;
pub mod bus_span;
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
pub mod export_settings;
pub mod failure;
pub mod fields;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod history;
pub mod http_client;
pub mod identity;
pub mod invocation;
pub mod json;
mod kept_token;
pub mod locale;
pub mod message;
pub mod metrics;
pub mod notify;
pub mod order;
pub mod order_book;
pub mod order_email;
mod order_email_words;
pub mod order_status;
pub mod order_token;
pub mod orders_topic;
pub mod otlp;
pub mod otlp_export;
pub mod outbox;
pub mod outcome;
pub mod patience;
pub mod place_order;
pub mod pos;
pub mod problem;
pub mod problem_page;
pub mod problem_type;
pub mod properties;
mod provider_call;
mod provider_http;
pub mod public_address;
pub mod publish_error;
pub mod rate_limit;
pub mod redelivery;
pub mod request;
pub mod resend;
pub mod retry;
pub mod retry_policy;
pub mod sampler;
pub mod sas;
pub mod sendgrid;
pub mod shared_key;
pub mod smtp;
pub mod span;
pub mod square;
mod square_errors;
pub mod storage_account;
pub mod store_error;
pub mod telemetry;
pub mod till;
pub mod till_error;
mod till_facts;
mod till_pos;
mod till_square;
#[cfg(test)]
mod till_square_laws;
mod till_square_undo;
pub mod timeline;
pub mod told;
pub mod trace;
pub mod vendor_notify;
pub mod vendor_notify_on;
pub mod vendors;
pub mod webhook;

use tracing::{info, warn};

use announce::BusRest;
use book_store::BookStore;
use cancelled_orders::CancelledOrders;
use channel::Channel;
use config::{ConfigError, Settings};
use connection::TopicSettings;
use delivery::Deliverer;
use email::EmailSender;
use order_book::OrderBook;
use order_token::OrderTokens;
use orders_topic::OrdersTopic;
use outbox::Unrecorded;
use problem::Problem;
use problem_type::ProblemType;
use rate_limit::RateLimit;
use retry_policy::RetryPolicy;
use till::Till;
use vendor_notify_on::VendorNotifyOn;
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
    pub vendor_notify_on: VendorNotifyOn,
    pub bus_rest: BusRest,
    pub unrecorded: Unrecorded,
    pub till: Option<Till>,
    pub till_channel: Channel,
    /// The way out, but for webhooks.
    pub http: reqwest::Client,
    /// Without them nobody but the holders of a key may ask for an order's status.
    pub order_tokens: Option<OrderTokens>,
}

impl App {
    /// Reads all settings, without touching the network. Every setting that is missing or wrong is told at once.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<ConfigError>> {
        let http = http_client::outgoing(settings).map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        let topic = usable(TopicSettings::read(settings), &mut errors);
        let policy = usable(RetryPolicy::from_settings(settings), &mut errors);
        // The others are read all the same, so that every mistake is told.
        let any_policy = policy.clone().unwrap_or_default();
        let emails = usable(EmailSender::from_settings(settings, &http), &mut errors);
        let limit = emails
            .as_ref()
            .map_or("none", EmailSender::default_rate_limit);
        let limit = usable(RateLimit::from_settings(settings, limit), &mut errors);
        let vendors = usable(Vendors::from_settings(settings, &any_policy), &mut errors);
        let book = usable(BookStore::from_settings(settings, &http), &mut errors);
        let has_book = !matches!(book, Some(None));
        let till = usable(Till::from_settings(settings, &http, has_book), &mut errors);
        let has_till = Till::is_configured(settings);
        let notify_on = VendorNotifyOn::from_settings(settings, has_till);
        let notify_on = usable(notify_on, &mut errors);
        let order_tokens = usable(OrderTokens::from_settings(settings), &mut errors);
        let app = || {
            let policy = policy?;
            Some(Self {
                email_channel: Channel::new(
                    "the email provider",
                    emails.as_ref()?.name(),
                    &policy,
                    Some(limit?),
                ),
                till_channel: Channel::new(
                    "the till",
                    till.as_ref()?.as_ref().map_or("none", Till::name),
                    &policy,
                    None,
                ),
                deliverer: Deliverer {
                    topic: OrdersTopic::new(&topic?, &http),
                    policy,
                    book: OrderBook::new(book?),
                    publish_until: patience::PUBLISH_UNTIL,
                },
                emails: emails?,
                vendors: vendors?,
                webhooks: WebhookClient::new(webhook::TIMEOUT),
                cancelled_orders: CancelledOrders::default(),
                vendor_notify_on: notify_on?,
                bus_rest: BusRest::default(),
                unrecorded: Unrecorded::default(),
                till: till?,
                order_tokens: order_tokens?,
                http: http.clone(),
            })
        };
        app().ok_or(errors)
    }
}

/// The setting's value; what is wrong with it goes to the errors.
fn usable<T>(read: Result<T, ConfigError>, errors: &mut Vec<ConfigError>) -> Option<T> {
    read.map_err(|error| errors.push(error)).ok()
}

impl App {
    pub fn book(&self) -> &OrderBook {
        &self.deliverer.book
    }

    /// Says once, at start, which functions have nothing to do.
    pub fn announce_what_is_off(&self) {
        if self.till.is_none() {
            info!(
                "no till is configured (TILL): the function till completes its messages and does nothing"
            );
        }
        if !self.book().is_kept() {
            warn!(
                "no order book is kept (ORDER_BOOK, AzureWebJobsStorage): orders have no status, are cancelled by their \
                 snapshot only, and are refused while Service Bus is down"
            );
        }
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
        .layer(map_response(closed))
}

/// An answer that does not say how it may be kept is not kept: one has an order's token in it, and a 404 is true for some
/// seconds only. None is ever taken for a page. No answer has a header of CORS: a browser's page of another origin gets
/// nothing.
async fn closed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// The path of an HTTP function as the routes have it, where the caller wrote it in another way.
fn canonical(uri: &Uri) -> Option<Uri> {
    let path = uri.path().to_ascii_lowercase();
    let path = path.strip_suffix('/').unwrap_or(&path);
    if !path.starts_with("/api/") || path == uri.path() {
        return None;
    }
    match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

fn routes(app: App) -> Router {
    let order_status = get(order_status::order_status);
    Router::new()
        .route("/", get(ready))
        .route("/api/checkout", post(checkout::checkout))
        .route("/api/orders/{order_id}/cancel", post(cancel::cancel))
        .route("/api/orders/{order_id}", get(order_status::order))
        .route("/api/orders/{order_id}/status", order_status)
        .route("/api/problems/{name}", get(problem_page::problem_page))
        .route("/notify", post(notify::notify))
        .route("/vendor-notify", post(vendor_notify::vendor_notify))
        .route("/till", post(till::till))
        .route("/book", post(book::book))
        .route("/outbox", post(outbox::outbox))
        .layer(DefaultBodyLimit::max(LONGEST_ENVELOPE))
        .fallback(async || Problem::new(ProblemType::NotFound, "There is nothing here."))
        .method_not_allowed_fallback(async || {
            Problem::new(
                ProblemType::MethodNotAllowed,
                "This route does not take that method.",
            )
        })
        .with_state(app)
}

/// The host asks this every 25 ms until it is answered.
async fn ready() -> &'static str {
    "orderup\n"
}
