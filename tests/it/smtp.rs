//! SMTP, against a server that fails where the script says so.

use orderup::email::EmailSender;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::provider::{ada_email, class, free_port, impatient_sender, sender};

/// What the server does when a command, or `.` for the end of the message, comes in.
#[derive(Clone, Copy)]
enum Act {
    Say(&'static str),
    Close,
    Hang,
}

use Act::{Close, Hang, Say};

/// What the server saw: a command, or the whole of a message.
#[derive(Debug, PartialEq)]
enum Seen {
    Connection,
    Command(String),
    Message(String),
}

struct Server {
    port: u16,
    seen: mpsc::UnboundedReceiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// A server that takes everything but what `exceptions` name: the beginning of a command, `.` or
    /// `greeting`, each with what is done each time that it comes.
    async fn with<const N: usize>(exceptions: [(&'static str, Act); N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut conversations = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                conversations.spawn(converse(stream, exceptions.to_vec(), sender.clone()));
            }
        });
        Self { port, seen, task }
    }

    fn settings(url: &str) -> [(&str, &str); 4] {
        [
            ("EMAIL_PROVIDER", "smtp"),
            ("EMAIL_FROM", "Contoso Orders <orders@contoso.example>"),
            ("EMAIL_REPLY_TO", "help@contoso.example"),
            ("SMTP_URL", url),
        ]
    }

    fn client(&self) -> EmailSender {
        sender(Self::settings(&format!("smtp://127.0.0.1:{}", self.port)))
    }

    fn impatient_client(&self) -> EmailSender {
        impatient_sender(Self::settings(&format!("smtp://127.0.0.1:{}", self.port)))
    }

    fn client_with_login(&self) -> EmailSender {
        sender(Self::settings(&format!(
            "smtp://ada:secret@127.0.0.1:{}",
            self.port
        )))
    }

    /// All that the server saw until now; the client has had its answer to each.
    fn seen(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    fn messages(&mut self) -> Vec<String> {
        self.seen()
            .into_iter()
            .filter_map(|seen| match seen {
                Seen::Message(text) => Some(text),
                Seen::Connection | Seen::Command(_) => None,
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    stream: TcpStream,
    exceptions: Vec<(&'static str, Act)>,
    seen: mpsc::UnboundedSender<Seen>,
) {
    let mut stream = BufReader::new(stream);
    let act = |step: &str, usual: &'static str| {
        exceptions
            .iter()
            .find(|(of, _)| step.starts_with(of))
            .map_or(Say(usual), |(_, act)| *act)
    };
    let _ = seen.send(Seen::Connection);
    let mut next = act("greeting", "220 mail.example");
    loop {
        match next {
            Say(answer) => {
                let answer = format!("{answer}\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Close => return,
            Hang => std::future::pending().await,
        }
        let in_message = matches!(next, Say(answer) if answer.starts_with("354"));
        let mut text = String::new();
        loop {
            let before = text.len();
            if matches!(stream.read_line(&mut text).await, Ok(0) | Err(_)) {
                return;
            }
            if !in_message || &text[before..] == ".\r\n" {
                break;
            }
        }
        if in_message {
            let _ = seen.send(Seen::Message(text));
            next = act(".", "250 2.0.0 taken");
            continue;
        }
        let command = text.trim_end().to_owned();
        next = match command.split(' ').next().unwrap() {
            "EHLO" => act(&command, "250-mail.example\r\n250 AUTH PLAIN"),
            "AUTH" => act(&command, "235 2.7.0 welcome"),
            "DATA" => act(&command, "354 go on"),
            "QUIT" => Close,
            _ => act(&command, "250 2.1.0 fine"),
        };
        let _ = seen.send(Seen::Command(command));
    }
}

#[tokio::test]
async fn an_email_arrives_whole() {
    let mut server = Server::with([]).await;
    server.client().send(&ada_email()).await.unwrap();

    let seen = server.seen();
    for command in [
        "EHLO contoso.example",
        "MAIL FROM:<orders@contoso.example>",
        "RCPT TO:<ada@example.net>",
        "DATA",
    ] {
        assert!(
            seen.contains(&Seen::Command(command.to_owned())),
            "{seen:?}"
        );
    }
    let Some(Seen::Message(message)) = seen.last() else {
        panic!("{seen:?}");
    };
    for part in [
        "Message-ID: <8540c0de-899f-5cce-acb5-3ec493af3800@contoso.example>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "Your order is confirmed.\r\n",
        "<p>Your order is <b>confirmed</b>.</p>\r\n",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_the_bytes_are_the_same() {
    let mut server = Server::with([]).await;
    let client = server.client();
    client.send(&ada_email()).await.unwrap();
    client.send(&ada_email()).await.unwrap();

    let seen = server.seen();
    let connections = seen.iter().filter(|seen| **seen == Seen::Connection);
    assert_eq!(connections.count(), 1);
    let messages: Vec<_> = seen
        .iter()
        .filter(|seen| matches!(seen, Seen::Message(_)))
        .collect();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], messages[1]);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_is_replaced() {
    let mut server = Server::with([("NOOP", Close)]).await;
    let client = server.client();
    client.send(&ada_email()).await.unwrap();
    client.send(&ada_email()).await.unwrap();
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test]
async fn user_and_password_are_given() {
    let mut server = Server::with([]).await;
    server.client_with_login().send(&ada_email()).await.unwrap();
    // "\0ada\0secret" in base64.
    let login = Seen::Command("AUTH PLAIN AGFkYQBzZWNyZXQ=".to_owned());
    assert!(server.seen().contains(&login));
}

#[tokio::test]
async fn each_refusal_has_its_class_and_keeps_only_its_codes() {
    for (step, answer, expected, text) in [
        ("greeting", "421 come back, ada", "busy", "421"),
        ("greeting", "554 no service for you", "unauthorized", "554"),
        (
            "MAIL",
            "451 4.3.0 <ada@example.net> later",
            "busy",
            "451 4.3.0",
        ),
        (
            "MAIL",
            "530 5.7.0 log in first",
            "unauthorized",
            "530 5.7.0",
        ),
        (
            "MAIL",
            "553 5.7.1 not your sender",
            "unauthorized",
            "553 5.7.1",
        ),
        (
            "RCPT",
            "450 4.2.0 <ada@example.net> greylisted",
            "deferred",
            "450 4.2.0",
        ),
        ("RCPT", "452 ada@example.net", "deferred", "452"),
        ("RCPT", "421 ada@example.net", "busy", "421"),
        (
            "RCPT",
            "550 5.1.1 <ada@example.net> unknown",
            "refused",
            "550 5.1.1",
        ),
        ("RCPT", "550 Ada Lovelace has left", "refused", "550"),
        (
            "RCPT",
            "554 5.7.1 ada@example.net blocked",
            "deferred",
            "554 5.7.1",
        ),
        (".", "451 4.3.0 ada@example.net", "busy", "451 4.3.0"),
        ("DATA", "554 5.5.1 no", "refused", "554 5.5.1"),
        (".", "451 4.7.1 later", "deferred", "451 4.7.1"),
        (
            ".",
            "552-5.3.4 too large\r\n552 5.3.4 for ada",
            "refused",
            "552 5.3.4",
        ),
    ] {
        let server = Server::with([(step, Say(answer))]).await;
        let error = server.client().send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), expected, "{step} {answer}: {error}");
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

#[tokio::test]
async fn a_refused_login_is_about_us() {
    let server = Server::with([("AUTH", Say("535 5.7.8 not ada"))]).await;
    let error = server
        .client_with_login()
        .send(&ada_email())
        .await
        .unwrap_err();
    assert_eq!(class(&error), "unauthorized");
    assert!(error.to_string().ends_with("535 5.7.8"), "{error}");
}

#[tokio::test]
async fn a_server_without_a_login_or_encryption_that_we_ask_for_gets_no_email() {
    let mut server = Server::with([("EHLO", Say("250 mail.example"))]).await;
    let login = server.client_with_login();
    let url = format!("smtp://127.0.0.1:{}?tls=required", server.port);
    let encryption = sender(Server::settings(&url));
    for client in [login, encryption] {
        let error = client.send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), "unauthorized");
    }
    assert!(
        !server
            .seen()
            .iter()
            .any(|seen| matches!(seen, Seen::Command(text) if text.starts_with("MAIL")))
    );
}

#[tokio::test]
async fn an_address_that_the_server_can_not_take_is_refused() {
    let server = Server::with([]).await;
    let mut email = ada_email();
    email.to.address = "ådä@example.net".to_owned();
    let error = server.client().send(&email).await.unwrap_err();
    assert_eq!(class(&error), "refused");

    let server = Server::with([("EHLO", Say("250-mail.example\r\n250 SMTPUTF8"))]).await;
    server.client().send(&email).await.unwrap();
}

#[tokio::test]
async fn before_the_message_a_broken_connection_means_that_nothing_was_sent() {
    let url = format!("smtp://127.0.0.1:{}", free_port().await);
    let error = sender(Server::settings(&url))
        .send(&ada_email())
        .await
        .unwrap_err();
    assert_eq!(class(&error), "unreachable");

    for step in ["greeting", "EHLO", "MAIL", "RCPT", "DATA"] {
        let server = Server::with([(step, Close)]).await;
        let error = server.client().send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), "unreachable", "{step}: {error}");
    }
    let server = Server::with([("RCPT", Hang)]).await;
    let error = server.impatient_client().send(&ada_email()).await;
    assert_eq!(class(&error.unwrap_err()), "unreachable");
}

#[tokio::test]
async fn after_the_message_a_broken_connection_means_that_it_may_have_been_sent() {
    let mut server = Server::with([(".", Close)]).await;
    let error = server.client().send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unanswered");
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn a_connection_that_timed_out_is_never_used_again() {
    let mut server = Server::with([(".", Hang)]).await;
    let client = server.impatient_client();
    for _ in 0..2 {
        let error = client.send(&ada_email()).await.unwrap_err();
        assert_eq!(class(&error), "unanswered");
    }
    let seen = server.seen();
    let connections = seen.iter().filter(|seen| **seen == Seen::Connection);
    assert_eq!(connections.count(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_smtp_is_no_success() {
    let server = Server::with([("greeting", Say("HTTP/1.1 400 Bad Request"))]).await;
    let error = server.client().send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unreachable");
    let server = Server::with([(".", Say("hello ada"))]).await;
    let error = server.client().send(&ada_email()).await.unwrap_err();
    assert_eq!(class(&error), "unanswered");
}
