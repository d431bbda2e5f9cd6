//! Shared access signatures: who may use the REST data plane.
//!
//! Every request is checked before its path or content is looked at, so that a caller without a key cannot probe for
//! entities.
//! The signature covers `sr` exactly as it is written. Of the address in it only the path counts, which must be a prefix
//! of the request's: scheme, host and port are free (`sb://`, `https://{ns}.servicebus.windows.net`, `localhost:5300`),
//! because one and the same client setting may name an emulator in all of these ways.
//! The format: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas>.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use sha2::Sha256;

use crate::rest::SharedAccessPolicy;

/// Why a request is not authorised, in the words of Service Bus's 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unauthorized {
    #[error("MissingToken: The authorization header was not found.")]
    Missing,
    #[error(
        "MalformedToken: The authorization header is not a SharedAccessSignature with sr, sig, se and skn."
    )]
    Malformed,
    #[error(
        "UnsupportedToken: The emulator has no Entra tenant: sign with the shared access policy."
    )]
    Bearer,
    #[error("InvalidSignature: The token has an invalid signature.")]
    InvalidSignature,
    #[error("ExpiredToken: The token is expired.")]
    Expired,
    #[error("InvalidAudience: The authorization header contains a token with a wrong audience.")]
    InvalidAudience,
}

/// What a token lets its holder use, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The path of the token's address, decoded and in lower case; it covers whatever lies below it.
    resource: Vec<String>,
    /// In seconds of Unix time.
    expires_at: i64,
}

impl Grant {
    /// Whether it covers that path (decoded segments) at that time.
    pub(crate) fn covers(&self, path: &[String], now: Timestamp) -> bool {
        self.expires_at > now.as_second()
            && self.resource.len() <= path.len()
            && self
                .resource
                .iter()
                .zip(path)
                .all(|(resource, segment)| *resource == segment.to_lowercase())
    }

    /// Whether the other one covers the same.
    pub(crate) fn is_renewed_by(&self, other: &Self) -> bool {
        self.resource == other.resource
    }

    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now.as_second()
    }
}

/// Checks the value of an Authorization header for a request to `path` (decoded segments).
pub(crate) fn verify(
    header: Option<&str>,
    path: &[String],
    policy: &SharedAccessPolicy,
    now: Timestamp,
) -> Result<(), Unauthorized> {
    let grant = grant(header.ok_or(Unauthorized::Missing)?, policy, now)?;
    if grant.covers(path, now) {
        Ok(())
    } else {
        Err(Unauthorized::InvalidAudience)
    }
}

/// What the token in the value of an Authorization header lets its holder use.
pub(crate) fn grant(
    header: &str,
    policy: &SharedAccessPolicy,
    now: Timestamp,
) -> Result<Grant, Unauthorized> {
    let (scheme, token) = header
        .trim()
        .split_once(' ')
        .ok_or(Unauthorized::Malformed)?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Unauthorized::Bearer);
    }
    if !scheme.eq_ignore_ascii_case("SharedAccessSignature") {
        return Err(Unauthorized::Malformed);
    }
    let token = Token::parse(token.trim()).ok_or(Unauthorized::Malformed)?;
    if token.policy != policy.name || !token.is_signed_with(&policy.key) {
        return Err(Unauthorized::InvalidSignature);
    }
    if token.expires_at <= now.as_second() {
        return Err(Unauthorized::Expired);
    }
    let resource = audience_path(&decode(token.resource)).ok_or(Unauthorized::InvalidAudience)?;
    Ok(Grant {
        resource: resource
            .iter()
            .map(|segment| segment.to_lowercase())
            .collect(),
        expires_at: token.expires_at,
    })
}

struct Token<'a> {
    /// As written, percent-encoded: this text is what is signed.
    resource: &'a str,
    signature: Vec<u8>,
    /// As written, for the same reason.
    expiry: &'a str,
    expires_at: i64,
    policy: String,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let field = |name: &str| {
            token
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let expiry = field("se")?;
        Some(Self {
            resource: field("sr")?,
            signature: BASE64.decode(decode(field("sig")?)).ok()?,
            expiry,
            expires_at: expiry.parse().ok()?,
            policy: decode(field("skn")?),
        })
    }

    fn is_signed_with(&self, key: &str) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
            return false;
        };
        mac.update(self.resource.as_bytes());
        mac.update(b"\n");
        mac.update(self.expiry.as_bytes());
        // In constant time.
        mac.verify_slice(&self.signature).is_ok()
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The segments of the address's path, without query, scheme, host and port. `None` without a host, since the
/// rest could then be taken for one and the whole namespace be meant.
pub(crate) fn audience_path(address: &str) -> Option<Vec<String>> {
    let address = address.split(['?', '#']).next()?;
    let (scheme, address) = match address.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, address),
    };
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let path = segments(path);
    let has_host = !host.is_empty() && !host.starts_with(':');
    let is_clear = scheme.map_or(!path.is_empty(), |scheme| !scheme.is_empty());
    (has_host && is_clear).then_some(path)
}

/// The segments of a path, decoded; an encoded slash separates as well, since names may hold slashes.
pub(crate) fn segments(path: &str) -> Vec<String> {
    decode(path)
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> SharedAccessPolicy {
        SharedAccessPolicy::default()
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn encode(text: &str) -> String {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    }

    fn token(address: &str, expiry: i64, key: &str, policy: &str) -> String {
        let resource = encode(address);
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = encode(&BASE64.encode(mac.finalize().into_bytes()));
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}")
    }

    fn check(header: Option<&str>, path: &str) -> Result<(), Unauthorized> {
        verify(header, &segments(path), &policy(), now())
    }

    fn signed(address: &str) -> String {
        token(
            address,
            now().as_second() + 60,
            &policy().key,
            &policy().name,
        )
    }

    #[test]
    fn the_audience_is_taken_however_its_host_is_written() {
        for address in [
            "http://localhost:5300/orders/messages",
            "https://myns.servicebus.windows.net/orders",
            "sb://myns.servicebus.windows.net/",
            "sb://localhost",
            "localhost/Orders/",
            "HTTP://127.0.0.1/orders/messages?timeout=60",
        ] {
            assert_eq!(
                check(Some(&signed(address)), "orders/messages"),
                Ok(()),
                "{address}"
            );
        }
    }

    #[test]
    fn the_audience_covers_what_lies_below_it_and_nothing_else() {
        for (address, path) in [
            ("http://h/orders", "order/messages"),
            ("http://h/order", "orders/messages"),
            ("http://h/orders/messages/head", "orders/messages"),
            ("http://h/notifications", "orders/messages"),
            ("orders", "orders/messages"),
            ("orders/", "orders/messages"),
            ("/orders", "orders/messages"),
            ("", "orders/messages"),
            ("http:///", "orders/messages"),
            ("http:///orders", "orders/messages"),
            ("http://:5300/orders", "orders/messages"),
            ("://h/orders", "orders/messages"),
        ] {
            assert_eq!(
                check(Some(&signed(address)), path),
                Err(Unauthorized::InvalidAudience),
                "{address} for {path}"
            );
        }
    }

    #[test]
    fn what_is_not_a_valid_token_is_refused_for_its_own_reason() {
        let later = now().as_second() + 60;
        let good = signed("http://h/q");
        for (header, reason) in [
            (None, Unauthorized::Missing),
            (Some(String::new()), Unauthorized::Malformed),
            (Some("Basic dTpw".to_owned()), Unauthorized::Malformed),
            (Some("Bearer eyJ".to_owned()), Unauthorized::Bearer),
            (
                Some(good.replace("&skn=", "&name=")),
                Unauthorized::Malformed,
            ),
            (Some(good.replace("&se=", "&se=x")), Unauthorized::Malformed),
            (
                Some(good.replace("&se=", "&se=9")),
                Unauthorized::InvalidSignature,
            ),
            (
                Some(good.replace("%2Fq", "%2Fp")),
                Unauthorized::InvalidSignature,
            ),
            (
                Some(token("http://h/q", later, "other key", &policy().name)),
                Unauthorized::InvalidSignature,
            ),
            (
                Some(token("http://h/q", later, &policy().key, "Other")),
                Unauthorized::InvalidSignature,
            ),
            (
                Some(token(
                    "http://h/q",
                    now().as_second(),
                    &policy().key,
                    &policy().name,
                )),
                Unauthorized::Expired,
            ),
        ] {
            assert_eq!(
                check(header.as_deref(), "q/messages"),
                Err(reason),
                "{header:?}"
            );
        }
    }

    /// Signed by an independent implementation: Python's `hmac` and `urllib.parse.quote_plus`.
    #[test]
    fn a_token_from_elsewhere_is_understood() {
        let token = PYTHON_TOKEN;
        assert_eq!(check(Some(token), "orders/messages"), Ok(()));
    }

    const PYTHON_TOKEN: &str = "SharedAccessSignature sr=sb%3A%2F%2Flocalhost%2Forders&sig=Mdayl40vq572q6LJwhRBQsMUS68PcK0CJvX7%2F2NJoLE%3D&se=1795380221&skn=RootManageSharedAccessKey";
}
