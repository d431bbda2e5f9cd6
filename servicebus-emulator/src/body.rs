//! The body of a request, read up to a limit, for the data plane and the management API.

use std::{future::poll_fn, pin::Pin};

use axum::body::{Body, Bytes, HttpBody};

use crate::rest_error::RestError;

/// A body that is too large is read up to so many times the limit and thrown away, so that its sender gets an answer and
/// not a closed connection.
const READ_BEYOND: usize = 64;

/// The body, in memory of its own size: the pieces that arrive are parts of the connection's larger buffer. `None` when it
/// is larger than the limit.
pub(crate) async fn read(mut body: Body, limit: usize) -> Result<Option<Bytes>, RestError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame =
            frame.map_err(|_| RestError::bad_request("The body of the request is incomplete."))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > READ_BEYOND.saturating_mul(limit) {
            break;
        }
        if length <= limit {
            bytes.extend_from_slice(&data);
        } else {
            bytes = Vec::new();
        }
    }
    Ok((length <= limit).then(|| bytes.into_boxed_slice().into()))
}
