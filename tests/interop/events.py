"""The messages about an order, as the topic carries them (CloudEvents 1.0, JSON)."""

import uuid

CUSTOMER = "Jürgen Groß"
ADDRESS = "juergen.gross@example.net"
REASON = "Zweimal bestellt – désolé"


def order_placed(locale: str = "en-AU", **changes) -> dict:
    """An order of its own id each time, from two vendors, for 34 euros in all. `changes` are made to its data."""
    order_id = str(uuid.uuid4())
    data = {
        "orderId": order_id,
        "placedAt": "2026-11-22T19:40:00Z",
        "customer": {"name": CUSTOMER, "email": ADDRESS, "locale": locale},
        "lineItems": [
            line("bakery", "PANCAKE-12", "Käsespätzle", 2, 1250),
            line("florist", "TULIP-7", "Tulipes à l’œillet", 1, 900),
        ],
        "total": euros(3400),
        "payment": {"source": "cnon:card-nonce-ok"},
        "partner": "brand-7",
        **changes,
    }
    return event("order.placed", f"{order_id}:placed", data)


def order_cancelled(locale: str = "en-AU", reason: str = REASON, **changes) -> dict:
    """The same for its cancellation."""
    data = {**order_placed(locale, **changes)["data"], "cancellation": {"reason": reason}}
    return event("order.cancelled", f"{data['orderId']}:cancelled", data)


def event(kind: str, event_id: str, data: dict) -> dict:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/orderup",
        "type": kind,
        "subject": data["orderId"],
        "time": "2026-11-22T19:40:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }


def line(vendor: str, sku: str, name: str, quantity: int, cents: int) -> dict:
    return {"vendorId": vendor, "sku": sku, "name": name, "quantity": quantity, "unitPrice": euros(cents)}


def euros(cents: int) -> dict:
    return {"amount": cents, "currency": "EUR"}
