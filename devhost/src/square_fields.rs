//! Reads the members of a request to the stand-in Square, and says which is wrong by its path, as Square does.
//!
//! Strict where Square may be lenient: a member that the stand-in does not know is refused, because it is a misspelt
//! one or one whose effect would be missing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::square_error::SquareError;

/// An amount in the smallest unit of its currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub amount: i64,
    pub currency: String,
}

/// The members of one object of the body.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The body itself, which may have only these members.
    pub fn of_body(body: &'a Value, known: &[&str]) -> Result<Self, SquareError> {
        Self::of(body, String::new(), known)
    }

    /// An object at this path, which may have only these members.
    pub fn of(value: &'a Value, path: String, known: &[&str]) -> Result<Self, SquareError> {
        let Value::Object(members) = value else {
            return Err(
                SquareError::invalid("EXPECTED_OBJECT", "Expected an object.").of_field(path),
            );
        };
        let fields = Self { path, members };
        match members.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(SquareError::bad_request(format!(
                "The stand-in does not know the field `{name}`."
            ))
            .of_field(fields.at(name))),
            None => Ok(fields),
        }
    }

    /// The path of a member.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A member as it is, `null` counting as missing.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn expected<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
        code: &'static str,
        what: &str,
    ) -> Result<Option<T>, SquareError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| {
                SquareError::invalid(code, format!("Expected {what}.")).of_field(self.at(name))
            }),
        }
    }

    /// A text of at least one and at most so many characters.
    pub fn text(&self, name: &str, most: usize) -> Result<Option<&'a str>, SquareError> {
        let text = self.expected(name, Value::as_str, "EXPECTED_STRING", "a string value")?;
        match text.map(|text| text.chars().count()) {
            Some(0) => Err(
                SquareError::invalid("VALUE_EMPTY", "Field must not be blank.")
                    .of_field(self.at(name)),
            ),
            Some(length) if length > most => Err(SquareError::invalid(
                "VALUE_TOO_LONG",
                format!("Field must not be greater than {most} in length."),
            )
            .of_field(self.at(name))),
            _ => Ok(text),
        }
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, SquareError> {
        self.expected(name, Value::as_bool, "EXPECTED_BOOLEAN", "a boolean value")
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, SquareError> {
        let what = "a whole number that is not negative";
        self.expected(name, Value::as_u64, "EXPECTED_INTEGER", what)
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, SquareError> {
        self.expected(name, Value::as_array, "EXPECTED_ARRAY", "a list")
    }

    /// Up to ten texts by name.
    pub fn metadata(&self, name: &str) -> Result<Option<Value>, SquareError> {
        let is_metadata = |value: &Value| {
            let members = value.as_object()?;
            let fits = members.len() <= 10
                && members.iter().all(|(name, text)| {
                    let length = |text: &str| text.chars().count();
                    length(name) <= 60 && text.as_str().is_some_and(|text| length(text) <= 255)
                });
            fits.then(|| value.clone())
        };
        let what = "up to 10 names (of up to 60 characters) with texts (of up to 255)";
        self.expected(name, is_metadata, "INVALID_VALUE", what)
    }

    pub fn money(&self, name: &str) -> Result<Option<Money>, SquareError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let money = Self::of(value, self.at(name), &["amount", "currency"])?;
        let amount = money.number("amount")?;
        let amount = money.required("amount", amount)?;
        let currency = money.text("currency", 3)?;
        let currency = money.required("currency", currency)?;
        match i64::try_from(amount) {
            Ok(amount)
                if currency.len() == 3 && currency.bytes().all(|b| b.is_ascii_uppercase()) =>
            {
                Ok(Some(Money {
                    amount,
                    currency: currency.to_owned(),
                }))
            }
            _ => Err(
                SquareError::invalid("INVALID_VALUE", "This is not an amount of money.")
                    .of_field(self.at(name)),
            ),
        }
    }

    /// The member, or the error that it is missing.
    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, SquareError> {
        value.ok_or_else(|| {
            SquareError::invalid("MISSING_REQUIRED_PARAMETER", "Missing required parameter.")
                .of_field(self.at(name))
        })
    }

    pub fn required_text(&self, name: &str, most: usize) -> Result<&'a str, SquareError> {
        let text = self.text(name, most)?;
        self.required(name, text)
    }

    /// The location, if it is the only one that the stand-in has.
    pub fn location(&self, name: &str) -> Result<Option<&'a str>, SquareError> {
        match self.text(name, 50)? {
            Some(location) if location != crate::square::LOCATION_ID => Err(SquareError::invalid(
                "INVALID_LOCATION",
                "The location is not known.",
            )
            .of_field(self.at(name))),
            location => Ok(location),
        }
    }
}
