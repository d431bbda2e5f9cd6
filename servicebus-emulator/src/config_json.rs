//! The values of a `Config.json`, each with its place in the file.
//!
//! It runs while the topology is read, over what `serde_json` made of the file. A wrong type, a missing or an
//! unknown property becomes an error that begins with the place, as in `Topics[0].Subscriptions[1]: …`.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::iso_8601;

/// An object of the file.
#[derive(Debug, Clone)]
pub(crate) struct Object<'a> {
    place: String,
    members: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    /// The object at that place; a place without a name is the file's outermost object.
    pub(crate) fn new(place: String, value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Object(members) => Ok(Self {
                place,
                members: Some(members),
            }),
            _ => Err(at(&place, "expected an object")),
        }
    }

    pub(crate) fn error(&self, reason: impl std::fmt::Display) -> String {
        at(&self.place, reason)
    }

    /// The error about one of its members.
    pub(crate) fn error_in(&self, name: &str, reason: impl std::fmt::Display) -> String {
        at(&self.place_of(name), reason)
    }

    fn place_of(&self, name: &str) -> String {
        match self.place.as_str() {
            "" => name.to_owned(),
            place => format!("{place}.{name}"),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.members?.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.members.into_iter().flatten()
    }

    /// A property that is misspelt would be a setting that silently does nothing.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), String> {
        match self
            .members()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, _)) => Err(self.error(format_args!(
                "`{name}` is not a property here; these are: {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// The object in it, empty when it is left out.
    pub(crate) fn object(&self, name: &str) -> Result<Self, String> {
        match self.get(name) {
            Some(value) => Self::new(self.place_of(name), value),
            None => Ok(Self {
                place: self.place_of(name),
                members: None,
            }),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The objects of an array, none when it is left out.
    pub(crate) fn objects(&self, name: &str) -> Result<Vec<Self>, String> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| Self::new(format!("{}[{index}]", self.place_of(name)), item))
                .collect(),
            Some(_) => Err(self.error_in(name, "expected an array")),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.error_in(name, "expected a string")),
        }
    }

    pub(crate) fn required_text(&self, name: &str) -> Result<&'a str, String> {
        self.text(name)?
            .ok_or_else(|| self.error(format_args!("`{name}` is missing")))
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<bool, String> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.error_in(name, "expected true or false")),
        }
    }

    pub(crate) fn whole_number(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.error_in(name, "expected a whole number")),
            },
        }
    }

    /// An ISO 8601 duration. As in .NET, a year is 365 days and a month 30.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        iso_8601::read(text).map(Some).ok_or_else(|| {
            self.error_in(
                name,
                format_args!("`{text}` is not an ISO 8601 duration such as PT1M or P14D"),
            )
        })
    }
}

fn at(place: &str, reason: impl std::fmt::Display) -> String {
    match place {
        "" => reason.to_string(),
        place => format!("{place}: {reason}"),
    }
}
