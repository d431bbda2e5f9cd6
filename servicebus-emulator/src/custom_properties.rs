//! Custom properties as HTTP headers, both ways.
//!
//! The type of a value is inferred from how it is written: `"…"` is a string, or a date if an RFC 2616 date is inside;
//! `true` and `false`, whole and decimal numbers stand bare; anything else is refused with 400, and never sent.
//! Facts: <https://learn.microsoft.com/rest/api/servicebus/message-headers-and-properties>.

use std::{collections::BTreeMap, time::SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use crate::{Value, rest_error::RestError};

/// Headers of HTTP and of the service: never properties, in neither direction.
const NOT_PROPERTIES: [&str; 43] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "brokerproperties",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "keep-alive",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "warning",
    "x-ms-retrypolicy",
];

fn is_property(name: &str) -> bool {
    !NOT_PROPERTIES.contains(&name) && !name.starts_with("if-") && !name.starts_with("sec-")
}

/// The properties among the headers of a request. Names come in lower case: HTTP does not tell cases apart.
pub(crate) fn read(headers: &HeaderMap) -> Result<BTreeMap<String, Value>, RestError> {
    let mut properties = BTreeMap::new();
    for name in headers.keys().filter(|name| is_property(name.as_str())) {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let text = values.join(", ");
        let value = infer(text.trim()).ok_or_else(|| {
            RestError::bad_request(format!(
                "The value {text} of the HTTP header {name} is invalid."
            ))
        })?;
        properties.insert(name.as_str().to_owned(), value);
    }
    Ok(properties)
}

fn infer(text: &str) -> Option<Value> {
    if let Some(inner) = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        return Some(match http_date(inner) {
            Some(time) => Value::Timestamp(time),
            None => Value::String(inner.to_owned()),
        });
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Ok(number) = text.parse() {
        return Some(Value::Long(number));
    }
    // Rust also reads "inf" and "nan".
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match text.parse::<f64>() {
        Ok(number) if is_number && number.is_finite() => Some(Value::Double(number)),
        _ => None,
    }
}

/// Puts the properties into the headers of a response. As on Azure, a property whose name HTTP has no header for, or
/// has another use for, is left out.
pub(crate) fn write(properties: &BTreeMap<String, Value>, headers: &mut HeaderMap) {
    for (name, value) in properties {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        if let (true, Some(value)) = (is_property(name.as_str()), write_value(value))
            && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
        {
            headers.insert(name, value);
        }
    }
}

/// `None` for what has no form in a header.
fn write_value(value: &Value) -> Option<String> {
    // A header cannot hold line breaks; a property that came in a batch can.
    let quoted = |text: &str| {
        let text = text.replace(|it: char| it.is_ascii_control(), " ");
        format!("\"{text}\"")
    };
    Some(match value {
        Value::String(text) | Value::Symbol(text) => quoted(text),
        Value::Bool(value) => value.to_string(),
        Value::Long(number) => number.to_string(),
        // With its decimal point, so that it comes back as the double it is.
        Value::Double(number) => format!("{number:?}"),
        Value::Timestamp(time) => format!("\"{}\"", write_http_date(*time)),
        // What only AMQP sends: the nearest that REST has.
        Value::Byte(number) => number.to_string(),
        Value::SByte(number) => number.to_string(),
        Value::Short(number) => number.to_string(),
        Value::UShort(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::ULong(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Char(character) => quoted(&character.to_string()),
        Value::Uuid(uuid) => quoted(&uuid.to_string()),
        Value::Null | Value::Binary(_) | Value::Encoded(_) => return None,
    })
}

/// A date as RFC 2616 has it: `Sun, 06 Nov 1994 08:49:37 GMT`, and no other zone than GMT.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    let time: SystemTime = httpdate::parse_http_date(text.trim()).ok()?;
    Timestamp::try_from(time).ok()
}

/// The same the other way round; parts of a second are cut off.
pub(crate) fn write_http_date(time: Timestamp) -> String {
    DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_value_is_inferred_from_how_it_is_written() {
        let string = |text: &str| Some(Value::String(text.to_owned()));
        let date = "1994-11-06T08:49:37Z".parse().unwrap();
        for (text, value) in [
            ("\"A-17\"", string("A-17")),
            ("\"\"", string("")),
            ("\"5\"", string("5")),
            ("\"true\"", string("true")),
            ("\"Zürich\"", string("Zürich")),
            ("\"say \"hi\"\"", string("say \"hi\"")),
            (
                "\"Sun, 06 Nov 1994 08:49:37 GMT\"",
                Some(Value::Timestamp(date)),
            ),
            (
                "\"Sun, 06 Nov 1994 08:49:37 +0000\"",
                string("Sun, 06 Nov 1994 08:49:37 +0000"),
            ),
            ("true", Some(Value::Bool(true))),
            ("False", None),
            ("5", Some(Value::Long(5))),
            ("-5", Some(Value::Long(-5))),
            ("299.98", Some(Value::Double(299.98))),
            ("1e3", Some(Value::Double(1000.0))),
            (
                "9223372036854775808",
                Some(Value::Double(9_223_372_036_854_775_808.0)),
            ),
            ("inf", None),
            ("NaN", None),
            ("world", None),
            ("Windows 7", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("", None),
            ("\"", None),
            ("5 apples", None),
        ] {
            assert_eq!(infer(text), value, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_with_its_type() {
        for value in [
            Value::String("a \"b\"".to_owned()),
            Value::Bool(false),
            Value::Long(i64::MIN),
            Value::Double(5.0),
            Value::Double(1e300),
            Value::Timestamp("2026-12-24T17:00:05Z".parse().unwrap()),
        ] {
            let written = write_value(&value).expect("a form");
            assert_eq!(infer(&written), Some(value));
        }
    }

    #[test]
    fn what_only_amqp_sends_has_the_nearest_form_or_none() {
        for (value, written) in [
            (Value::Int(-7), Some("-7")),
            (Value::ULong(u64::MAX), Some("18446744073709551615")),
            (Value::Float(0.5), Some("0.5")),
            (Value::Char('x'), Some("\"x\"")),
            (Value::Symbol("red".to_owned()), Some("\"red\"")),
            (Value::Null, None),
            (Value::Binary(vec![1].into()), None),
        ] {
            assert_eq!(write_value(&value).as_deref(), written, "{value:?}");
        }
    }

    #[test]
    fn headers_of_http_are_not_properties_in_either_direction() {
        let mut headers = HeaderMap::new();
        for name in [
            "accept",
            "user-agent",
            "content-type",
            "if-match",
            "brokerproperties",
        ] {
            headers.insert(name, HeaderValue::from_static("*/*"));
        }
        headers.insert("vip", HeaderValue::from_static("true"));
        let properties = read(&headers).unwrap();
        assert_eq!(properties, [("vip".to_owned(), Value::Bool(true))].into());

        let mut out = HeaderMap::new();
        let text = Value::String("x\r\ny".to_owned());
        let properties =
            ["location", "two words", "Note"].map(|name| (name.to_owned(), text.clone()));
        write(&properties.into(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out["note"], "\"x  y\"");
    }
}
