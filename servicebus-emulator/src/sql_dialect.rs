//! Service Bus SQL as a dialect of the `sqlparser` crate.
//!
//! It parses what Service Bus has and SQL has not: `EXISTS(property)`, `newid()`, `property(name)`, names between brackets
//! or with a scope. Words are all names here but for the few that are reserved, and so never become `CASE`, `DATE '…'` or
//! a subquery. [`crate::sql_parser`] takes apart what comes out.

use sqlparser::{
    ast::{Expr, Ident, UnaryOperator, Value as SqlValue},
    dialect::{Dialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, Word},
};

/// Words that a property can only have as its name between brackets or quotes.
const RESERVED: [&str; 13] = [
    "AND", "OR", "NOT", "IN", "LIKE", "ESCAPE", "IS", "NULL", "EXISTS", "TRUE", "FALSE", "SET",
    "REMOVE",
];

#[derive(Debug)]
pub(crate) struct ServiceBusDialect;

impl Dialect for ServiceBusDialect {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        matches!(ch, '"' | '[')
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic()
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_'
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else {
            return None;
        };
        if word.quote_style.is_none() {
            match word.keyword {
                Keyword::TRUE | Keyword::FALSE | Keyword::NULL => return None,
                Keyword::NOT => return Some(self.not(parser)),
                _ => {}
            }
            if parser.peek_nth_token_ref(1).token == Token::LParen {
                let name = word.value.clone();
                return Some(call(parser, &name));
            }
        }
        Some(property_expr(parser))
    }
}

impl ServiceBusDialect {
    /// `sqlparser` has its own idea of `NOT EXISTS`, with a subquery.
    fn not(&self, parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
        parser.next_token();
        let operand = parser.parse_subexpr(self.prec_value(Precedence::UnaryNot))?;
        Ok(Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(operand),
        })
    }
}

/// `EXISTS(property)`, `newid()` and `property(name)`, the only ones there are: a prefix and its operand.
fn call(parser: &mut Parser<'_>, name: &str) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let operand = match name.to_ascii_lowercase().as_str() {
        "exists" => property_expr(parser)?,
        "newid" => Expr::value(SqlValue::Null),
        "property" | "p" => parser.parse_expr()?,
        _ => {
            return Err(ParserError::ParserError(format!(
                "`{name}(…)`: the functions of Service Bus SQL are newid() and property(name)"
            )));
        }
    };
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Prefixed {
        prefix: Ident::new(name.to_ascii_lowercase()),
        value: Box::new(operand),
    })
}

/// `[scope.]name`.
pub(crate) fn property_expr(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    let mut parts = vec![name(parser)?];
    while parser.consume_token(&Token::Period) {
        parts.push(name(parser)?);
    }
    Ok(Expr::CompoundIdentifier(parts))
}

fn name(parser: &mut Parser<'_>) -> Result<Ident, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::Word(word) if RESERVED.iter().any(|reserved| is_keyword(&word, reserved)) => {
            Err(ParserError::ParserError(format!(
                "`{}` is a keyword: as the name of a property it is written `[{}]`",
                word.value, word.value
            )))
        }
        Token::Word(word) => Ok(word.into_ident(token.span)),
        Token::EOF => Err(ParserError::ParserError(
            "expected the name of a property, found nothing".to_owned(),
        )),
        other => Err(ParserError::ParserError(format!(
            "expected the name of a property, found `{other}`"
        ))),
    }
}

pub(crate) fn is_keyword(word: &Word, keyword: &str) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword)
}
