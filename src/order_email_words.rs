//! The words of the emails about an order, one table per language.
//!
//! The templates hold no words; a new language is a new table here and a line in [`Words::of`].

use crate::locale::Language;

/// What the emails say in one language. A function takes what the sentence is about.
pub(crate) struct Words {
    pub(crate) greeting: fn(&str) -> String,
    /// For a customer who is not to be addressed by name.
    pub(crate) greeting_without_name: &'static str,
    /// Between a label and its value.
    pub(crate) colon: &'static str,
    pub(crate) order: &'static str,
    pub(crate) placed_on: &'static str,
    pub(crate) partner: &'static str,
    pub(crate) items: &'static str,
    pub(crate) amount: &'static str,
    pub(crate) total: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) footer: &'static str,
    pub(crate) order_number: &'static str,

    /// For an email that was held up, about what happened on that date.
    pub(crate) late_placed: fn(&str) -> String,
    pub(crate) late_confirmed: fn(&str) -> String,
    pub(crate) late_cancelled: fn(&str) -> String,

    pub(crate) placed_subject: fn(&str) -> String,
    pub(crate) placed_heading: &'static str,
    pub(crate) placed_intro: &'static str,
    pub(crate) next_heading: &'static str,
    pub(crate) next: &'static str,

    pub(crate) confirmed_subject: fn(&str) -> String,
    pub(crate) confirmed_heading: &'static str,
    pub(crate) confirmed_intro: &'static str,
    pub(crate) confirmed_next: &'static str,

    pub(crate) cancelled_subject: fn(&str) -> String,
    pub(crate) cancelled_heading: &'static str,
    pub(crate) cancelled_intro: &'static str,
    pub(crate) nothing_to_do: &'static str,
    /// Said where it is known.
    pub(crate) not_charged: &'static str,
    /// The reasons that a till gives.
    pub(crate) payment_declined: &'static str,
    pub(crate) rejected_by_vendor: &'static str,
}

impl Words {
    pub(crate) fn of(language: Language) -> &'static Self {
        match language {
            Language::English => &ENGLISH,
            Language::German => &GERMAN,
            Language::French => &FRENCH,
        }
    }
}

const ENGLISH: Words = Words {
    greeting: |name| format!("Hello {name},"),
    greeting_without_name: "Hello,",
    colon: ": ",
    order: "Order",
    placed_on: "Placed on",
    partner: "Ordered through",
    items: "Items",
    amount: "Amount",
    total: "Total",
    reason: "Reason",
    footer: "You receive this email because an order was placed with this address.",
    order_number: "Order number",
    late_placed: |date| {
        format!("We are sorry that this email is late. We have had your order since {date}.")
    },
    late_confirmed: |date| {
        format!("We are sorry that this email is late. Your order was confirmed on {date}.")
    },
    late_cancelled: |date| {
        format!("We are sorry that this email is late. The order was cancelled on {date}.")
    },

    placed_subject: |order| format!("We have your order {order}"),
    placed_heading: "Thank you for your order",
    placed_intro: "We have received your order and are passing it on to the shops that prepare it.",
    next_heading: "What happens next",
    next: "Each shop prepares its part of your order. You need do nothing: we will write to you if anything changes.",

    confirmed_subject: |order| format!("Your order {order} is confirmed"),
    confirmed_heading: "Your order is confirmed",
    confirmed_intro: "The shops have your order, and its payment is settled.",
    confirmed_next: "Each shop is preparing its part of your order. You need do nothing more.",

    cancelled_subject: |order| format!("Your order {order} has been cancelled"),
    cancelled_heading: "Your order has been cancelled",
    cancelled_intro: "This is to let you know that the order below has been cancelled.",
    nothing_to_do: "You need do nothing.",
    not_charged: "You were not charged.",
    payment_declined: "The payment was declined. You are welcome to order again with another means of payment.",
    rejected_by_vendor: "The shop could not take the order.",
};

// Without ß, so that it reads as well in Switzerland.
const GERMAN: Words = Words {
    greeting: |name| format!("Guten Tag {name},"),
    greeting_without_name: "Guten Tag,",
    colon: ": ",
    order: "Bestellung",
    placed_on: "Bestellt am",
    partner: "Bestellt über",
    items: "Artikel",
    amount: "Betrag",
    total: "Gesamtbetrag",
    reason: "Grund",
    footer: "Sie erhalten diese E-Mail, weil mit dieser Adresse bestellt wurde.",
    order_number: "Bestellnummer",
    late_placed: |date| {
        format!(
            "Bitte entschuldigen Sie, dass diese E-Mail verspätet kommt. Ihre Bestellung liegt uns seit dem {date} vor."
        )
    },
    late_confirmed: |date| {
        format!(
            "Bitte entschuldigen Sie, dass diese E-Mail verspätet kommt. Ihre Bestellung wurde am {date} bestätigt."
        )
    },
    late_cancelled: |date| {
        format!(
            "Bitte entschuldigen Sie, dass diese E-Mail verspätet kommt. Die Bestellung wurde am {date} storniert."
        )
    },

    placed_subject: |order| format!("Wir haben Ihre Bestellung {order} erhalten"),
    placed_heading: "Vielen Dank für Ihre Bestellung",
    placed_intro: "Ihre Bestellung ist bei uns eingegangen, und wir geben sie an die beteiligten Geschäfte weiter.",
    next_heading: "So geht es weiter",
    next: "Jedes Geschäft bereitet seinen Teil Ihrer Bestellung vor. Sie müssen nichts weiter tun: Wir schreiben Ihnen, falls sich etwas ändert.",

    confirmed_subject: |order| format!("Ihre Bestellung {order} ist bestätigt"),
    confirmed_heading: "Ihre Bestellung ist bestätigt",
    confirmed_intro: "Die Geschäfte haben Ihre Bestellung, und die Zahlung ist geregelt.",
    confirmed_next: "Jedes Geschäft bereitet seinen Teil Ihrer Bestellung vor. Sie müssen nichts weiter tun.",

    cancelled_subject: |order| format!("Ihre Bestellung {order} wurde storniert"),
    cancelled_heading: "Ihre Bestellung wurde storniert",
    cancelled_intro: "Wir möchten Ihnen mitteilen, dass die folgende Bestellung storniert wurde.",
    nothing_to_do: "Sie müssen nichts weiter tun.",
    not_charged: "Ihnen wurde nichts berechnet.",
    payment_declined: "Die Zahlung wurde abgelehnt. Sie können gern mit einem anderen Zahlungsmittel neu bestellen.",
    rejected_by_vendor: "Das Geschäft konnte die Bestellung nicht annehmen.",
};

const FRENCH: Words = Words {
    greeting: |name| format!("Bonjour {name},"),
    greeting_without_name: "Bonjour,",
    colon: "\u{a0}: ",
    order: "Commande",
    placed_on: "Passée le",
    partner: "Commandée via",
    items: "Articles",
    amount: "Montant",
    total: "Total",
    reason: "Motif",
    footer: "Vous recevez cet e-mail parce qu’une commande a été passée avec cette adresse.",
    order_number: "Numéro de commande",
    late_placed: |date| {
        format!(
            "Veuillez nous excuser pour le retard de cet e-mail. Nous avons votre commande depuis le {date}."
        )
    },
    late_confirmed: |date| {
        format!(
            "Veuillez nous excuser pour le retard de cet e-mail. Votre commande a été confirmée le {date}."
        )
    },
    late_cancelled: |date| {
        format!(
            "Veuillez nous excuser pour le retard de cet e-mail. La commande a été annulée le {date}."
        )
    },

    placed_subject: |order| format!("Nous avons bien reçu votre commande {order}"),
    placed_heading: "Merci pour votre commande",
    placed_intro: "Votre commande nous est bien parvenue et nous la transmettons aux boutiques qui la préparent.",
    next_heading: "Et maintenant\u{202f}?",
    next: "Chaque boutique prépare sa part de votre commande. Vous n’avez rien à faire\u{a0}: nous vous écrirons en cas de changement.",

    confirmed_subject: |order| format!("Votre commande {order} est confirmée"),
    confirmed_heading: "Votre commande est confirmée",
    confirmed_intro: "Les boutiques ont votre commande et son paiement est réglé.",
    confirmed_next: "Chaque boutique prépare sa part de votre commande. Vous n’avez rien d’autre à faire.",

    cancelled_subject: |order| format!("Votre commande {order} a été annulée"),
    cancelled_heading: "Votre commande a été annulée",
    cancelled_intro: "Nous vous informons que la commande ci-dessous a été annulée.",
    nothing_to_do: "Vous n’avez rien à faire.",
    not_charged: "Vous n’avez pas été débité.",
    payment_declined: "Le paiement a été refusé. Vous pouvez commander à nouveau avec un autre moyen de paiement.",
    rejected_by_vendor: "La boutique n’a pas pu accepter la commande.",
};
