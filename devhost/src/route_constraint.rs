//! Inline constraints of route parameters: `{id:guid}`, `{page:int:min(1)}`.
//!
//! The rules are those of ASP.NET's constraint classes of the same names. Others (`regex`, `datetime`, `decimal`,
//! …) are refused when the app starts.

use uuid::Uuid;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constraint {
    Guid,
    Int,
    Long,
    Bool,
    Alpha,
    /// Least and greatest number of UTF-16 units.
    Length(usize, usize),
    /// Least and greatest value of a 64-bit integer.
    Range(i64, i64),
}

impl Constraint {
    /// Reads one constraint as it stands after a colon; the error says why it cannot be used.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unsupported = || format!("the route constraint `{text}` is not supported here");
        let (name, arguments) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((name, arguments)) => (name, arguments.split(',').map(str::trim).collect()),
            None => (text, Vec::new()),
        };
        let size = |text: &str| text.parse::<usize>().map_err(|_| unsupported());
        let value = |text: &str| text.parse::<i64>().map_err(|_| unsupported());
        match (name.to_ascii_lowercase().as_str(), &arguments[..]) {
            ("guid", []) => Ok(Self::Guid),
            ("int", []) => Ok(Self::Int),
            ("long", []) => Ok(Self::Long),
            ("bool", []) => Ok(Self::Bool),
            ("alpha", []) => Ok(Self::Alpha),
            ("length", [exactly]) => size(exactly).map(|size| Self::Length(size, size)),
            ("length", [least, most]) => Ok(Self::Length(size(least)?, size(most)?)),
            ("minlength", [least]) => Ok(Self::Length(size(least)?, usize::MAX)),
            ("maxlength", [most]) => Ok(Self::Length(0, size(most)?)),
            ("min", [least]) => Ok(Self::Range(value(least)?, i64::MAX)),
            ("max", [most]) => Ok(Self::Range(i64::MIN, value(most)?)),
            ("range", [least, most]) => Ok(Self::Range(value(least)?, value(most)?)),
            _ => Err(unsupported()),
        }
    }

    /// Whether the value of the parameter is allowed.
    pub(crate) fn takes(&self, value: &str) -> bool {
        match self {
            // Guid.TryParse takes the forms with and without hyphens and in braces; so does this.
            Self::Guid => Uuid::parse_str(value).is_ok() && !value.starts_with("urn:"),
            Self::Int => value.parse::<i32>().is_ok(),
            Self::Long => value.parse::<i64>().is_ok(),
            Self::Bool => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Self::Alpha => value.bytes().all(|byte| byte.is_ascii_alphabetic()),
            Self::Length(least, most) => (*least..=*most).contains(&value.encode_utf16().count()),
            Self::Range(least, most) => value
                .parse::<i64>()
                .is_ok_and(|number| (*least..=*most).contains(&number)),
        }
    }
}
