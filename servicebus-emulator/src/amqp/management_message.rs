//! Requests to `$management` and `$cbs`, and the answers to them.
//!
//! A request is a message whose application properties name an operation and whose body is its argument: a map, or
//! the token that `put-token` brings. An answer goes to the address that the request names, under the request's id.
//! `Request::decode` runs once for every message on a request link; an error means that there is nobody to answer.

use bytes::{Bytes, BytesMut};
use serde_amqp::Value as Amqp;

use super::{
    value,
    value_decoding::{DecodeError, Reader},
    value_encoding::{
        put_descriptor, put_int, put_list, put_map, put_null, put_string, put_symbol, put_value,
    },
};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// Of any type that AMQP has for it. The answer must have the same: .NET and Java look it up by type and value.
    pub(crate) id: Amqp,
    pub(crate) reply_to: Option<String>,
    /// Empty where the request names none.
    pub(crate) operation: String,
    /// The application properties, the operation among them.
    pub(crate) properties: Amqp,
    /// Null where there is none.
    pub(crate) body: Amqp,
}

impl Request {
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let mut request = Self {
            id: Amqp::Null,
            reply_to: None,
            operation: String::new(),
            properties: Amqp::Null,
            body: Amqp::Null,
        };
        while !reader.is_empty() {
            match reader.descriptor()? {
                0x73 => {
                    let mut fields = reader.fields()?;
                    request.id = fields.value()?;
                    let _user_id = fields.value()?;
                    let _to = fields.value()?;
                    let _subject = fields.value()?;
                    request.reply_to = fields.text("reply-to")?;
                    let correlation_id = fields.value()?;
                    if matches!(request.id, Amqp::Null) {
                        request.id = correlation_id;
                    }
                }
                0x74 => request.properties = reader.value()?,
                0x77 => request.body = reader.value()?,
                _ => drop(reader.encoded()?),
            }
        }
        request.operation = request.text("operation").unwrap_or_default().to_owned();
        Ok(request)
    }

    /// An application property that is text: `type`, `name` and `operation` of `put-token`, `associated-link-name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        value::get(&self.properties, name).and_then(value::text)
    }

    /// An entry of the body.
    pub(crate) fn argument(&self, name: &str) -> Option<&Amqp> {
        value::get(&self.body, name)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    /// As in HTTP.
    pub(crate) status: u16,
    pub(crate) description: String,
    /// Of a refusal: `com.microsoft:…` or `amqp:…`.
    pub(crate) condition: Option<String>,
    pub(crate) body: Amqp,
}

impl Response {
    pub(crate) fn ok(body: Amqp) -> Self {
        Self {
            status: 200,
            description: "OK".to_owned(),
            condition: None,
            body,
        }
    }

    pub(crate) fn refusal(
        status: u16,
        condition: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            status,
            description: description.into(),
            condition: Some(condition.into()),
            body: Amqp::Null,
        }
    }

    /// The answer to this request. Every fact of it has two names: `$management` was first known by the one, `$cbs`
    /// by the other, and clients look for either.
    pub(crate) fn encode(&self, request: &Request) -> Bytes {
        let mut out = BytesMut::new();
        put_descriptor(&mut out, 0x73);
        put_list(&mut out, |out| {
            // message-id, user-id
            put_null(out);
            put_null(out);
            // to
            match &request.reply_to {
                Some(reply_to) => put_string(out, reply_to),
                None => put_null(out),
            }
            // subject, reply-to
            put_null(out);
            put_null(out);
            // correlation-id
            put_value(out, &request.id);
            6
        });
        put_descriptor(&mut out, 0x74);
        put_map(&mut out, |out| {
            for name in ["statusCode", "status-code"] {
                put_string(out, name);
                put_int(out, self.status.into());
            }
            for name in ["statusDescription", "status-description"] {
                put_string(out, name);
                put_string(out, &self.description);
            }
            let Some(condition) = &self.condition else {
                return 8;
            };
            for name in ["errorCondition", "error-condition"] {
                put_string(out, name);
                put_symbol(out, condition);
            }
            12
        });
        put_descriptor(&mut out, 0x77);
        put_value(&mut out, &self.body);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use serde_amqp::primitives::{OrderedMap, Symbol, Uuid};

    use super::*;

    fn string(text: &str) -> Amqp {
        Amqp::String(text.to_owned())
    }

    /// A request as a client writes it, with this id.
    fn request(id: &Amqp, correlation_id: &Amqp, properties: &Amqp, body: &Amqp) -> Bytes {
        let mut out = BytesMut::new();
        put_descriptor(&mut out, 0x73);
        put_list(&mut out, |out| {
            put_value(out, id);
            put_null(out);
            put_null(out);
            put_null(out);
            put_string(out, "client-1");
            put_value(out, correlation_id);
            6
        });
        put_descriptor(&mut out, 0x74);
        put_value(&mut out, properties);
        put_descriptor(&mut out, 0x77);
        put_value(&mut out, body);
        out.freeze()
    }

    /// The correlation id, the application properties and the body of an answer.
    fn answer(bytes: &[u8]) -> (Amqp, Amqp, Amqp) {
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.descriptor(), Ok(0x73));
        let mut fields = reader.fields().unwrap();
        let mut fields = [(); 6].map(|()| fields.value().unwrap());
        assert_eq!(fields[2], string("client-1"));
        assert_eq!(reader.descriptor(), Ok(0x74));
        let properties = reader.value().unwrap();
        assert_eq!(reader.descriptor(), Ok(0x77));
        let body = reader.value().unwrap();
        assert!(reader.is_empty());
        (std::mem::take(&mut fields[5]), properties, body)
    }

    #[test]
    fn a_request_is_answered_under_its_own_id() {
        let token = Amqp::Uuid(Uuid::from([7; 16]));
        let properties = value::map([
            ("operation", string("com.microsoft:renew-lock")),
            ("com.microsoft:server-timeout", Amqp::Uint(60_000)),
            ("associated-link-name", string("link-1")),
        ]);
        let body = value::map([("lock-tokens", Amqp::List(vec![token.clone()]))]);
        let ids = [
            Amqp::Uuid(Uuid::from([1; 16])),
            Amqp::Ulong(3),
            string("id"),
            Amqp::Binary(vec![1].into()),
        ];
        for id in ids {
            let bytes = request(&id, &string("other"), &properties, &body);
            let request = Request::decode(&bytes).unwrap();
            assert_eq!(request.operation, "com.microsoft:renew-lock");
            assert_eq!(request.text("associated-link-name"), Some("link-1"));
            let tokens = request.argument("lock-tokens").and_then(value::elements);
            assert_eq!(tokens, Some(&[token.clone()][..]));

            let ok = Response::ok(value::map([("x", Amqp::Long(500))]));
            let (correlation_id, facts, body) = answer(&ok.encode(&request));
            assert_eq!(correlation_id, id);
            let expected = value::map([
                ("statusCode", Amqp::Int(200)),
                ("status-code", Amqp::Int(200)),
                ("statusDescription", string("OK")),
                ("status-description", string("OK")),
            ]);
            assert_eq!(facts, expected);
            assert_eq!(value::get(&body, "x"), Some(&Amqp::Long(500)));
        }
        let bytes = request(&Amqp::Null, &string("other"), &properties, &body);
        assert_eq!(Request::decode(&bytes).unwrap().id, string("other"));
    }

    #[test]
    fn a_refusal_says_why_under_both_names() {
        let bytes = request(&Amqp::Ulong(0), &Amqp::Null, &Amqp::Null, &Amqp::Null);
        let request = Request::decode(&bytes).unwrap();
        assert_eq!(request.operation, "");
        let gone = Response::refusal(410, "com.microsoft:message-lock-lost", "too late");
        let (_, facts, body) = answer(&gone.encode(&request));
        let condition = Amqp::Symbol(Symbol::from("com.microsoft:message-lock-lost"));
        assert_eq!(value::get(&facts, "errorCondition"), Some(&condition));
        assert_eq!(value::get(&facts, "error-condition"), Some(&condition));
        assert_eq!(value::get(&facts, "statusCode"), Some(&Amqp::Int(410)));
        let description = value::get(&facts, "status-description");
        assert_eq!(description, Some(&string("too late")));
        assert_eq!(body, Amqp::Null);
    }

    #[test]
    fn a_token_is_the_body_of_put_token() {
        let properties = value::map([
            ("operation", string("put-token")),
            ("type", string("servicebus.windows.net:sastoken")),
            ("name", string("amqps://localhost/q")),
        ]);
        let token = string("SharedAccessSignature sr=…");
        let bytes = request(&string("1"), &Amqp::Null, &properties, &token);
        let request = Request::decode(&bytes).unwrap();
        assert_eq!(request.text("name"), Some("amqps://localhost/q"));
        let kind = request.text("type");
        assert_eq!(kind, Some("servicebus.windows.net:sastoken"));
        assert_eq!(
            value::text(&request.body),
            Some("SharedAccessSignature sr=…")
        );
        assert_eq!(request.argument("x"), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Request::decode(&[0x00, 0x53]).is_err());
        let mut body = BytesMut::new();
        put_descriptor(&mut body, 0x77);
        body.extend([0xc1, 3, 1, 0x40]);
        assert_eq!(Request::decode(&body), Err(DecodeError::Truncated));
        let mut keys = OrderedMap::new();
        keys.insert(Amqp::Uint(1), Amqp::Null);
        let bytes = request(&Amqp::Null, &Amqp::Null, &Amqp::Map(keys), &Amqp::Null);
        assert_eq!(Request::decode(&bytes).unwrap().operation, "");
    }
}
