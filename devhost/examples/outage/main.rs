//! Measures what an outage of the email provider does to orders, with the real devhost and handler.
//!
//! Run by hand, on a machine that does nothing else. Orders come at one rate before and during the outage, whatever the
//! answers (an open loop), and latency counts from when a request should have started. The exit code is 0 if every order
//! was taken and everybody was told once, without a dead letter; with `--naive`, whatever came.

mod report;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::{Parser, value_parser};
use jiff::Timestamp;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

const WARM_UP: u32 = 100;
const BEFORE: u32 = 300;
const CUSTOMER: &str = "customer";
const VENDORS: [&str; 2] = ["bakery", "florist"];
const STATES: [&str; 4] = ["active", "locked", "scheduled", "deadLetter"];
const POLL: Duration = Duration::from_millis(500);
/// Nothing comes any more when nothing was on its way as often as this in a row.
const IDLE_POLLS: usize = 4;
const ROWS: usize = 20;
const ONE_MINUTE: Duration = Duration::from_secs(60);
const LONGEST_RECOVERY: Duration = Duration::from_secs(15 * 60);
const EMAIL_FAULT: &str = "/_dev/faults/email";

/// Measures what an outage of the email provider does to orders
#[derive(Parser)]
struct Args {
    /// How many orders come during the outage
    #[arg(long, default_value_t = 2000, value_parser = value_parser!(u32).range(1..))]
    orders: u32,
    /// Orders in a second
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(1..))]
    rate: u32,
    /// EMAIL_RATE_LIMIT of the handler
    #[arg(long, default_value = "100/s")]
    email_limit: String,
    /// RETRY_SCHEDULE of the handler
    #[arg(long, default_value = "1s,2s,5s")]
    retry_schedule: String,
    /// What the email provider answers while it is down
    #[arg(long, default_value_t = 503)]
    fault: u16,
    /// Instead of the devhost that is built beside this program
    #[arg(long, value_name = "PATH")]
    devhost: Option<PathBuf>,
    /// Instead of the handler that is built beside this program
    #[arg(long, value_name = "PATH")]
    handler: Option<PathBuf>,
    /// The handler is one that fails invocations: tell when the dead letters came
    #[arg(long, requires = "handler")]
    naive: bool,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(is_well) if is_well || args.naive => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outage: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<bool> {
    let folder = std::env::temp_dir().join(format!("orderup-outage-{}", uuid::Uuid::new_v4()));
    let mut terminate = signal(SignalKind::terminate())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let mut devhost = start_devhost(args, &folder, port)?;
    let api = Api {
        http: Client::builder().no_proxy().timeout(ONE_MINUTE).build()?,
        base: format!("http://127.0.0.1:{port}"),
    };
    let measured = tokio::select! {
        measured = measure(args, &api) => measured,
        status = devhost.wait() => Err(format!("devhost has ended: {}", status?).into()),
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    };
    end(&mut devhost).await;
    let is_well = measured.as_ref().is_ok_and(|seen| seen.report(args));
    if is_well || (args.naive && measured.is_ok()) {
        std::fs::remove_dir_all(&folder)?;
    } else {
        eprintln!("devhost's output and data are in {}", folder.display());
    }
    measured.map(|_| is_well)
}

fn start_devhost(args: &Args, folder: &Path, port: u16) -> Result<Child> {
    let devhost = executable(args.devhost.as_deref(), "devhost")?;
    let handler = executable(args.handler.as_deref(), "orderup")?;
    std::fs::create_dir(folder)?;
    let output = File::create(folder.join("devhost.log"))?;
    let setting = "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath";
    let child = Command::new(devhost)
        .args(["--app", concat!(env!("CARGO_MANIFEST_DIR"), "/..")])
        .arg("--data")
        .arg(folder.join("data"))
        .args([
            "--port",
            &port.to_string(),
            "--bus-port",
            "0",
            "--amqp-port",
            "0",
        ])
        .env(setting, handler)
        // Devhost would take them, in the time that is measured.
        .env("OTEL_SDK_DISABLED", "true")
        .env("EMAIL_RATE_LIMIT", &args.email_limit)
        .env("RETRY_SCHEDULE", &args.retry_schedule)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// The one that is named, or that cargo puts into the folder above this program's.
fn executable(named: Option<&Path>, package: &str) -> Result<PathBuf> {
    let built = std::env::current_exe()?;
    let built = built.ancestors().nth(2).unwrap_or(&built).join(package);
    let path = named.unwrap_or(&built);
    let build = "cargo build --release -p devhost && cargo build --release -p orderup";
    path.canonicalize()
        .map_err(|_| format!("there is no {}; build it:\n    {build}", path.display()).into())
}

/// Lets devhost end its handler, and uses force if it does not listen.
async fn end(devhost: &mut Child) {
    if let Some(id) = devhost.id() {
        let _ = Command::new("kill").arg(id.to_string()).status().await;
        let _ = timeout(ONE_MINUTE, devhost.wait()).await;
    }
    let _ = devhost.kill().await;
}

#[derive(Clone)]
struct Api {
    http: Client,
    base: String,
}

impl Api {
    /// The answer, if it is the one that is hoped for.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let is_order = method == Method::POST;
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        let response = request.body(body.to_string()).send().await?;
        let status = response.status();
        let answer = response.bytes().await?;
        match status {
            StatusCode::NO_CONTENT => Ok(Value::Null),
            _ if status.is_success() && (!is_order || status == StatusCode::ACCEPTED) => {
                Ok(serde_json::from_slice(&answer)?)
            }
            _ => Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&answer)).into()),
        }
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, &Value::Null).await
    }
}

struct Checkout {
    latency: Duration,
    order: Result<String>,
}

/// Places orders at that rate and gives what came of each.
async fn place(api: &Api, rate: u32, count: u32) -> Result<Vec<Checkout>> {
    let line = |vendor: &str| {
        json!({ "vendorId": vendor, "sku": "A-1", "name": "Something good", "quantity": 2,
                "unitPrice": { "amount": 1250, "currency": "AUD" } })
    };
    let order = json!({
        "customer": { "name": "Ada Lovelace", "email": "ada@example.net", "locale": "en-AU" },
        "lineItems": VENDORS.map(line),
        "payment": { "source": "cnon:card-nonce-ok" },
        "partner": "brand-7",
    });
    let order = Arc::new(order);
    let (api, runtime) = (api.clone(), tokio::runtime::Handle::current());
    // On a thread of its own, because a timer of tokio's is up to a millisecond late.
    let requests = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let requests = (0..count).map(|number| {
            let intended = started + Duration::from_secs(1) * number / rate;
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
            let (api, order) = (api.clone(), Arc::clone(&order));
            runtime.spawn(async move {
                let answer = api.ask(Method::POST, "/api/checkout", &order).await;
                let latency = intended.elapsed();
                let order = answer.and_then(|answer| {
                    let id = answer["orderId"].as_str().map(str::to_owned);
                    id.ok_or_else(|| "202 without an orderId".into())
                });
                Checkout { latency, order }
            })
        });
        requests.collect::<Vec<_>>()
    });
    let mut checkouts = Vec::new();
    for request in requests.await? {
        checkouts.push(request.await?);
    }
    Ok(checkouts)
}

/// How many messages were in each of the [`STATES`].
type Counts = [u64; 4];

struct Sample {
    at: Timestamp,
    /// Of the queue and the topic, whose copies for later are those of emails while no vendor is down.
    emails: Counts,
    all: Counts,
}

impl Sample {
    fn new(entities: &Value) -> Self {
        let counts = |is_of: fn(&str) -> bool| {
            let entities = entities.as_array().into_iter().flatten();
            let entities = entities.filter(|entity| entity["name"].as_str().is_some_and(is_of));
            STATES.map(|state| entities.clone().filter_map(|one| one[state].as_u64()).sum())
        };
        Self {
            at: Timestamp::now(),
            emails: counts(|name| !name.ends_with("/vendors")),
            all: counts(|_| true),
        }
    }

    fn dead(&self) -> u64 {
        self.all[3]
    }
}

type Samples = Arc<Mutex<Vec<Sample>>>;

/// Looks at the backlog until it is aborted.
async fn watch(api: Api, samples: Samples) {
    let mut ticks = tokio::time::interval(POLL);
    loop {
        ticks.tick().await;
        if let Ok(entities) = api.get("/_dev/entities").await {
            let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push(Sample::new(&entities));
        }
    }
}

/// Whether nothing came any more after that time.
fn is_idle(samples: &Samples, after: Timestamp) -> bool {
    let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let last = samples.iter().rev();
    let idle = last.take_while(|one| one.at > after && one.all[..3] == [0; 3]);
    idle.count() >= IDLE_POLLS
}

struct Seen {
    before: Vec<Checkout>,
    during: Vec<Checkout>,
    began: Timestamp,
    recovered: Timestamp,
    is_idle: bool,
    samples: Vec<Sample>,
    /// When each email came, in order.
    emails: Vec<Timestamp>,
    /// How often whom was told of each order that was taken.
    told: Vec<(&'static str, u64)>,
}

async fn measure(args: &Args, api: &Api) -> Result<Seen> {
    let started = Instant::now();
    while !matches!(api.get("/admin/host/status").await, Ok(it) if it["handlerReady"] == true) {
        if started.elapsed() > ONE_MINUTE {
            return Err("devhost did not become ready".into());
        }
        sleep(POLL).await;
    }
    // Where the provider or the vendors are the user's own, this fails before the first order goes there.
    let fault = json!({ "status": args.fault });
    for target in ["/_dev/faults/vendors", EMAIL_FAULT] {
        api.ask(Method::PUT, target, &fault).await?;
        api.ask(Method::DELETE, target, &Value::Null).await?;
    }

    eprintln!("before the outage: {} orders", WARM_UP + BEFORE);
    let warm_up = place(api, args.rate, WARM_UP).await?;
    let before = place(api, args.rate, BEFORE).await?;
    let samples = Samples::default();
    let watching = tokio::spawn(watch(api.clone(), samples.clone()));
    let began = Timestamp::now();
    api.ask(Method::PUT, EMAIL_FAULT, &fault).await?;
    eprintln!("outage: {} orders", args.orders);
    let during = place(api, args.rate, args.orders).await?;
    api.ask(Method::DELETE, EMAIL_FAULT, &Value::Null).await?;
    let (recovered, started) = (Timestamp::now(), Instant::now());
    eprintln!("recovery: until nothing is on its way any more");
    while !is_idle(&samples, recovered) && started.elapsed() < LONGEST_RECOVERY {
        sleep(POLL).await;
    }
    watching.abort();
    let is_idle = is_idle(&samples, recovered);

    // Once and at the end: the list is long, and to write it would slow everything down. It has the times.
    let emails = api.get("/_dev/emails").await?;
    let webhooks = api.get("/_dev/webhooks").await?;
    let emails = emails.as_array().map_or(&[][..], Vec::as_slice);
    let webhooks = webhooks.as_array().map_or(&[][..], Vec::as_slice);
    let taken = [&warm_up, &before, &during].into_iter().flatten();
    let taken = taken.filter_map(|one| one.order.as_deref().ok());
    let [bakery, florist] = VENDORS;
    let mut told: BTreeMap<(&str, &'static str), u64> = taken
        .flat_map(|order| [CUSTOMER, bakery, florist].map(|who| ((order, who), 0)))
        .collect();
    for email in emails {
        let text = email["text"].as_str().unwrap_or_default();
        let order = text
            .split_whitespace()
            .find(|word| told.contains_key(&(*word, CUSTOMER)));
        if let Some(times) = told.get_mut(&(order.unwrap_or_default(), CUSTOMER)) {
            *times += 1;
        }
    }
    for webhook in webhooks.iter().filter(|one| one["verified"] == true) {
        let order = webhook["body"]["data"]["orderId"].as_str();
        let vendor = VENDORS.into_iter().find(|id| webhook["vendor"] == *id);
        if let Some(times) = told.get_mut(&(order.unwrap_or_default(), vendor.unwrap_or_default()))
        {
            *times += webhook["deliveries"].as_u64().unwrap_or_default();
        }
    }
    let told = told.into_iter().map(|((_, who), times)| (who, times));
    let told = told.collect();

    let received = emails
        .iter()
        .filter_map(|email| email["receivedAt"].as_str()?.parse().ok());
    let mut emails: Vec<Timestamp> = received.collect();
    emails.sort_unstable();
    let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Seen {
        before,
        during,
        began,
        recovered,
        is_idle,
        samples,
        emails,
        told,
    })
}
