//! Timers: when they are due, what the handler is sent, and what happens when devhost was not there.

use axum::http::StatusCode;
use devhost::{
    envelope::timer_envelope, function_json::TimerTrigger, ncrontab::Schedule,
    timer::ScheduleStatus,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::app::{App, Devhost};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(schedule: &str, now: &str) -> String {
    let schedule = Schedule::parse(schedule).unwrap();
    schedule.next_after(time(now)).unwrap().to_string()
}

#[test]
fn a_schedule_is_due_at_the_next_time_that_fits_every_field() {
    // 2026-11-22 is a Sunday.
    for (schedule, now, due) in [
        (
            "* * * * * *",
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:01Z",
        ),
        (
            "* * * * * *",
            "2026-11-22T10:00:00.9Z",
            "2026-11-22T10:00:01Z",
        ),
        (
            "*/15 * * * * *",
            "2026-11-22T10:00:44Z",
            "2026-11-22T10:00:45Z",
        ),
        (
            "*/15 * * * * *",
            "2026-11-22T10:00:45Z",
            "2026-11-22T10:01:00Z",
        ),
        (
            "5/20 * * * * *",
            "2026-11-22T10:00:46Z",
            "2026-11-22T10:01:05Z",
        ),
        (
            "0 */5 * * * *",
            "2026-11-22T10:55:00Z",
            "2026-11-22T11:00:00Z",
        ),
        (
            "*/5 * * * *",
            "2026-11-22T10:57:00Z",
            "2026-11-22T11:00:00Z",
        ),
        (
            "0 30 9-17/4 * * *",
            "2026-11-22T13:30:00Z",
            "2026-11-22T17:30:00Z",
        ),
        (
            "0 0 17-9 * * *",
            "2026-11-22T00:00:00Z",
            "2026-11-22T09:00:00Z",
        ),
        (
            "0 0 8,20 * * *",
            "2026-11-22T20:00:00Z",
            "2026-11-23T08:00:00Z",
        ),
        (
            "0 0 6 * * 1-5",
            "2026-11-22T10:00:00Z",
            "2026-11-23T06:00:00Z",
        ),
        (
            "0 0 6 * * Mon-FRI",
            "2026-11-27T06:00:00Z",
            "2026-11-30T06:00:00Z",
        ),
        (
            "0 0 0 31 * *",
            "2026-11-22T10:00:00Z",
            "2026-12-31T00:00:00Z",
        ),
        (
            "59 59 23 31 12 *",
            "2026-12-31T23:59:59Z",
            "2027-12-31T23:59:59Z",
        ),
        (
            "0 0 0 29 Feb *",
            "2026-11-22T10:00:00Z",
            "2028-02-29T00:00:00Z",
        ),
        // Both days have to fit.
        (
            "0 0 0 1 January 0",
            "2026-11-22T10:00:00Z",
            "2034-01-01T00:00:00Z",
        ),
        (
            "0 0 0 29 2 0",
            "2088-03-01T00:00:00Z",
            "2128-02-29T00:00:00Z",
        ),
        ("00:00:15", "2026-11-22T10:00:07Z", "2026-11-22T10:00:22Z"),
        ("1.00:00:00", "2026-11-22T10:00:07Z", "2026-11-23T10:00:07Z"),
    ] {
        assert_eq!(next(schedule, now), due, "{schedule} after {now}");
    }
}

#[test]
fn an_expression_that_makes_no_sense_is_named_by_its_field() {
    for (schedule, words) in [
        ("", "not recognized"),
        ("* * * *", "not recognized"),
        ("* * * * * * *", "not recognized"),
        ("00:00:00", "not recognized"),
        ("60 * * * * *", "second `60`"),
        ("* x * * * *", "minute `x`"),
        ("0 0 24 * * *", "hour `24`"),
        ("0 0 0 0 * *", "day `0`"),
        ("0 0 0 1 Sunday *", "month `Sunday`"),
        ("0 0 0 1 Ja *", "month `Ja`"),
        ("0 0 0 * * 7", "day of week `7`"),
        ("1,,2 * * * * *", "second `1,,2`"),
        ("1- * * * * *", "second `1-`"),
        ("*/x * * * * *", "second `*/x`"),
        ("0 0 0 31 2 *", "never due"),
    ] {
        let error = Schedule::parse(schedule).unwrap_err();
        assert!(error.contains(words), "`{schedule}`: {error}");
    }
}

#[test]
fn the_host_keeps_no_status_of_a_timer_that_is_due_within_the_minute() {
    let now = time("2026-11-22T10:00:07Z");
    for (schedule, frequent) in [
        ("*/15 * * * * *", true),
        ("0 * * * * *", false),
        ("00:00:59", true),
        ("00:01:00", false),
    ] {
        let schedule = Schedule::parse(schedule).unwrap();
        assert_eq!(schedule.is_frequent(now), frequent, "{schedule:?}");
    }
}

/// A sample from the documentation and one from the log of an app that had just been deployed.
#[test]
fn the_handler_gets_what_the_host_sends() {
    let trigger = TimerTrigger {
        name: "timer".to_owned(),
        schedule: Schedule::parse("0 */5 * * * *").unwrap(),
        run_on_startup: false,
        use_monitor: true,
    };
    let status = ScheduleStatus {
        last: Some(time("2026-08-07T03:50:00.0105419Z")),
        next: time("2026-08-07T03:55:00Z"),
        last_updated: time("2026-08-07T03:50:00.0105419Z"),
    };
    let now = time("2026-08-07T03:55:00.0090543Z");
    let mut sent = timer_envelope("tick", &trigger, Some(&status), false, now);
    let sys = &mut sent["Metadata"]["sys"];
    assert!(sys["RandGuid"].take().is_string());
    assert_eq!(
        sent,
        json!({
            "Data": { "timer": {
                "Schedule": { "AdjustForDST": true },
                "ScheduleStatus": {
                    "Last": "2026-08-07T03:50:00.0105419+00:00", "Next": "2026-08-07T03:55:00+00:00",
                    "LastUpdated": "2026-08-07T03:50:00.0105419+00:00",
                },
                "IsPastDue": false,
            }},
            "Metadata": { "sys": {
                "MethodName": "tick", "UtcNow": "2026-08-07T03:55:00.0090543Z", "RandGuid": null,
            }},
        })
    );
    let first = ScheduleStatus {
        last: None,
        ..status
    };
    let sent = timer_envelope("tick", &trigger, Some(&first), true, now);
    let timer = &sent["Data"]["timer"];
    assert_eq!(timer["ScheduleStatus"]["Last"], "0001-01-01T00:00:00+00:00");
    assert_eq!(timer["IsPastDue"], true);
    let sent = timer_envelope("tick", &trigger, None, false, now);
    assert_eq!(sent["Data"]["timer"]["ScheduleStatus"], Value::Null);
}

/// Not due for a long time.
const YEARLY: &str = "0 0 0 1 1 *";

/// An app with the function `tick`.
fn app(schedule: &str, more: &Value) -> App {
    let app = App::new();
    let mut binding = json!({
        "type": "timerTrigger", "name": "timer", "direction": "in", "schedule": schedule,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        binding[name] = value.clone();
    }
    app.write(
        "tick/function.json",
        &json!({ "bindings": [binding] }).to_string(),
    );
    app
}

/// What the handler was sent in its next tick.
async fn tick(devhost: &mut Devhost) -> Value {
    let line = devhost.line("tick, ").await;
    assert!(line.contains("tick, 1 at once"), "{line}");
    serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
}

/// Tells the handler what to answer a tick, or to go on.
pub(crate) async fn tell_handler(devhost: &Devhost, path: &str) {
    let port = devhost
        .handler_variable("FUNCTIONS_CUSTOMHANDLER_PORT")
        .await;
    let url = format!("http://127.0.0.1:{port}/{path}");
    assert_eq!(devhost.client.post(url).send().await.unwrap().status(), 200);
}

fn run_timer(devhost: &Devhost, function: &str) -> reqwest::RequestBuilder {
    devhost
        .client
        .post(format!("{}/_dev/timers/{function}", devhost.url))
}

/// The status and the answer of a run by hand.
async fn ran(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn a_timer_is_invoked_whenever_it_is_due_also_after_a_failure() {
    let app = app("* * * * * *", &json!({}));
    let mut devhost = app.run().await;
    devhost.line("\ttick: timerTrigger").await;
    let sent = tick(&mut devhost).await;
    assert_eq!(
        sent["Data"]["timer"],
        json!({ "Schedule": { "AdjustForDST": true }, "ScheduleStatus": null, "IsPastDue": false })
    );
    assert_eq!(sent["Metadata"]["sys"]["MethodName"], "tick");
    let line = devhost.line("Executing 'Functions.tick'").await;
    assert!(line.contains("Reason='Timer fired at 2"), "{line}");
    devhost.line("Executed 'Functions.tick' (Succeeded").await;
    tell_handler(&devhost, "ticks/500").await;
    devhost.line("Executed 'Functions.tick' (Failed").await;
    tell_handler(&devhost, "ticks/200").await;
    devhost.line("Executed 'Functions.tick' (Succeeded").await;
}

#[tokio::test]
async fn a_timer_runs_by_hand_and_tells_how_it_ended() {
    let app = app(YEARLY, &json!({}));
    app.write("asleep/function.json", r#"{"disabled":true,"bindings":[
        {"type":"timerTrigger","name":"timer","direction":"in","schedule":"* * * * * *","runOnStartup":true}]}"#);
    let mut devhost = app.run().await;
    devhost.line("\tasleep: timerTrigger (disabled)").await;
    let expected = |status: Value, succeeded: bool| {
        (
            StatusCode::OK,
            json!({ "status": status, "succeeded": succeeded }),
        )
    };
    assert_eq!(
        ran(run_timer(&devhost, "tick")).await,
        expected(json!(200), true)
    );
    let sent = tick(&mut devhost).await;
    let status = &sent["Data"]["timer"]["ScheduleStatus"];
    assert_eq!(status["Last"], "0001-01-01T00:00:00+00:00");
    assert!(
        status["Next"]
            .as_str()
            .unwrap()
            .ends_with("-01-01T00:00:00+00:00")
    );
    tell_handler(&devhost, "ticks/503").await;
    assert_eq!(
        ran(run_timer(&devhost, "tick")).await,
        expected(json!(503), false)
    );
    for function in ["work", "nothing"] {
        assert_eq!(
            ran(run_timer(&devhost, function)).await.0,
            404,
            "{function}"
        );
    }
    assert!(
        !devhost.has_printed("Executing 'Functions.asleep'"),
        "it was not due"
    );
    // The scripted handler has no such route.
    assert_eq!(
        ran(run_timer(&devhost, "asleep")).await,
        expected(json!(404), false)
    );
    assert_eq!(devhost.run_by_hand("tick", r#"{"input":""}"#).await, 202);
    for _ in 0..2 {
        tick(&mut devhost).await;
    }
    let functions = devhost.get_json("/admin/functions/tick").await;
    assert_eq!(functions["invoke_url_template"], Value::Null);
}

#[tokio::test]
async fn a_timer_has_one_invocation_at_a_time() {
    let app = app(YEARLY, &json!({}));
    let mut devhost = app.run().await;
    tell_handler(&devhost, "ticks/0").await;
    let runs: Vec<_> = (0..2)
        .map(|_| tokio::spawn(ran(run_timer(&devhost, "tick"))))
        .collect();
    for _ in 0..2 {
        tick(&mut devhost).await;
        tell_handler(&devhost, "release").await;
    }
    for run in runs {
        assert_eq!(run.await.unwrap().0, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_invocation_without_an_answer_has_no_status() {
    let app = app(YEARLY, &json!({}));
    app.host_json(|host| host["functionTimeout"] = "00:00:01".into());
    let mut devhost = app.run().await;
    tell_handler(&devhost, "ticks/0").await;
    let (status, answer) = ran(run_timer(&devhost, "tick")).await;
    assert_eq!(
        (status, answer),
        (
            StatusCode::OK,
            json!({ "status": null, "succeeded": false })
        )
    );
    devhost.line("FunctionTimeoutException").await;
    // The handler has started anew.
    let (_, answer) = ran(run_timer(&devhost, "tick")).await;
    assert_eq!(answer["status"], 200);
}

#[tokio::test]
async fn a_timer_can_run_at_the_start() {
    let app = app(YEARLY, &json!({ "runOnStartup": true }));
    let mut devhost = app.run().await;
    let sent = tick(&mut devhost).await;
    assert_eq!(sent["Data"]["timer"]["IsPastDue"], false);
    devhost
        .line("UnscheduledInvocationReason: RunOnStartup")
        .await;
}

#[tokio::test]
async fn what_was_missed_is_made_up_for_once() {
    let app = app(YEARLY, &json!({}));
    let mut devhost = app.run().await;
    devhost.child.kill().await.unwrap();
    let kept = r#"{"last":"2020-01-01T00:00:00Z","next":"2021-01-01T00:00:00Z","lastUpdated":"2020-01-01T00:00:00Z"}"#;
    app.write(".orderup/timers/tick.json", kept);

    let mut devhost = app.run().await;
    let sent = tick(&mut devhost).await;
    let timer = &sent["Data"]["timer"];
    assert_eq!(timer["IsPastDue"], true);
    assert_eq!(timer["ScheduleStatus"]["Next"], "2021-01-01T00:00:00+00:00");
    devhost
        .line("UnscheduledInvocationReason: IsPastDue, OriginalSchedule: 2021-01-01")
        .await;
    devhost.line("Executed 'Functions.tick' (Succeeded").await;
    // One by one: when this has run, the new status has been kept.
    assert_eq!(ran(run_timer(&devhost, "tick")).await.1["status"], 200);
    devhost.child.kill().await.unwrap();

    let mut devhost = app.run().await;
    assert_eq!(ran(run_timer(&devhost, "tick")).await.1["status"], 200);
    assert_eq!(
        tick(&mut devhost).await["Data"]["timer"]["IsPastDue"],
        false
    );

    // Whoever asks for no monitor misses it.
    devhost.child.kill().await.unwrap();
    app.write("tick/function.json", &json!({ "bindings": [{
        "type": "timerTrigger", "name": "timer", "direction": "in", "schedule": YEARLY, "useMonitor": false,
    }]}).to_string());
    app.write(".orderup/timers/tick.json", kept);
    let mut devhost = app.run().await;
    assert_eq!(ran(run_timer(&devhost, "tick")).await.1["status"], 200);
    let sent = tick(&mut devhost).await;
    assert_eq!(sent["Data"]["timer"]["ScheduleStatus"], Value::Null);
}
