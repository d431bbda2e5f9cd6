//! The HMAC by which requests to Azure Communication Services are signed, from the verifier's side.
//!
//! `string-to-sign = VERB\npath?query\ndate;host;content-hash`; the header names what was signed, in that order.
//! (The rules are those of learn.microsoft.com "Authentication" of Communication Services; the clock may be off by
//! fifteen minutes, as with the same scheme of App Configuration.)

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Method};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const MOST_SKEW: Duration = Duration::from_secs(15 * 60);
const PREFIX: &str = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=";

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    pub method: &'a Method,
    /// As on the request line, unchanged.
    pub path_and_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Checks the signature; the error says which part is wrong, and holds no secret.
pub fn verify(
    request: SignedRequest<'_>,
    access_key: &[u8],
    now: SystemTime,
) -> Result<(), String> {
    let header = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .ok_or(format!("the header {name} is missing"))
    };
    let authorization = header("authorization")?;
    let signature = authorization.strip_prefix(PREFIX).ok_or(format!(
        "Authorization must begin with `{PREFIX}` (the stand-in takes no tokens)"
    ))?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| "the signature is not base64".to_owned())?;
    let date = header("x-ms-date")?;
    let time =
        httpdate::parse_http_date(date).map_err(|_| "x-ms-date is not an HTTP date".to_owned())?;
    let skew = now
        .duration_since(time)
        .unwrap_or_else(|ahead| ahead.duration());
    if skew > MOST_SKEW {
        return Err(format!(
            "x-ms-date is {} s away from now; at most {} s are allowed",
            skew.as_secs(),
            MOST_SKEW.as_secs()
        ));
    }
    let hash = header("x-ms-content-sha256")?;
    if hash != STANDARD.encode(Sha256::digest(request.body)) {
        return Err("x-ms-content-sha256 is not the hash of the body".to_owned());
    }
    let host = header("host")?;
    let signed = format!(
        "{}\n{}\n{date};{host};{hash}",
        request.method, request.path_and_query
    );
    Hmac::<Sha256>::new_from_slice(access_key)
        .map_err(|_| "the access key cannot be used".to_owned())?
        .chain_update(signed)
        .verify_slice(&signature)
        .map_err(|_| "the signature does not match the request".to_owned())
}
