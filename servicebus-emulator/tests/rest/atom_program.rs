//! What the management API has made of the program's entities survives `kill -9`.

use reqwest::Method;

use crate::{
    atom::{Answer, entry},
    program::{Caller, Folder, Running},
};

async fn ask(caller: &Caller, method: Method, path: &str, body: String) -> Answer {
    let request = caller.request(method, path).body(body);
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn entities_and_rules_survive_kill_after_kill() {
    let folder = Folder::new();
    let mut running = Running::start(&folder).await;
    let caller = running.caller();
    let rules = "orders/subscriptions/all/rules";
    for (method, path, body, status) in [
        (
            Method::PUT,
            "made",
            entry(
                "QueueDescription",
                "<LockDuration>PT45S</LockDuration><UserMetadata>mine</UserMetadata>",
            ),
            201,
        ),
        (Method::DELETE, "work", String::new(), 200),
        (
            Method::DELETE,
            &format!("{rules}/$Default"),
            String::new(),
            200,
        ),
        (
            Method::PUT,
            &format!("{rules}/blue"),
            entry(
                "RuleDescription",
                r#"<Filter i:type="SqlFilter"><SqlExpression>colour = 'blue'</SqlExpression></Filter>"#,
            ),
            201,
        ),
    ] {
        let answer = ask(&caller, method, path, body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    let sent = caller.send("made", "1").send().await.unwrap();
    assert_eq!(sent.status(), 201);
    running.child.kill().await.unwrap();

    let mut running = Running::start(&folder).await;
    let caller = running.caller();
    let get = async |path: &str| ask(&caller, Method::GET, path, String::new()).await;
    get("made").await.has(&[
        ("LockDuration", "PT45S"),
        ("UserMetadata", "mine"),
        ("MessageCount", "1"),
    ]);
    get("work").await.refused(404);
    let listed = get(rules).await;
    assert_eq!(listed.titles(), ["blue"]);
    let deleted = ask(&caller, Method::DELETE, "made", String::new()).await;
    assert_eq!(deleted.status, 200);
    let created = entry("QueueDescription", "");
    let created = ask(&caller, Method::PUT, "made", created).await;
    assert_eq!(created.status, 201);
    running.child.kill().await.unwrap();

    let running = Running::start(&folder).await;
    let caller = running.caller();
    let made = ask(&caller, Method::GET, "made", String::new()).await;
    made.has(&[("LockDuration", "PT1M"), ("MessageCount", "0")]);
    assert_eq!(made.get("UserMetadata"), None);
}
