//! What became of a message that the broker did not take, or did not say that it took.
//!
//! Made by [`crate::data_plane`] from the service's answers, and read by whoever has to answer for the message: too
//! large is the caller's fault, refused is ours, and the rest passes.

use std::time::Duration;

use thiserror::Error;

use crate::identity::IdentityError;

/// What the broker's own libraries try again: overload, throttling and a gateway without a backend.
pub(crate) const PASSING: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// Why the broker does not have the message, or is not known to have it.
#[derive(Debug, Clone, Error)]
pub enum PublishError {
    /// Nothing was sent: the message can't be expressed in a request.
    #[error("the message can't be sent: {0}")]
    Unsendable(String),
    /// The message is larger than the namespace's tier takes: 256 KB on Standard, 1 MB on Premium.
    #[error("the message is larger than Service Bus takes: {status}: {detail}")]
    TooLarge { status: u16, detail: String },
    /// The service refuses the request and will do so again: wrong rights, no such topic.
    #[error("Service Bus refused the message: {status}: {detail}")]
    Rejected { status: u16, detail: String },
    /// The service is overloaded, throttles or is down, or the topic is full, at the last of several attempts. An earlier
    /// one may have stored the message all the same.
    #[error("Service Bus can't take the message now: {status}: {detail}")]
    Busy {
        status: u16,
        detail: String,
        /// How long the service asked to wait.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent: no connection could be made.
    #[error("could not reach Service Bus: {reason}")]
    Unreachable { reason: String },
    /// At least one attempt was sent and not answered: the broker may have the message.
    #[error("Service Bus did not answer, and may have the message: {reason}")]
    Unanswered { reason: String },
    /// Nothing was sent: the identity has no token.
    #[error(transparent)]
    NoToken(#[from] IdentityError),
}

impl PublishError {
    /// What an answer other than 201 means. `secret` is what we sent as `Authorization`.
    pub(crate) fn answered(
        status: u16,
        body: &str,
        secret: &str,
        retry_after: Option<Duration>,
    ) -> Self {
        refusal(status, service_text(body, secret), retry_after)
    }

    /// One word for it, from this list.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unsendable(_) => "unsendable",
            Self::TooLarge { .. } => "too-large",
            Self::Rejected { .. } => "rejected",
            Self::Busy { .. } => "busy",
            Self::Unreachable { .. } => "unreachable",
            Self::Unanswered { .. } => "unanswered",
            Self::NoToken(_) => "no-token",
        }
    }

    /// Whether the same message may be taken some seconds later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Unreachable { .. }
            | Self::Unanswered { .. }
            | Self::NoToken(_) => true,
            Self::Unsendable(_) | Self::TooLarge { .. } | Self::Rejected { .. } => false,
        }
    }

    /// How long the service asked to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Unsendable(_)
            | Self::TooLarge { .. }
            | Self::Rejected { .. }
            | Self::Unreachable { .. }
            | Self::Unanswered { .. }
            | Self::NoToken(_) => None,
        }
    }
}

/// The service answers 403 to a message that is too large, to a full topic, and to a sender without rights; only its
/// words tell them apart.
fn refusal(status: u16, detail: String, retry_after: Option<Duration>) -> PublishError {
    let words = detail.to_ascii_lowercase();
    let is_full = words.contains("entity size") || words.contains("quota");
    let is_too_large = !is_full && words.contains("message") && words.contains("size");
    match status {
        413 => PublishError::TooLarge { status, detail },
        403 if is_too_large => PublishError::TooLarge { status, detail },
        status if PASSING.contains(&status) || (status == 403 && is_full) => PublishError::Busy {
            status,
            detail,
            retry_after,
        },
        status => PublishError::Rejected { status, detail },
    }
}

/// What the service says, as in `<Error><Code>400</Code><Detail>…</Detail></Error>`, in one line and without
/// signatures, `secret` among them.
///
/// An answer of another form comes from something in between, which may repeat all that we sent: none of it is kept.
pub(crate) fn service_text(body: &str, secret: &str) -> String {
    let detail = body
        .split_once("<Detail>")
        .and_then(|(_, rest)| rest.split_once("</Detail>"))
        .map(|(detail, _)| detail.trim());
    let Some(detail) = detail else {
        return format!(
            "an answer of {} bytes that is not Service Bus's",
            body.len()
        );
    };
    let text = detail
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
        .replace(secret, "[authorization]");
    without_signatures(&text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(400)
        .collect()
}

/// The text without the value of any `sig=`, however it came there.
fn without_signatures(text: &str) -> String {
    let mut parts = text.split("sig=");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find(|c: char| c == '&' || c.is_whitespace());
        kept.push_str("sig=[removed]");
        kept.push_str(rest.map_or("", |rest| &part[rest..]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    // The texts of a full entity are from Azure/azure-service-bus#199 and #683.
    #[test]
    fn the_words_of_a_403_tell_a_large_message_from_a_full_topic() {
        let too_large = "The received message size exceeds the limit (262144 bytes).";
        assert!(matches!(
            refusal(403, too_large.to_owned(), None),
            PublishError::TooLarge { status: 403, .. }
        ));
        let full = "The maximum entity size has been reached or exceeded for Topic: 'contoso:topic:orders'. Size of \
             entity in bytes:10737449478, Max entity size in bytes: 10737418240. For more information please see \
             https://aka.ms/ServiceBusExceptions. QuotaType: EntitySize";
        assert!(matches!(
            refusal(403, full.to_owned(), None),
            PublishError::Busy { status: 403, .. }
        ));
        assert!(matches!(
            refusal(403, "no text".to_owned(), None),
            PublishError::Rejected { status: 403, .. }
        ));
    }

    #[test]
    fn the_services_words_are_kept_in_one_line() {
        let body = "<Error><Code>400</Code><Detail>The value &quot;x&quot;\r\n&amp;amp; is invalid.</Detail></Error>";
        assert_eq!(
            service_text(body, "secret"),
            "The value \"x\"  &amp; is invalid."
        );
        let long = format!("<Detail>{}</Detail>", "é".repeat(1000));
        assert_eq!(service_text(&long, "secret").chars().count(), 400);
    }

    #[test]
    fn no_words_but_the_services_are_kept() {
        for body in [
            "",
            "Bad gateway: ada@example.net",
            "<html>cnon:card-nonce-ok</html>",
        ] {
            let text = service_text(body, "secret");
            assert!(text.ends_with("that is not Service Bus's"), "{text}");
        }
    }

    #[test]
    fn a_signature_is_not_kept_however_it_is_written() {
        let token = "SharedAccessSignature sr=x&sig=bGEs%3D&se=1&skn=n";
        for body in [
            format!("<Detail>{token}</Detail>"),
            format!("<Detail>{}</Detail>", token.replace('&', "&amp;")),
            "<Detail>sr=x&amp;sig=bGEs%3D&amp;se=1 and sig=bGEs</Detail>".to_owned(),
        ] {
            let text = service_text(&body, token);
            assert!(!text.contains("bGEs"), "{text}");
        }
    }
}
