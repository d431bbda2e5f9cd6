//! A till of the shop's own, and the document of its contract.

use std::time::Duration;

use orderup::{
    config::Settings,
    failure::Class,
    http_client,
    order::{Order, OrderId},
    pos::{Found, PosClient, Submitted},
    till_error::{TillError, TillFailure},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    provider::free_port,
    scripted_server::{Reply, ScriptedServer},
    square::{ada_order, name, told},
};

const TOKEN: &str = "tok_5f1c";
const KEY: Uuid = Uuid::from_u128(0x8540_c0de_899f_5cce_acb5_3ec4_93af_3800);
const ORDER_ID: OrderId = OrderId(Uuid::from_u128(0x0193_5a1e_9c00_7000_8000_0000_0000_0001));

fn settings(url: &str) -> Settings {
    Settings::from_pairs([
        ("TILL_URL", url),
        ("TILL_TOKEN", "till-secret"),
        ("TILL_LOCATION_ID", "main-street"),
    ])
}

fn client(url: &str) -> PosClient {
    let settings = settings(url);
    PosClient::from_settings(&settings, &http_client::outgoing(&settings).unwrap()).unwrap()
}

fn problem(status: u16, body: &str) -> Reply {
    Reply::Answer {
        status,
        headers: vec![("content-type", "application/problem+json".to_owned())],
        body: body.to_owned(),
    }
}

async fn submitted(reply: Reply) -> Result<Submitted, TillError> {
    let till = ScriptedServer::start([reply]).await;
    client(&till.url()).submit(&ada_order(TOKEN), KEY).await
}

fn accepted(total: Option<i64>) -> Submitted {
    Submitted::Accepted {
        external_id: "T-20417".to_owned(),
        total,
    }
}

fn pending(external_id: Option<&str>) -> Submitted {
    Submitted::Pending {
        external_id: external_id.map(str::to_owned),
        retry_after: None,
    }
}

/// `docs/till.openapi.json`.
struct Contract(Value);

impl Contract {
    fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../docs/till.openapi.json")).unwrap())
    }

    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node.get("$ref").and_then(Value::as_str) {
            Some(pointer) => self.0.pointer(pointer.strip_prefix('#').unwrap()).unwrap(),
            None => node,
        }
    }

    /// What of a value is not as the schema has it. It knows the keywords that the contract uses, and no others.
    fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                faults.push(format!("{at}: {what}"));
            }
        };
        let schema = self.resolve(schema).as_object().unwrap();
        let mut nested = Vec::new();
        let members = |word: &str| schema.get(word).and_then(Value::as_object);
        for (word, expected) in schema {
            match word.as_str() {
                "description" => {}
                "type" => check(
                    match expected.as_str().unwrap() {
                        "object" => value.is_object(),
                        "array" => value.is_array(),
                        "string" => value.is_string(),
                        "integer" => value.is_i64() || value.is_u64(),
                        other => panic!("type {other}"),
                    },
                    "type",
                ),
                "required" => {
                    for member in expected.as_array().unwrap() {
                        check(value.get(member.as_str().unwrap()).is_some(), "required");
                    }
                }
                "properties" => {
                    for (member, schema) in members("properties").unwrap() {
                        if let Some(value) = value.get(member) {
                            nested.extend(self.faults(schema, value, &format!("{at}/{member}")));
                        }
                    }
                }
                "additionalProperties" => {
                    assert_eq!(*expected, Value::Bool(false));
                    for member in value
                        .as_object()
                        .into_iter()
                        .flat_map(|object| object.keys())
                    {
                        check(members("properties").unwrap().contains_key(member), member);
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        nested.extend(self.faults(expected, value, &format!("{at}/{index}")));
                    }
                }
                "oneOf" => {
                    let fitting = expected.as_array().unwrap().iter();
                    let fitting =
                        fitting.filter(|schema| self.faults(schema, value, at).is_empty());
                    check(fitting.count() == 1, "oneOf");
                }
                "const" => check(value == expected, "const"),
                "enum" => check(expected.as_array().unwrap().contains(value), "enum"),
                "minimum" => check(value.as_i64() >= expected.as_i64(), "minimum"),
                "maximum" => check(value.as_i64() <= expected.as_i64(), "maximum"),
                "minItems" => check(
                    value.as_array().map(Vec::len) >= length(expected),
                    "minItems",
                ),
                "maxItems" => check(
                    value.as_array().map(Vec::len) <= length(expected),
                    "maxItems",
                ),
                "maxLength" => {
                    let characters = value.as_str().map(|text| text.chars().count());
                    check(characters <= length(expected), "maxLength");
                }
                "format" => {
                    assert_eq!(*expected, "uuid");
                    check(value.as_str().unwrap().parse::<Uuid>().is_ok(), "uuid");
                }
                "pattern" => check(
                    fits(
                        expected.as_str().unwrap(),
                        value.as_str().unwrap_or_default(),
                    ),
                    "pattern",
                ),
                other => panic!("{at}: the keyword {other} is not known here"),
            }
        }
        faults.extend(nested);
        faults
    }

    fn operation(&self, path: &str, method: &str) -> &Value {
        &self.0["paths"][path][method]
    }

    /// Each example of an answer, as the till would give it.
    fn answers(&self, path: &str, method: &str) -> Vec<(String, Value, Reply)> {
        let responses = self.operation(path, method)["responses"]
            .as_object()
            .unwrap();
        let mut answers = Vec::new();
        for (status, response) in responses {
            let contents = response.get("content").and_then(Value::as_object);
            for (media_type, content) in contents.into_iter().flatten() {
                for (name, example) in content["examples"].as_object().unwrap() {
                    let value = &example["value"];
                    let faults = self.faults(&content["schema"], value, name);
                    assert!(faults.is_empty(), "{faults:?}");
                    let reply = Reply::Answer {
                        status: status.parse().unwrap(),
                        headers: vec![("content-type", media_type.clone())],
                        body: value.to_string(),
                    };
                    answers.push((format!("{status} {name}"), value.clone(), reply));
                }
            }
        }
        assert!(!answers.is_empty());
        answers
    }
}

fn length(expected: &Value) -> Option<usize> {
    expected
        .as_u64()
        .and_then(|length| usize::try_from(length).ok())
}

/// The few patterns of the contract, without an engine for all.
fn fits(pattern: &str, text: &str) -> bool {
    let code = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match pattern {
        "^[A-Z]{3}$" => text.len() == 3 && text.chars().all(|c| c.is_ascii_uppercase()),
        "^[A-Za-z0-9_.-]{1,64}$" => (1..=64).contains(&text.len()) && text.chars().all(code),
        "^[A-Za-z0-9][A-Za-z0-9_.~-]{0,127}$" => {
            (1..=128).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| code(c) || c == '~')
        }
        "/payment-declined$" => text.ends_with("/payment-declined"),
        "^\"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\"$" => text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .is_some_and(|text| text.len() == 36 && text.parse::<Uuid>().is_ok()),
        other => panic!("the pattern {other} is not known here"),
    }
}

#[tokio::test]
async fn an_order_is_handed_over_as_the_contract_has_it() {
    let contract = Contract::read();
    let operation = contract.operation("/orders", "post");
    let content = &operation["requestBody"]["content"]["application/json"];
    for example in content["examples"].as_object().unwrap().values() {
        let faults = contract.faults(&content["schema"], &example["value"], "example");
        assert!(faults.is_empty(), "{faults:?}");
    }

    let answer = r#"{"order_id":"01935a1e-9c00-7000-8000-000000000001","status":"accepted","external_id":"T-1"}"#;
    let till = ScriptedServer::start([Reply::text(201, answer)]).await;
    let client = client(&format!("{}/v1/", till.url()));
    let unpaid = Order {
        payment: None,
        ..ada_order(TOKEN)
    };
    for (order, mode) in [
        (ada_order(TOKEN), "capture"),
        (ada_order("EXTERNAL"), "external"),
        (unpaid, ""),
    ] {
        client.submit(&order, KEY).await.unwrap();
        let request = till.next().await;
        assert_eq!(request.method, "POST");
        assert_eq!(request.path_and_query, "/v1/orders");
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer till-secret");
        let key = Value::from(request.header("idempotency-key"));
        let parameter = contract.resolve(&operation["parameters"][0]);
        assert!(
            contract
                .faults(&parameter["schema"], &key, "key")
                .is_empty()
        );

        let body = request.json();
        let faults = contract.faults(&content["schema"], &body, "");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(body["payment"]["mode"].as_str().unwrap_or_default(), mode);
        assert_eq!(body["location_id"], "main-street");
        assert_eq!(body["total"], 1725);
        assert_eq!(body["lines"][0]["unit_price"], 750);
        assert_eq!(body["customer"]["name"], "Ada Lovelace");
        assert!(!request.body.contains("ada@example.net"));
        assert_eq!(request.body.contains(TOKEN), mode == "capture");
    }
}

#[tokio::test]
async fn every_example_of_an_answer_to_an_order_is_understood() {
    for (example, value, reply) in Contract::read().answers("/orders", "post") {
        let result = submitted(reply).await;
        match example.as_str() {
            "200 repeated" | "201 captured" => assert_eq!(result, Ok(accepted(Some(3400)))),
            "201 recorded" => assert_eq!(result, Ok(accepted(None))),
            "202 pending" => assert_eq!(result, Ok(pending(Some("T-20417")))),
            _ => {
                let expected = match example.as_str() {
                    "402 declined" => "declined",
                    "409 in_progress" => "deferred",
                    "422 rejected" => "rejected",
                    "422 key_reused" => "key reused",
                    "422 invalid" => "refused",
                    other => panic!("{other} is not known here"),
                };
                let error = told(result);
                assert_eq!(name(&error), expected, "{example}: {error}");
                if let Some(code) = value["code"].as_str() {
                    assert!(error.to_string().ends_with(code), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_example_of_what_became_of_an_order_is_understood() {
    for (example, _, reply) in Contract::read().answers("/orders/{order_id}", "get") {
        let till = ScriptedServer::start([reply]).await;
        let found = client(&till.url()).find(ORDER_ID).await.unwrap().unwrap();
        let code = |code: &str| code.to_owned();
        let expected = match example.as_str() {
            "200 accepted" => Found::Submitted(accepted(Some(3400))),
            "200 pending" => Found::Submitted(pending(Some("T-20417"))),
            "200 declined" => Found::Declined {
                code: code("insufficient_funds"),
            },
            "200 rejected" => Found::Rejected {
                code: code("sold_out"),
            },
            "200 cancelled" => Found::Cancelled,
            other => panic!("{other} is not known here"),
        };
        assert_eq!(found, expected);
        let request = till.next().await;
        assert_eq!(request.method, "GET");
        assert_eq!(request.path_and_query, format!("/orders/{ORDER_ID}"));
    }
    let till = ScriptedServer::start([Reply::status(404)]).await;
    assert_eq!(client(&till.url()).find(ORDER_ID).await, Ok(None));
}

#[tokio::test]
async fn an_order_is_cancelled_once_or_again() {
    for status in [200, 204] {
        let till = ScriptedServer::start([Reply::status(status)]).await;
        client(&till.url()).cancel("T-20417").await.unwrap();
        let request = till.next().await;
        assert_eq!(request.method, "POST");
        assert_eq!(request.path_and_query, "/orders/T-20417/cancel");
    }
    for (example, _, reply) in Contract::read().answers("/orders/{external_id}/cancel", "post") {
        let till = ScriptedServer::start([reply]).await;
        let error = told(client(&till.url()).cancel("T-20417").await);
        let expected = match example.as_str() {
            "409 invalid_state" => "invalid state",
            "409 in_progress" => "deferred",
            other => panic!("{other} is not known here"),
        };
        assert_eq!(name(&error), expected);
    }
    let till = ScriptedServer::start([Reply::status(404)]).await;
    let client = client(&till.url());
    assert_eq!(name(&told(client.cancel("T-20417").await)), "not found");
    assert_eq!(till.rest().len(), 1);
    // No id of a till leads anywhere else.
    for id in ["", "..", "a/b", "a?b", "a%2Fb"] {
        assert_eq!(name(&told(client.cancel(id).await)), "refused");
    }
    assert!(till.rest().is_empty());
}

#[tokio::test]
async fn other_answers_are_classed_by_their_status() {
    for (status, expected) in [
        (204, "unanswered"),
        (302, "busy"),
        (400, "refused"),
        (401, "unauthorized"),
        (402, "unauthorized"),
        (403, "unauthorized"),
        (404, "unauthorized"),
        (405, "unauthorized"),
        (408, "busy"),
        (409, "deferred"),
        (422, "refused"),
        (425, "busy"),
        (429, "rate-limited"),
        (500, "unanswered"),
        (502, "unanswered"),
        (503, "busy"),
        (504, "unanswered"),
    ] {
        for reply in [
            Reply::text(status, "<html>Ada</html>"),
            problem(status, r#"{"type":"about:blank","detail":"Ada Lovelace"}"#),
        ] {
            let error = told(submitted(reply).await);
            assert_eq!(name(&error), expected, "{error}");
        }
    }
}

#[tokio::test]
async fn a_decision_needs_the_contracts_own_problem() {
    let declined = r#"{"type":"https://x.example/payment-declined","code":"insufficient_funds"}"#;
    let rejected = r#"{"type":"/order-rejected","code":"sold_out"}"#;
    for (reply, expected) in [
        (problem(402, declined), "declined"),
        (Reply::text(402, declined), "unauthorized"),
        (problem(400, declined), "refused"),
        (problem(409, rejected), "rejected"),
        (problem(422, rejected), "rejected"),
        (Reply::text(422, rejected), "refused"),
        (problem(500, rejected), "unanswered"),
    ] {
        let error = told(submitted(reply).await);
        assert_eq!(name(&error), expected, "{error}");
    }
    for code in ["", r#","code":"Ada's card""#, r#","code":7"#] {
        let body = format!(r#"{{"type":"/payment-declined"{code}}}"#);
        let error = told(submitted(problem(402, &body)).await);
        let expected = if code.ends_with('7') {
            "unauthorized"
        } else {
            assert!(error.to_string().ends_with(": unspecified"), "{error}");
            "declined"
        };
        assert_eq!(name(&error), expected, "{error}");
    }
}

#[tokio::test]
async fn a_success_about_something_else_is_none() {
    let body = |status: &str, rest: &str| {
        format!(r#"{{"order_id":"{ORDER_ID}","status":"{status}"{rest}}}"#)
    };
    for (status, body, expected) in [
        (201, String::new(), "unanswered"),
        (201, body("accepted", ""), "unanswered"),
        (
            201,
            body("accepted", r#","external_id":"../x""#),
            "unanswered",
        ),
        (201, body("eaten", r#","external_id":"T-1""#), "unanswered"),
        (201, body("declined", r#","code":"stolen""#), "declined"),
        (201, body("rejected", ""), "rejected"),
        (201, body("cancelled", ""), "invalid state"),
        (
            201,
            body("accepted", r#","external_id":"T-1""#).replace("0001\"", "0002\""),
            "unanswered",
        ),
    ] {
        let error = told(submitted(Reply::text(status, &body)).await);
        assert_eq!(name(&error), expected, "{body}: {error}");
    }
    // That it is pending needs no body.
    let reply = Reply::with_header(202, "retry-after", "9");
    let expected = Submitted::Pending {
        external_id: None,
        retry_after: Some(Duration::from_secs(9)),
    };
    assert_eq!(submitted(reply).await, Ok(expected));
}

#[tokio::test]
async fn the_till_says_when_to_ask_again() {
    for (status, class) in [
        (409, Class::Deferred),
        (429, Class::RateLimited),
        (503, Class::Transient),
    ] {
        let error = told(submitted(Reply::with_header(status, "retry-after", "9")).await);
        let TillError::Failed(failure) = error else {
            panic!("{error}");
        };
        let failure = failure.failure();
        assert_eq!(failure.class, class);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(9)));
    }
}

#[tokio::test]
async fn an_outage_is_told_from_a_lost_answer() {
    let url = format!("http://127.0.0.1:{}", free_port().await);
    let error = told(client(&url).submit(&ada_order(TOKEN), KEY).await);
    assert_eq!(name(&error), "unreachable");

    let till = ScriptedServer::start([Reply::Hang]).await;
    let settings = settings(&till.url());
    let http = http_client::outgoing(&settings).unwrap();
    let client = PosClient::with_timeout(&settings, &http, Duration::from_millis(300)).unwrap();
    let error = told(client.submit(&ada_order(TOKEN), KEY).await);
    assert!(matches!(
        error,
        TillError::Failed(TillFailure::Unanswered { .. })
    ));
    assert_eq!(name(&told(client.find(ORDER_ID).await)), "unanswered");
}

#[tokio::test]
async fn token_and_location_are_optional_and_the_token_is_never_printed() {
    let till = ScriptedServer::start([Reply::status(202)]).await;
    let url = till.url();
    let only_url = Settings::from_pairs([("TILL_URL", &url)]);
    let http = http_client::outgoing(&only_url).unwrap();
    let client = PosClient::from_settings(&only_url, &http).unwrap();
    client.submit(&ada_order(TOKEN), KEY).await.unwrap();
    let request = till.next().await;
    assert!(!request.headers.contains_key("authorization"));
    assert!(request.json().get("location_id").is_none());

    let client = PosClient::from_settings(&settings(&url), &http).unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let problem = |settings: Settings| {
        let error = PosClient::from_settings(&settings, &http).unwrap_err();
        error.to_string()
    };
    let error = problem(Settings::from_pairs([]));
    assert!(error.contains("TILL_URL is missing"), "{error}");
    let error = problem(Settings::from_pairs([("TILL_URL", "http://till.example")]));
    assert!(error.contains("TILL_URL is not usable"), "{error}");
    let unusable = ("TILL_TOKEN", "till\nsecret");
    let error = problem(Settings::from_pairs([("TILL_URL", url.as_str()), unusable]));
    assert!(error.contains("TILL_TOKEN is not usable"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
