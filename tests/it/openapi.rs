//! `docs/openapi.json` against the package: its operations, its currencies, and its examples.

use std::collections::BTreeSet;

use orderup::{order::Currency, problem_type::ProblemType};
use serde_json::Value;

use crate::{
    api_document::{ApiDocument, step},
    contract::functions,
};

#[test]
fn the_operations_are_the_http_functions_of_the_package() {
    let document = ApiDocument::openapi();
    let mut documented = BTreeSet::new();
    for (path, item) in document.at("/paths").as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            let security = operation
                .get("security")
                .unwrap_or(&document.json["security"]);
            let needs_key = |alternative: &Value| {
                ["functionKey", "functionKeyInQuery"]
                    .iter()
                    .any(|key| alternative.get(key).is_some())
            };
            let level = if security.as_array().unwrap().iter().all(needs_key) {
                "function"
            } else {
                "anonymous"
            };
            documented.insert((path.clone(), method.clone(), level.to_owned()));
        }
    }
    let mut functions_are = BTreeSet::new();
    for (_, function) in functions() {
        let trigger = &function["bindings"][0];
        if trigger["type"] != "httpTrigger" {
            continue;
        }
        let route = trigger["route"].as_str().unwrap().replace(":guid}", "}");
        for method in trigger["methods"].as_array().unwrap() {
            let method = method.as_str().unwrap().to_owned();
            let level = trigger["authLevel"].as_str().unwrap().to_owned();
            functions_are.insert((format!("/api/{route}"), method, level));
        }
    }
    assert_eq!(documented, functions_are);
}

#[test]
fn the_currencies_are_those_that_are_taken() {
    let document = ApiDocument::openapi();
    let letters = || 'A'..='Z';
    let taken: Vec<Value> = letters()
        .flat_map(|a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{b}{c}"))))
        .filter(|code| {
            Currency::from_code(code).is_some() && !matches!(code.as_str(), "XXX" | "XTS")
        })
        .map(Value::from)
        .collect();
    assert_eq!(
        document.at("/components/schemas/Currency/enum"),
        &Value::from(taken)
    );
}

#[test]
fn the_examples_are_as_their_schemas_say() {
    for document in [
        ApiDocument::openapi().closed(),
        ApiDocument::vendor().closed(),
    ] {
        let mut checked = 0;
        each_content(&document.json, "", &mut |pointer, content| {
            let schema = document.schema(&format!("{pointer}/schema"));
            for example in content["examples"].as_object().into_iter().flatten() {
                schema.assert(&example.1["value"]);
                checked += 1;
            }
        });
        assert!(checked > 2);
    }
    let document = ApiDocument::openapi();
    each_content(&document.json, "", &mut |pointer, content| {
        if !pointer.ends_with("problem+json") {
            return;
        }
        for (_, example) in content["examples"].as_object().unwrap() {
            let problem = &example["value"];
            let name = problem["type"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap();
            let known = ProblemType::named(name).unwrap();
            assert_eq!(problem["title"], known.title());
            assert_eq!(problem["status"], known.status().as_u16());
        }
    });
}

fn each_content(node: &Value, pointer: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, member) in node.as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/{}", step(name));
        if name == "content" {
            for (media_type, content) in member.as_object().unwrap() {
                visit(&format!("{pointer}/{}", step(media_type)), content);
            }
        } else {
            each_content(member, &pointer, visit);
        }
    }
}
