"""Emails through SMTP into maildev, which takes them apart again."""

from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from events import ADDRESS, CUSTOMER, REASON, order_cancelled, order_placed
from maildev import Maildev
from orderup import assert_delivered, assert_later

LOGIN = ("shop@example", "p:a/s%s w?rd")

# Per language: the subject up to the order's short id and after it, the greeting, the total, a heading.
PLACED = {
    "en-IE": ("We have your order ", "", "Hello", "€34.00", "Thank you for your order"),
    "de-DE": ("Wir haben Ihre Bestellung ", " erhalten", "Guten Tag", "34,00 €", "Vielen Dank für Ihre Bestellung"),
    "fr-FR": ("Nous avons bien reçu votre commande ", "", "Bonjour", "34,00 €", "Merci pour votre commande"),
}
CANCELLED = {
    "en-IE": ("Your order ", " has been cancelled", "Hello", "Reason: "),
    "de-DE": ("Ihre Bestellung ", " wurde storniert", "Guten Tag", "Grund: "),
    "fr-FR": ("Votre commande ", " a été annulée", "Bonjour", "Motif : "),
}


@pytest.fixture
def orderup(start_orderup, maildev):
    return start_orderup({"SMTP_URL": f"smtp://127.0.0.1:{maildev.smtp_port}"})


@pytest.fixture(scope="module")
def maildev_with_login():
    with Maildev(login=LOGIN) as maildev:
        yield maildev


class Page(HTMLParser):
    """What a browser would make of the HTML: the names of its elements, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.text, self.lang = set(), "", None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        if tag == "html":
            self.lang = dict(attributes).get("lang")

    def handle_data(self, data):
        self.text += data


def plain_spaces(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def order_id(event: dict) -> str:
    return event["data"]["orderId"]


def check_mail(maildev, event: dict, subject: tuple[str, str]) -> tuple[str, str]:
    """Checks all that is the same in each email; returns its text and the text of its HTML."""
    [mail] = maildev.wait_for(order_id(event))
    short_id = mail["subject"].removeprefix(subject[0]).removesuffix(subject[1])
    assert mail["subject"] == f"{subject[0]}{short_id}{subject[1]}"
    assert short_id and short_id.lower() in order_id(event).replace("-", "")
    assert mail["from"] == [{"address": "orders@shop.example", "name": "Café Orderup"}]
    assert mail["to"] == [{"address": ADDRESS, "name": CUSTOMER}]
    assert mail["envelope"]["from"]["address"] == "orders@shop.example"
    assert [to["address"] for to in mail["envelope"]["to"]] == [ADDRESS]
    assert mail["attachments"] == []

    source = maildev.source(mail)
    assert source["Subject"] == mail["subject"]
    assert source["Reply-To"] == "help@shop.example"
    assert source["Message-ID"].endswith("@shop.example>")
    assert source["Date"].datetime.isoformat() == "2026-11-22T19:40:00+00:00"
    assert source.get_content_type() == "multipart/alternative"
    parts = list(source.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert not any(part.defects for part in (source, *parts))

    page = Page(parts[1].get_content())
    assert page.lang == event["data"]["customer"]["locale"][:2]
    assert "Käsespätzle" in mail["html"]
    return plain_spaces(mail["text"]), plain_spaces(page.text)


@pytest.mark.parametrize("locale", PLACED)
def test_a_placed_order_arrives_in_the_customers_language(orderup, maildev, locale):
    before, after, greeting, total, heading = PLACED[locale]
    event = order_placed(locale)
    assert_delivered(orderup.deliver("notify", event))
    text, page = check_mail(maildev, event, (before, after))
    for body in (text, page):
        for expected in (f"{greeting} {CUSTOMER},", total, "2 × Käsespätzle", "1 × Tulipes à l’œillet", "2026"):
            assert expected in body
    assert heading in page
    assert "cnon" not in text + page


@pytest.mark.parametrize("locale", CANCELLED)
def test_a_cancelled_order_arrives_in_the_customers_language(orderup, maildev, locale):
    before, after, greeting, reason = CANCELLED[locale]
    event = order_cancelled(locale)
    assert_delivered(orderup.deliver("notify", event))
    text, page = check_mail(maildev, event, (before, after))
    assert f"{reason}{REASON}" in text
    for body in (text, page):
        for expected in (f"{greeting} {CUSTOMER},", REASON, "2 × Käsespätzle"):
            assert expected in body


@pytest.mark.parametrize("make_event", [order_placed, order_cancelled])
def test_the_same_message_delivered_twice_is_the_same_mail_to_the_byte(orderup, maildev, make_event):
    event = make_event()
    assert_delivered(orderup.deliver("notify", event))
    assert_delivered(orderup.deliver("notify", event))
    first, second = (maildev.source(mail) for mail in maildev.wait_for(order_id(event), 2))
    assert first["Message-ID"] == second["Message-ID"]
    # What a server on the way adds, with its own time, is not ours.
    del first["Received"], second["Received"]
    assert first.as_bytes() == second.as_bytes()


def test_mails_about_different_things_differ_in_their_message_id(orderup, maildev):
    placed, other = order_placed(), order_placed()
    cancelled = order_cancelled(orderId=order_id(placed))
    for event in (placed, other, cancelled):
        assert_delivered(orderup.deliver("notify", event))
    mails = maildev.wait_for(order_id(placed), 2) + maildev.wait_for(order_id(other))
    assert len({mail["headers"]["message-id"] for mail in mails}) == 3


def test_what_a_stranger_typed_is_text_and_not_html(orderup, maildev):
    name = "Ada <b onclick=\"alert(1)\">& 'Söhne'"
    item = "<img src=x onerror=alert(2)> &lt;"
    partner = "<iframe srcdoc='x'>"
    event = order_placed("de-DE", partner=partner, customer={"name": name, "email": ADDRESS, "locale": "de-DE"})
    event["data"]["lineItems"][0]["name"] = item
    assert_delivered(orderup.deliver("notify", event))
    [mail] = maildev.wait_for(order_id(event))
    assert mail["to"] == [{"address": ADDRESS, "name": name}]
    # maildev's own view of the HTML is not asked, as it may clean it.
    html = maildev.source(mail).get_body(["html"]).get_content()
    page = Page(html)
    assert not page.elements & {"b", "img", "iframe", "script"}
    for typed in (name, item, partner):
        assert typed not in html
        assert typed in plain_spaces(page.text)
        assert typed in plain_spaces(mail["text"])


def test_a_reason_can_hold_no_html_either(orderup, maildev):
    reason = "</td><script>alert(3)</script>"
    event = order_cancelled(reason=reason)
    assert_delivered(orderup.deliver("notify", event))
    [mail] = maildev.wait_for(order_id(event))
    page = Page(maildev.source(mail).get_body(["html"]).get_content())
    assert "script" not in page.elements
    assert reason in page.text


def test_a_customer_without_a_known_language_is_written_to_in_english(orderup, maildev):
    event = order_placed("tlh")
    assert_delivered(orderup.deliver("notify", event))
    [mail] = maildev.wait_for(order_id(event))
    assert mail["subject"].startswith(PLACED["en-IE"][0])


def test_a_server_that_demands_a_login_gets_it(start_orderup, maildev_with_login):
    user, password = (quote(part, safe="") for part in LOGIN)
    orderup = start_orderup({"SMTP_URL": f"smtp://{user}:{password}@127.0.0.1:{maildev_with_login.smtp_port}"})
    event = order_placed()
    assert_delivered(orderup.deliver("notify", event))
    maildev_with_login.wait_for(order_id(event))


@pytest.mark.parametrize("login", ["shop%40example:wrong@", ""], ids=["wrong", "none"])
def test_a_login_that_is_refused_is_our_fault_and_not_the_messages(start_orderup, maildev_with_login, login):
    orderup = start_orderup({"SMTP_URL": f"smtp://{login}127.0.0.1:{maildev_with_login.smtp_port}"})
    event = order_placed()
    assert_later(orderup.deliver("notify", event))
    assert maildev_with_login.about(order_id(event)) == []
    assert "wrong" not in orderup.output()


def test_mail_that_must_be_encrypted_is_not_sent_in_the_clear(start_orderup, maildev):
    orderup = start_orderup({"SMTP_URL": f"smtp://127.0.0.1:{maildev.smtp_port}?tls=required"})
    event = order_placed()
    assert_later(orderup.deliver("notify", event))
    assert maildev.about(order_id(event)) == []
