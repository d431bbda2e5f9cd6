//! The API documents in `docs/`, and the JSON Schemas in them.
//!
//! A schema of a document lets unknown members pass, so that the API can grow. What we send is held to the schema closed: it
//! must not have a member of which the document does not tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

/// Where the compiler of schemas believes the document to be.
const HERE: &str = "file:///document.json";

pub struct ApiDocument {
    pub json: Value,
    draft: Draft,
    /// Those that are compiled already, by their pointers.
    schemas: Mutex<HashMap<String, Arc<Schema>>>,
}

/// A compiled schema.
pub struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl ApiDocument {
    pub fn openapi() -> Self {
        Self::read(
            include_str!("../../docs/openapi.json"),
            // The one that OpenAPI 3.1 is made of.
            Draft::V2020_12,
        )
    }

    pub fn vendor() -> Self {
        Self::read(
            include_str!("../../docs/vendor.openapi.json"),
            Draft::V2020_12,
        )
    }

    pub fn asyncapi() -> Self {
        // AsyncAPI's schemas are a superset of draft 7.
        Self::read(include_str!("../../docs/asyncapi.json"), Draft::V7)
    }

    fn read(text: &str, draft: Draft) -> Self {
        let json = serde_json::from_str(text).unwrap();
        Self {
            json,
            draft,
            schemas: Mutex::default(),
        }
    }

    /// The same with schemas that let no unknown member pass.
    pub fn closed(mut self) -> Self {
        close(&mut self.json);
        self
    }

    /// What stands at the pointer, or what that refers to.
    pub fn at(&self, pointer: &str) -> &Value {
        let node = self.json.pointer(pointer);
        self.resolve(node.unwrap_or_else(|| panic!("{pointer} is not there")))
    }

    pub fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.at(reference.strip_prefix('#').unwrap()),
            None => node,
        }
    }

    /// The schema at the pointer.
    pub fn schema(&self, pointer: &str) -> Arc<Schema> {
        let mut schemas = self.schemas.lock().unwrap();
        let schema = schemas.entry(pointer.to_owned());
        schema
            .or_insert_with(|| self.compiled(pointer).into())
            .clone()
    }

    fn compiled(&self, pointer: &str) -> Schema {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(self.draft);
        compiler.enable_format_assertions();
        compiler.add_resource(HERE, self.json.clone()).unwrap();
        let mut schemas = Schemas::new();
        let index = compiler
            .compile(&format!("{HERE}#{pointer}"), &mut schemas)
            .unwrap_or_else(|error| panic!("{pointer}: {error:#}"));
        Schema { schemas, index }
    }
}

impl Schema {
    pub fn allows(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.index).is_ok()
    }

    #[track_caller]
    pub fn assert(&self, value: &Value) {
        if let Err(fault) = self.schemas.validate(value, self.index) {
            panic!("{fault:#}\n{value:#}");
        }
    }
}

fn close(node: &mut Value) {
    if let Some(schema) = node.as_object_mut()
        && schema.get("type") == Some(&Value::from("object"))
        && schema.contains_key("properties")
    {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    match node {
        Value::Object(members) => members.values_mut().for_each(close),
        Value::Array(elements) => elements.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The name as a step of a JSON Pointer.
pub fn step(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[test]
fn a_closed_schema_takes_nothing_that_is_not_in_the_document() {
    let money = "/components/schemas/Money";
    let value = serde_json::json!({ "amount": 1, "currency": "AUD", "mint": "Perth" });
    assert!(ApiDocument::openapi().schema(money).allows(&value));
    assert!(!ApiDocument::openapi().closed().schema(money).allows(&value));
}

#[test]
fn every_reference_leads_somewhere() {
    fn each_reference(document: &ApiDocument, node: &Value, found: &mut usize) {
        if let Some(reference) = node.get("$ref") {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            document.at(pointer);
            *found += 1;
        }
        match node {
            Value::Object(members) => {
                for node in members.values() {
                    each_reference(document, node, found);
                }
            }
            Value::Array(elements) => {
                for node in elements {
                    each_reference(document, node, found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    for document in [
        ApiDocument::openapi(),
        ApiDocument::vendor(),
        ApiDocument::asyncapi(),
    ] {
        let mut found = 0;
        each_reference(&document, &document.json, &mut found);
        assert!(found > 10, "{found}");
    }
}
