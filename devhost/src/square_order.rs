//! Orders of the stand-in Square: what `POST /v2/orders` may say, and what becomes of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    square_error::SquareError,
    square_fields::{Fields, Money},
};

/// An order, as Square shows it and as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub id: String,
    pub location_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_id: Option<String>,
    pub state: OrderState,
    /// It goes up with every change, also with those that a payment makes.
    pub version: u64,
    pub total_money: Money,
    pub line_items: Vec<Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// What has no effect here and is only shown again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum OrderState {
    Open,
    Completed,
    Canceled,
}

/// Members that an order keeps without an effect.
const KEPT: [&str; 4] = ["source", "customer_id", "ticket_name", "fulfillments"];

impl Order {
    /// Reads `order` of a creation. Every price is changed by so many per cent first, as in a price list that says
    /// something else than the caller.
    pub fn parse(
        order: &Value,
        price_change_percent: i64,
        now: Timestamp,
    ) -> Result<Self, SquareError> {
        let known = [
            "location_id",
            "reference_id",
            "line_items",
            "metadata",
            "state",
        ];
        let known: Vec<&str> = known.into_iter().chain(KEPT).collect();
        let fields = Fields::of(order, "order".to_owned(), &known)?;
        let location = fields.location("location_id")?;
        let location_id = fields.required("location_id", location)?.to_owned();
        if !matches!(fields.text("state", 9)?, None | Some("OPEN")) {
            return Err(
                SquareError::bad_request("The stand-in makes only orders that are OPEN.")
                    .of_field(fields.at("state")),
            );
        }
        let items = fields.list("line_items")?;
        let items = fields.required("line_items", items)?;
        if items.is_empty() || items.len() > 500 {
            return Err(SquareError::invalid(
                "INVALID_VALUE",
                "The stand-in takes from 1 to 500 line items.",
            )
            .of_field(fields.at("line_items")));
        }
        let mut total: Option<Money> = None;
        let mut line_items = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = fields.at(&format!("line_items[{index}]"));
            let line = Line::parse(item, path, price_change_percent)?;
            let sum = total.get_or_insert_with(|| Money {
                amount: 0,
                currency: line.total.currency.clone(),
            });
            if sum.currency != line.total.currency {
                return Err(SquareError::invalid(
                    "INVALID_VALUE",
                    "Every amount of an order must have the same currency.",
                )
                .of_field(line.price_path));
            }
            sum.amount = sum
                .amount
                .checked_add(line.total.amount)
                .ok_or_else(|| too_much(line.price_path))?;
            line_items.push(line.shown);
        }
        let mut rest = Map::new();
        for name in KEPT {
            rest.extend(
                fields
                    .get(name)
                    .map(|value| (name.to_owned(), value.clone())),
            );
        }
        rest.extend(
            fields
                .metadata("metadata")?
                .map(|value| ("metadata".to_owned(), value)),
        );
        Ok(Self {
            id: format!("CAIS{}", Uuid::new_v4().simple()),
            location_id,
            reference_id: fields.text("reference_id", 40)?.map(str::to_owned),
            state: OrderState::Open,
            version: 1,
            total_money: total.ok_or_else(|| SquareError::bad_request("The order is empty."))?,
            line_items,
            created_at: now,
            updated_at: now,
            rest,
        })
    }

    /// The order after a change.
    #[must_use]
    pub fn changed(&self, state: OrderState, now: Timestamp) -> Self {
        Self {
            state,
            version: self.version + 1,
            updated_at: now,
            ..self.clone()
        }
    }

    /// As `/_dev/till` shows it.
    pub fn for_people(&self) -> Value {
        json!({
            "id": self.id,
            "referenceId": self.reference_id,
            "state": self.state,
            "total": self.total_money,
            "version": self.version,
            "createdAt": self.created_at,
        })
    }
}

/// One line item.
struct Line {
    shown: Value,
    total: Money,
    price_path: String,
}

impl Line {
    fn parse(item: &Value, path: String, price_change_percent: i64) -> Result<Self, SquareError> {
        let fields = Fields::of(
            item,
            path,
            &[
                "uid",
                "name",
                "quantity",
                "base_price_money",
                "note",
                "metadata",
                "catalog_object_id",
                "variation_name",
                "item_type",
            ],
        )?;
        fields.text("uid", 60)?;
        fields.text("note", 2000)?;
        fields.text("variation_name", 400)?;
        fields.text("item_type", 50)?;
        fields.metadata("metadata")?;
        if fields.text("name", 512)?.is_none() && fields.text("catalog_object_id", 192)?.is_none() {
            return Err(SquareError::invalid(
                "MISSING_REQUIRED_PARAMETER",
                "A line item needs a name or a catalog_object_id.",
            )
            .of_field(fields.at("name")));
        }
        let quantity: i64 = fields
            .required_text("quantity", 12)?
            .parse()
            .ok()
            .filter(|quantity| *quantity > 0)
            .ok_or_else(|| {
                SquareError::invalid(
                    "INVALID_VALUE",
                    "The stand-in takes only whole quantities above 0.",
                )
                .of_field(fields.at("quantity"))
            })?;
        let price = fields.money("base_price_money")?;
        let price = fields.required("base_price_money", price)?;
        let price_path = fields.at("base_price_money");
        let (Some(amount), Some(total)) = changed_price(price.amount, price_change_percent)
            .map_or((None, None), |amount| {
                (Some(amount), amount.checked_mul(quantity))
            })
        else {
            return Err(too_much(price_path));
        };
        let money = |amount: i64| Money {
            amount,
            currency: price.currency.clone(),
        };
        let mut shown = item.clone();
        shown["base_price_money"] = json!(money(amount));
        shown["total_money"] = json!(money(total));
        if shown["uid"].is_null() {
            shown["uid"] = Uuid::new_v4().simple().to_string().into();
        }
        Ok(Self {
            shown,
            total: money(total),
            price_path,
        })
    }
}

/// Rounded half up to the smallest unit.
fn changed_price(amount: i64, percent: i64) -> Option<i64> {
    let hundredths = amount.checked_mul(100 + percent)?;
    Some(hundredths.checked_add(50)?.div_euclid(100))
}

fn too_much(field: String) -> SquareError {
    SquareError::invalid("VALUE_TOO_HIGH", "The amount is too large.").of_field(field)
}
