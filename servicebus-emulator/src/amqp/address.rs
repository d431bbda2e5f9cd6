//! The addresses that links are attached to.
//!
//! Clients write them as a path (`orders`, `orders/Subscriptions/vendors/$DeadLetterQueue`), with or without a slash before
//! it, or as a whole URI (`amqps://localhost:5672/orders`); `$cbs` and `$management` are nodes of their own. Case does not
//! matter.

use crate::{EntityPath, sas};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// Where tokens are put.
    Cbs,
    /// The requests to an entity, or to the namespace.
    Management(Option<EntityPath>),
    Entity(EntityPath),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) node: Node,
    /// The segments of the path, for which a token is needed.
    pub(crate) path: Vec<String>,
}

/// Nothing when there can be no such node.
pub(crate) fn parse(address: &str) -> Option<Address> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    let path = sas::segments(path.split('?').next().unwrap_or_default());
    let node = match &path[..] {
        [cbs] if cbs.eq_ignore_ascii_case("$cbs") => Node::Cbs,
        [management] if management.eq_ignore_ascii_case("$management") => Node::Management(None),
        [entity @ .., management] if management.eq_ignore_ascii_case("$management") => {
            Node::Management(Some(entity.join("/").parse().ok()?))
        }
        entity => Node::Entity(entity.join("/").parse().ok()?),
    };
    Some(Address { node, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: &str) -> Option<Node> {
        parse(address).map(|address| address.node)
    }

    #[test]
    fn an_address_is_understood_however_it_is_written() {
        let entity = |path: &str| Some(Node::Entity(path.parse().unwrap()));
        let management = |path: &str| Some(Node::Management(Some(path.parse().unwrap())));
        assert_eq!(node("orders"), entity("orders"));
        assert_eq!(node("/orders/"), entity("orders"));
        assert_eq!(node("amqps://localhost:5672/orders"), entity("orders"));
        assert_eq!(node("sb://localhost/a/b"), entity("a/b"));
        assert_eq!(
            node("t/SUBSCRIPTIONS/s/$deadLETTERqueue"),
            entity("t/Subscriptions/s/$DeadLetterQueue")
        );
        assert_eq!(node("orders/$Management"), management("orders"));
        assert_eq!(
            node("amqp://h/q/$DeadLetterQueue/$management"),
            management("q/$DeadLetterQueue")
        );
        assert_eq!(node("$management"), Some(Node::Management(None)));
        assert_eq!(node("$CBS"), Some(Node::Cbs));
        assert_eq!(node("amqp://localhost/$cbs"), Some(Node::Cbs));
    }

    #[test]
    fn what_cannot_be_a_node_is_none() {
        for address in [
            "",
            "/",
            "amqp://localhost",
            "$other",
            "q/$Transfer/$DeadLetterQueue",
        ] {
            assert_eq!(node(address), None, "{address}");
        }
    }
}
