//! The types of problems: each has a page where its URI leads to, and is in the document of the API.

use std::collections::BTreeSet;

use orderup::problem_type::ProblemType;
use serde_json::Value;

use crate::{
    api_answers::{Answered, ApiAnswers},
    api_document::ApiDocument,
    handler::Handler,
};

/// The words of a page, without HTML's escapes.
pub fn plain(page: &str) -> String {
    page.replace("&#39;", "'")
}

#[tokio::test]
async fn each_type_leads_to_a_page_about_it_and_no_other_name_does() {
    let handler = Handler::start().await;
    let answers = ApiAnswers::new();
    let get = async |path: &str| {
        let response = handler.http.get(handler.url(path)).send().await.unwrap();
        answers.check("explainProblem", &Answered::of(response).await)
    };
    for known in ProblemType::ALL {
        let (status, page) = get(&known.uri()).await;
        let page = page.as_str().unwrap();
        assert_eq!(status, 200);
        assert!(
            page.contains(&format!("<code>{}</code>", known.name())),
            "{page}"
        );
        assert!(page.contains(&format!("HTTP status {}", known.status().as_u16())));
        let plain = plain(page);
        for words in [known.title(), known.meaning(), known.remedy()] {
            assert!(plain.contains(words), "{page}");
        }
        // As the host passes on what was written in another way.
        let shouted = known.uri().to_uppercase() + "/";
        assert_eq!(get(&shouted).await.0, 200);
    }
    for other in [
        "/api/problems/",
        "/api/problems/about:blank",
        "/api/problems/%FF",
        "/api/problems/a/b",
    ] {
        let response = handler.http.get(handler.url(other)).send().await.unwrap();
        let (status, problem) = answers.check("explainProblem", &Answered::of(response).await);
        assert_eq!(
            (status, &problem["type"]),
            (404, &Value::from("/api/problems/not-found"))
        );
    }
    let log = handler.stop().await.join("\n");
    assert!(log.contains("problem answered 200"), "{log}");
}

#[test]
fn the_document_has_all_types_and_says_of_each_where_it_comes() {
    let document = ApiDocument::openapi();
    let known: Vec<Value> = ProblemType::ALL.map(|known| known.uri().into()).into();
    assert_eq!(
        document.at("/components/schemas/ProblemType/enum"),
        &Value::from(known)
    );
    let names: Vec<Value> = ProblemType::ALL.map(|known| known.name().into()).into();
    let parameter = document.at("/paths/~1api~1problems~1{name}/get/parameters/0");
    assert_eq!(parameter["schema"]["enum"], Value::from(names));

    let documented = ApiAnswers::new().documented();
    let mut told = BTreeSet::new();
    for (operation, status, name) in &documented {
        if name.is_empty() {
            continue;
        }
        let known = ProblemType::named(name).unwrap();
        assert_eq!(known.status().as_u16(), *status, "{operation} {name}");
        told.insert(name.as_str());
    }
    // Only where nobody else has refused the method before.
    told.insert(ProblemType::MethodNotAllowed.name());
    assert_eq!(told.len(), ProblemType::ALL.len());
}
