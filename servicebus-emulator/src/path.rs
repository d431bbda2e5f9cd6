//! The address of an entity: `orders`, `orders/Subscriptions/vendors`, either with `/$deadletterqueue`.
//!
//! `Subscriptions` and `$deadletterqueue` are recognised in any case, and entity names are compared without
//! case, as Service Bus does.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Where messages are sent to or received from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityPath {
    /// A queue or topic, or `{topic}/Subscriptions/{subscription}`, as it was written.
    entity: String,
    dead_letter: bool,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not the path of a queue, topic or subscription")]
pub struct InvalidPath(pub String);

impl EntityPath {
    /// The queue, topic or subscription itself, without `/$deadletterqueue`.
    pub fn entity(&self) -> &str {
        &self.entity
    }

    /// Whether this is the dead-letter sub-queue of the entity.
    pub fn is_dead_letter(&self) -> bool {
        self.dead_letter
    }

    /// What two paths of the same entity have in common, however they are written.
    pub(crate) fn key(&self) -> String {
        self.to_string().to_lowercase()
    }

    /// The dead-letter sub-queue of this entity.
    pub fn dead_letter(&self) -> Self {
        Self {
            entity: self.entity.clone(),
            dead_letter: true,
        }
    }
}

impl FromStr for EntityPath {
    type Err = InvalidPath;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPath(path.to_owned());
        let mut segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let dead_letter = segments.len() > 1
            && segments
                .last()
                .is_some_and(|last| last.eq_ignore_ascii_case("$deadletterqueue"));
        if dead_letter {
            segments.pop();
        }
        if segments
            .iter()
            .any(|segment| segment.is_empty() || segment.starts_with('$'))
        {
            return Err(invalid());
        }
        // A queue's or topic's own name may hold slashes; `Subscriptions` may not be part of it.
        let is_name = |segments: &[&str]| {
            !segments.is_empty()
                && segments
                    .iter()
                    .all(|segment| !segment.eq_ignore_ascii_case("subscriptions"))
        };
        let entity = match &segments[..] {
            [topic @ .., word, subscription]
                if word.eq_ignore_ascii_case("subscriptions")
                    && is_name(topic)
                    && is_name(&[subscription]) =>
            {
                format!("{}/Subscriptions/{subscription}", topic.join("/"))
            }
            name if is_name(name) => name.join("/"),
            _ => return Err(invalid()),
        };
        Ok(Self {
            entity,
            dead_letter,
        })
    }
}

impl fmt::Display for EntityPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.entity)?;
        if self.dead_letter {
            f.write_str("/$deadletterqueue")?;
        }
        Ok(())
    }
}
