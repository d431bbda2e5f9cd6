//! Invocations by hand and by the bus, and what devhost says about them.

use std::time::Duration;

use devhost::stand_ins::{BUS_KEY, BUS_KEY_NAME};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    app::{App, Devhost, GIVE_UP, PUMPS},
    timers::tell_handler,
};

/// Sends to the queue `work` over the bus's REST data plane.
async fn send(devhost: &Devhost, text: &str) {
    let bus = devhost.handler_variable("SERVICEBUS_REST_ENDPOINT").await;
    send_to(devhost, &bus, text).await;
}

async fn send_to(devhost: &Devhost, bus: &str, text: &str) {
    let resource: String =
        form_urlencoded::byte_serialize(format!("{bus}/work").as_bytes()).collect();
    let expiry = "4102444800";
    let signature = Hmac::<Sha256>::new_from_slice(BUS_KEY.as_bytes())
        .unwrap()
        .chain_update(format!("{resource}\n{expiry}"))
        .finalize()
        .into_bytes();
    let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    let signature: String = form_urlencoded::byte_serialize(signature.as_bytes()).collect();
    let token = format!(
        "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={BUS_KEY_NAME}"
    );
    let response = devhost
        .client
        .post(format!("{bus}/work/messages"))
        .header("authorization", token)
        .header("content-type", "text/plain")
        .body(text.to_owned())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
}

#[tokio::test]
async fn a_run_by_hand_reaches_the_handler_in_both_framings() {
    let app = App::new();
    let mut devhost = app.run().await;
    assert_eq!(devhost.work("ok").await, 202);
    devhost.line("Executing 'Functions.work'").await;
    assert!(
        devhost
            .line("got 'ok'")
            .await
            .contains("chunked, delivery \"0\"")
    );
    devhost.line("a line of the handler's").await;
    devhost.line("Executed 'Functions.work' (Succeeded").await;
    devhost.work("ok").await;
    assert!(devhost.line("got 'ok'").await.contains("with a length"));
}

#[tokio::test]
async fn a_run_by_hand_takes_only_text() {
    let app = App::new();
    let devhost = app.run().await;
    assert_eq!(
        devhost.run_by_hand("work", r#"{"input":{"id":1}}"#).await,
        400
    );
    assert_eq!(devhost.run_by_hand("work", "nonsense").await, 400);
    assert_eq!(
        devhost.run_by_hand("nothing", r#"{"input":"x"}"#).await,
        404
    );
}

#[tokio::test]
async fn a_message_is_completed_after_success() {
    for pump in PUMPS {
        let app = App::new();
        // The next message is then received only once the one before has been settled.
        app.host_json(|host| host["extensions"]["serviceBus"]["maxConcurrentCalls"] = 1.into());
        let mut devhost = app.run_with_pump(pump).await;
        send(&devhost, "ok").await;
        assert!(devhost.line("got 'ok'").await.contains("delivery \"1\""));
        devhost.line("(Succeeded").await;
        send(&devhost, "never").await;
        devhost.line("got 'never'").await;
        let entities = devhost.get_json("/_dev/entities").await;
        assert_eq!(
            (&entities[0]["active"], &entities[0]["locked"]),
            (&0.into(), &1.into())
        );
    }
}

#[tokio::test]
async fn a_failing_message_is_abandoned_at_once_until_it_is_dead() {
    for pump in PUMPS {
        let app = App::new();
        let mut devhost = app.run_with_pump(pump).await;
        send(&devhost, "500").await;
        devhost
            .line("Response status code does not indicate success: 500")
            .await;
        devhost
            .line("abandoned, delivery 1 of 3: Service Bus delivers it again at once")
            .await;
        devhost.line("abandoned, delivery 2 of 3").await;
        devhost
            .line("delivery 3 of 3: dead-lettered (MaxDeliveryCountExceeded)")
            .await;
        let dead = devhost
            .get_json("/_dev/entities/work/messages?state=deadLetter")
            .await;
        assert_eq!(
            (&dead[0]["body"], &dead[0]["deadLetterReason"]),
            (&500.into(), &"MaxDeliveryCountExceeded".into())
        );
        assert_eq!(
            devhost
                .get_json("/_dev/entities/work/messages?state=DEADLETTER")
                .await,
            dead
        );
        assert_eq!(
            devhost.get_json("/_dev/entities/work/messages").await,
            serde_json::json!([])
        );
        let without = devhost.get("/_dev/entities/work").await;
        assert_eq!(without.status(), 404);
        assert!(
            without
                .text()
                .await
                .unwrap()
                .contains("/_dev/entities/work/messages?state=")
        );
        assert_eq!(
            devhost
                .get("/_dev/entities/nothing/messages")
                .await
                .status(),
            404
        );
        assert_eq!(
            devhost
                .get("/_dev/entities/work/messages?state=lost")
                .await
                .status(),
            400
        );
    }
}

async fn wait_until_settled(devhost: &Devhost) {
    let settled = async {
        while devhost.get_json("/_dev/entities").await[0]["locked"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let settled = tokio::time::timeout(GIVE_UP, settled).await;
    assert!(settled.is_ok(), "the message stays locked");
}

#[tokio::test]
async fn the_lock_of_a_message_is_renewed_while_its_invocation_runs() {
    for pump in PUMPS {
        let app = App::new();
        app.write(
            "servicebus.json",
            r#"{"UserConfig":{"Namespaces":[{"Name":"sbemulatorns","Queues":[
                {"Name":"work","Properties":{"LockDuration":"PT5S","MaxDeliveryCount":3}}],"Topics":[]}]}}"#,
        );
        let mut devhost = app.run_with_pump(pump).await;
        send(&devhost, "wait").await;
        let line = devhost.line("LockedUntilUtc: ").await;
        let (_, locked_until) = line.rsplit_once("LockedUntilUtc: ").unwrap();
        let locked_until: jiff::Timestamp = locked_until.trim().parse().unwrap();
        devhost.line("got 'wait'").await;
        let past = locked_until.duration_since(jiff::Timestamp::now());
        tokio::time::sleep(past.try_into().unwrap()).await;
        // By now it would have been delivered again.
        tell_handler(&devhost, "release").await;
        devhost.line("(Succeeded").await;
        wait_until_settled(&devhost).await;
        assert!(!devhost.has_printed("delivery \"2\""));
        assert!(!devhost.has_printed("could not be"));
    }
}

#[tokio::test]
async fn a_message_survives_the_death_of_devhost_and_handler() {
    for pump in PUMPS {
        let app = App::new();
        let mut devhost = app.run_with_pump(pump).await;
        send(&devhost, "never").await;
        devhost.line("got 'never'").await;
        devhost.child.kill().await.unwrap();
        drop(devhost);
        let mut devhost = app.run_with_pump(pump).await;
        devhost.line("got 'never'").await;
    }
}

#[tokio::test]
async fn a_wrong_content_type_fails_the_invocation() {
    let app = App::new();
    let mut devhost = app.run().await;
    devhost.work("text").await;
    devhost.line("(Failed").await;
    devhost.line("Invalid HttpResponseMessage").await;
    devhost.line("UnsupportedMediaTypeException").await;
}

#[tokio::test]
async fn an_empty_answer_is_told_in_words_and_the_handler_restarted() {
    for command in ["empty", "blank", "null"] {
        let app = App::new();
        let mut devhost = app.run().await;
        let before = devhost.get_json("/api/echo/x").await["pid"].clone();
        devhost.work(command).await;
        let words = devhost
            .line("In Azure this invocation HANGS until functionTimeout (00:30:00)")
            .await;
        assert!(words.contains("Answer at least {}"), "{words}");
        assert!(!devhost.has_printed("A function timeout has occurred"));
        devhost
            .line("Restarting worker process executing invocationId")
            .await;
        devhost
            .line("Worker process started and initialized.")
            .await;
        let after = devhost.get_json("/api/echo/x").await["pid"].clone();
        assert_ne!(before, after);
    }
}

#[tokio::test]
async fn a_function_timeout_kills_the_handler_and_what_else_is_in_flight() {
    let app = App::new();
    app.host_json(|host| host["functionTimeout"] = "00:00:01".into());
    let mut devhost = app.run().await;
    let before = devhost.get_json("/api/echo/x").await["pid"].clone();
    devhost.work("never").await;
    devhost
        .line("Timeout value of 00:00:01 was exceeded by function: Functions.work")
        .await;
    // The reason is told first; this comes once the handler has been killed.
    devhost.line("Executed 'Functions.work' (Failed").await;
    assert_ne!(devhost.get_json("/api/echo/x").await["pid"], before);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_invocation_in_flight_finishes_before_devhost_stops() {
    for pump in PUMPS {
        let app = App::new();
        let mut devhost = app.run_with_pump(pump).await;
        let bus = devhost.handler_variable("SERVICEBUS_REST_ENDPOINT").await;
        let port: u16 = devhost
            .handler_variable("FUNCTIONS_CUSTOMHANDLER_PORT")
            .await
            .parse()
            .unwrap();
        send(&devhost, "wait").await;
        devhost.line("got 'wait'").await;
        let pid = rustix::process::Pid::from_raw(devhost.child.id().unwrap().try_into().unwrap())
            .unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        devhost.line("Stopping").await;
        devhost.line("Invocations in flight may finish").await;
        // What an invocation does while devhost stops still reaches the bus.
        send_to(&devhost, &bus, "ok").await;
        let release = devhost
            .client
            .post(format!("http://127.0.0.1:{port}/release"))
            .send()
            .await;
        assert_eq!(release.unwrap().status(), 200);
        devhost.line("(Succeeded").await;
        assert_eq!(devhost.ended().await.0, Some(0));
    }
}
