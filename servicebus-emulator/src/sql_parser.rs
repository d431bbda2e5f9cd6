//! Reads Service Bus SQL with the `sqlparser` crate, when the topology is read.
//!
//! What the dialect ([`crate::sql_dialect`]) has parsed is turned into the tree of [`crate::sql`], which holds
//! nothing but Service Bus's grammar. Whatever else `sqlparser` takes (`BETWEEN`, casts, comments …) is refused here by name.

use sqlparser::{
    ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value as SqlValue},
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace},
};

use crate::{
    Value,
    sql::{
        Action, Comparison, Expression, Operator, Predicate, Property, SqlError, Statement,
        SystemProperty,
    },
    sql_dialect::{ServiceBusDialect, is_keyword, property_expr},
};

/// The longest filter or action, in characters, and the most statements of an action.
/// <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas>
const LONGEST: usize = 1024;
const MOST_STATEMENTS: usize = 32;

/// Reads the SQL expression of a filter.
pub(crate) fn parse_filter(sql: &str) -> Result<Predicate, SqlError> {
    let mut parser = parser(sql)?;
    let expr = parser.parse_expr().map_err(|error| reason(&error))?;
    expect_end(&parser)?;
    predicate(expr)
}

/// Reads the SQL expression of an action: `SET` and `REMOVE`, separated by commas or semicolons.
pub(crate) fn parse_action(sql: &str) -> Result<Action, SqlError> {
    let mut parser = parser(sql)?;
    let mut statements = Vec::new();
    loop {
        statements.push(statement(&mut parser)?);
        let mut separated = false;
        while parser.consume_token(&Token::SemiColon) || parser.consume_token(&Token::Comma) {
            separated = true;
        }
        if statements.len() > MOST_STATEMENTS {
            return Err(SqlError(format!(
                "an action has at most {MOST_STATEMENTS} statements"
            )));
        }
        if !separated || parser.peek_token_ref().token == Token::EOF {
            break;
        }
    }
    expect_end(&parser)?;
    Ok(Action::new(sql, statements))
}

fn statement(parser: &mut Parser<'_>) -> Result<Statement, SqlError> {
    let token = parser.next_token().token;
    let property = |parser: &mut Parser<'_>| {
        property_expr(parser)
            .map_err(|error| reason(&error))
            .and_then(property)
    };
    match &token {
        Token::Word(word) if is_keyword(word, "SET") => {
            let property = property(parser)?;
            if property == Property::System(SystemProperty::ScheduledEnqueueTimeUtc) {
                return Err(SqlError(format!("`SET {property}`: it cannot be set")));
            }
            parser
                .expect_token(&Token::Eq)
                .map_err(|error| reason(&error))?;
            let value = parser.parse_expr().map_err(|error| reason(&error))?;
            Ok(Statement::Set(property, expression(value)?))
        }
        Token::Word(word) if is_keyword(word, "REMOVE") => {
            let property = property(parser)?;
            if property == Property::System(SystemProperty::ScheduledEnqueueTimeUtc) {
                return Err(SqlError(format!(
                    "`REMOVE {property}`: it cannot be removed"
                )));
            }
            Ok(Statement::Remove(property))
        }
        Token::EOF => Err(SqlError(
            "expected `SET` or `REMOVE`, found nothing".to_owned(),
        )),
        other => Err(SqlError(format!(
            "expected `SET` or `REMOVE`, found `{other}`"
        ))),
    }
}

fn parser(sql: &str) -> Result<Parser<'static>, SqlError> {
    if sql.chars().count() > LONGEST {
        return Err(SqlError(format!("it is longer than {LONGEST} characters")));
    }
    let tokens = Tokenizer::new(&ServiceBusDialect, sql)
        .tokenize_with_location()
        .map_err(|error| SqlError(error.to_string()))?;
    for TokenWithSpan { token, .. } in &tokens {
        let refused = match token {
            Token::Whitespace(
                Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_),
            ) => "comments do not exist in Service Bus SQL (write `- -1` with a space)",
            Token::DoubleEq => "`==` does not exist in Service Bus SQL: write `=`",
            Token::Placeholder(_) | Token::AtSign => {
                "parameters (`@name`) cannot be given a value in a topology file"
            }
            _ => continue,
        };
        return Err(SqlError(refused.to_owned()));
    }
    Ok(Parser::new(&ServiceBusDialect).with_tokens_with_locations(tokens))
}

fn expect_end(parser: &Parser<'_>) -> Result<(), SqlError> {
    match &parser.peek_token_ref().token {
        Token::EOF => Ok(()),
        token => Err(SqlError(format!("unexpected `{token}`"))),
    }
}

fn reason(error: &ParserError) -> SqlError {
    SqlError(match error {
        ParserError::TokenizerError(reason) | ParserError::ParserError(reason) => reason.clone(),
        ParserError::RecursionLimitExceeded => "the expression is nested too deeply".to_owned(),
    })
}

fn predicate(expr: Expr) -> Result<Predicate, SqlError> {
    Ok(match expr {
        Expr::Nested(inner) => predicate(*inner)?,
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => Predicate::Not(Box::new(predicate(*expr)?)),
        Expr::BinaryOp { left, op, right } => match op {
            BinaryOperator::And => {
                Predicate::And(Box::new(predicate(*left)?), Box::new(predicate(*right)?))
            }
            BinaryOperator::Or => {
                Predicate::Or(Box::new(predicate(*left)?), Box::new(predicate(*right)?))
            }
            _ => match comparison(&op) {
                Some(comparison) => {
                    Predicate::Compare(expression(*left)?, comparison, expression(*right)?)
                }
                None => return Err(not_a_predicate(&Expr::BinaryOp { left, op, right })),
            },
        },
        Expr::IsNull(of) => Predicate::IsNull {
            property: property(*of)?,
            negated: false,
        },
        Expr::IsNotNull(of) => Predicate::IsNull {
            property: property(*of)?,
            negated: true,
        },
        Expr::InList {
            expr,
            list,
            negated,
        } => Predicate::In {
            expression: expression(*expr)?,
            list: list.into_iter().map(expression).collect::<Result<_, _>>()?,
            negated,
        },
        Expr::Like {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } => Predicate::Like {
            expression: expression(*expr)?,
            pattern: expression(*pattern)?,
            escape: escape_char
                .map(|escape| escape_character(*escape))
                .transpose()?,
            negated,
        },
        Expr::Prefixed { prefix, value } if prefix.value == "exists" => {
            Predicate::Exists(property(*value)?)
        }
        other => return Err(not_a_predicate(&other)),
    })
}

fn not_a_predicate(expr: &Expr) -> SqlError {
    SqlError(match expr {
        Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Prefixed { .. } => {
            format!("`{expr}` is a value, not a condition: compare it, as in `{expr} = …`")
        }
        other => format!("`{other}` is not a condition of Service Bus SQL"),
    })
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        _ => return None,
    })
}

fn escape_character(expr: Expr) -> Result<Expression, SqlError> {
    let escape = expression(expr)?;
    match &escape {
        Expression::Constant(Value::String(text)) if text.chars().count() == 1 => Ok(escape),
        Expression::Constant(_) | Expression::Null => Err(SqlError(
            "`ESCAPE` takes a string of one character".to_owned(),
        )),
        _ => Ok(escape),
    }
}

fn expression(expr: Expr) -> Result<Expression, SqlError> {
    Ok(match expr {
        Expr::Nested(inner) => expression(*inner)?,
        Expr::Value(value) => constant(value.value)?,
        Expr::CompoundIdentifier(_) => Expression::Property(property(expr)?),
        Expr::Prefixed { prefix, value } => match prefix.value.as_str() {
            "newid" => Expression::NewId,
            "property" | "p" => Expression::PropertyNamed(Box::new(expression(*value)?)),
            _ => return Err(not_a_value(&Expr::Prefixed { prefix, value })),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Expression::Negative(Box::new(expression(*expr)?)),
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr,
        } => Expression::Positive(Box::new(expression(*expr)?)),
        Expr::BinaryOp { left, op, right } => {
            let operator = match op {
                BinaryOperator::Plus => Operator::Add,
                BinaryOperator::Minus => Operator::Subtract,
                BinaryOperator::Multiply => Operator::Multiply,
                BinaryOperator::Divide => Operator::Divide,
                BinaryOperator::Modulo => Operator::Remainder,
                _ => return Err(not_a_value(&Expr::BinaryOp { left, op, right })),
            };
            Expression::Arithmetic(
                Box::new(expression(*left)?),
                operator,
                Box::new(expression(*right)?),
            )
        }
        other => return Err(not_a_value(&other)),
    })
}

fn not_a_value(expr: &Expr) -> SqlError {
    SqlError(format!("`{expr}` is not a value in Service Bus SQL"))
}

fn constant(value: SqlValue) -> Result<Expression, SqlError> {
    let unknown = |value: &SqlValue| SqlError(format!("`{value}` is not a Service Bus constant"));
    Ok(match value {
        SqlValue::Null => Expression::Null,
        SqlValue::Boolean(value) => Expression::Constant(Value::Bool(value)),
        SqlValue::SingleQuotedString(text) => Expression::Constant(Value::String(text)),
        SqlValue::Number(digits, false) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Expression::Constant(Value::Long(digits.parse().map_err(|_| {
                SqlError(format!("`{digits}` is larger than a 64-bit integer"))
            })?))
        }
        SqlValue::Number(digits, false) => match digits.parse::<f64>() {
            Ok(number) if number.is_finite() => Expression::Constant(Value::Double(number)),
            _ => return Err(unknown(&SqlValue::Number(digits, false))),
        },
        other => return Err(unknown(&other)),
    })
}

fn property(expr: Expr) -> Result<Property, SqlError> {
    let parts = match expr {
        Expr::CompoundIdentifier(parts) => parts,
        Expr::Nested(inner) => return property(*inner),
        other => {
            return Err(SqlError(format!(
                "`{other}` stands where only a property may stand"
            )));
        }
    };
    let user = |name: &Ident| {
        if name.value.is_empty() {
            return Err(SqlError("a property's name is empty".to_owned()));
        }
        Ok(Property::User(name.value.clone()))
    };
    match &parts[..] {
        [name] => user(name),
        [scope, name] if scope.value.eq_ignore_ascii_case("user") => user(name),
        [scope, name] if scope.value.eq_ignore_ascii_case("sys") => {
            SystemProperty::from_name(&name.value)
                .map(Property::System)
                .ok_or_else(|| {
                    SqlError(format!(
                        "`sys.{}` is not a system property that a rule can use",
                        name.value
                    ))
                })
        }
        [scope, _] => Err(SqlError(format!(
            "the scope `{}` does not exist: `sys` and `user` do",
            scope.value
        ))),
        _ => Err(SqlError(format!(
            "`{}` has too many parts: a property is `name`, `user.name` or `sys.name`",
            Expr::CompoundIdentifier(parts)
        ))),
    }
}
