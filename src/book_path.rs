//! The names of what is in the order book, as in `orders/{id}/placed.json`.
//!
//! Plain ASCII that no file system and no URL reads as something else, so that one name means one thing everywhere.

/// Azure takes 1,024 characters, and a segment of a path is a file's name.
const LONGEST_PATH: usize = 1024;
const LONGEST_SEGMENT: usize = 200;

/// Whether that can be the name of an object: segments of letters, digits, `-`, `_` and `.`, none of which begins or ends
/// with a dot.
pub fn is_path(path: &str) -> bool {
    path.len() <= LONGEST_PATH && path.split('/').all(is_segment)
}

pub fn is_segment(segment: &str) -> bool {
    (1..=LONGEST_SEGMENT).contains(&segment.len())
        && !segment.starts_with('.')
        && !segment.ends_with('.')
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_of_plain_segments() {
        for path in ["a", "orders/0197-ab/placed.json", "outbox/000_1.json"] {
            assert!(is_path(path), "{path}");
        }
        let long = "a".repeat(LONGEST_SEGMENT + 1);
        for path in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a.", "a b", "a%2Fb", "ä",
            "a\\b", "a?b", "a#1", "a:b", "a\0", &long,
        ] {
            assert!(!is_path(path), "{path}");
        }
    }
}
