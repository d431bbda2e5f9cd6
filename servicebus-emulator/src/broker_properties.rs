//! `BrokerProperties`: the properties that Service Bus itself knows, as JSON.
//!
//! A sender gives them in a header, or in the elements of a batch; a receiver gets them in a header, in ASCII. Properties
//! that cannot be set are ignored, as documented; a value of the wrong type or form is refused with 400.
//! Facts: <https://learn.microsoft.com/rest/api/servicebus/message-headers-and-properties>.

use std::{fmt::Write, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    Message, MessageState, ReceivedMessage,
    custom_properties::{http_date, write_http_date},
    rest_error::RestError,
};

/// .NET's `TimeSpan.MaxValue` in seconds: the TimeToLive of a message that never expires.
const FOREVER: f64 = 922_337_203_685.477_5;

/// Sets what the text of a BrokerProperties header says on the message.
pub(crate) fn read_header(text: &str, message: &mut Message) -> Result<(), RestError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(properties)) => read(&properties, message),
        _ => Err(RestError::bad_request(
            "The value of the HTTP header BrokerProperties is invalid: it is not a JSON object.",
        )),
    }
}

/// Sets what the properties say on the message. Lengths and contradictions are the broker's to check.
pub(crate) fn read(
    properties: &Map<String, Value>,
    message: &mut Message,
) -> Result<(), RestError> {
    for (name, value) in properties.iter().filter(|(_, value)| !value.is_null()) {
        let text = || match value {
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(invalid(name, "it is not a string")),
        };
        match name.as_str() {
            "CorrelationId" => message.correlation_id = text()?,
            "Label" => message.label = text()?,
            "MessageId" => message.message_id = text()?,
            "PartitionKey" => message.partition_key = text()?,
            "ReplyTo" => message.reply_to = text()?,
            "ReplyToSessionId" => message.reply_to_session_id = text()?,
            "SessionId" => message.session_id = text()?,
            "To" => message.to = text()?,
            "ViaPartitionKey" => {
                text()?;
            }
            "ForcePersistence" if !value.is_boolean() => {
                return Err(invalid(name, "it is not true or false"));
            }
            "ScheduledEnqueueTimeUtc" => {
                let time = text()?.and_then(|text| http_date(&text));
                message.scheduled_enqueue_time = Some(time.ok_or_else(|| {
                    invalid(
                        name,
                        "it is not a date as in `Sun, 06 Nov 1994 08:49:37 GMT`",
                    )
                })?);
            }
            // The two names of one property: seconds in the header, .NET's TimeSpan in a batch.
            "TimeToLive" => {
                let seconds = value
                    .as_f64()
                    .ok_or_else(|| invalid(name, "it is not a number"))?;
                message.time_to_live = positive_seconds(seconds, name)?;
            }
            "TimeToLiveTimeSpan" => {
                let seconds = text()?
                    .as_deref()
                    .and_then(time_span)
                    .ok_or_else(|| invalid(name, "it is not a time span as in `0.00:01:30`"))?;
                message.time_to_live = positive_seconds(seconds, name)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn invalid(name: &str, reason: &str) -> RestError {
    RestError::bad_request(format!(
        "The value of BrokerProperties {name} is invalid: {reason}."
    ))
}

/// `None` where the message lives as long as the entity lets it.
fn positive_seconds(seconds: f64, name: &str) -> Result<Option<Duration>, RestError> {
    if seconds >= FOREVER {
        return Ok(None);
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
        _ => Err(invalid(name, "it is not longer than nothing")),
    }
}

/// .NET's `[d.]hh:mm:ss[.fffffff]`, in seconds.
fn time_span(text: &str) -> Option<f64> {
    let [hours, minutes, seconds] = text.split(':').collect::<Vec<_>>()[..] else {
        return None;
    };
    let (days, hours) = hours.split_once('.').unwrap_or(("0", hours));
    let whole = |text: &str, limit: u32| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then_some(())?;
        text.parse::<u32>().ok().filter(|number| *number < limit)
    };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    whole(fraction, 10_000_000)?;
    let minutes = (whole(days, u32::MAX)? as f64 * 24.0 + f64::from(whole(hours, 24)?)) * 60.0
        + f64::from(whole(minutes, 60)?);
    Some(
        minutes * 60.0
            + f64::from(whole(seconds, 60)?)
            + format!("0.{fraction}").parse::<f64>().ok()?,
    )
}

/// The BrokerProperties header of a received message.
pub(crate) fn write(received: &ReceivedMessage) -> String {
    let message = &received.message;
    // The message's own, as its entity has limited it: a dead letter has kept it, though it does not expire.
    let time_to_live = message
        .time_to_live
        .map_or(FOREVER, |time_to_live| time_to_live.as_secs_f64());
    let state = match received.state {
        // A message under a lock is "Active" to its receiver.
        MessageState::Active | MessageState::Locked => "Active",
        MessageState::Scheduled => "Scheduled",
        MessageState::Deferred => "Deferred",
    };
    let mut properties = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            properties.insert(name.to_owned(), value);
        }
    };
    put("CorrelationId", json!(message.correlation_id));
    put("DeadLetterSource", json!(received.dead_letter_source));
    put("DeliveryCount", json!(received.delivery_count));
    put(
        "EnqueuedSequenceNumber",
        json!(received.enqueued_sequence_number),
    );
    put(
        "EnqueuedTimeUtc",
        json!(write_http_date(received.enqueued_time)),
    );
    put("Label", json!(message.label));
    put("LockToken", json!(received.lock_token));
    put(
        "LockedUntilUtc",
        json!(received.locked_until.map(write_http_date)),
    );
    put("MessageId", json!(message.message_id));
    put("PartitionKey", json!(message.partition_key));
    put("ReplyTo", json!(message.reply_to));
    put("ReplyToSessionId", json!(message.reply_to_session_id));
    put(
        "ScheduledEnqueueTimeUtc",
        json!(message.scheduled_enqueue_time.map(write_http_date)),
    );
    put("SequenceNumber", json!(received.sequence_number));
    put("SessionId", json!(message.session_id));
    put("State", json!(state));
    put("TimeToLive", json!(time_to_live));
    put("To", json!(message.to));
    ascii(&Value::Object(properties).to_string())
}

/// JSON with every character beyond ASCII as `\u…`: what a header can carry anywhere.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Message, RestError> {
        let mut message = Message::default();
        read_header(text, &mut message).map(|()| message)
    }

    #[test]
    fn what_a_sender_can_set_is_set_and_the_rest_is_ignored() {
        let message = read_text(
            r#"{"MessageId":"m","Label":"l","CorrelationId":"c","To":"t","ReplyTo":"r","TimeToLive":90.5,
                "SessionId":"s","PartitionKey":"s","ReplyToSessionId":"rs","ForcePersistence":true,
                "ScheduledEnqueueTimeUtc":" Thu, 24 Dec 2026 17:00:05 GMT","DeliveryCount":"x","Colour":1,"ViaPartitionKey":null}"#,
        )
        .unwrap();
        assert_eq!(message.message_id.as_deref(), Some("m"));
        assert_eq!(message.label.as_deref(), Some("l"));
        assert_eq!(message.session_id.as_deref(), Some("s"));
        assert_eq!(message.time_to_live, Some(Duration::from_millis(90_500)));
        let time = message.scheduled_enqueue_time.unwrap();
        assert_eq!(time.to_string(), "2026-12-24T17:00:05Z");
    }

    #[test]
    fn a_time_span_is_read_as_dotnet_writes_it() {
        for (text, seconds) in [
            ("0.00:00:40", Some(40.0)),
            ("00:01:30", Some(90.0)),
            ("14.00:00:00", Some(1_209_600.0)),
            ("00:00:01.5000000", Some(1.5)),
            ("40", None),
            ("00:60:00", None),
            ("24:00:00", None),
            ("-00:00:01", None),
            ("::", None),
        ] {
            assert_eq!(time_span(text), seconds, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_or_form_is_refused() {
        for text in [
            "",
            "Label=x",
            "[]",
            r#"{"Label":5}"#,
            r#"{"MessageId":{}}"#,
            r#"{"TimeToLive":"90"}"#,
            r#"{"TimeToLive":0}"#,
            r#"{"TimeToLive":-1}"#,
            r#"{"TimeToLiveTimeSpan":40}"#,
            r#"{"ForcePersistence":"yes"}"#,
            r#"{"ScheduledEnqueueTimeUtc":"Thu, 24 Dec 2026 17:00:05 +0000"}"#,
            r#"{"ScheduledEnqueueTimeUtc":"2026-12-24T17:00:05Z"}"#,
            r#"{"ScheduledEnqueueTimeUtc":0}"#,
        ] {
            let error = read_text(text).expect_err(text);
            assert_eq!(error.status, axum::http::StatusCode::BAD_REQUEST, "{text}");
        }
    }

    #[test]
    fn json_in_a_header_is_ascii() {
        assert_eq!(
            ascii("{\"a\":\"é🎉\"}"),
            "{\"a\":\"\\u00e9\\ud83c\\udf89\"}"
        );
    }
}
