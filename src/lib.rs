//! Orderup: takes orders at once, and tells everyone who must know in the background.

pub mod card_number;
pub mod config;
pub mod event;
pub mod fields;
pub mod http_client;
pub mod identity;
pub mod json;
pub mod order;
pub mod place_order;
pub mod retry;
