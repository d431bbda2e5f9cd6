//! The email to the customer about an event of an order.
//!
//! Made when `notify` handles the event, from the snapshot that the event carries. It is a pure function of the
//! event and of whether it is late, so that repeated attempts send the same bytes under the same key. Whatever comes from outside is one line
//! of plain text here, and is escaped again by the HTML templates.

use askama::Template;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    email::{Email, Mailbox},
    event::{Cancellation, PAYMENT_DECLINED, REJECTED_BY_VENDOR},
    locale::Locale,
    order::{Money, Order},
    order_email_words::Words,
};

/// The namespace of the emails' keys. Another one would send every email that is being retried twice.
const KEYS: Uuid = Uuid::from_u128(0xb90e609745fc409e9fd008ec65808690);

/// The longest name that is printed. What a person or a shop calls itself is shorter.
const LONGEST_NAME: usize = 120;
const LONGEST_REASON: usize = 500;

/// Tells the customer that the order was taken; `at` is the event's time. An email that is late says so.
pub fn placed(order: &Order, at: OffsetDateTime, is_late: bool) -> Email {
    let (locale, words) = language_of(order);
    let placed_at = order.placed_at.unwrap_or(at);
    let mut view = View::of(order, Some(placed_at), locale, words);
    view.late = is_late.then(|| (words.late_placed)(&locale.date(placed_at)));
    let said = Said {
        subject: (words.placed_subject)(&view.display_id),
        heading: words.placed_heading,
        intro: words.placed_intro,
        next: words.next,
    };
    accepted(order, "order.placed", at, &view, words, said)
}

/// Tells the customer that the till has the order; `at` is the event's time. An email that is late says so.
pub fn confirmed(order: &Order, at: OffsetDateTime, is_late: bool) -> Email {
    let (locale, words) = language_of(order);
    let mut view = View::of(order, order.placed_at, locale, words);
    view.late = is_late.then(|| (words.late_confirmed)(&locale.date(at)));
    let said = Said {
        subject: (words.confirmed_subject)(&view.display_id),
        heading: words.confirmed_heading,
        intro: words.confirmed_intro,
        next: words.confirmed_next,
    };
    accepted(order, "order.confirmed", at, &view, words, said)
}

/// What the emails about an order that goes on do not have in common.
struct Said {
    subject: String,
    heading: &'static str,
    intro: &'static str,
    next: &'static str,
}

fn accepted(
    order: &Order,
    event_type: &str,
    at: OffsetDateTime,
    view: &View,
    words: &Words,
    said: Said,
) -> Email {
    let text = rendered(&AcceptedText {
        order: view,
        words,
        said: &said,
    });
    let html = rendered(&AcceptedHtml {
        order: view,
        words,
        said: &said,
        subject: &said.subject,
    });
    email(order, event_type, at, said.subject, text, html)
}

/// Tells the customer that the order was cancelled; `at` is the event's time. An email that is late says so.
pub fn cancelled(
    order: &Order,
    cancellation: &Cancellation,
    at: OffsetDateTime,
    is_late: bool,
) -> Email {
    let (locale, words) = language_of(order);
    let mut view = View::of(order, order.placed_at, locale, words);
    view.late = is_late.then(|| (words.late_cancelled)(&locale.date(at)));
    let reason = match cancellation.reason.as_str() {
        PAYMENT_DECLINED => words.payment_declined.to_owned(),
        REJECTED_BY_VENDOR => words.rejected_by_vendor.to_owned(),
        reason => one_line(reason, LONGEST_REASON),
    };
    let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
    let not_charged = cancellation.not_charged;
    let subject = (words.cancelled_subject)(&view.display_id);
    let text = rendered(&CancelledText {
        order: &view,
        words,
        reason,
        not_charged,
    });
    let html = rendered(&CancelledHtml {
        order: &view,
        words,
        reason,
        not_charged,
        subject: &subject,
    });
    email(order, "order.cancelled", at, subject, text, html)
}

/// The key under which a provider knows the email about this event of this order to this address.
fn key(order_id: &str, event_type: &str, address: &str) -> Uuid {
    // None of the first two can hold a line break.
    Uuid::new_v5(
        &KEYS,
        format!("{order_id}\n{event_type}\n{address}").as_bytes(),
    )
}

fn email(
    order: &Order,
    event_type: &str,
    date: OffsetDateTime,
    subject: String,
    text: String,
    html: String,
) -> Email {
    let order_id = order.order_id.to_string();
    let name = one_line(&order.customer.name, LONGEST_NAME);
    Email {
        key: key(&order_id, event_type, &order.customer.email),
        to: Mailbox {
            name: (!name.is_empty()).then_some(name),
            address: ascii_domain(&order.customer.email),
        },
        subject,
        text,
        html,
        date,
        order_id,
        event_type: event_type.to_owned(),
    }
}

/// The address with its domain as DNS knows it: most SMTP servers and provider APIs take nothing else.
fn ascii_domain(address: &str) -> String {
    let ascii = address.rsplit_once('@').and_then(|(local, domain)| {
        let url = reqwest::Url::parse(&format!("http://{domain}")).ok()?;
        Some(format!("{local}@{}", url.host_str()?))
    });
    ascii.unwrap_or_else(|| address.to_owned())
}

fn language_of(order: &Order) -> (Locale, &'static Words) {
    let locale = Locale::from_tag(order.customer.locale.as_deref());
    (locale, Words::of(locale.language))
}

/// An order as it is printed.
struct View {
    lang: &'static str,
    greeting: String,
    /// Said where the email is late.
    late: Option<String>,
    id: String,
    /// The last eight digits of the id: of a UUIDv7 and of a UUIDv5 these are random, and a person can
    /// read them out.
    display_id: String,
    placed_on: Option<String>,
    partner: Option<String>,
    lines: Vec<Line>,
    total: String,
}

struct Line {
    quantity: u32,
    name: String,
    total: String,
}

impl View {
    fn of(order: &Order, placed_at: Option<OffsetDateTime>, locale: Locale, words: &Words) -> Self {
        let digits = order.order_id.0.simple().to_string().to_uppercase();
        Self {
            lang: locale.language.tag(),
            greeting: match greeted_name(&order.customer.name) {
                Some(name) => (words.greeting)(&name),
                None => words.greeting_without_name.to_owned(),
            },
            late: None,
            id: order.order_id.to_string(),
            display_id: digits[digits.len() - 8..].to_owned(),
            placed_on: placed_at.map(|at| locale.date(at)),
            partner: order
                .partner
                .as_deref()
                .map(|partner| one_line(partner, LONGEST_NAME))
                .filter(|partner| !partner.is_empty()),
            lines: order
                .line_items
                .iter()
                .map(|item| Line {
                    quantity: item.quantity,
                    name: one_line(&item.name, LONGEST_NAME),
                    total: locale.money(Money {
                        amount: item
                            .unit_price
                            .amount
                            .saturating_mul(i64::from(item.quantity)),
                        currency: item.unit_price.currency,
                    }),
                })
                .collect(),
            total: locale.money(order.total),
        }
    }
}

/// The name, unless it is made to be read as a link: a shop's first email to a stranger must not carry
/// an advertisement that somebody else typed as a name.
fn greeted_name(name: &str) -> Option<String> {
    let name = one_line(name, LONGEST_NAME);
    let link = name.contains(['/', '@']) || name.to_lowercase().contains("www.");
    (!name.is_empty() && !link).then_some(name)
}

/// The text on one line, of at most `longest` characters, in which nothing controls how the rest is displayed.
fn one_line(text: &str, longest: usize) -> String {
    let steers = |c: char| {
        // Marks, embeddings, overrides and isolates of writing direction.
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let text: String = text
        .chars()
        .filter(|c| !steers(*c))
        .map(|c| if breaks(c) { ' ' } else { c })
        .collect();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

fn rendered(template: &impl Template) -> String {
    template
        .render()
        .expect("a template of strings and numbers renders")
}

#[derive(Template)]
#[template(path = "accepted.txt")]
struct AcceptedText<'a> {
    order: &'a View,
    words: &'a Words,
    said: &'a Said,
}

#[derive(Template)]
#[template(path = "accepted.html")]
struct AcceptedHtml<'a> {
    order: &'a View,
    words: &'a Words,
    said: &'a Said,
    subject: &'a str,
}

#[derive(Template)]
#[template(path = "cancelled.txt")]
struct CancelledText<'a> {
    order: &'a View,
    words: &'a Words,
    reason: Option<&'a str>,
    not_charged: bool,
}

#[derive(Template)]
#[template(path = "cancelled.html")]
struct CancelledHtml<'a> {
    order: &'a View,
    words: &'a Words,
    reason: Option<&'a str>,
    not_charged: bool,
    subject: &'a str,
}

#[cfg(test)]
mod tests {
    use time::format_description::well_known::Rfc3339;

    use super::*;
    use crate::order::{Currency, Customer, LineItem, OrderId};

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    fn order(locale: Option<&str>) -> Order {
        let price = |amount| Money {
            amount,
            currency: Currency::AUD,
        };
        let item = |name: &str, quantity, amount| LineItem {
            vendor_id: "bakery".to_owned(),
            sku: "SKU".to_owned(),
            name: name.to_owned(),
            quantity,
            unit_price: price(amount),
        };
        Order {
            order_id: OrderId(Uuid::from_u128(0x019a_b3c4_d5e6_7f01_8234_5678_5f3a_09c1)),
            placed_at: Some(at("2026-11-22T19:40:00Z")),
            customer: Customer {
                name: "Ada Lovelace".to_owned(),
                email: "ada@example.net".to_owned(),
                locale: locale.map(ToOwned::to_owned),
            },
            line_items: vec![item("Pancake stack", 2, 1250), item("Flat white", 1, 450)],
            total: price(2950),
            payment: None,
            partner: Some("Brand 7".to_owned()),
        }
    }

    fn named(name: &str) -> Order {
        let mut order = order(Some("en-AU"));
        order.customer.name = name.to_owned();
        order
    }

    fn assert_has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|own| own == *line), "{line:?} in {text}");
        }
    }

    fn because(reason: &str) -> Cancellation {
        Cancellation {
            reason: reason.to_owned(),
            not_charged: false,
        }
    }

    const NOON: &str = "2026-11-22T12:00:00Z";

    #[test]
    fn an_order_is_confirmed_in_english() {
        let email = placed(&order(Some("en-AU")), at(NOON), false);
        assert_eq!(email.subject, "We have your order 5F3A09C1");
        assert_has(
            &email.text,
            &[
                "Hello Ada Lovelace,",
                "Order: 5F3A09C1",
                "Placed on: 22 November 2026",
                "Ordered through: Brand 7",
                "2 × Pancake stack – $25.00",
                "1 × Flat white – $4.50",
                "Total: $29.50",
                "What happens next",
                "Order number: 019ab3c4-d5e6-7f01-8234-56785f3a09c1",
            ],
        );
        assert!(email.html.contains("<html lang=\"en\">"));
        assert!(email.html.contains("2&nbsp;× Pancake stack"));
        assert!(email.html.contains(">$29.50<"));
    }

    #[test]
    fn the_till_has_the_order() {
        for (locale, subject) in [
            ("en-AU", "Your order 5F3A09C1 is confirmed"),
            ("de-CH", "Ihre Bestellung 5F3A09C1 ist bestätigt"),
            ("fr", "Votre commande 5F3A09C1 est confirmée"),
        ] {
            let order = order(Some(locale));
            let email = confirmed(&order, at(NOON), false);
            assert_eq!(email.subject, subject);
            assert_ne!(email.key, placed(&order, at(NOON), false).key);
            assert!(email.html.contains("5F3A09C1"));
            let late = confirmed(&order, at(NOON), true);
            assert_eq!(late.text.lines().count(), email.text.lines().count() + 2);
        }
        let email = confirmed(&order(Some("en")), at(NOON), false);
        assert_has(
            &email.text,
            &[
                "The shops have your order, and its payment is settled.",
                "Each shop is preparing its part of your order. You need do nothing more.",
            ],
        );
    }

    #[test]
    fn a_till_that_says_no_is_told_in_the_customers_words() {
        for (locale, reason, not_charged) in [
            ("en", "declined", "You were not charged."),
            ("de", "abgelehnt", "Ihnen wurde nichts berechnet."),
            ("fr", "refusé", "Vous n’avez pas été débité."),
        ] {
            let declined = Cancellation {
                reason: PAYMENT_DECLINED.to_owned(),
                not_charged: true,
            };
            let email = cancelled(&order(Some(locale)), &declined, at(NOON), false);
            for body in [&email.text, &email.html] {
                assert!(
                    body.contains(reason) && body.contains(not_charged),
                    "{body}"
                );
                assert!(!body.contains("payment_declined"), "{body}");
            }
            let rejected = cancelled(
                &order(Some(locale)),
                &because(REJECTED_BY_VENDOR),
                at(NOON),
                false,
            );
            assert!(!rejected.text.contains("rejected_by_vendor"));
            assert!(!rejected.text.contains(not_charged));
        }
    }

    #[test]
    fn an_order_is_confirmed_in_german() {
        let email = placed(&order(Some("de-AT")), at(NOON), false);
        assert_eq!(email.subject, "Wir haben Ihre Bestellung 5F3A09C1 erhalten");
        assert_has(
            &email.text,
            &[
                "Guten Tag Ada Lovelace,",
                "Bestellt am: 22. November 2026",
                "Bestellt über: Brand 7",
                "2 × Pancake stack – AU$\u{a0}25,00",
                "Gesamtbetrag: AU$\u{a0}29,50",
                "So geht es weiter",
            ],
        );
        assert!(email.html.contains("<html lang=\"de\">"));
    }

    #[test]
    fn an_order_is_confirmed_in_french() {
        let email = placed(&order(Some("fr_CA")), at(NOON), false);
        assert_eq!(
            email.subject,
            "Nous avons bien reçu votre commande 5F3A09C1"
        );
        assert_has(
            &email.text,
            &[
                "Bonjour Ada Lovelace,",
                "Passée le\u{a0}: 22 novembre 2026",
                "2 × Pancake stack – 25,00\u{a0}$\u{a0}AU",
                "Total\u{a0}: 29,50\u{a0}$\u{a0}AU",
                "Et maintenant\u{202f}?",
            ],
        );
        assert!(email.html.contains("<html lang=\"fr\">"));
    }

    #[test]
    fn a_cancellation_says_which_order_and_why() {
        for (locale, subject, lines) in [
            (
                "en",
                "Your order 5F3A09C1 has been cancelled",
                ["Reason: Sold out", "You need do nothing."],
            ),
            (
                "de",
                "Ihre Bestellung 5F3A09C1 wurde storniert",
                ["Grund: Sold out", "Sie müssen nichts weiter tun."],
            ),
            (
                "fr",
                "Votre commande 5F3A09C1 a été annulée",
                ["Motif\u{a0}: Sold out", "Vous n’avez rien à faire."],
            ),
        ] {
            let email = cancelled(&order(Some(locale)), &because("Sold out"), at(NOON), false);
            assert_eq!(email.subject, subject);
            assert_has(&email.text, &lines);
            assert_has(&email.text, &["2 × Pancake stack"]);
            assert!(email.html.contains(">Sold out<"));
        }
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut order = order(None);
        order.placed_at = None;
        order.partner = None;
        let email = cancelled(&order, &because(" \r\n "), at(NOON), false);
        for part in [&email.text, &email.html] {
            for label in ["Placed on", "Ordered through", "Reason"] {
                assert!(!part.contains(label), "{label}: {part}");
            }
        }
        assert!(!email.text.contains("\n\n\n"), "{}", email.text);
    }

    #[test]
    fn without_a_language_of_ours_it_is_english_and_the_dollar_says_whose() {
        for locale in [None, Some("ja-JP"), Some("")] {
            let email = placed(&order(locale), at(NOON), false);
            assert_has(&email.text, &["Total: A$29.50"]);
        }
    }

    #[test]
    fn the_key_is_of_the_order_the_event_and_the_recipient_only() {
        let first = placed(&order(Some("en")), at(NOON), false);
        assert_eq!(
            first.key,
            placed(&order(Some("de")), at("2026-11-23T12:00:00Z"), false).key
        );
        assert_ne!(
            first.key,
            cancelled(&order(Some("en")), &because(""), at(NOON), false).key
        );
        let mut other = order(Some("en"));
        other.customer.email = "eve@example.net".to_owned();
        assert_ne!(first.key, placed(&other, at(NOON), false).key);
        let mut other = order(Some("en"));
        other.order_id = OrderId(Uuid::nil());
        assert_ne!(first.key, placed(&other, at(NOON), false).key);
        // Pinned: another key would send what is being retried a second time.
        assert_eq!(
            first.key.to_string(),
            "3137ad25-3e04-5130-9be9-70a8ae45bf37"
        );
    }

    #[test]
    fn the_same_event_makes_the_same_email() {
        let email = || placed(&order(Some("fr")), at(NOON), false);
        assert!(email() == email());
    }

    #[test]
    fn the_domain_is_written_as_dns_knows_it() {
        let mut order = order(None);
        order.customer.email = "Ada@Bücher.example".to_owned();
        assert_eq!(
            placed(&order, at(NOON), false).to.address,
            "Ada@xn--bcher-kva.example"
        );
    }

    #[test]
    fn markup_from_outside_is_text() {
        let hostile = r#"<script>alert("1")</script> & 'co' <img src=x>"#;
        let mut order = named(hostile);
        order.partner = Some(hostile.to_owned());
        order.line_items[0].name = hostile.to_owned();
        let emails = [
            placed(&order, at(NOON), false),
            cancelled(&order, &because(hostile), at(NOON), false),
        ];
        for email in emails {
            assert!(!email.html.contains("<script"), "{}", email.html);
            assert!(!email.html.contains("<img"), "{}", email.html);
            assert!(!email.html.contains("alert(\""), "{}", email.html);
            assert!(email.html.contains("&#38; &#39;co&#39;"), "{}", email.html);
        }
    }

    #[test]
    fn control_characters_and_directions_from_outside_do_not_get_in() {
        let hostile = "Ada\r\nBcc: eve\u{0}\u{7f}\u{85}\u{2028}\u{202e}moc.live\u{2066}\u{200f}";
        let mut order = named(hostile);
        order.partner = Some(hostile.to_owned());
        order.line_items[0].name = hostile.to_owned();
        for email in [
            placed(&order, at(NOON), false),
            cancelled(&order, &because(hostile), at(NOON), false),
        ] {
            assert_has(&email.text, &["Hello Ada Bcc: eve moc.live,"]);
            assert_eq!(email.to.name.as_deref(), Some("Ada Bcc: eve moc.live"));
            for part in [&email.subject, &email.text, &email.html] {
                let strange = part.chars().find(|c| {
                    c.is_control() && *c != '\n'
                        || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
                });
                assert_eq!(strange, None);
            }
        }
    }

    #[test]
    fn a_very_long_name_is_cut_between_characters() {
        let email = placed(&named(&"é".repeat(10_000)), at(NOON), false);
        let name = email.to.name.unwrap();
        assert_eq!(name.chars().count(), LONGEST_NAME + 1);
        assert!(name.ends_with("é…"));
        assert!(email.text.lines().all(|line| line.chars().count() < 200));
    }

    #[test]
    fn a_name_that_reads_as_a_link_is_not_greeted() {
        for name in [
            "Win at https://x.example",
            "WWW.x.example",
            "a@x.example",
            "\n",
        ] {
            assert_has(&placed(&named(name), at(NOON), false).text, &["Hello,"]);
        }
        for name in ["J.R.R. Tolkien", "O’Neil", "محمد", "Zoë <3"] {
            let text = placed(&named(name), at(NOON), false).text;
            assert_has(&text, &[&format!("Hello {name},")]);
        }
    }

    #[test]
    fn the_html_loads_nothing_from_elsewhere() {
        for email in [
            placed(&order(Some("en")), at(NOON), false),
            cancelled(&order(Some("en")), &because("Sold out"), at(NOON), false),
        ] {
            for remote in ["http:", "https:", "<img", "<link", "url(", "<script"] {
                assert!(!email.html.contains(remote), "{remote}");
            }
        }
    }

    #[test]
    fn an_email_that_is_late_says_so_and_since_when() {
        for (locale, since_placed, since_cancelled) in [
            ("en-AU", "since 22 November 2026", "on 22 November 2026"),
            (
                "de-DE",
                "seit dem 22. November 2026",
                "am 22. November 2026",
            ),
            ("fr-FR", "depuis le 22 novembre 2026", "le 22 novembre 2026"),
        ] {
            let order = order(Some(locale));
            let (late, on_time) = (
                placed(&order, at(NOON), true),
                placed(&order, at(NOON), false),
            );
            assert_eq!(late.key, on_time.key);
            for part in [&late.text, &late.html] {
                assert!(part.contains(since_placed), "{part}");
            }
            for part in [&on_time.text, &on_time.html] {
                assert!(!part.contains(since_placed), "{part}");
            }
            let late = cancelled(&order, &because(""), at(NOON), true);
            for part in [&late.text, &late.html] {
                assert!(part.contains(since_cancelled), "{part}");
            }
        }
    }

    #[test]
    fn an_impossible_price_does_not_overflow() {
        let mut order = order(Some("en-AU"));
        order.line_items[0].unit_price.amount = i64::MAX;
        order.line_items[0].quantity = u32::MAX;
        let email = placed(&order, at(NOON), false);
        assert!(email.text.contains("$92,233,720,368,547,758.07"));
    }
}
