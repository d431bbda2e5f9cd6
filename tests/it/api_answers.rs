//! Holds the answers of the HTTP API against `docs/openapi.json`, and remembers which of them have come.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use reqwest::Response;
use serde_json::Value;

use crate::api_document::{ApiDocument, Schema, step};

/// Headers that mean something to a caller: with these an answer is not to surprise anybody.
const TOLD: [&str; 7] = [
    "allow",
    "cache-control",
    "etag",
    "location",
    "retry-after",
    "www-authenticate",
    "x-content-type-options",
];

/// Operation, status, and name of the problem where it is one.
pub type Answer = (String, u16, String);

pub struct ApiAnswers {
    document: ApiDocument,
    seen: Mutex<BTreeSet<Answer>>,
}

impl ApiAnswers {
    pub fn new() -> Self {
        Self {
            document: ApiDocument::openapi().closed(),
            seen: Mutex::default(),
        }
    }

    /// Checks one answer; its status and body.
    #[track_caller]
    pub fn check(&self, operation: &str, answer: &Answered) -> (u16, Value) {
        let pointer = self.pointer(operation);
        let Answered {
            status,
            headers,
            body,
        } = answer;
        let pointer = format!("{pointer}/responses/{status}");
        let documented = self.document.at(&pointer);
        let mut told = documented["headers"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (name, header) in &mut told {
            let header = self.document.resolve(header);
            let value = headers.get(name).map(|value| value.to_str().unwrap());
            let Some(value) = value else {
                assert_ne!(header["required"], true, "{operation} {status}: {name}");
                continue;
            };
            let value = match header["schema"]["type"].as_str() {
                Some("integer") => value.parse::<u64>().unwrap().into(),
                _ => Value::from(value),
            };
            self.header_schema(&pointer, name).assert(&value);
        }
        for name in headers.keys().filter(|name| TOLD.contains(&name.as_str())) {
            let is_told = told
                .keys()
                .any(|told| told.eq_ignore_ascii_case(name.as_str()));
            assert!(is_told, "{operation} {status}: {name} is not documented");
        }
        let Some(contents) = documented["content"].as_object() else {
            assert!(body.is_empty(), "{operation} {status} has a body");
            self.remember(operation, *status, "");
            return (*status, Value::Null);
        };
        let media_type = headers["content-type"].to_str().unwrap();
        assert!(
            contents.contains_key(media_type),
            "{operation} {status}: {media_type}"
        );
        let value = if media_type.starts_with("text/") {
            Value::from(String::from_utf8(body.clone()).unwrap())
        } else {
            serde_json::from_slice(body).unwrap()
        };
        let pointer = format!("{pointer}/content/{}/schema", step(media_type));
        self.document.schema(&pointer).assert(&value);
        let name = value["type"].as_str().unwrap_or_default();
        self.remember(operation, *status, name.rsplit('/').next().unwrap());
        (*status, value)
    }

    /// Those that have come.
    pub fn seen(&self) -> BTreeSet<Answer> {
        self.seen.lock().unwrap().clone()
    }

    /// Those that are documented: each status of each operation, with each type of problem that it can be.
    pub fn documented(&self) -> BTreeSet<Answer> {
        let mut answers = BTreeSet::new();
        for (operation, pointer) in self.operations() {
            let responses = self.document.at(&format!("{pointer}/responses"));
            for (status, response) in responses.as_object().unwrap() {
                let status: u16 = status.parse().unwrap();
                let schema = &response["content"]["application/problem+json"]["schema"];
                let types = schema["allOf"][1]["properties"]["type"]["enum"].as_array();
                let names = types.map(|types| {
                    let types = types.iter().map(|uri| uri.as_str().unwrap());
                    types.map(|uri| uri.rsplit('/').next().unwrap()).collect()
                });
                for name in names.unwrap_or_else(|| vec![""]) {
                    answers.insert((operation.clone(), status, name.to_owned()));
                }
            }
        }
        answers
    }

    fn remember(&self, operation: &str, status: u16, problem: &str) {
        let answer = (operation.to_owned(), status, problem.to_owned());
        self.seen.lock().unwrap().insert(answer);
    }

    fn pointer(&self, operation: &str) -> String {
        let operations = self.operations();
        let found = operations.into_iter().find(|(id, _)| id == operation);
        found
            .unwrap_or_else(|| panic!("no operation {operation}"))
            .1
    }

    fn header_schema(&self, response: &str, name: &str) -> Arc<Schema> {
        let pointer = format!("{response}/headers/{name}");
        let reference = self.document.json.pointer(&pointer).unwrap();
        let pointer = match reference["$ref"].as_str() {
            Some(reference) => reference.strip_prefix('#').unwrap().to_owned(),
            None => pointer,
        };
        self.document.schema(&format!("{pointer}/schema"))
    }

    /// Each operation by its id, with its place.
    fn operations(&self) -> Vec<(String, String)> {
        let mut operations = Vec::new();
        for (path, item) in self.document.at("/paths").as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if let Some(id) = operation["operationId"].as_str() {
                    let pointer = format!("/paths/{}/{method}", step(path));
                    operations.push((id.to_owned(), pointer));
                }
            }
        }
        operations
    }
}

/// An answer that has come as a whole.
pub struct Answered {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answered {
    pub async fn of(response: Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap().to_vec(),
        }
    }
}
