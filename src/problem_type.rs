//! The kinds of error answers that the HTTP API gives: the `type` of a problem (RFC 9457, section 3.1.1), with its status and its
//! title, and what its page says ([`crate::problem_page`]).
//!
//! The type is a reference relative to the API itself, with its whole path, so that it leads to a page wherever the API
//! runs. Names are part of the contract: `docs/openapi.json` has them all, and a name never comes to mean something else.

use axum::http::StatusCode;

/// Where the pages are.
pub const PAGES: &str = "/api/problems/";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    InvalidJson,
    IncompleteBody,
    InvalidIdempotencyKey,
    OrderTokenRequired,
    NotFound,
    OrderNotFound,
    NoOrderBook,
    NoOrderTokens,
    MethodNotAllowed,
    BodyTimeout,
    TooLateToCancel,
    TooLarge,
    UnsupportedMediaType,
    InvalidFields,
    InternalError,
    NotTaken,
    OrderNotInBookYet,
    OrderBookUnavailable,
}

/// What is the same of all problems of a type.
struct Facts {
    name: &'static str,
    status: StatusCode,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

impl ProblemType {
    pub const ALL: [Self; 18] = [
        Self::InvalidJson,
        Self::IncompleteBody,
        Self::InvalidIdempotencyKey,
        Self::OrderTokenRequired,
        Self::NotFound,
        Self::OrderNotFound,
        Self::NoOrderBook,
        Self::NoOrderTokens,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::TooLateToCancel,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidFields,
        Self::InternalError,
        Self::NotTaken,
        Self::OrderNotInBookYet,
        Self::OrderBookUnavailable,
    ];

    /// The type of that name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// The last segment of its URI.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The value of `type`.
    pub fn uri(self) -> String {
        format!("{PAGES}{}", self.name())
    }

    pub fn status(self) -> StatusCode {
        self.facts().status
    }

    /// The value of `title`, the same for all problems of the type.
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// What has happened, in plain text.
    pub fn meaning(self) -> &'static str {
        self.facts().meaning
    }

    /// What the caller can do about it, in plain text.
    pub fn remedy(self) -> &'static str {
        self.facts().remedy
    }

    fn facts(self) -> Facts {
        match self {
            Self::InvalidJson => Facts {
                name: "invalid-json",
                status: StatusCode::BAD_REQUEST,
                title: "The body is not JSON",
                meaning: "The body is empty, or is not one JSON document; the detail says where reading it ended. An object that names \
                          a key twice is refused as well, because two readers may keep different values, and so are more than 127 \
                          levels of nesting.",
                remedy: "Send one JSON document in UTF-8 that names each key once. Nothing was taken.",
            },
            Self::IncompleteBody => Facts {
                name: "incomplete-body",
                status: StatusCode::BAD_REQUEST,
                title: "The body ended before its time",
                meaning: "The connection was closed before the whole body had come.",
                remedy: "Send the same request again. Nothing was taken.",
            },
            Self::InvalidIdempotencyKey => Facts {
                name: "invalid-idempotency-key",
                status: StatusCode::BAD_REQUEST,
                title: "The Idempotency-Key is not valid",
                meaning: "There is more than one Idempotency-Key header, or its value is longer than 255 characters, has a double quote \
                          within it or only at one end, or has characters other than printable ASCII.",
                remedy: "Send one key, bare or in double quotes; a UUID does well. Nothing was taken.",
            },
            Self::OrderTokenRequired => Facts {
                name: "order-token-required",
                status: StatusCode::UNAUTHORIZED,
                title: "The order's token is missing or wrong",
                meaning: "This status is for whoever has the token of the order, and the request has none or not that one. The answer \
                          is the same whether there is such an order or not.",
                remedy: "Take the token or links.status from the answer of checkout, and send the token as Authorization: Bearer, or \
                         in the query as token. A token ends when the secret that signed it is taken out of ORDER_TOKEN_SECRET.",
            },
            Self::NotFound => Facts {
                name: "not-found",
                status: StatusCode::NOT_FOUND,
                title: "There is nothing at this address",
                meaning: "The path is none of this API.",
                remedy: "Compare the path with docs/openapi.json of Orderup.",
            },
            Self::OrderNotFound => Facts {
                name: "order-not-found",
                status: StatusCode::NOT_FOUND,
                title: "There is no such order",
                meaning: "The id in the path is not a UUID, or the order book has no order of it and the id does not say that it may \
                          have been made within the last day.",
                remedy: "Check the id. If the order was sent with an Idempotency-Key within the last seconds, it may be on its way \
                         into the order book: ask again, or ask with the order's token.",
            },
            Self::NoOrderBook => Facts {
                name: "no-order-book",
                status: StatusCode::NOT_FOUND,
                title: "No order book is kept",
                meaning: "This installation keeps no order book, and so knows no order's status. Orders are taken all the same.",
                remedy: "Asking again does not help. Whoever runs it turns the order book on with the setting ORDER_BOOK.",
            },
            Self::NoOrderTokens => Facts {
                name: "no-order-tokens",
                status: StatusCode::NOT_FOUND,
                title: "Orders have no tokens",
                meaning: "This installation signs no tokens for orders, and so nobody can ask for a status with one.",
                remedy: "With a key of the app, ask for /api/orders/{orderId}. Whoever runs it turns tokens on with the setting \
                         ORDER_TOKEN_SECRET.",
            },
            Self::MethodNotAllowed => Facts {
                name: "method-not-allowed",
                status: StatusCode::METHOD_NOT_ALLOWED,
                title: "This address does not take that method",
                meaning: "The path is one of this API, and the method is not.",
                remedy: "Use one of the methods in the header Allow.",
            },
            Self::BodyTimeout => Facts {
                name: "body-timeout",
                status: StatusCode::REQUEST_TIMEOUT,
                title: "The body did not come in time",
                meaning: "The body had not come as a whole within 20 seconds.",
                remedy: "Send the same request again. Nothing was taken.",
            },
            Self::TooLateToCancel => Facts {
                name: "too-late-to-cancel",
                status: StatusCode::CONFLICT,
                title: "The order can't be cancelled any more",
                meaning: "The order has gone to the till, which may be taking the payment just now or has taken it; the detail says which.",
                remedy: "A confirmed order is cancelled and refunded at the till. One that the till declines is cancelled by itself; its \
                         status tells.",
            },
            Self::TooLarge => Facts {
                name: "too-large",
                status: StatusCode::PAYLOAD_TOO_LARGE,
                title: "The order is too large",
                meaning: "The body is larger than 262,144 bytes, or the order in it is too large for a message of the bus once its properties \
                          are added.",
                remedy: "Split the order, or shorten the names in it. The same request will never be taken.",
            },
            Self::UnsupportedMediaType => Facts {
                name: "unsupported-media-type",
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                title: "The body is not called JSON, or is compressed",
                meaning: "The Content-Type is neither application/json nor one that ends in +json, or there is a Content-Encoding.",
                remedy: "Send Content-Type: application/json, and the body uncompressed. Nothing was taken.",
            },
            Self::InvalidFields => Facts {
                name: "invalid-fields",
                status: StatusCode::UNPROCESSABLE_ENTITY,
                title: "Some fields are not valid",
                meaning: "The member errors lists every field that is wrong: its place in the body as a JSON Pointer, and what it should \
                          be. What was sent is not repeated.",
                remedy: "Correct the fields and send the request again. Nothing was taken. A card number is refused wherever it stands: \
                         payment.source is the token that the payment provider gave for it.",
            },
            Self::InternalError => Facts {
                name: "internal-error",
                status: StatusCode::INTERNAL_SERVER_ERROR,
                title: "Something is wrong on our side",
                meaning: "The request met a fault of Orderup's own. Whether it was taken is not known.",
                remedy: "Send the same request again, with the same Idempotency-Key. If it goes on, whoever runs the installation finds \
                         the place of the fault in its log, by the time of the request.",
            },
            Self::NotTaken => Facts {
                name: "not-taken",
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "The request could not be taken just now",
                meaning: "Neither the bus nor the order book's outbox could keep the request, and so it was not accepted. In rare cases, where \
                          an answer was lost on the way, it is there all the same.",
                remedy: "Send the same request again after the time in Retry-After. With the same Idempotency-Key it is the same \
                         order, and is not taken twice within ten minutes.",
            },
            Self::OrderNotInBookYet => Facts {
                name: "order-not-in-book-yet",
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "The order is not in the order book yet",
                meaning: "The id may be that of an order that was accepted, and the order book does not have it after five seconds. It \
                          is not cancelled. Of an id that was made of an Idempotency-Key nobody can tell whether it was accepted.",
                remedy: "Send the same request again after the time in Retry-After. If you know that the order was never accepted, stop.",
            },
            Self::OrderBookUnavailable => Facts {
                name: "order-book-unavailable",
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "The order book does not answer just now",
                meaning: "The storage of the order book is down, slow or refuses us. That says nothing about the order.",
                remedy: "Send the same request again after the time in Retry-After.",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_name_and_a_title_of_its_own() {
        for (index, one) in ProblemType::ALL.into_iter().enumerate() {
            let name = one.name();
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{name}"
            );
            assert_eq!(ProblemType::named(name), Some(one));
            assert_eq!(one.uri(), format!("/api/problems/{name}"));
            for other in &ProblemType::ALL[..index] {
                assert_ne!(one.title(), other.title());
            }
        }
        assert_eq!(ProblemType::named(""), None);
        assert_eq!(ProblemType::named("Invalid-JSON"), None);
    }
}
