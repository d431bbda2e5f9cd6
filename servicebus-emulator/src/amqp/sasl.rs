//! How a client says who it is: the protocol headers, and SASL.
//!
//! Runs first on every connection. Of the mechanisms only PLAIN proves something, with the name and key of the shared
//! access policy; after the others the client has to put tokens to `$cbs`, and so it has when it leaves SASL out. Nothing is
//! sent after the outcome before the client's next header: its library (rhea) hangs when both come in one read.

use std::io;

use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome};
use serde_amqp::primitives::{Array, Symbol};

use super::{
    authorization::Authorization,
    frame::{self, FrameBody, MIN_MAX_FRAME_SIZE, SaslFrame},
    transport::Transport,
};
use crate::rest::SharedAccessPolicy;

const HEADER_SIZE: usize = 8;
const AMQP_HEADER: [u8; HEADER_SIZE] = *b"AMQP\x00\x01\x00\x00";
const SASL_HEADER: [u8; HEADER_SIZE] = *b"AMQP\x03\x01\x00\x00";
const MECHANISMS: [&str; 4] = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];

/// Takes the connection up to where both have sent the header of AMQP itself. Nothing when it is not to go on.
pub(crate) async fn negotiate(
    transport: &mut Transport,
    policy: &SharedAccessPolicy,
) -> io::Result<Option<Authorization>> {
    let Some(header) = header(transport).await? else {
        return Ok(None);
    };
    if header == AMQP_HEADER {
        transport.output.extend_from_slice(&AMQP_HEADER);
        transport.flush().await?;
        return Ok(Some(Authorization::default()));
    }
    // What is not supported (TLS, another version) is answered with what is.
    transport.output.extend_from_slice(&SASL_HEADER);
    if header != SASL_HEADER {
        transport.flush().await?;
        return Ok(None);
    }
    let mechanisms = SaslMechanisms {
        sasl_server_mechanisms: Array(MECHANISMS.map(Symbol::from).to_vec()),
    };
    put(transport, &SaslFrame::Mechanisms(mechanisms))?;
    transport.flush().await?;
    let Some(init) = init(transport).await? else {
        return Ok(None);
    };
    let authorization = authenticate(&init, policy);
    let code = match authorization {
        Some(_) => SaslCode::Ok,
        None => SaslCode::Auth,
    };
    let outcome = SaslOutcome {
        code,
        additional_data: None,
    };
    put(transport, &SaslFrame::Outcome(outcome))?;
    transport.flush().await?;
    let Some(authorization) = authorization else {
        return Ok(None);
    };
    let next = self::header(transport).await?;
    transport.output.extend_from_slice(&AMQP_HEADER);
    transport.flush().await?;
    Ok((next == Some(AMQP_HEADER)).then_some(authorization))
}

fn put(transport: &mut Transport, frame: &SaslFrame) -> io::Result<()> {
    frame::encode_sasl(&mut transport.output, frame).map_err(io::Error::other)
}

async fn header(transport: &mut Transport) -> io::Result<Option<[u8; HEADER_SIZE]>> {
    loop {
        if let Some(header) = transport.input.first_chunk() {
            let header = *header;
            drop(transport.input.split_to(HEADER_SIZE));
            return Ok(Some(header));
        }
        if transport.read().await? == 0 {
            return Ok(None);
        }
    }
}

/// The client's choice. Anything else that it may send here ends the connection.
async fn init(transport: &mut Transport) -> io::Result<Option<SaslInit>> {
    loop {
        match frame::decode(&mut transport.input, MIN_MAX_FRAME_SIZE) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                return Ok(match frame.body {
                    FrameBody::SaslInit(init) => Some(init),
                    FrameBody::Empty | FrameBody::Amqp { .. } | FrameBody::SaslResponse => None,
                });
            }
            Err(_) => return Ok(None),
        }
        if transport.read().await? == 0 {
            return Ok(None);
        }
    }
}

/// What the client may use now; nothing when it is not who it says.
fn authenticate(init: &SaslInit, policy: &SharedAccessPolicy) -> Option<Authorization> {
    match init.mechanism.as_str() {
        "MSSBCBS" | "ANONYMOUS" | "EXTERNAL" => Some(Authorization::default()),
        "PLAIN" => {
            let response = init.initial_response.as_ref()?;
            // Whom to act for, who it is, and the password.
            let parts: Vec<&[u8]> = response.split(|byte| *byte == 0).collect();
            let [_, name, key] = parts[..] else {
                return None;
            };
            (name == policy.name.as_bytes() && key == policy.key.as_bytes())
                .then(Authorization::everything)
        }
        _ => None,
    }
}
