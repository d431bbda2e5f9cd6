//! Reads one page of Azure's answer to "List Blobs".
//!
//! An XML document that one service writes, whose few elements of interest hold plain text: an XML library for it would
//! be a twentieth of the whole program. A page that does not end as it should is no page.

use time::OffsetDateTime;

use crate::book_path;
use crate::book_store::Listed;

#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    pub blobs: Vec<Listed>,
    /// Where the next page begins, if this is not the last one.
    pub next: Option<String>,
}

/// `None` if that is not a list of blobs. What lies there under a name that is none of ours is left out.
pub fn parse(xml: &str) -> Option<Page> {
    let (blobs, rest) = match xml.split_once("<Blobs>") {
        Some((_, after)) => after.split_once("</Blobs>")?,
        // An empty list may be written in one tag.
        None => ("", xml.split_once("<Blobs")?.1),
    };
    rest.contains("</EnumerationResults>").then_some(())?;
    Some(Page {
        blobs: blobs.split("<Blob>").skip(1).filter_map(blob).collect(),
        next: text(rest, "NextMarker")
            .filter(|marker| !marker.is_empty())
            .map(unescaped),
    })
}

fn blob(xml: &str) -> Option<Listed> {
    let name = text(xml, "Name").filter(|name| book_path::is_path(name))?;
    // An account with a hierarchical namespace lists its folders too.
    if text(xml, "ResourceType") == Some("directory") {
        return None;
    }
    let changed = httpdate::parse_http_date(text(xml, "Last-Modified")?).ok()?;
    Some(Listed {
        path: name.to_owned(),
        size: text(xml, "Content-Length")?.parse().ok()?,
        last_modified: OffsetDateTime::from(changed),
    })
}

/// What stands in the first element of that name.
fn text<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    Some(after.split_once(&format!("</{name}>"))?.0)
}

/// A marker is opaque, and has to be given back as it was meant.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    // As Azure writes it, with its byte order mark and without most of the properties.
    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
        ServiceEndpoint=\"https://contoso.blob.core.windows.net/\" ContainerName=\"order-book\">\
        <Prefix>orders/</Prefix><MaxResults>3</MaxResults><Blobs>\
        <Blob><Name>orders/1/placed.json</Name><Properties><Creation-Time>Wed, 25 Nov 2026 12:00:00 GMT</Creation-Time>\
        <Last-Modified>Wed, 25 Nov 2026 12:00:01 GMT</Last-Modified><Etag>0x8DE2B</Etag><Content-Length>512</Content-Length>\
        <Content-Type>application/json</Content-Type><BlobType>BlockBlob</BlobType></Properties><OrMetadata /></Blob>\
        <Blob><Name>orders/2</Name><Properties><Last-Modified>Wed, 25 Nov 2026 12:00:01 GMT</Last-Modified>\
        <ResourceType>directory</ResourceType><Content-Length>0</Content-Length></Properties></Blob>\
        <Blob><Name>orders/a &amp; b.json</Name><Properties><Last-Modified>Wed, 25 Nov 2026 12:00:01 GMT</Last-Modified>\
        <Content-Length>1</Content-Length></Properties></Blob>\
        <Blob><Name Encoded=\"true\">orders%2Fx</Name><Properties></Properties></Blob>\
        </Blobs><NextMarker>2!92!a&amp;b--</NextMarker></EnumerationResults>";

    #[test]
    fn a_page_is_our_blobs_and_where_the_next_one_begins() {
        let page = parse(PAGE).unwrap();
        assert_eq!(
            page.blobs,
            [Listed {
                path: "orders/1/placed.json".to_owned(),
                size: 512,
                last_modified: datetime!(2026-11-25 12:00:01 UTC),
            }]
        );
        assert_eq!(page.next.as_deref(), Some("2!92!a&b--"));
    }

    #[test]
    fn an_empty_list_is_a_page() {
        for blobs in ["<Blobs></Blobs>", "<Blobs />", "<Blobs/>"] {
            for marker in ["<NextMarker></NextMarker>", "<NextMarker />", ""] {
                let xml = format!("<EnumerationResults>{blobs}{marker}</EnumerationResults>");
                let page = parse(&xml).unwrap();
                assert_eq!((page.blobs.len(), page.next), (0, None), "{xml}");
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        for xml in [
            "",
            "<html>It works!</html>",
            "<EnumerationResults></EnumerationResults>",
            PAGE.strip_suffix("</EnumerationResults>").unwrap(),
            &PAGE[..PAGE.find("</Blobs>").unwrap()],
        ] {
            assert_eq!(parse(xml), None, "{xml}");
        }
    }
}
