//! `$cbs`: where a client puts the tokens that let it use entities.
//!
//! Every SDK does so before it attaches a link, an emulator or not. The token is a shared access signature, as over REST,
//! and is checked as strictly; what it covers is written in it.

use jiff::Timestamp;
use serde_amqp::Value as Amqp;

use super::{
    authorization::Authorization,
    errors::{NOT_IMPLEMENTED, Refusal, UNAUTHORIZED},
    management_message::{Request, Response},
    value,
};
use crate::{
    rest::SharedAccessPolicy,
    sas::{self, Unauthorized},
};

const SAS_TOKEN: &str = "servicebus.windows.net:sastoken";

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
        Err(refusal) => refusal.into(),
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
    match request.text("type") {
        Some(SAS_TOKEN) => {}
        Some("jwt") => return Err(Unauthorized::Bearer.into()),
        other => {
            return Err(Refusal::new(
                UNAUTHORIZED,
                format!("the token type is {other:?}, and not {SAS_TOKEN}"),
            ));
        }
    }
    let token = value::text(&request.body).ok_or(Unauthorized::Missing)?;
    Ok(sas::grant(token, policy, now)?)
}
