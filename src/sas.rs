//! Shared access signatures: how Service Bus knows a sender that has a key.
//!
//! A token is signed for a whole entity and kept until shortly before it expires, instead of one for each message.
//! The format is Microsoft's "Service Bus access control with Shared Access Signatures".

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How long a token is good for. Microsoft's own libraries use 20 minutes to an hour.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A token is replaced this long before it expires: more than a request takes, and more than clocks differ.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 60);

/// A policy's name and its key, from a connection string. The key is used as the text that it is, not decoded.
#[derive(Debug, Clone)]
pub struct SharedAccessKey {
    pub name: String,
    pub key: SecretString,
}

impl SharedAccessKey {
    /// A token for `resource` and everything below it, until `expiry` (Unix seconds).
    pub fn sign(&self, resource: &str, expiry: u64) -> SecretString {
        let resource = percent_encoded(resource);
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret().as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        SecretString::from(format!(
            "SharedAccessSignature sr={resource}&sig={}&se={expiry}&skn={}",
            percent_encoded(&signature),
            percent_encoded(&self.name),
        ))
    }
}

fn percent_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The current token for one resource, as the value of an `Authorization` header.
pub struct SasTokens {
    key: SharedAccessKey,
    resource: String,
    current: Mutex<Option<Signed>>,
}

struct Signed {
    authorization: HeaderValue,
    renew_at: SystemTime,
}

impl SasTokens {
    /// Tokens for `resource`, as in `https://contoso.servicebus.windows.net/orders`. Nothing is signed yet.
    pub fn new(key: SharedAccessKey, resource: String) -> Self {
        Self {
            key,
            resource,
            current: Mutex::new(None),
        }
    }

    /// The token that is good at `now`.
    pub fn authorization(&self, now: SystemTime) -> HeaderValue {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = &*current
            && now < signed.renew_at
        {
            return signed.authorization.clone();
        }
        let expiry = (now + LIFETIME)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let token = self.key.sign(&self.resource, expiry);
        let mut authorization = HeaderValue::from_str(token.expose_secret())
            .expect("a token is made of percent-encoded text");
        authorization.set_sensitive(true);
        *current = Some(Signed {
            authorization: authorization.clone(),
            renew_at: now + LIFETIME - RENEW_BEFORE,
        });
        authorization
    }

    /// Makes the next call sign anew if `rejected` is still the current token.
    pub fn forget(&self, rejected: &HeaderValue) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|signed| signed.authorization == *rejected)
        {
            *current = None;
        }
    }
}

impl fmt::Debug for SasTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasTokens")
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SharedAccessKey {
        SharedAccessKey {
            name: "RootManageSharedAccessKey".to_owned(),
            key: SecretString::from("c2VjcmV0LWtleS1mb3ItdGVzdHM="),
        }
    }

    fn tokens() -> SasTokens {
        SasTokens::new(
            key(),
            "https://contoso.servicebus.windows.net/orders".to_owned(),
        )
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    // The signature is Python's: hmac.new(key.encode(), (quote_plus(uri) + "\n1795380221").encode(), sha256).
    #[test]
    fn a_signature_is_the_one_that_another_implementation_computes() {
        let token = key().sign(
            "https://contoso.servicebus.windows.net/orders",
            1_795_380_221,
        );
        assert_eq!(
            token.expose_secret(),
            "SharedAccessSignature sr=https%3A%2F%2Fcontoso.servicebus.windows.net%2Forders\
             &sig=ynKPf6ly%2BhOYBT%2BAjDjx0F000Mm%2BrtU1c45wJlQiabA%3D\
             &se=1795380221&skn=RootManageSharedAccessKey"
        );
    }

    #[test]
    fn a_token_is_kept_until_ten_minutes_before_it_expires() {
        let tokens = tokens();
        let first = tokens.authorization(at(1_000));
        assert!(first.to_str().unwrap().contains("&se=4600&"));
        assert_eq!(tokens.authorization(at(1_000 + 49 * 60)), first);
        let second = tokens.authorization(at(1_000 + 50 * 60));
        assert!(second.to_str().unwrap().contains("&se=7600&"));
    }

    #[test]
    fn only_the_current_token_can_be_forgotten() {
        let tokens = tokens();
        let first = tokens.authorization(at(1_000));
        tokens.forget(&first);
        let second = tokens.authorization(at(1_010));
        assert_ne!(first, second);
        tokens.forget(&first);
        assert_eq!(tokens.authorization(at(1_020)), second);
    }

    #[test]
    fn neither_key_nor_signature_is_printed() {
        let tokens = tokens();
        let authorization = tokens.authorization(at(1_000));
        let printed = format!("{tokens:?} {:?} {authorization:?}", key());
        assert!(!printed.contains("c2VjcmV0"), "{printed}");
        assert!(!printed.contains("sig="), "{printed}");
    }
}
