//! The token that opens one order's status to whoever placed it: no other text does.

use orderup::{config::Settings, order::OrderId, order_token::OrderTokens};
use uuid::Uuid;

/// The first 16 bytes are the order's id, the rest is a token.
pub fn check(data: &[u8]) {
    let Some((id, token)) = data.split_first_chunk::<16>() else {
        return;
    };
    let settings = Settings::from_pairs([(
        "ORDER_TOKEN_SECRET",
        "0123456789abcdef0123456789abcdef, fedcba9876543210fedcba9876543210",
    )]);
    let tokens = OrderTokens::from_settings(&settings)
        .expect("both secrets are long enough")
        .expect("there is a setting");
    let order = OrderId(Uuid::from_bytes(*id));
    let own = tokens.token(order);
    assert!(own.len() == 43 && tokens.is_valid(order, &own));
    let token = String::from_utf8_lossy(token);
    // The older of the secrets signs nothing any more, but what it has signed is good.
    let settings =
        Settings::from_pairs([("ORDER_TOKEN_SECRET", "fedcba9876543210fedcba9876543210")]);
    let older = OrderTokens::from_settings(&settings)
        .expect("the secret is long enough")
        .expect("there is a setting");
    let is_one = *token == own || *token == older.token(order);
    assert_eq!(tokens.is_valid(order, &token), is_one, "{token:?}");
    let other = OrderId(Uuid::from_u128(order.0.as_u128() ^ 1));
    assert!(!tokens.is_valid(other, &own));
}
