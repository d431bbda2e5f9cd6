//! Shared Key: how a storage account knows a request that was made with its key.
//!
//! Each request is signed anew, because its date and its body's length are part of what is signed. The format is
//! Microsoft's "Authorize with Shared Key", for version 2015-02-21 of the Blob service and later.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

/// What is signed after the length, in this order; it is empty where a request has no such header. The date is that of
/// `x-ms-date`, which every request of ours has.
const SIGNED_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("content-md5"),
    header::CONTENT_TYPE,
    header::DATE,
];
const SIGNED_CONDITIONS: [HeaderName; 5] = [
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Those of the service's own that our requests have, sorted.
const OWN_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-ms-blob-type"),
    HeaderName::from_static("x-ms-date"),
    HeaderName::from_static("x-ms-version"),
];

/// An account's name and one of its two keys, decoded.
pub struct AccountKey {
    name: String,
    key: SecretBox<Vec<u8>>,
}

impl AccountKey {
    pub fn new(name: &str, key: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            key: SecretBox::new(Box::new(key)),
        }
    }

    /// The value of `Authorization` for a request that has its other headers already, and whose parameters are in
    /// alphabetical order.
    pub fn authorization(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body_length: usize,
    ) -> HeaderValue {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret())
            .expect("HMAC takes a key of any length");
        mac.update(
            self.string_to_sign(method, url, headers, body_length)
                .as_bytes(),
        );
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let mut value = HeaderValue::from_str(&format!("SharedKey {}:{signature}", self.name))
            .expect("an account's name is plain ASCII");
        value.set_sensitive(true);
        value
    }

    fn string_to_sign(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body_length: usize,
    ) -> String {
        let value = |name: &HeaderName| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        // No encoding and no language; and no length of an empty body.
        let mut text = format!("{method}\n\n\n");
        if body_length > 0 {
            text.push_str(&body_length.to_string());
        }
        for name in SIGNED_HEADERS.iter().chain(&SIGNED_CONDITIONS) {
            text.push('\n');
            text.push_str(value(name));
        }
        text.push('\n');

        for name in OWN_HEADERS
            .iter()
            .filter(|name| headers.contains_key(*name))
        {
            text.push_str(&format!("{name}:{}\n", value(name)));
        }

        text.push_str(&format!("/{}{}", self.name, url.path()));
        for (name, value) in url.query_pairs() {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }
}

impl Clone for AccountKey {
    fn clone(&self) -> Self {
        Self::new(&self.name, self.key.expose_secret().clone())
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: HeaderValue = HeaderValue::from_static("Wed, 25 Nov 2026 12:00:00 GMT");
    const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");

    fn key() -> AccountKey {
        AccountKey::new("contoso", b"secret-key-for-tests".to_vec())
    }

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([
            (HeaderName::from_static("x-ms-version"), VERSION),
            (HeaderName::from_static("x-ms-date"), DATE),
        ])
    }

    // The signatures are Python's: hmac.new(b"secret-key-for-tests", text, sha256) of the text that Microsoft's page
    // describes.
    #[test]
    fn a_write_is_signed_with_its_condition_its_type_and_its_length() {
        let mut headers = headers();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        let block_blob = HeaderValue::from_static("BlockBlob");
        headers.insert("x-ms-blob-type", block_blob);
        let url = "https://contoso.blob.core.windows.net/order-book/orders/1/placed.json";
        let value = key().authorization(&Method::PUT, &url.parse().unwrap(), &headers, 2);
        assert_eq!(
            value,
            "SharedKey contoso:Aa8FYbOU/Jwbq7ibQW8WzbZG14HcJAuG+juWlRmQEXo="
        );
    }

    #[test]
    fn a_list_is_signed_with_its_parameters_as_they_were_meant() {
        let url = "http://127.0.0.1:10000/contoso/order-book?comp=list&maxresults=5000&prefix=orders%2F\
                   &restype=container";
        let value = key().authorization(&Method::GET, &url.parse().unwrap(), &headers(), 0);
        assert_eq!(
            value,
            "SharedKey contoso:4HUIEixs132bOWldBxJTZqyJ7+C6c9NRkC8nHanguMw="
        );
    }

    #[test]
    fn neither_key_nor_signature_is_printed() {
        let url = "https://contoso.blob.core.windows.net/order-book"
            .parse()
            .unwrap();
        let value = key().authorization(&Method::GET, &url, &headers(), 0);
        let printed = format!("{:?} {value:?}", key());
        assert!(
            !printed.contains("secret") && !printed.contains("115"),
            "{printed}"
        );
        assert!(!printed.contains("SharedKey"), "{printed}");
    }
}
