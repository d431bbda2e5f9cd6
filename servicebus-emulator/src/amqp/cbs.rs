//! `$cbs`: where a client puts the tokens that let it use entities.
//!
//! Every SDK does so before it attaches a link, an emulator or not. The token is a shared access signature, as over REST,
//! and is checked as strictly; what it covers is written in it.

use jiff::Timestamp;
use serde_amqp::Value as Amqp;

use super::{
    authorization::Authorization,
    errors::{NOT_IMPLEMENTED, Refusal},
    management_message::{Request, Response},
    value,
};
use crate::{
    rest::SharedAccessPolicy,
    sas::{self, Unauthorized},
};

pub(crate) fn answer(
    request: &Request,
    authorization: &mut Authorization,
    policy: &SharedAccessPolicy,
    now: Timestamp,
) -> Response {
    match put_token(request, policy, now) {
        Ok(grant) => {
            authorization.add(grant, now);
            Response {
                status: 202,
                description: "Accepted".to_owned(),
                condition: None,
                body: Amqp::Null,
            }
        }
        // The Python client looks no further than for a condition, and then has no status and no description to show.
        Err(refusal) => Response {
            condition: None,
            ..refusal.into()
        },
    }
}

fn put_token(
    request: &Request,
    policy: &SharedAccessPolicy,
    now: Timestamp,
) -> Result<sas::Grant, Refusal> {
    if request.operation != "put-token" {
        let operation = &request.operation;
        return Err(Refusal::new(
            NOT_IMPLEMENTED,
            format!("$cbs does not know the operation `{operation}`"),
        ));
    }
    let token = value::text(&request.body).ok_or(Unauthorized::Missing)?;
    // What kind of token it is shows in itself: the Python client says `jwt` of either.
    if !token.starts_with("SharedAccessSignature ") {
        return Err(Unauthorized::Bearer.into());
    }
    let grant = sas::grant(token, policy, now)?;
    let audience = request.text("name").and_then(sas::audience_path);
    let audience = audience.ok_or(Unauthorized::InvalidAudience)?;
    if !grant.covers(&audience, now) {
        return Err(Unauthorized::InvalidAudience.into());
    }
    Ok(grant)
}
