//! Route templates of HTTP triggers, as ASP.NET reads them.
//!
//! `products/{category:alpha}/{id:int?}` and `files/{*rest}`: segments are compared without case, parameters may
//! be optional at the end, and inline constraints narrow what they take. A template that needs more than this is
//! refused when the app starts, so that a route never matches here and not in Azure.

use std::cmp::Ordering;

use percent_encoding::percent_decode_str;

use crate::route_constraint::Constraint;

/// A route template, without the prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq)]
enum Segment {
    Literal(String),
    Parameter {
        name: String,
        constraints: Vec<Constraint>,
        optional: bool,
    },
    /// `{*rest}`: all that follows, slashes included, even nothing.
    CatchAll {
        name: String,
        constraints: Vec<Constraint>,
    },
}

/// The values of the template's parameters, in its order; an optional one that is absent is left out.
pub type Parameters = Vec<(String, String)>;

impl Template {
    /// Reads a template; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() {
            Vec::new()
        } else {
            split_segments(trimmed)
        };
        let mut segments = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let segment = Segment::parse(part)?;
            let must_be_last = match &segment {
                Segment::Literal(_) => false,
                Segment::Parameter { optional, .. } => *optional,
                Segment::CatchAll { .. } => true,
            };
            if must_be_last && index + 1 < parts.len() {
                return Err(format!("`{part}` can only be the last segment"));
            }
            segments.push(segment);
        }
        let mut names: Vec<String> = segments
            .iter()
            .filter_map(Segment::parameter)
            .map(str::to_ascii_lowercase)
            .collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the parameter `{}` appears twice", twice[0]));
        }
        Ok(Self {
            text: trimmed.to_owned(),
            segments,
        })
    }

    /// The template as text, without slashes at its ends.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parameters, if the path (percent-encoded, without the prefix) fits.
    pub fn matches(&self, path: &str) -> Option<Parameters> {
        let trimmed = path.trim_matches('/');
        let mut parts = trimmed
            .split('/')
            .filter(|_| !trimmed.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8().ok());
        let mut parameters = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => {
                    // Case folding by Unicode's simple rules is near enough to .NET's ordinal comparison.
                    if parts.next()??.to_lowercase() != literal.to_lowercase() {
                        return None;
                    }
                }
                Segment::Parameter {
                    name,
                    constraints,
                    optional,
                } => match parts.next() {
                    Some(value) => {
                        let value = value.filter(|value| !value.is_empty())?;
                        if !constraints
                            .iter()
                            .all(|constraint| constraint.takes(&value))
                        {
                            return None;
                        }
                        parameters.push((name.clone(), value.into_owned()));
                    }
                    None if *optional => {}
                    None => return None,
                },
                Segment::CatchAll { name, constraints } => {
                    let rest = parts.by_ref().collect::<Option<Vec<_>>>()?.join("/");
                    if !constraints.iter().all(|constraint| constraint.takes(&rest)) {
                        return None;
                    }
                    parameters.push((name.clone(), rest));
                }
            }
        }
        parts.next().is_none().then_some(parameters)
    }

    /// Which of two templates that fit the same path is tried first: literals before constrained parameters
    /// before free ones before catch-alls, from the left, as in ASP.NET.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let ranks =
            |template: &Self| -> Vec<u8> { template.segments.iter().map(Segment::rank).collect() };
        ranks(self).cmp(&ranks(other))
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(inside) = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .filter(|inside| !inside.contains(['{', '}']))
        else {
            if text.contains(['{', '}']) {
                return Err(format!(
                    "the segment `{text}` mixes text and parameters, or has a brace too many, which is not supported here"
                ));
            }
            if text.is_empty() || text.contains('?') {
                return Err(format!("`{text}` is not a segment"));
            }
            return Ok(Self::Literal(text.to_owned()));
        };
        if inside.contains('=') {
            return Err(format!(
                "the default value in `{text}` is not supported here"
            ));
        }
        let (inside, catch_all) = match inside.strip_prefix('*') {
            Some(rest) => (rest.strip_prefix('*').unwrap_or(rest), true),
            None => (inside, false),
        };
        let (inside, optional) = match inside.strip_suffix('?') {
            Some(rest) => (rest, true),
            None => (inside, false),
        };
        if catch_all && optional {
            return Err(format!(
                "`{text}`: a catch-all parameter cannot be optional"
            ));
        }
        let mut parts = inside.split(':');
        let name = parts.next().unwrap_or_default();
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
        {
            return Err(format!("`{text}` has no valid parameter name"));
        }
        let name = name.to_owned();
        let constraints = parts.map(Constraint::parse).collect::<Result<_, _>>()?;
        Ok(if catch_all {
            Self::CatchAll { name, constraints }
        } else {
            Self::Parameter {
                name,
                constraints,
                optional,
            }
        })
    }

    fn parameter(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { name, .. } | Self::CatchAll { name, .. } => Some(name),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 1,
            Self::Parameter { constraints, .. } => 3 - u8::from(!constraints.is_empty()),
            Self::CatchAll { constraints, .. } => 5 - u8::from(!constraints.is_empty()),
        }
    }
}

/// Slashes inside braces belong to the parameter (a constraint may hold one).
fn split_segments(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == '/' && depth == 0
    })
    .collect()
}
