//! Values that try a JSON Schema at each of its places, and on both sides of each of its limits.

use serde_json::{Value, json};

use crate::api_document::ApiDocument;

/// A value of the whole with one place changed.
pub struct Probe {
    /// Where the change is.
    pub pointer: String,
    pub what: String,
    pub value: Value,
    /// The same without the spaces at the ends of a text, which are dropped before it is looked at.
    pub meant: Value,
    /// The changed member need not be there, and is `null` or empty: it counts as not there.
    pub counts_as_absent: bool,
    /// What is wrong there is ignored, as the schema says.
    pub is_lenient: bool,
}

/// All probes of the schema; `valid` has every member that the schema knows.
pub fn probes(document: &ApiDocument, schema: &Value, valid: &Value) -> Vec<Probe> {
    let mut places = Vec::new();
    walk(document, schema, valid, "", true, &mut places);
    let mut probes = Vec::new();
    for place in places {
        let mut candidates = candidates(place.schema, place.value);
        if place.is_member {
            candidates.push(("removed".to_owned(), None));
        }
        for (what, new) in candidates {
            let mut value = valid.clone();
            let is_nothing = new
                .as_ref()
                .is_some_and(|new| new.is_null() || new.as_str() == Some(""));
            let mut meant = valid.clone();
            put(&mut meant, &place.pointer, new.clone().map(trimmed));
            put(&mut value, &place.pointer, new);
            probes.push(Probe {
                pointer: place.pointer.clone(),
                what,
                value,
                meant,
                counts_as_absent: is_nothing && !place.is_required,
                is_lenient: place.schema["x-ignored-when-invalid"] == true,
            });
        }
    }
    probes
}

struct Place<'a> {
    pointer: String,
    schema: &'a Value,
    value: &'a Value,
    is_required: bool,
    /// Of an object, so that it can be taken away.
    is_member: bool,
}

fn walk<'a>(
    document: &'a ApiDocument,
    schema: &'a Value,
    value: &'a Value,
    pointer: &str,
    is_required: bool,
    places: &mut Vec<Place<'a>>,
) {
    let schema = document.resolve(schema);
    places.push(Place {
        pointer: pointer.to_owned(),
        schema,
        value,
        is_required,
        is_member: pointer
            .rsplit('/')
            .next()
            .is_some_and(|name| !name.is_empty() && name != "0"),
    });
    let required: Vec<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let value = value
            .get(name)
            .unwrap_or_else(|| panic!("{pointer}: the valid value has no {name}"));
        let is_required = required.iter().any(|required| *required == name);
        let pointer = format!("{pointer}/{name}");
        walk(document, member, value, &pointer, is_required, places);
    }
    if let Some(items) = schema.get("items") {
        walk(
            document,
            items,
            &value[0],
            &format!("{pointer}/0"),
            true,
            places,
        );
    }
}

fn trimmed(value: Value) -> Value {
    match value.as_str().map(|text| text.trim_matches(' ')) {
        Some(text) if !text.is_empty() => text.into(),
        Some(_) | None => value,
    }
}

fn put(whole: &mut Value, pointer: &str, new: Option<Value>) {
    let Some(new) = new else {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = whole.pointer_mut(parent).and_then(Value::as_object_mut);
        parent.unwrap().remove(name).unwrap();
        return;
    };
    *whole.pointer_mut(pointer).unwrap() = new;
}

/// What is tried in the place of a value.
fn candidates(schema: &Value, valid: &Value) -> Vec<(String, Option<Value>)> {
    let mut tried = Vec::new();
    let mut add = |value: Value| {
        let text = value.to_string();
        let what = text.chars().take(60).collect();
        tried.push((what, Some(value)));
    };
    for value in [
        Value::Null,
        json!(true),
        json!(7),
        json!(1.5),
        json!(2.0),
        json!({}),
        json!([]),
        json!([7]),
    ] {
        add(value);
    }
    for text in [
        "",
        " ",
        "\u{a0}",
        "x",
        " x ",
        ".x",
        "x.",
        "x.y",
        "-",
        "a b",
        "a\nb",
        "a\tb",
        "\r\n",
        "x\u{7f}",
        "x\u{85}",
        "x\u{2028}",
        "\u{2029}",
        "é",
        "日本",
        "EUR",
        "eur",
        "ZZZ",
        "XXX",
        "XTS",
        "12",
        "ada@localhost",
        "ada@example.org",
        "\"a b\"@example.org",
        "a b@example.org",
        "ada@example",
        "@example.org",
        "ada@",
        "ada@example..org",
        "2026-11-22T19:40:00Z",
        "2026-11-22T20:40:00.25+01:00",
        "1969-12-31T23:59:59Z",
        "9999-01-01T00:00:00Z",
        "2026-11-22",
        "01935a1e-9c00-7000-8000",
    ] {
        add(json!(text));
    }
    if let Some(longest) = schema["maxLength"].as_u64() {
        for length in [longest, longest + 1] {
            let length = usize::try_from(length).unwrap();
            add(json!("x".repeat(length)));
            add(json!("é".repeat(length)));
            add(json!(address(length)));
        }
    }
    for (word, steps) in [("minimum", [-1, 0]), ("maximum", [0, 1])] {
        if let Some(bound) = schema[word].as_i64() {
            steps.iter().for_each(|step| add(json!(bound + step)));
        }
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        for count in [most, most + 1] {
            let count = usize::try_from(count).unwrap();
            add(Value::Array(vec![valid[0].clone(); count]));
        }
    }
    for known in schema["enum"].as_array().into_iter().flatten() {
        add(known.clone());
    }
    if let Value::Object(members) = valid {
        let mut more = members.clone();
        more.insert("unknown".to_owned(), json!({ "member": [1] }));
        add(more.into());
    }
    tried
}

/// An email address of that many characters, if there can be one.
fn address(length: usize) -> String {
    let mut address = format!("{}@", "a".repeat(length.min(60) / 2));
    while address.len() + 60 < length {
        address += &format!("{}.", "b".repeat(50));
    }
    let rest = length.saturating_sub(address.len() + 4);
    address + &"c".repeat(rest) + ".org"
}
