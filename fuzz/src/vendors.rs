//! `VENDORS_FILE`: the vendors, their addresses and secrets.
//!
//! Every vendor that is read can be told over HTTPS at no address of ours, unless its entry says so, and signs with a
//! secret. No error shows one.

use std::net::IpAddr;

use orderup::{config::Settings, fuzzing, place_order::is_vendor_id, public_address::is_public};

/// Every secret begins with it, and nothing else does.
const CANARY: &str = "whsec_Q0FOQVJZ";

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let text = text.replace("whsec_", CANARY);
    let secret = format!("{CANARY}MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let settings = Settings::from_pairs([("SECRET", &secret)]);
    let vendors = match fuzzing::vendors(&text, &settings) {
        Ok(vendors) => vendors,
        // An id may be shown, and may be anything that an id can be.
        Err(problem) => {
            assert!(
                !problem.contains("Q0FOQVJZMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
                "{problem}"
            );
            return;
        }
    };
    for vendor in vendors {
        assert!(is_vendor_id(&vendor.id));
        assert!(!vendor.secrets.is_empty());
        assert!(
            vendor
                .secrets
                .iter()
                .all(|length| (24..=64).contains(length))
        );
        // Neither its address, which may hold a token of the vendor's, nor a secret.
        assert_eq!(
            vendor.printed,
            format!("Vendor {{ id: {:?}, .. }}", vendor.id)
        );
        if vendor.allow_private {
            continue;
        }
        let rest = vendor
            .url
            .strip_prefix("https://")
            .expect("it is encrypted");
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        assert!(!authority.contains('@'));
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => authority.split(':').next(),
        };
        let address = host.and_then(|host| host.parse::<IpAddr>().ok());
        assert!(address.is_none_or(is_public), "{}", vendor.url);
    }
}
