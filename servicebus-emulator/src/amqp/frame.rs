//! Frames: what a connection is cut into.
//!
//! `decode` runs whenever bytes have come in, and gives one whole frame or asks for more bytes; `encode` and its likes
//! append one frame to what will be written. An error of `decode` ends the connection with `amqp:connection:framing-error`
//! or `amqp:decode-error`: there is no telling where the next frame begins, or what the client believes it has said.

use bytes::{BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::{
    performatives::Performative,
    sasl::{SaslInit, SaslMechanisms, SaslOutcome},
};
use serde_amqp::{ser::Serializer, serde::Serialize};

use super::{
    performative_decoding::{self, ClientSasl},
    value_decoding::{DecodeError, Reader},
};

/// The frame size that everyone must take.
pub(crate) const MIN_MAX_FRAME_SIZE: u32 = 512;
/// The bytes before a frame's body when it has no extended header: size, offset of the body in words, type, channel.
const HEADER_SIZE: usize = 8;
const BODY_OFFSET: u8 = 2;
const AMQP: u8 = 0x00;
const SASL: u8 = 0x01;

#[derive(Debug)]
pub(crate) struct Frame {
    /// Means nothing in a SASL frame.
    pub(crate) channel: u16,
    pub(crate) body: FrameBody,
}

/// What a client may send.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every frame is of the large variant, and is taken apart at once"
)]
pub(crate) enum FrameBody {
    /// A heartbeat.
    Empty,
    Amqp {
        performative: Performative,
        /// Part of a message, after a transfer. It shares the buffer that was read into: what is kept must be copied.
        payload: Bytes,
    },
    SaslInit(SaslInit),
    /// The next step of a mechanism that has more than one; none of ours has.
    SaslResponse,
}

/// What a server says while a client authenticates.
#[derive(Debug, Serialize)]
#[serde(crate = "serde_amqp::serde", untagged)]
pub(crate) enum SaslFrame {
    Mechanisms(SaslMechanisms),
    Outcome(SaslOutcome),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {size} bytes is larger than {limit}")]
    TooLarge { size: u32, limit: u32 },
    #[error("the header of a frame is invalid")]
    Header,
    #[error("the type of a frame, {0}, is unknown")]
    Type(u8),
    #[error("a frame cannot be read: {0}")]
    Body(#[from] DecodeError),
    #[error("a frame cannot be written: {0}")]
    Encode(String),
}

impl FrameError {
    /// Whether the frames themselves are wrong (`amqp:connection:framing-error`), and not what is in one.
    pub(crate) fn is_framing(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Header | Self::Type(_))
    }
}

/// Takes one whole frame off the front of `input`, or nothing when more bytes are needed.
pub(crate) fn decode(
    input: &mut BytesMut,
    max_frame_size: u32,
) -> Result<Option<Frame>, FrameError> {
    let Some(header) = input.first_chunk::<HEADER_SIZE>() else {
        return Ok(None);
    };
    let [s0, s1, s2, s3, offset, kind, c0, c1] = *header;
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    let offset = usize::from(offset) * 4;
    if size > max_frame_size {
        return Err(FrameError::TooLarge {
            size,
            limit: max_frame_size,
        });
    }
    let size = usize::try_from(size).map_err(|_| FrameError::Header)?;
    if offset < HEADER_SIZE || offset > size {
        return Err(FrameError::Header);
    }
    if input.len() < size {
        return Ok(None);
    }
    let body = input.split_to(size).freeze().slice(offset..);
    let mut reader = Reader::new(&body);
    let body = match kind {
        AMQP if body.is_empty() => FrameBody::Empty,
        AMQP => {
            let performative = performative_decoding::performative(&mut reader)?;
            let payload = body.slice_ref(reader.rest());
            FrameBody::Amqp {
                performative,
                payload,
            }
        }
        SASL => match performative_decoding::sasl(&mut reader)? {
            ClientSasl::Init(init) => FrameBody::SaslInit(init),
            ClientSasl::Response => FrameBody::SaslResponse,
        },
        kind => return Err(FrameError::Type(kind)),
    };
    let channel = u16::from_be_bytes([c0, c1]);
    Ok(Some(Frame { channel, body }))
}

/// Appends a frame. Its size is the caller's to limit, who knows how to split a transfer.
pub(crate) fn encode(
    output: &mut BytesMut,
    channel: u16,
    performative: &Performative,
    payload: &[u8],
) -> Result<(), FrameError> {
    append(output, AMQP, channel, performative, payload)
}

/// Appends a heartbeat.
pub(crate) fn encode_empty(output: &mut BytesMut) {
    output.put_slice(&[0, 0, 0, 8, BODY_OFFSET, AMQP, 0, 0]);
}

pub(crate) fn encode_sasl(output: &mut BytesMut, frame: &SaslFrame) -> Result<(), FrameError> {
    append(output, SASL, 0, frame, &[])
}

fn append(
    output: &mut BytesMut,
    kind: u8,
    channel: u16,
    body: &impl Serialize,
    payload: &[u8],
) -> Result<(), FrameError> {
    let start = output.len();
    output.put_u32(0);
    output.put_slice(&[BODY_OFFSET, kind]);
    output.put_u16(channel);
    let written = body.serialize(&mut Serializer::new(output.writer()));
    output.put_slice(payload);
    let size = u32::try_from(output.len() - start).map_err(|error| error.to_string());
    match (written, size) {
        (Ok(()), Ok(size)) => {
            output[start..start + 4].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        // Half a frame must not be sent.
        (Err(error), _) => {
            output.truncate(start);
            Err(FrameError::Encode(error.to_string()))
        }
        (_, Err(error)) => {
            output.truncate(start);
            Err(FrameError::Encode(error))
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
