//! Says what a problem's `type` means: `GET /api/problems/{name}`.
//!
//! Runs when somebody opens the `type` of an error answer in a browser. 200 is a short page about that type; there are
//! pages for all types and for nothing else. It needs no key, and touches nothing outside.

use askama::Template;
use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, header},
    response::Response,
};

use crate::{problem::Problem, problem_type::ProblemType, request};

/// A day: pages change with a release only.
const KEPT: &str = "public, max-age=86400";

#[derive(Template)]
#[template(path = "problem.html")]
struct Page {
    status: u16,
    title: &'static str,
    name: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

pub async fn problem_page(
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    request::answer("problem", &headers, async {
        let named = name.ok().and_then(|Path(name)| ProblemType::named(&name));
        let Some(named) = named else {
            let detail = "There is no problem of that name.";
            return Err(Problem::new(ProblemType::NotFound, detail));
        };
        let page = Page {
            status: named.status().as_u16(),
            title: named.title(),
            name: named.name(),
            meaning: named.meaning(),
            remedy: named.remedy(),
        };
        let page = page.render().expect("a page is made of plain values");
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, KEPT),
        ];
        Ok((headers, page))
    })
    .await
}
