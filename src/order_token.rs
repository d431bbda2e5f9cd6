//! The token with which whoever placed an order may ask for its status, without a key of the app: `ORDER_TOKEN_SECRET`.
//!
//! It is made of the order's id and the secret alone, so that checkout hands one out, and the status is refused, without
//! asking any store; the same order has the same token whenever it is made. It opens nothing but that one order's status,
//! and is good for as long as its secret is one of those in the setting. Without the setting there are no tokens.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::{
    config::{ConfigError, Settings},
    order::OrderId,
};

const VARIABLE: &str = "ORDER_TOKEN_SECRET";
const EXPECTED: &str =
    "32 characters or more that nobody can guess, or several of those with commas between them";

/// The hexadecimal digits of 16 random bytes: a token that somebody has gives them no way to find the secret by trying.
const SHORTEST_SECRET: usize = 32;

/// How Azure hands on a reference to Key Vault that it could not resolve: long enough for a secret, and known to many.
const UNRESOLVED: &str = "@Microsoft.KeyVault(";

/// What is signed says what for: the secret may come to sign something else one day.
const PURPOSE: &str = "orderup order ";

/// Clones share the secrets.
#[derive(Clone)]
pub struct OrderTokens(Arc<[SecretString]>);

impl OrderTokens {
    /// Several secrets have commas between them: the first one signs, and all of them verify. A new one is put before the
    /// old one, which goes when the tokens that it signed are of no use any more.
    ///
    /// # Errors
    /// If one of them is too short to be a secret, or a reference to one that Azure could not resolve.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Some(text) = settings.optional(VARIABLE) else {
            return Ok(None);
        };
        if text.contains(UNRESOLVED) {
            let problem = "it is a reference to Key Vault that was not resolved";
            return Err(ConfigError::invalid(VARIABLE, problem, EXPECTED));
        }
        let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
        if let Some(index) = secrets
            .iter()
            .position(|secret| secret.chars().count() < SHORTEST_SECRET)
        {
            let problem = match secrets.len() {
                1 => "it is too short".to_owned(),
                count => format!("number {} of its {count} secrets is too short", index + 1),
            };
            return Err(ConfigError::invalid(VARIABLE, problem, EXPECTED));
        }
        Ok(Some(Self(
            secrets.into_iter().map(SecretString::from).collect(),
        )))
    }

    /// The order's token: 43 characters that need no escaping in a URL.
    pub fn token(&self, order: OrderId) -> String {
        // `from_settings` has seen to it that there is one.
        let signed = mac(&self.0[0], order).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(signed)
    }

    /// Whether it is that order's token. How long this takes says nothing of how nearly it is.
    pub fn is_valid(&self, order: OrderId, token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else {
            return false;
        };
        self.0
            .iter()
            .any(|secret| mac(secret, order).verify_slice(&token).is_ok())
    }
}

fn mac(secret: &SecretString, order: OrderId) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(format!("{PURPOSE}{order}").as_bytes());
    mac
}

impl fmt::Debug for OrderTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderTokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;

    pub(crate) const OLD: &str = "0123456789abcdef0123456789abcdef";
    const NEW: &str = "fedcba9876543210fedcba9876543210";

    fn order() -> OrderId {
        OrderId(Uuid::from_u128(0x0193_5a1e_9c00_7000_8000_0000_0000_0001))
    }

    fn read(value: &str) -> Result<Option<OrderTokens>, ConfigError> {
        OrderTokens::from_settings(&Settings::from_pairs([(VARIABLE, value)]))
    }

    fn tokens(value: &str) -> OrderTokens {
        read(value).unwrap().unwrap()
    }

    #[test]
    fn a_token_is_what_other_tools_make_of_the_id_and_the_secret() {
        // printf %s 'orderup order 01935a1e-9c00-7000-8000-000000000001' |
        //   openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef -binary | basenc --base64url | tr -d =
        assert_eq!(
            tokens(OLD).token(order()),
            "v7z95gef0WVJCRREZGV389kmV2ZYAcmYNacdkCy-A6c"
        );
    }

    #[test]
    fn a_token_is_good_for_its_order_only_and_as_a_whole() {
        let tokens = tokens(OLD);
        let token = tokens.token(order());
        assert!(tokens.is_valid(order(), &token));
        assert!(!tokens.is_valid(OrderId(Uuid::from_u128(1)), &token));
        for wrong in [
            "",
            "x",
            &token[..42],
            &format!("{token}="),
            &format!("{token}A"),
            &format!(" {token}"),
            &token.to_ascii_lowercase(),
        ] {
            assert!(!tokens.is_valid(order(), wrong), "{wrong}");
        }
    }

    #[test]
    fn a_reference_that_was_not_resolved_is_no_secret() {
        let reference =
            "@Microsoft.KeyVault(SecretUri=https://shop.vault.azure.net/secrets/order-token/)";
        for value in [reference.to_owned(), format!("{NEW},{reference}")] {
            let error = read(&value).unwrap_err().to_string();
            assert!(error.contains("not resolved"), "{error}");
        }
    }

    #[test]
    fn a_new_secret_signs_while_the_old_one_still_verifies() {
        let (old, both, new) = (tokens(OLD), tokens(&format!("{NEW}, {OLD}")), tokens(NEW));
        assert!(both.is_valid(order(), &old.token(order())));
        assert_eq!(both.token(order()), new.token(order()));
        assert!(!new.is_valid(order(), &old.token(order())));
    }

    #[test]
    fn what_is_too_short_is_refused_and_not_repeated() {
        assert!(read("").unwrap().is_none());
        for (value, problem) in [
            ("hunter2", "it is too short"),
            (&OLD[1..], "it is too short"),
            (&format!("{OLD},hunter2"), "number 2 of its 2"),
            (&format!("{OLD},"), "number 2 of its 2"),
            (",", "number 1 of its 2"),
        ] {
            let error = read(value).unwrap_err().to_string();
            assert!(
                error.contains(VARIABLE) && error.contains(problem),
                "{error}"
            );
            assert!(
                !error.contains("hunter2") && !error.contains(OLD),
                "{error}"
            );
        }
    }

    #[test]
    fn nothing_of_the_secrets_is_printed() {
        let printed = format!("{:?}", tokens(OLD));
        assert_eq!(printed, "OrderTokens { .. }");
    }
}
