//! The program itself: what it prints, how it fails, how it ends, and what outlives it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
};

use reqwest::{Client, Method, RequestBuilder, Response};
use servicebus_emulator::Topology;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use uuid::Uuid;

use crate::{
    namespace::{TOPOLOGY, broker_properties, header},
    signatures::sign,
};

/// A folder with a topology file in it, removed with all it holds.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Topology::parse(TOPOLOGY, "test topology").unwrap();
        let path = std::env::temp_dir().join(format!("servicebus-emulator-{}", Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("servicebus.json"), TOPOLOGY).unwrap();
        Self(path)
    }

    /// The program, run in this folder.
    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_servicebus-emulator"));
        command
            .args(arguments)
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn fails(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ARGUMENTS: [&str; 6] = ["--http-port", "0", "--amqp-port", "0", "--data", "data"];

pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    /// Host and port.
    amqp: String,
}

impl Running {
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::launch(folder.program(&ARGUMENTS)).await
    }

    async fn launch(mut program: Command) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next_line().await.unwrap().unwrap();
        let (url, amqp) = ready
            .strip_prefix("Service Bus emulator ready: REST data plane at ")
            .and_then(|rest| rest.split_once(", AMQP at "))
            .expect(&ready);
        assert!(url.starts_with("http://127.0.0.1:"), "{ready}");
        let (url, amqp) = (url.to_owned(), amqp.to_owned());
        Self {
            child,
            lines,
            url,
            amqp,
        }
    }

    async fn request(&self, method: Method, path: &str) -> Response {
        self.caller().request(method, path).send().await.unwrap()
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller {
            http: Client::new(),
            url: self.url.clone(),
            token: sign(&self.url),
        }
    }

    /// Takes out all messages of the queue and of its dead-letter queue.
    async fn drain(&self, queue: &str) -> Vec<String> {
        let caller = self.caller();
        let mut ids = Vec::new();
        for entity in [queue.to_owned(), format!("{queue}/$deadletterqueue")] {
            let path = format!("{entity}/messages/head?timeout=0");
            loop {
                let taken = caller.request(Method::DELETE, &path).send().await.unwrap();
                if taken.status() == 204 {
                    break;
                }
                assert_eq!(taken.status(), 200);
                ids.push(message_id(&taken));
            }
        }
        ids
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args([name, &id]).status();
        assert!(kill.await.unwrap().success());
    }
}

/// What a task of its own needs to send signed requests.
#[derive(Clone)]
pub(crate) struct Caller {
    http: Client,
    url: String,
    token: String,
}

impl Caller {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/{path}", self.url))
            .header("authorization", &self.token)
    }

    pub(crate) fn send(&self, queue: &str, id: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("{queue}/messages"))
            .header("BrokerProperties", format!(r#"{{"MessageId":"{id}"}}"#))
    }
}

fn message_id(response: &Response) -> String {
    let id = &broker_properties(response)["MessageId"];
    id.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn it_says_where_it_listens_how_to_connect_and_what_there_is() {
    let folder = Folder::new();
    let mut running = Running::start(&folder).await;
    let (host, port) = running.amqp.split_once(':').unwrap();
    assert_eq!(host, "127.0.0.1");
    let port = port.to_owned();
    let mut next = async || running.lines.next_line().await.unwrap().unwrap();
    assert_eq!(
        next().await,
        format!(
            "Endpoint=sb://localhost:{port};SharedAccessKeyName=RootManageSharedAccessKey;\
             SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
        )
    );
    for entity in [
        "orders",
        "orders/Subscriptions/all",
        "orders/Subscriptions/red",
    ] {
        assert_eq!(next().await.trim(), entity);
    }
    // HTTP is answered on both ports.
    for address in [running.url.clone(), format!("http://{}", running.amqp)] {
        let health = reqwest::get(format!("{address}/health")).await.unwrap();
        assert_eq!(health.status(), 200, "{address}");
    }
}

#[tokio::test]
async fn a_signal_ends_it_cleanly_even_while_a_receive_waits() {
    for name in ["-TERM", "-INT"] {
        let folder = Folder::new();
        let mut running = Running::start(&folder).await;
        let address = running.url.strip_prefix("http://").unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "DELETE /work/messages/head?timeout=86400 HTTP/1.1\r\nhost: {address}\r\nauthorization: {}\r\n\r\n",
            sign(&running.url)
        );
        waiting.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(running.request(Method::GET, "health").await.status(), 200);

        running.signal(name).await;
        let status = running.child.wait().await.unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.unwrap();
        // A signal that is faster than the request's arrival leaves nothing to answer.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 503 "),
            "{answer}"
        );
    }
}

/// What the program was asked for and has answered, over all its lives.
#[derive(Default)]
struct Said {
    sent: BTreeSet<String>,
    completing: BTreeSet<String>,
    completed: BTreeSet<String>,
}

/// Sends until there is nobody to send to.
async fn send_all(
    caller: Caller,
    lane: String,
    said: Arc<Mutex<Said>>,
    done: UnboundedSender<bool>,
) {
    for number in 0.. {
        let id = format!("{lane}-{number}");
        let Ok(answer) = caller.send("work", &id).send().await else {
            return;
        };
        assert_eq!(answer.status(), 201);
        said.lock().unwrap().sent.insert(id);
        let _ = done.send(false);
    }
}

/// Receives and completes until there is nobody to receive from.
async fn complete_all(caller: Caller, said: Arc<Mutex<Said>>, done: UnboundedSender<bool>) {
    let head = "work/messages/head?timeout=60";
    while let Ok(locked) = caller.request(Method::POST, head).send().await {
        assert_eq!(locked.status(), 201);
        let id = message_id(&locked);
        let location = header(&locked, "location").unwrap();
        let path = location.strip_prefix(&format!("{}/", caller.url)).unwrap();
        {
            let mut said = said.lock().unwrap();
            assert!(!said.completed.contains(&id), "{id} was completed before");
            said.completing.insert(id.clone());
        }
        let Ok(answer) = caller.request(Method::DELETE, path).send().await else {
            return;
        };
        assert_eq!(answer.status(), 200);
        said.lock().unwrap().completed.insert(id);
        let _ = done.send(true);
    }
}

#[tokio::test]
async fn what_was_answered_survives_kill_after_kill() {
    let folder = Folder::new();
    let said = Arc::new(Mutex::new(Said::default()));
    for round in 0..4 {
        let mut running = Running::start(&folder).await;
        let caller = running.caller();
        let (done, mut events) = unbounded_channel();
        let mut tasks = JoinSet::new();
        for lane in 0..3 {
            let lane = format!("{round}-{lane}");
            let (caller, said) = (caller.clone(), Arc::clone(&said));
            tasks.spawn(send_all(caller, lane, said, done.clone()));
        }
        for _ in 0..2 {
            let (caller, said) = (caller.clone(), Arc::clone(&said));
            tasks.spawn(complete_all(caller, said, done.clone()));
        }
        drop(done);
        let (mut sent, mut completed) = (0, 0);
        while sent < 40 || completed < 20 {
            match events.recv().await {
                Some(true) => completed += 1,
                Some(false) => sent += 1,
                None => break,
            }
        }
        running.child.kill().await.unwrap();
        // Here a failed assertion of a task comes out.
        tasks.join_all().await;
    }
    let left = Running::start(&folder).await.drain("work").await;
    let said = said.lock().unwrap();
    assert!(said.sent.len() >= 160);
    let lost: Vec<_> = said
        .sent
        .difference(&said.completing)
        .filter(|id| !left.contains(id))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    let back: Vec<_> = left
        .iter()
        .filter(|id| said.completed.contains(*id))
        .collect();
    assert!(back.is_empty(), "{back:?}");
    let unique: BTreeSet<_> = left.iter().collect();
    assert_eq!(unique.len(), left.len());
}

/// A limit on the size of files stands for the disk; without the trap it would kill the program.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room_and_what_was_answered_stays() {
    let folder = Folder::new();
    let mut program = Command::new("sh");
    program
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -S -f 16000; exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_servicebus-emulator"))
        .args(ARGUMENTS)
        .current_dir(&folder.0)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut running = Running::launch(program).await;
    let mut errors = BufReader::new(running.child.stderr.take().unwrap()).lines();
    let mut next_error = async || errors.next_line().await.unwrap().unwrap();
    let caller = running.caller();
    let large = vec![b'x'; 200_000];
    let mut expected = Vec::new();
    let refused = loop {
        let id = expected.len().to_string();
        let answer = caller.send("work", &id).body(large.clone()).send().await;
        let answer = answer.unwrap();
        if answer.status() != 201 {
            break answer;
        }
        expected.push(id);
    };
    assert!(expected.len() > 1);
    assert_eq!(refused.status(), 500);
    let text = refused.text().await.unwrap();
    assert!(text.contains("The change could not be stored"), "{text}");
    let refused = caller.send("work", "again").body(large).send().await;
    assert_eq!(refused.unwrap().status(), 500);
    let line = next_error().await;
    let start = "servicebus-emulator: changes cannot be stored: ";
    assert!(line.starts_with(start), "{line}");

    let id = running.child.id().unwrap().to_string();
    let prlimit = Command::new("prlimit")
        .args(["--fsize=unlimited", "--pid", &id])
        .status();
    assert!(prlimit.await.unwrap().success());
    // It waits until the pause is over.
    let head = "work/messages/head?timeout=60";
    let first = caller.request(Method::DELETE, head).send().await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(message_id(&first), expected.remove(0));
    let sent = caller.send("work", "last").send().await.unwrap();
    assert_eq!(sent.status(), 201);
    expected.push("last".to_owned());
    assert_eq!(
        next_error().await,
        "servicebus-emulator: changes are stored again"
    );

    running.child.kill().await.unwrap();
    assert_eq!(Running::start(&folder).await.drain("work").await, expected);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn that_nobody_can_read_what_it_prints_is_a_failure_and_not_a_panic() {
    let folder = Folder::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut program = folder.program(&ARGUMENTS);
    let child = program.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn a_failure_is_one_line_and_exit_code_1() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let text = folder.fails(&["--http-port", &port]).await;
    assert!(text.contains(&format!("port {port} is in use")), "{text}");
    assert!(text.contains("--http-port"), "{text}");
    let text = folder
        .fails(&["--http-port", "0", "--amqp-port", &port])
        .await;
    assert!(text.contains(&format!("port {port} is in use")), "{text}");
    assert!(text.contains("--amqp-port"), "{text}");

    let text = folder.fails(&["--config", "missing.json"]).await;
    assert!(text.contains("`missing.json` cannot be read"), "{text}");
    assert!(text.contains("--config"), "{text}");

    std::fs::write(
        folder.0.join("broken.json"),
        TOPOLOGY.replace("team/a/work", "WORK"),
    )
    .unwrap();
    let text = folder.fails(&["--config", "broken.json"]).await;
    assert!(
        text.contains("`broken.json` is not valid: Queues[1].Name: `WORK` exists already"),
        "{text}"
    );

    let text = folder
        .fails(&[
            "--http-port",
            "0",
            "--amqp-port",
            "0",
            "--data",
            "servicebus.json",
        ])
        .await;
    assert!(text.contains("servicebus.json"), "{text}");
}
