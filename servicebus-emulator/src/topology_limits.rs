//! The values that an entity's properties may have, whether they come from the file or over the management API.
//!
//! The limits are Azure's. What is refused is refused in words that follow the property's name.
//! <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas>

use std::time::Duration;

use crate::EntityPath;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const SHORTEST_DUPLICATE_WINDOW: Duration = Duration::from_secs(20);

/// The longest user metadata, in characters.
const LONGEST_METADATA: usize = 1024;

/// In megabytes: those of the Standard tier and, from 10 GB on, of the Premium tier.
const SIZES: [u32; 9] = [1024, 2048, 3072, 4096, 5120, 10_240, 20_480, 40_960, 81_920];

type Refusal = &'static str;

pub(crate) fn lock_duration(duration: Duration) -> Result<Duration, Refusal> {
    if (Duration::from_secs(5)..=5 * MINUTE).contains(&duration) {
        Ok(duration)
    } else {
        Err("it must be from PT5S to PT5M")
    }
}

pub(crate) fn duplicate_window(window: Duration) -> Result<Duration, Refusal> {
    if (SHORTEST_DUPLICATE_WINDOW..=7 * DAY).contains(&window) {
        Ok(window)
    } else {
        Err("it must be from PT20S to P7D")
    }
}

pub(crate) fn time_to_live(time_to_live: Duration) -> Result<Duration, Refusal> {
    if time_to_live.is_zero() {
        Err("it must be longer than nothing")
    } else {
        Ok(time_to_live)
    }
}

pub(crate) fn max_delivery_count(count: i64) -> Result<u32, Refusal> {
    u32::try_from(count)
        .ok()
        .filter(|count| (1..=i32::MAX as u32).contains(count))
        .ok_or("it must be at least 1")
}

pub(crate) fn auto_delete_on_idle(idle: Duration) -> Result<Duration, Refusal> {
    if idle >= 5 * MINUTE {
        Ok(idle)
    } else {
        Err("it must be at least PT5M")
    }
}

pub(crate) fn max_size_in_megabytes(size: i64) -> Result<u32, Refusal> {
    u32::try_from(size)
        .ok()
        .filter(|size| SIZES.contains(size))
        .ok_or("it must be 1024, 2048, 3072, 4096, 5120, 10240, 20480, 40960 or 81920")
}

/// 256 is what the Standard tier shows; the others belong to the Premium tier.
pub(crate) fn max_message_size_in_kilobytes(size: i64) -> Result<u32, Refusal> {
    u32::try_from(size)
        .ok()
        .filter(|size| *size == 256 || (1024..=102_400).contains(size))
        .ok_or("it must be 256, or from 1024 to 102400")
}

pub(crate) fn user_metadata(text: &str) -> Result<&str, Refusal> {
    if text.chars().count() <= LONGEST_METADATA {
        Ok(text)
    } else {
        Err("it is longer than 1024 characters")
    }
}

/// A queue's or topic's name: up to 260 characters, and slashes may be in it.
pub(crate) fn entity_name(name: &str) -> Result<(), String> {
    let is_path = name
        .parse::<EntityPath>()
        .is_ok_and(|path| path.entity() == name && !path.is_dead_letter());
    if is_path && is_name(name, 260) && !has_word(name, "subscriptions") {
        Ok(())
    } else {
        Err(format!("`{name}` {NAME_RULE}, up to 260"))
    }
}

/// A subscription's or rule's name: up to 50 characters, without slashes.
pub(crate) fn short_name(name: &str) -> Result<(), String> {
    if name == "$Default" || (!name.contains('/') && is_name(name, 50)) {
        Ok(())
    } else {
        Err(format!("`{name}` {NAME_RULE}, up to 50"))
    }
}

const NAME_RULE: &str = "is not a name: it begins and ends with a letter or digit and consists of letters, \
                         digits, `.`, `-` and `_`";

fn has_word(name: &str, word: &str) -> bool {
    name.split('/').any(|part| part.eq_ignore_ascii_case(word))
}

/// The schema's `^[A-Za-z0-9]$|^[A-Za-z0-9][\w-\.\/]*[A-Za-z0-9]$`.
fn is_name(name: &str, longest: usize) -> bool {
    let end = |character: Option<char>| character.is_some_and(|it| it.is_ascii_alphanumeric());
    name.chars().count() <= longest
        && end(name.chars().next())
        && end(name.chars().next_back())
        && name
            .chars()
            .all(|it| it.is_alphanumeric() || matches!(it, '_' | '-' | '.' | '/'))
}
