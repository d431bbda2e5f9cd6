//! Who is let in. Signatures are made here from the documentation, apart from the code that checks them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use sha2::Sha256;

use crate::namespace::Namespace;

const POLICY: &str = "RootManageSharedAccessKey";
const KEY: &str = "SAS_KEY_VALUE";

fn in_an_hour() -> u64 {
    let then = SystemTime::now() + Duration::from_secs(3600);
    then.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token for that address, valid for an hour.
pub(crate) fn sign(address: &str) -> String {
    token(address, in_an_hour(), KEY, POLICY)
}

fn token(address: &str, expiry: u64, key: &str, policy: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let resource = encode(address);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = encode(&BASE64.encode(mac.finalize().into_bytes()));
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}")
}

#[tokio::test]
async fn a_request_without_a_valid_token_is_unauthorised_whether_or_not_the_entity_exists() {
    let namespace = Namespace::start().await;
    let good = sign("http://localhost/work");
    for (authorization, reason) in [
        (None, "MissingToken"),
        (Some("Basic dTpw".to_owned()), "MalformedToken"),
        (Some("Bearer eyJ".to_owned()), "UnsupportedToken"),
        (Some(good.replace("sig=", "sig=A")), "Token"),
        (
            Some(token(
                "http://localhost/work",
                in_an_hour(),
                "wrong",
                POLICY,
            )),
            "InvalidSignature",
        ),
        (
            Some(token("http://localhost/work", in_an_hour(), KEY, "Other")),
            "InvalidSignature",
        ),
        (
            Some(token("http://localhost/work", 1_000_000_000, KEY, POLICY)),
            "ExpiredToken",
        ),
        (Some(sign("http://localhost/other")), "InvalidAudience"),
    ] {
        for path in ["work/messages", "nowhere/messages"] {
            let mut request = namespace.unsigned(Method::POST, path);
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            let response = request.body("x").send().await.unwrap();
            assert_eq!(response.status(), 401, "{authorization:?}");
            let text = response.text().await.unwrap();
            assert!(
                text.starts_with("<Error><Code>401</Code><Detail>"),
                "{text}"
            );
            assert!(text.contains(reason), "{text}");
            assert!(!text.contains("SAS_KEY_VALUE"), "{text}");
        }
    }
    assert!(namespace.is_empty("work").await);
}

#[tokio::test]
async fn a_token_is_good_for_its_resource_and_what_lies_below_it() {
    let namespace = Namespace::start().await;
    for address in [
        "sb://sbemulatorns.servicebus.windows.net/",
        "https://sbemulatorns.servicebus.windows.net/work",
        "http://localhost:5300/work/messages",
        "sb://localhost/WORK/",
    ] {
        let sent = namespace
            .unsigned(Method::POST, "work/messages")
            .header("authorization", sign(address))
            .send();
        assert_eq!(sent.await.unwrap().status(), 201, "{address}");
    }
}
