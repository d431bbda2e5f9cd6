//! Reads a JSON object field by field and remembers all that is wrong with it.
//!
//! A caller who sends an order with three mistakes gets three errors, each with its JSON Pointer (RFC 6901). No error
//! repeats what was sent: it may be a name, an address or a card number.

use serde::Serialize;
use serde_json::{Map, Value};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        });
    }

    pub fn extend(&mut self, found: Vec<FieldError>) {
        self.0.extend(found);
    }

    /// The value, if nothing was wrong. Reading goes on after an error, so a value may be absent only with one.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// An object and the place where it stands.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    pointer: String,
}

impl<'a> Fields<'a> {
    pub fn of(value: &'a Value, pointer: &str, errors: &mut FieldErrors) -> Option<Self> {
        let object = value.as_object();
        if object.is_none() {
            errors.add(pointer, "should be an object");
        }
        Some(Self {
            object: object?,
            pointer: pointer.to_owned(),
        })
    }

    pub fn pointer(&self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    /// The field's value. `null` and an empty string, which is what a form sends of an empty field, count as absent.
    pub fn optional(&self, name: &str) -> Option<&'a Value> {
        self.object
            .get(name)
            .filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    pub fn required(&self, name: &str, errors: &mut FieldErrors) -> Option<&'a Value> {
        let value = self.optional(name);
        if value.is_none() {
            errors.add(self.pointer(name), "is missing");
        }
        value
    }

    pub fn object(&self, name: &str, errors: &mut FieldErrors) -> Option<Self> {
        let value = self.required(name, errors)?;
        Self::of(value, &self.pointer(name), errors)
    }

    /// A text of 1 to `longest` characters that prints on one line.
    pub fn text(&self, name: &str, longest: usize, errors: &mut FieldErrors) -> Option<String> {
        self.required(name, errors)?;
        self.optional_text(name, longest, errors)
    }

    /// Like [`Self::text`], but may be absent.
    pub fn optional_text(
        &self,
        name: &str,
        longest: usize,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        let value = self.optional(name)?;
        let checked = match value.as_str() {
            None => Err("should be a string".to_owned()),
            // Spaces around a name or an address are a slip of the pen.
            Some(text) => {
                let text = text.trim_matches(' ');
                check_text(text, longest).map(|()| text.to_owned())
            }
        };
        checked
            .map_err(|detail| errors.add(self.pointer(name), detail))
            .ok()
    }

    /// A text as above, or nothing where there is none: for what must not cost anybody an order.
    pub fn text_if_any(&self, name: &str, longest: usize) -> Option<String> {
        self.optional_text(name, longest, &mut FieldErrors::default())
    }

    /// A whole number within the bounds. `2.0` is one: some writers of JSON know no other form.
    pub fn integer(
        &self,
        name: &str,
        bounds: std::ops::RangeInclusive<i64>,
        errors: &mut FieldErrors,
    ) -> Option<i64> {
        let value = self.required(name, errors)?;
        let number = value
            .as_i64()
            .or_else(|| whole(value.as_f64()?))
            .filter(|number| bounds.contains(number));
        if number.is_none() {
            let detail = format!(
                "should be a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            );
            errors.add(self.pointer(name), detail);
        }
        number
    }
}

/// `2.0` is two; beyond 2^53 a fraction would have been lost unseen.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// An RFC 3339 time, in UTC, of a year in which every calendar and protocol of ours can count.
pub fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .checked_to_offset(UtcOffset::UTC)
        .filter(|time| (1970..=9998).contains(&time.year()))
}

fn check_text(text: &str, longest: usize) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("should not be blank".to_owned());
    }
    if text.chars().count() > longest {
        return Err(format!("should have at most {longest} characters"));
    }
    // Line and paragraph separators break lines as CR and LF do, without being control characters.
    if text
        .chars()
        .any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
    {
        return Err("should have no control characters or line breaks".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_wrong_field_is_reported_with_its_pointer() {
        let value = json!({ "name": "Ada\r\nBcc: x", "age": 1.5, "blank": " ", "long": "abcd", "null": null });
        let mut errors = FieldErrors::default();
        let fields = Fields::of(&value, "/customer", &mut errors).unwrap();

        assert_eq!(fields.text("name", 50, &mut errors), None);
        assert_eq!(fields.integer("age", 1..=9, &mut errors), None);
        assert_eq!(fields.text("blank", 50, &mut errors), None);
        assert_eq!(fields.text("long", 3, &mut errors), None);
        assert_eq!(fields.text("null", 3, &mut errors), None);
        assert_eq!(fields.optional_text("null", 3, &mut errors), None);
        assert_eq!(fields.text_if_any("age", 3), None);

        let errors = errors.finish(Some(())).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/customer/name",
                "/customer/age",
                "/customer/blank",
                "/customer/long",
                "/customer/null"
            ]
        );
    }

    #[test]
    fn slips_of_the_pen_are_forgiven() {
        let value = json!({ "name": " Ada ", "partner": "", "quantity": 2.0, "huge": 1e300 });
        let mut errors = FieldErrors::default();
        let fields = Fields::of(&value, "", &mut errors).unwrap();
        assert_eq!(fields.text("name", 3, &mut errors).as_deref(), Some("Ada"));
        assert_eq!(fields.optional_text("partner", 3, &mut errors), None);
        assert_eq!(fields.integer("quantity", 1..=9, &mut errors), Some(2));
        assert!(errors.0.is_empty());
        assert_eq!(fields.integer("huge", 1..=i64::MAX, &mut errors), None);
    }

    #[test]
    fn an_error_never_repeats_the_value() {
        let value = json!({ "source": "4111 1111 1111 1111\u{0}" });
        let mut errors = FieldErrors::default();
        let fields = Fields::of(&value, "", &mut errors).unwrap();
        fields.text("source", 100, &mut errors);
        let printed = format!("{:?}", errors.finish(Some(())).unwrap_err());
        assert!(!printed.contains("4111"), "{printed}");
    }
}
