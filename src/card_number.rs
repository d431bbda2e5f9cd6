//! Recognises a card number where a token or an id should be.
//!
//! A storefront that sends one by mistake gets it refused, before it can reach the bus, a log or a provider. A token
//! must never be taken for one, because its order could never be placed: the groups of a UUID are not those of a card.

/// Whether the text holds the number of a payment card (ISO/IEC 7812): digits that begin as the card networks' do and
/// pass the Luhn check, in one piece or in the groups that are printed on cards.
///
/// Digits that a letter or an underscore touches belong to a token (`tok_4111…`) and do not count, but for the `%B`
/// with which a magnetic stripe begins.
pub fn is_in(text: &str) -> bool {
    let groups = groups(text);
    groups.iter().any(|group| {
        group.free && (13..=19).contains(&group.digits.len()) && is_number(&group.digits)
    }) || (0..groups.len()).any(|first| is_grouped(&groups[first..]))
}

/// A run of digits.
struct Group {
    digits: Vec<u32>,
    /// No letter and no underscore touches it.
    free: bool,
    /// One separator and nothing else stands between it and the next one.
    joined: bool,
}

/// The lengths of the groups on cards; the last may be followed by more groups, such as the expiry date.
const PRINTED: [&[usize]; 6] = [
    &[4, 4, 4, 4],
    &[4, 6, 5],
    &[4, 6, 4],
    &[4, 4, 4, 4, 1],
    &[4, 4, 4, 4, 2],
    &[4, 4, 4, 4, 3],
];

fn is_grouped(groups: &[Group]) -> bool {
    PRINTED.iter().any(|lengths| {
        let Some(number) = groups.get(..lengths.len()) else {
            return false;
        };
        let digits: Vec<u32> = number
            .iter()
            .flat_map(|group| group.digits.iter().copied())
            .collect();
        number
            .iter()
            .zip(*lengths)
            .all(|(group, length)| group.free && group.digits.len() == *length)
            && number[..number.len() - 1].iter().all(|group| group.joined)
            && is_number(&digits)
    })
}

fn groups(text: &str) -> Vec<Group> {
    let characters: Vec<char> = text.chars().collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        if !characters[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while characters.get(at).is_some_and(char::is_ascii_digit) {
            at += 1;
        }
        let before = &characters[..start];
        let after = &characters[at..];
        let stripe = matches!(before, [.., '%', 'B']);
        groups.push(Group {
            digits: characters[start..at]
                .iter()
                .filter_map(|digit| digit.to_digit(10))
                .collect(),
            free: (stripe || !is_word(before.last())) && !is_word(after.first()),
            joined: matches!(after, [' ' | '\u{a0}' | '.' | '-', next, ..] if next.is_ascii_digit()),
        });
    }
    groups
}

fn is_word(neighbour: Option<&char>) -> bool {
    neighbour.is_some_and(|character| character.is_alphabetic() || *character == '_')
}

/// The networks' numbers begin with 2 to 6.
fn is_number(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    matches!(digits.first(), Some(2..=6)) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::is_in;

    #[test]
    fn card_numbers_are_recognised_however_they_are_written() {
        for text in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111.1111.1111.1111",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "4111 1111 1111 1111 1227",
            "4111111111111111 12 27 123",
            "378282246310005",
            "3782 822463 10005",
            "6304000000000000",
            "card:4111111111111111",
            "4111111111111111;12/27;123",
            "%B4111111111111111^LOVELACE/ADA^27121010000000000",
            " 5555555555554444 ",
            "4111 1111 1111 1111 Ada",
        ] {
            assert!(is_in(text), "{text}");
        }
    }

    #[test]
    fn tokens_are_not_taken_for_card_numbers() {
        for text in [
            "cnon:card-nonce-ok",
            "tok_4111111111111111",
            "pm_1Nabc4111111111111111xyz",
            "4111111111111112",
            "411111111111",
            "0000000000000000",
            "8111111111111113",
            "99130038-0257-4906-a47a-b3dec18d19ad",
            "21808263-4061-4375-b1eb-fe27eea55af9",
            "",
        ] {
            assert!(!is_in(text), "{text}");
        }
    }

    #[test]
    fn no_uuid_is_a_card_number() {
        for number in 0..100_000_u32 {
            let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_le_bytes());
            assert!(!is_in(&uuid.to_string()), "{uuid}");
        }
    }
}
