//! The handler from outside: the real binary, and its clients against scripted servers.

#![expect(unreachable_pub, reason = "the modules of a test binary are its own")]

mod acs;
mod api_answers;
mod api_document;
mod asyncapi;
mod audit;
mod azurite;
mod book_store;
mod cancel_by_id;
mod chaos;
mod checkout;
mod contract;
mod copies;
mod dead_letters;
mod devhost;
mod end_to_end;
mod golden;
mod handler;
mod http_client;
mod identity;
mod kills;
mod openapi;
mod openapi_answers;
mod openapi_requests;
mod order_book;
mod order_status;
mod orders_topic;
mod outages;
mod outbox;
mod pos;
mod pos_till;
mod problems;
mod process;
mod provider;
mod recovery;
mod resend;
mod schema_probes;
mod scripted_server;
mod sendgrid;
mod service_bus;
mod smtp;
mod square;
mod square_till;
mod till;
mod triggers;
