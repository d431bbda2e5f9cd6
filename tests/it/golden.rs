//! Requests as the providers' own SDKs sent them, captured by a recording server.

use serde_json::Value;

use crate::scripted_server::Received;

pub(crate) struct Golden {
    pub(crate) method: String,
    pub(crate) path_and_query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Golden {
    pub(crate) fn parse(captured: &str) -> Self {
        let (head, body) = captured.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let mut start = lines.next().unwrap().split(' ');
        Self {
            method: start.next().unwrap().to_owned(),
            path_and_query: start.next().unwrap().to_owned(),
            headers: lines
                .map(|line| {
                    let (name, value) = line.split_once(": ").unwrap();
                    (name.to_lowercase(), value.to_owned())
                })
                .collect(),
            body: serde_json::from_str(body).unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let (_, value) = self.headers.iter().find(|(of, _)| of == name).unwrap();
        value
    }

    /// Asserts that method, path, query, these headers and the JSON body are the same.
    pub(crate) fn assert_sent(&self, ours: &Received, headers: &[&str]) {
        assert_eq!(ours.method, self.method);
        assert_eq!(ours.path_and_query, self.path_and_query);
        for name in headers {
            assert_eq!(ours.headers[*name], self.header(name), "{name}");
        }
        let body: Value = serde_json::from_str(&ours.body).unwrap();
        assert_eq!(body, self.body);
    }
}
