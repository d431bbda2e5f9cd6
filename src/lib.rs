//! Orderup: takes orders at once, and tells everyone who must know in the background.

pub mod acs;
pub mod card_number;
pub mod config;
pub mod connection;
pub mod data_plane;
pub mod email;
pub mod event;
pub mod fields;
pub mod http_client;
pub mod identity;
pub mod json;
pub mod locale;
pub mod order;
pub mod order_email;
mod order_email_words;
pub mod orders_topic;
pub mod place_order;
mod provider_http;
pub mod public_address;
pub mod publish_error;
pub mod resend;
pub mod retry;
pub mod sas;
pub mod sendgrid;
pub mod smtp;
pub mod vendors;
pub mod webhook;
