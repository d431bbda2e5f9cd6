//! What the host makes of a handler's answers, against the samples of the host's own tests.

use axum::http::StatusCode;
use devhost::{
    answer::{Answer, HandlerResult, interpret},
    http_envelope::{HttpOutput, http_output},
};
use serde_json::{Value, json};

const JSON: Option<&str> = Some("application/json; charset=utf-8");

fn result(body: &Value) -> HandlerResult {
    match interpret(StatusCode::OK, JSON, body.to_string().as_bytes()) {
        Answer::Result(result) => result,
        other => panic!("{other:?}"),
    }
}

fn failure(status: u16, content_type: Option<&str>, body: &str) -> String {
    match interpret(
        StatusCode::from_u16(status).unwrap(),
        content_type,
        body.as_bytes(),
    ) {
        Answer::Failed(words) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_answer_is_read() {
    let result = result(&json!({
        "ReturnValue": "Hello return",
        "Outputs": {"output1": "output1Value", "output2": "output2Value"},
        "Logs": ["invocation log1", "invocation log2"],
    }));
    assert_eq!(result.logs.len(), 2);
    assert_eq!(result.outputs.unwrap().len(), 2);
    assert_eq!(result.return_value, "Hello return");
}

#[test]
fn names_have_no_case_and_strange_members_do_not_matter() {
    assert_eq!(
        result(&json!({"logs": ["a"], "key1": "value1"})).logs,
        ["a"]
    );
    assert_eq!(result(&json!({"key1": "value1"})), HandlerResult::default());
    assert_eq!(
        result(&json!({"Logs": null, "Outputs": null})),
        HandlerResult::default()
    );
}

#[test]
fn properties_of_an_object_that_is_returned_are_outputs() {
    assert_eq!(
        result(&json!({"ReturnValue": {"res": 1}})).outputs.unwrap()["res"],
        1
    );
}

#[test]
fn only_2xx_succeeds() {
    for status in [302, 400, 404, 500] {
        assert!(failure(status, JSON, "{}").contains(&status.to_string()));
    }
    assert_eq!(
        failure(500, JSON, "{}"),
        "System.Net.Http.HttpRequestException: Response status code does not indicate success: 500 (Internal Server Error)."
    );
}

#[test]
fn a_body_that_is_not_json_fails_with_the_body_in_the_words() {
    let words = failure(200, JSON, "Hello World");
    assert!(
        words.contains("Hello World") && words.contains("StatusCode: 200"),
        "{words}"
    );
    for body in ["[1]", "\"text\"", "{\"Logs\":1}", "{\"Outputs\":[]}"] {
        assert!(
            failure(200, JSON, body).starts_with("System.InvalidOperationException"),
            "{body}"
        );
    }
}

#[test]
fn another_or_no_content_type_fails() {
    assert!(
        failure(200, Some("text/plain"), "TestMessage").contains("UnsupportedMediaTypeException")
    );
    assert!(failure(200, None, "{}").contains("application/octet-stream"));
}

#[test]
fn an_empty_body_or_null_hangs_whatever_its_type() {
    for (status, content_type, body) in [
        (200, JSON, ""),
        (204, None, ""),
        (202, Some("text/plain"), ""),
        (200, JSON, "null"),
    ] {
        let answer = interpret(
            StatusCode::from_u16(status).unwrap(),
            content_type,
            body.as_bytes(),
        );
        assert!(
            matches!(answer, Answer::Hang(_)),
            "{status} {body:?}: {answer:?}"
        );
    }
}

fn output(res: &Value) -> Result<HttpOutput, String> {
    http_output(&result(&json!({"Outputs": {"res": res}})), "res")
}

#[test]
fn an_http_output_is_an_object_or_its_text() {
    let created = output(&json!({"statusCode": "201", "body": "my world"})).unwrap();
    assert_eq!((created.status, created.body.as_str()), (201, "my world"));
    assert_eq!(
        output(&json!(r#"{"statusCode": "204"}"#)).unwrap().status,
        204
    );
    assert_eq!(output(&json!("{}")).unwrap().status, 200);
    assert_eq!(
        output(&json!({"status": 300, "statusCode": 301}))
            .unwrap()
            .status,
        301
    );
    let full = output(&json!(
        r#"{"body":"foobar","statusCode":"301","headers":{"header1":"header1Value"}}"#
    ))
    .unwrap();
    assert_eq!(
        full.headers,
        [("header1".to_owned(), "header1Value".to_owned())]
    );
    assert!(
        output(&json!("SomeBlah"))
            .unwrap_err()
            .contains("InvalidOperationException")
    );
}

#[test]
fn an_http_output_that_is_missing_is_a_200() {
    assert_eq!(
        http_output(&result(&json!({"Outputs": {}})), "res")
            .unwrap()
            .body,
        "{}"
    );
    assert_eq!(
        http_output(&result(&json!({"Outputs": null})), "res")
            .unwrap()
            .body,
        ""
    );
    let returned = result(&json!({"ReturnValue": {"statusCode": 404}}));
    assert_eq!(http_output(&returned, "$return").unwrap().status, 404);
}
