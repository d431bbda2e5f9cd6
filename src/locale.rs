//! How a customer's locale writes an amount of money and a date; used when an email is rendered.
//!
//! The forms are those of CLDR 48, written as a small table: ICU4X with its data would be larger than the rest of
//! the binary, for three languages and two forms. Tests hold the table against values that ICU produced. What is
//! not in it falls back: an unknown language to English, an unknown region to the language's own form.

use time::{Date, OffsetDateTime, UtcOffset};

use crate::order::Money;

/// The languages that customers are written to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    German,
    French,
}

impl Language {
    /// The value of HTML's `lang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
        }
    }
}

/// A language and the region whose customs are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locale {
    pub language: Language,
    region: [u8; 2],
}

/// CLDR's code for an unknown region: the form that is read without doubt in most places.
const WORLD: [u8; 2] = *b"ZZ";

impl Locale {
    /// Reads a BCP 47 tag, leniently: `de-CH`, `fr_CA`, `EN` and `de_AT.UTF-8` are understood.
    ///
    /// Without a tag, or with a language that is not ours, it is English as written in no particular region,
    /// where a dollar always says whose it is.
    pub fn from_tag(tag: Option<&str>) -> Self {
        let mut subtags = tag
            .unwrap_or_default()
            .trim()
            .split(['.', '@'])
            .next()
            .unwrap_or_default()
            .split(['-', '_']);
        let language = match subtags
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "en" => Language::English,
            "de" => Language::German,
            "fr" => Language::French,
            _ => {
                return Self {
                    language: Language::English,
                    region: WORLD,
                };
            }
        };
        let own = match language {
            Language::English => *b"US",
            Language::German => *b"DE",
            Language::French => *b"FR",
        };
        // A script (`Latn`) may come before the region; variants and extensions come after it.
        let region = subtags
            .take_while(|subtag| subtag.len() != 1)
            .find_map(region)
            .unwrap_or(own);
        Self { language, region }
    }

    /// The amount with the currency's sign, as in `A$12.50`, `12,50 €` or `CHF 12.50`.
    ///
    /// The spaces in it are no-break spaces, so that an amount stays on one line.
    pub fn money(self, money: Money) -> String {
        let form = self.number_form();
        let digits = usize::from(money.currency.exponent().unwrap_or(0));
        let minor = format!("{:0>1$}", money.amount.unsigned_abs(), digits + 1);
        let (whole, fraction) = minor.split_at(minor.len() - digits);

        let mut number = String::new();
        if money.amount < 0 {
            number.push('-');
        }
        for (index, digit) in whole.char_indices() {
            let left = whole.len() - index;
            if index > 0 && form.groups_at(left) {
                number.push_str(form.group);
            }
            number.push(digit);
        }
        if digits > 0 {
            number.push(form.decimal);
            number.push_str(fraction);
        }

        let sign = self.currency_sign(money.currency.code());
        match form.sign {
            Sign::After => format!("{number}{NO_BREAK}{sign}"),
            Sign::BeforeSpaced => format!("{sign}{NO_BREAK}{number}"),
            // CLDR's currency spacing: a sign that ends in a letter would run into the number.
            Sign::Before if sign.ends_with(|c: char| c.is_alphanumeric() || c == '.') => {
                format!("{sign}{NO_BREAK}{number}")
            }
            Sign::Before => format!("{sign}{number}"),
        }
    }

    /// The day in UTC, as in `22 November 2026`, `November 22, 2026` or `1er mars 2026`.
    pub fn date(self, at: OffsetDateTime) -> String {
        let date: Date = at.to_offset(UtcOffset::UTC).date();
        let (day, year) = (date.day(), date.year());
        let month = usize::from(u8::from(date.month())) - 1;
        match self.language {
            Language::English if self.writes_month_first() => {
                format!("{} {day}, {year}", ENGLISH_MONTHS[month])
            }
            Language::English => format!("{day} {} {year}", ENGLISH_MONTHS[month]),
            Language::German if self.region == *b"AT" && month == 0 => {
                format!("{day}. Jänner {year}")
            }
            Language::German => format!("{day}. {} {year}", GERMAN_MONTHS[month]),
            // CLDR writes `1 mars`; people write `1er mars`.
            Language::French if day == 1 => format!("1er {} {year}", FRENCH_MONTHS[month]),
            Language::French => format!("{day} {} {year}", FRENCH_MONTHS[month]),
        }
    }

    fn writes_month_first(self) -> bool {
        self.is_american() || self.region == *b"CA"
    }

    /// Whether `$` alone means the dollar of the United States.
    fn is_american(self) -> bool {
        const REGIONS: [[u8; 2]; 10] = [
            *b"US", *b"AS", *b"BI", *b"GU", *b"MH", *b"MP", *b"PH", *b"PR", *b"UM", *b"VI",
        ];
        self.language == Language::English && REGIONS.contains(&self.region)
    }

    fn number_form(self) -> NumberForm {
        let form = |group, decimal, sign| NumberForm {
            group,
            decimal,
            sign,
            lakh: false,
        };
        match (self.language, &self.region) {
            (Language::English, b"IN") => NumberForm {
                lakh: true,
                ..form(",", '.', Sign::Before)
            },
            (Language::English, b"ZA") => form("\u{a0}", ',', Sign::Before),
            (Language::English, _) => form(",", '.', Sign::Before),
            (Language::German, b"CH" | b"LI") => form("'", '.', Sign::BeforeSpaced),
            (Language::German, b"AT") => form(".", ',', Sign::BeforeSpaced),
            (Language::German, _) => form(".", ',', Sign::After),
            (Language::French, b"CA") => form("\u{a0}", ',', Sign::After),
            (Language::French, b"CH") => form("\u{202f}", '.', Sign::After),
            (Language::French, b"LU") => form(".", ',', Sign::After),
            (Language::French, _) => form("\u{202f}", ',', Sign::After),
        }
    }

    fn currency_sign(self, code: &'static str) -> &'static str {
        let tables: &[&[(&str, &str)]] = match (self.language, &self.region) {
            (Language::English, b"AU") => &[&[("AUD", "$")]],
            (Language::English, _) if self.is_american() => {
                &[&[("USD", "$"), ("JPY", "¥")], ENGLISH_SIGNS]
            }
            (Language::English, b"IN") => &[&[("USD", "$")], ENGLISH_SIGNS],
            (Language::English, region) => {
                let own = ENGLISH_OWN_SIGNS
                    .iter()
                    .find(|(of, currency, _)| of.as_bytes() == region && *currency == code);
                if let Some((_, _, sign)) = own {
                    return sign;
                }
                &[ENGLISH_SIGNS]
            }
            (Language::German, b"CH" | b"LI") => &[&[("EUR", "EUR")], GERMAN_SIGNS, SHARED_SIGNS],
            (Language::German, _) => &[GERMAN_SIGNS, SHARED_SIGNS],
            (Language::French, b"CA") => &[CANADIAN_FRENCH_SIGNS],
            (Language::French, _) => &[FRENCH_SIGNS],
        };
        tables
            .iter()
            .copied()
            .flatten()
            .find(|(of, _)| *of == code)
            .map_or(code, |(_, sign)| sign)
    }
}

fn region(subtag: &str) -> Option<[u8; 2]> {
    match subtag.as_bytes() {
        [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
            Some([a.to_ascii_uppercase(), b.to_ascii_uppercase()])
        }
        // A group of regions, as in `en-001` and `en-150`.
        [a, b, c] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => Some(WORLD),
        _ => None,
    }
}

struct NumberForm {
    group: &'static str,
    decimal: char,
    sign: Sign,
    /// Groups of two above the thousands, as in India.
    lakh: bool,
}

impl NumberForm {
    /// Whether a separator stands before the digit that has `left` digits from itself to the decimal sign.
    fn groups_at(&self, left: usize) -> bool {
        if self.lakh && left > 3 {
            (left - 3).is_multiple_of(2)
        } else {
            left.is_multiple_of(3)
        }
    }
}

enum Sign {
    Before,
    BeforeSpaced,
    After,
}

const NO_BREAK: char = '\u{a0}';

const ENGLISH_MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const GERMAN_MONTHS: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];
const FRENCH_MONTHS: [&str; 12] = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];

/// CLDR `en-001`. A currency that is in no table is written with its ISO code, as CLDR does.
const ENGLISH_SIGNS: &[(&str, &str)] = &[
    ("AUD", "A$"),
    ("BRL", "R$"),
    ("CAD", "CA$"),
    ("CNY", "CN¥"),
    ("EUR", "€"),
    ("GBP", "£"),
    ("HKD", "HK$"),
    ("ILS", "₪"),
    ("INR", "₹"),
    ("JPY", "JP¥"),
    ("KRW", "₩"),
    ("MXN", "MX$"),
    ("NZD", "NZ$"),
    ("PHP", "₱"),
    ("TWD", "NT$"),
    ("USD", "US$"),
    ("VND", "₫"),
    ("XAF", "FCFA"),
    ("XCD", "EC$"),
    ("XOF", "F\u{202f}CFA"),
    ("XPF", "CFPF"),
];

/// Where English is written and a currency has a shorter sign at home.
const ENGLISH_OWN_SIGNS: &[(&str, &str, &str)] = &[
    ("BB", "BBD", "$"),
    ("BM", "BMD", "$"),
    ("BS", "BSD", "$"),
    ("BW", "BWP", "P"),
    ("BZ", "BZD", "$"),
    ("CA", "CAD", "$"),
    ("DK", "DKK", "kr."),
    ("FJ", "FJD", "$"),
    ("GH", "GHS", "GH₵"),
    ("GY", "GYD", "$"),
    ("JM", "JMD", "$"),
    ("JP", "JPY", "¥"),
    ("KE", "KES", "Ksh"),
    ("MU", "MUR", "Rs"),
    ("MY", "MYR", "RM"),
    ("NA", "NAD", "$"),
    ("NG", "NGN", "₦"),
    ("NZ", "NZD", "$"),
    ("PG", "PGK", "K"),
    ("PK", "PKR", "Rs"),
    ("SE", "SEK", "kr"),
    ("SG", "SGD", "$"),
    ("TT", "TTD", "$"),
    ("TZ", "TZS", "TSh"),
    ("UG", "UGX", "USh"),
    ("ZA", "ZAR", "R"),
    ("ZM", "ZMW", "K"),
];

const GERMAN_SIGNS: &[(&str, &str)] = &[
    ("AUD", "AU$"),
    ("JPY", "¥"),
    ("PHP", "PHP"),
    ("THB", "฿"),
    ("USD", "$"),
];

/// What German shares with English.
const SHARED_SIGNS: &[(&str, &str)] = ENGLISH_SIGNS;

const FRENCH_SIGNS: &[(&str, &str)] = &[
    ("ARS", "$AR"),
    ("AUD", "$AU"),
    ("BRL", "R$"),
    ("CAD", "$CA"),
    ("CLP", "$CL"),
    ("COP", "$CO"),
    ("EUR", "€"),
    ("FJD", "$FJ"),
    ("GBP", "£GB"),
    ("GIP", "£GI"),
    ("ILS", "₪"),
    ("INR", "₹"),
    ("KRW", "₩"),
    ("LBP", "£LB"),
    ("MXN", "$MX"),
    ("NZD", "$NZ"),
    ("SGD", "$SG"),
    ("TTD", "$TT"),
    ("USD", "$US"),
    ("UYU", "$UY"),
    ("VND", "₫"),
    ("XAF", "FCFA"),
    ("XOF", "F\u{202f}CFA"),
    ("XPF", "FCFP"),
];

const CANADIAN_FRENCH_SIGNS: &[(&str, &str)] = &[
    ("AUD", "$\u{a0}AU"),
    ("BRL", "R$"),
    ("CAD", "$"),
    ("CNY", "CN¥"),
    ("EUR", "€"),
    ("GBP", "£"),
    ("HKD", "$\u{a0}HK"),
    ("JPY", "¥"),
    ("NZD", "$\u{a0}NZ"),
    ("SGD", "$\u{a0}SG"),
    ("USD", "$\u{a0}US"),
];

#[cfg(test)]
mod tests {
    use time::{Month, format_description::well_known::Rfc3339};

    use super::*;
    use crate::order::Currency;

    fn locale(tag: &str) -> Locale {
        Locale::from_tag(Some(tag))
    }

    fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
        table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split('\t').collect())
    }

    #[test]
    fn money_is_written_as_cldr_writes_it() {
        let mut compared = 0;
        for row in rows(include_str!("../tests/golden/cldr-48-money.tsv")) {
            let [tag, code, amount, expected] = row[..] else {
                panic!("four columns: {row:?}");
            };
            let money = Money {
                amount: amount.parse().unwrap(),
                currency: Currency::from_code(code).unwrap(),
            };
            assert_eq!(locale(tag).money(money), expected, "{row:?}");
            compared += 1;
        }
        assert!(compared > 400, "{compared}");
    }

    #[test]
    fn dates_are_written_as_cldr_writes_them() {
        let mut compared = 0;
        for row in rows(include_str!("../tests/golden/cldr-48-dates.tsv")) {
            let [tag, date, expected] = row[..] else {
                panic!("three columns: {row:?}");
            };
            let at = OffsetDateTime::parse(&format!("{date}T00:00:00Z"), &Rfc3339).unwrap();
            assert_eq!(locale(tag).date(at), expected, "{row:?}");
            compared += 1;
        }
        assert!(compared > 100, "{compared}");
    }

    #[test]
    fn the_first_of_a_month_is_an_ordinal_in_french() {
        let at = Date::from_calendar_date(2026, Month::March, 1)
            .unwrap()
            .midnight()
            .assume_utc();
        assert_eq!(locale("fr-CH").date(at), "1er mars 2026");
    }

    #[test]
    fn a_day_is_that_of_utc() {
        let at = OffsetDateTime::parse("2027-01-01T08:30:00+11:00", &Rfc3339).unwrap();
        assert_eq!(locale("en-AU").date(at), "31 December 2026");
    }

    #[test]
    fn tags_are_read_leniently() {
        assert_eq!(locale("fr_CA"), locale("fr-CA"));
        assert_eq!(locale("EN"), locale("en-US"));
        assert_eq!(locale("de-latn-ch-1996"), locale("de-CH"));
        assert_eq!(locale("de_AT.UTF-8"), locale("de-AT"));
        assert_eq!(locale("de-u-co-phonebk"), locale("de-DE"));
        assert_eq!(locale("ja-JP"), Locale::from_tag(None));
        assert_eq!(locale(""), Locale::from_tag(None));
        assert_eq!(locale("english"), Locale::from_tag(None));
        assert_eq!(locale("en-001"), Locale::from_tag(None));
    }

    #[test]
    fn the_most_negative_amount_is_written() {
        let money = Money {
            amount: i64::MIN,
            currency: Currency::EUR,
        };
        assert_eq!(
            locale("de").money(money),
            "-92.233.720.368.547.758,08\u{a0}€"
        );
    }
}
