//! How the tests speak to the management API: entries made by hand, and values taken out of the answers.

use reqwest::{Method, Response};
use roxmltree::{Document, Node};

use crate::namespace::Namespace;

pub(crate) const CONNECT: &str =
    "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect";
const ATOM: &str = "http://www.w3.org/2005/Atom";
const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
const COUNTS: &str = "http://schemas.microsoft.com/netservices/2011/06/servicebus";

/// An entry with that description, as clients write it.
pub(crate) fn entry(kind: &str, properties: &str) -> String {
    format!(
        r#"<entry xmlns="{ATOM}"><content type="application/xml"><{kind} xmlns="{CONNECT}" xmlns:i="{INSTANCE}">{properties}</{kind}></content></entry>"#
    )
}

/// The answer to a request of the management API.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let header = response.headers().get("content-type");
        let content_type = header.map_or_else(String::new, |it| it.to_str().unwrap().to_owned());
        Self {
            status: response.status().as_u16(),
            content_type,
            text: response.text().await.unwrap(),
        }
    }

    /// The text of the element of that path below the description, `None` where it is not there.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let document = Document::parse(&self.text).unwrap();
        let mut node = description(document.root_element());
        for name in path.split('/') {
            node = child(node, name)?;
        }
        Some(node.text().unwrap_or_default().to_owned())
    }

    /// Asserts those values of the description.
    pub(crate) fn has(&self, values: &[(&str, &str)]) {
        for (path, value) in values {
            assert_eq!(self.get(path).as_deref(), Some(*value), "{path}");
        }
    }

    /// The `i:type` of an element.
    pub(crate) fn kind(&self, name: &str) -> String {
        let document = Document::parse(&self.text).unwrap();
        let node = child(description(document.root_element()), name).unwrap();
        node.attribute((INSTANCE, "type")).unwrap().to_owned()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        let document = Document::parse(&self.text).unwrap();
        let details = child(description(document.root_element()), "CountDetails").unwrap();
        let node = child(details, name).unwrap();
        assert_eq!(node.tag_name().namespace(), Some(COUNTS));
        node.text().unwrap().parse().unwrap()
    }

    /// The `id` and the `title` of an entry.
    pub(crate) fn id_and_title(&self) -> (String, String) {
        let document = Document::parse(&self.text).unwrap();
        let entry = document.root_element();
        let text = |name| child(entry, name).unwrap().text().unwrap().to_owned();
        (text("id"), text("title"))
    }

    /// The titles of the entries of a feed.
    pub(crate) fn titles(&self) -> Vec<String> {
        let document = Document::parse(&self.text).unwrap();
        let feed = document.root_element();
        assert_eq!(feed.tag_name().name(), "feed");
        feed.children()
            .filter(|node| node.tag_name().name() == "entry")
            .map(|entry| child(entry, "title").unwrap().text().unwrap().to_owned())
            .collect()
    }

    /// The address of the next page of a feed.
    pub(crate) fn next(&self) -> Option<String> {
        let document = Document::parse(&self.text).unwrap();
        document
            .root_element()
            .children()
            .filter(|node| node.tag_name().name() == "link")
            .find(|link| link.attribute("rel") == Some("next"))
            .map(|link| link.attribute("href").unwrap().to_owned())
    }

    /// The text of a refusal, whose status is asserted.
    pub(crate) fn refused(self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        let start = format!("<Error><Code>{status}</Code><Detail>");
        assert!(self.text.starts_with(&start), "{}", self.text);
        self.text
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

fn description<'a, 'input>(entry: Node<'a, 'input>) -> Node<'a, 'input> {
    assert_eq!(entry.tag_name().name(), "entry");
    assert_eq!(entry.tag_name().namespace(), Some(ATOM));
    let content = child(entry, "content").unwrap();
    let description = content.first_element_child().unwrap();
    assert_eq!(description.tag_name().namespace(), Some(CONNECT));
    description
}

impl Namespace {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        Answer::of(answer).await
    }

    /// Creates what is described.
    pub(crate) async fn put(&self, path: &str, body: String) -> Answer {
        let request = self.request(Method::PUT, path).body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// Replaces what exists.
    pub(crate) async fn replace(&self, path: &str, body: String) -> Answer {
        let request = self.request(Method::PUT, path).header("if-match", "*");
        Answer::of(request.body(body).send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        let answer = self.request(Method::DELETE, path).send().await.unwrap();
        Answer::of(answer).await
    }

    pub(crate) async fn create_queue(&self, name: &str, properties: &str) -> Answer {
        let created = self.put(name, entry("QueueDescription", properties)).await;
        assert_eq!(created.status, 201, "{}", created.text);
        created
    }

    pub(crate) async fn create_topic(&self, name: &str) {
        let created = self.put(name, entry("TopicDescription", "")).await;
        assert_eq!(created.status, 201, "{}", created.text);
    }

    pub(crate) async fn create_subscription(&self, path: &str, properties: &str) -> Answer {
        let body = entry("SubscriptionDescription", properties);
        let created = self.put(path, body).await;
        assert_eq!(created.status, 201, "{}", created.text);
        created
    }
}
