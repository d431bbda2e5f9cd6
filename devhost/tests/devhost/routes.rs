//! Route templates.

use devhost::route::Template;

fn parameters(template: &str, path: &str) -> Option<Vec<(String, String)>> {
    Template::parse(template).unwrap().matches(path)
}

fn values(template: &str, path: &str) -> Option<Vec<String>> {
    Some(
        parameters(template, path)?
            .into_iter()
            .map(|(_, value)| value)
            .collect(),
    )
}

fn matches(template: &str, path: &str) -> bool {
    parameters(template, path).is_some()
}

#[test]
fn literals_match_without_case() {
    assert!(matches("checkout", "/Checkout"));
    assert!(matches("orders/open", "orders/OPEN/"));
    assert!(!matches("checkout", "/checkout/more"));
    assert!(!matches("checkout", "/"));
    assert!(matches("", "/"));
}

#[test]
fn parameters_take_one_segment_and_are_decoded() {
    assert_eq!(
        values("orders/{id}/cancel", "/orders/a%20b/cancel").unwrap(),
        ["a b"]
    );
    assert!(!matches("orders/{id}/cancel", "/orders//cancel"));
    assert!(!matches("orders/{id}", "/orders"));
}

#[test]
fn an_optional_parameter_may_be_missing() {
    assert_eq!(
        values("products/{category}/{id?}", "/products/tea").unwrap(),
        ["tea"]
    );
    assert_eq!(
        values("products/{category}/{id?}", "/products/tea/7").unwrap(),
        ["tea", "7"]
    );
}

#[test]
fn a_catch_all_takes_the_rest_and_nothing() {
    assert_eq!(values("echo/{*rest}", "/echo/a/b%2Fc").unwrap(), ["a/b/c"]);
    assert_eq!(values("echo/{*rest}", "/echo").unwrap(), [""]);
}

#[test]
fn constraints_narrow_what_a_parameter_takes() {
    for (constraint, taken, refused) in [
        ("guid", "0b9d4f0c-1f2e-4a55-9c3e-3d2c1b0a9f8e", "0b9d"),
        ("int", "-12", "12.5"),
        ("int", "2147483647", "2147483648"),
        ("long", "2147483648", "x"),
        ("bool", "TRUE", "yes"),
        ("alpha", "abc", "ab1"),
        ("length(3)", "abc", "abcd"),
        ("length(2,3)", "ab", "a"),
        ("minlength(2)", "ab", "a"),
        ("maxlength(2)", "ab", "abc"),
        ("min(5)", "5", "4"),
        ("max(5)", "5", "6"),
        ("range(1,3)", "3", "4"),
        ("int:min(1)", "1", "0"),
    ] {
        let template = format!("x/{{id:{constraint}}}");
        assert!(
            matches(&template, &format!("/x/{taken}")),
            "{constraint} {taken}"
        );
        assert!(
            !matches(&template, &format!("/x/{refused}")),
            "{constraint} {refused}"
        );
    }
    assert!(matches("x/{id:int?}", "/x"));
}

#[test]
fn templates_that_could_match_otherwise_in_azure_are_refused() {
    for template in [
        "{id:regex(^a)}",
        "{id:datetime}",
        "{a}-{b}",
        "v{id}",
        "{id=7}",
        "{id?}/more",
        "{*rest}/more",
        "{}",
        "{id",
        "a//b",
        "{id}/{ID}",
    ] {
        assert!(Template::parse(template).is_err(), "{template}");
    }
}

#[test]
fn the_more_exact_template_comes_first() {
    let mut templates: Vec<Template> = ["{*rest}", "{id}", "{id:int}", "orders"]
        .into_iter()
        .map(|template| Template::parse(template).unwrap())
        .collect();
    templates.sort_by(Template::precedence);
    let order: Vec<&str> = templates.iter().map(Template::text).collect();
    assert_eq!(order, ["orders", "{id:int}", "{id}", "{*rest}"]);
}
