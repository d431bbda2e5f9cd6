//! XML as the management API has it: the namespaces, a writer, and how a request is read.
//!
//! What comes in is untrusted: it is read without document types and entities, up to a size and a number of nodes.
//! What goes out has the prefixes that clients look for by name: JavaScript's takes `i:type` and `d2p1:…` as text.

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};

use crate::rest_error::{RestError, escape};

pub(crate) const ATOM: &str = "http://www.w3.org/2005/Atom";
pub(crate) const SERVICE_BUS: &str =
    "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect";
pub(crate) const COUNTS: &str = "http://schemas.microsoft.com/netservices/2011/06/servicebus";
pub(crate) const SCHEMA: &str = "http://www.w3.org/2001/XMLSchema";
pub(crate) const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// How many elements, attributes and texts a request may have; a rule with many properties has some hundreds.
const MOST_NODES: u32 = 20_000;

/// Reads the text of a request.
pub(crate) fn parse(body: &str) -> Result<Document<'_>, RestError> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(body, options).map_err(|error| {
        bad_request(format!(
            "The body of the request is not valid XML: {error}."
        ))
    })
}

/// 400 for the reason.
pub(crate) fn bad_request(reason: impl AsRef<str>) -> RestError {
    RestError::bad_request(reason.as_ref())
}

/// The child element with that name, whatever its namespace: clients differ in where they put it.
pub(crate) fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The text in an element; none where it is absent or nil.
pub(crate) fn text(node: Node<'_, '_>, name: &str) -> Option<String> {
    let child = child(node, name)?;
    if child.attribute((INSTANCE, "nil")) == Some("true") {
        return None;
    }
    Some(content(child))
}

/// All text in an element, CDATA included.
pub(crate) fn content(node: Node<'_, '_>) -> String {
    node.children()
        .filter(|child| child.is_text())
        .filter_map(|child| child.text())
        .collect()
}

/// Writes elements one after the other and into each other.
#[derive(Debug, Default)]
pub(crate) struct Writer(String);

impl Writer {
    /// An element with text in it.
    pub(crate) fn text(&mut self, name: &str, text: impl AsRef<str>) {
        self.text_with(name, &[], text);
    }

    pub(crate) fn text_with(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        text: impl AsRef<str>,
    ) {
        self.within(name, attributes, |xml| {
            xml.0.push_str(&escape(text.as_ref()))
        });
    }

    pub(crate) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(crate) fn boolean(&mut self, name: &str, value: bool) {
        self.text(name, if value { "true" } else { "false" });
    }

    pub(crate) fn number(&mut self, name: &str, number: impl Into<u64>) {
        self.text(name, number.into().to_string());
    }

    pub(crate) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.within(name, attributes, |_| {});
    }

    /// An element with others in it.
    pub(crate) fn within(
        &mut self,
        name: &str,
        attributes: &[(&str, &str)],
        inside: impl FnOnce(&mut Self),
    ) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "<{name}");
        for (name, value) in attributes {
            let value = escape(value).replace('"', "&quot;");
            let _ = write!(self.0, " {name}=\"{value}\"");
        }
        self.0.push('>');
        inside(self);
        let _ = write!(self.0, "</{name}>");
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut xml = Writer::default();
        let awkward = "a < b & 'c' \"d\" ]]> é\r\n";
        xml.within(
            "rule",
            &[("xmlns", SERVICE_BUS), ("name", awkward)],
            |xml| {
                xml.text("SqlExpression", awkward);
                xml.boolean("On", true);
                xml.number("Count", 7_u64);
            },
        );
        let xml = xml.finish();
        let document = parse(&xml).unwrap();
        let rule = document.root_element();
        assert_eq!(rule.tag_name().namespace(), Some(SERVICE_BUS));
        assert_eq!(text(rule, "SqlExpression").as_deref(), Some(awkward));
        assert_eq!(text(rule, "On").as_deref(), Some("true"));
        assert_eq!(text(rule, "Count").as_deref(), Some("7"));
        assert_eq!(text(rule, "Other"), None);
    }

    #[test]
    fn document_types_entities_and_too_many_nodes_are_refused() {
        for xml in [
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            "<a>&b;</a>",
            "<a>",
            "",
            "a",
            &format!("<a>{}</a>", "<b/>".repeat(MOST_NODES as usize)),
            &"<a>".repeat(MOST_NODES as usize + 1),
        ] {
            assert!(parse(xml).is_err(), "{}", &xml[..xml.len().min(60)]);
        }
    }
}
