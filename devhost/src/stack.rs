//! Puts the local stack together: bus, stand-ins, handler, listeners; and takes it down again.
//!
//! Ports are taken first, so that one in use is reported before the handler is built. Once the handler answers, the
//! last line with `ready` is printed. A signal ends it well; the host's own reasons to stop end it with an error.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, middleware};
use servicebus_emulator::{EntityPath, ServiceBus, Topology, amqp, rest};
use tokio::task::JoinHandle;

use crate::{
    acs, admin,
    amqp_receiver::AmqpReceiver,
    arguments::{self, Arguments},
    banner, cargo_build,
    connection::{CuttableListener, bind, bind_any, serve},
    console, data_folder, dev_api,
    dev_api::Journals,
    faults::{Faults, on_bus, on_outside},
    front_door::FrontDoor,
    function_json::{Function, Trigger},
    handler_client::HandlerClient,
    handler_port::HandlerPort,
    handler_process::Launch,
    host_json::HostJson,
    invocation::Invoker,
    local_only::local_only,
    pump::Pump,
    receiver::Receiver,
    settings::Settings,
    square,
    stand_ins::{self, Ports, StandIns},
    stopping::{Reason, Stopping},
    timer::Timer,
    traces, vendors,
    worker::Worker,
};

/// How long the last answers may take once the handler is gone.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// By how much cargo's end may be noticed before the signal that ended it.
const SIGNAL_AFTER_CARGO: Duration = Duration::from_millis(200);

/// The topology of the bus, in the app's folder where no flag names another.
const TOPOLOGY: &str = "servicebus.json";

/// Runs the stack until it is stopped; the error is for the person who started it.
pub async fn run(arguments: Arguments, stopping: Stopping) -> Result<(), String> {
    let started = Instant::now();
    let app = arguments
        .app
        .canonicalize()
        .map_err(|error| format!("the app's folder `{}`: {error}", arguments.app.display()))?;
    if !app.join("host.json").is_file() {
        return Err(format!(
            "`{}` has no host.json; name the app's folder with --app",
            app.display()
        ));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut settings = Settings::load(&app, environment).map_err(|error| error.to_string())?;
    let host = HostJson::read(&app, &settings).map_err(|error| error.to_string())?;
    let doors = Doors::open(&arguments).await?;
    let data = data_folder::prepare(&app.join(&arguments.data), arguments.fresh)?;
    let journals = Journals::open(data.path())?;
    let stand_ins = stand_ins::install(&mut settings, &app, data.path(), doors.ports())?;
    let functions = Function::read_all(&app, &settings).map_err(|error| error.to_string())?;
    if functions.is_empty() {
        return Err(format!(
            "`{}` has no functions: no folder with a function.json",
            app.display()
        ));
    }
    let flag = arguments.topology.as_deref();
    let topology = read_topology(&app, flag)?;
    check_entities(&functions, &topology, flag)?;
    console::plain(format_args!(
        "devhost {} stands in for the Azure Functions host {}; settings from {}",
        env!("CARGO_PKG_VERSION"),
        crate::invocation::HOST_VERSION,
        settings.source()
    ));
    warn(&functions, &host);
    let Some(built) = unless_stopped(build_handler(&app, &host), &stopping).await? else {
        return Ok(());
    };
    let bus = ServiceBus::open(&topology, Some(&data.path().join("bus")))
        .map_err(|error| error.to_string())?;
    tokio::spawn(watch(bus.clone(), stopping.clone()));

    let port = HandlerPort::take(host.custom_handler.port)?;
    let client = HandlerClient::new(port.number);
    let launch = Launch::new(&host.custom_handler, &app, &settings, built, port.number);
    let worker = Worker::start(launch, client.clone(), stopping.clone())
        .map_err(|error| format!("the handler's parent thread could not be started: {error}"))?;
    let invoker = Arc::new(Invoker::new(worker.clone(), client, host.function_timeout));

    let timers = Timer::all(&functions, data.path(), &invoker)?;

    let ports = doors.ports();
    let front = doors.serve(&Rooms {
        functions: &functions,
        host: &host,
        invoker: &invoker,
        timers: &timers,
        bus: &bus,
        journals,
        stand_ins: &stand_ins,
        started,
        stopping: &stopping,
    });
    let receiver_of = |entity| match arguments.pump {
        arguments::Pump::Direct => Receiver::Direct {
            bus: bus.clone(),
            entity,
        },
        arguments::Pump::Amqp => {
            let address = (Ipv4Addr::LOCALHOST, ports.amqp).into();
            Receiver::Amqp(AmqpReceiver::new(address, entity, stand_ins::bus_policy()))
        }
    };
    for function in &functions {
        listen(
            function,
            &topology,
            &host,
            &receiver_of,
            &invoker,
            &stopping,
        );
    }
    for timer in timers.iter().filter(|timer| !timer.is_disabled) {
        tokio::spawn(Arc::clone(timer).run(stopping.clone()));
    }
    banner::print_functions(&functions, &host.route_prefix, ports.functions);
    banner::print_addresses(ports, &stand_ins.lines);
    banner::print_sample_order(
        &functions,
        &host.route_prefix,
        ports.functions,
        &stand_ins.vendors,
    );
    let was_ready = worker.ready().await.is_ok();
    if was_ready {
        console::plain(format_args!(
            "Worker process started and initialized; ready on http://localhost:{}",
            ports.functions
        ));
    }
    let reason = stopping.stopped().await;
    worker.ended().await;
    // The last answers reach their callers; one that does not read its own is not waited for.
    drop(tokio::time::timeout(LAST_ANSWERS, front).await);
    match reason {
        Reason::Signal => Ok(()),
        Reason::HostStopped(words) => Err(match &stand_ins.generated {
            Some(vendors) if !was_ready => format!(
                "{words}\n(The vendor list it read is {}, which devhost made from {}.)",
                vendors.file.display(),
                vendors.from.display()
            ),
            _ => words,
        }),
    }
}

/// What the building gives, or `None` when devhost is told to stop first.
async fn unless_stopped<T>(
    building: impl Future<Output = Result<T, String>>,
    stopping: &Stopping,
) -> Result<Option<T>, String> {
    let built = tokio::select! {
        built = building => built,
        _ = stopping.stopped() => return Ok(None),
    };
    match built {
        Ok(built) => Ok(Some(built)),
        // Ctrl-C in the terminal ends cargo, too, and its end may be noticed first.
        Err(why) => match tokio::time::timeout(SIGNAL_AFTER_CARGO, stopping.stopped()).await {
            Ok(_) => Ok(None),
            Err(_) => Err(why),
        },
    }
}

/// Says what Azure would do otherwise than the configuration may hope, or devhost otherwise than Azure.
fn warn(functions: &[Function], host: &HostJson) {
    if host.service_bus.prefetch_count > 0 {
        console::warning(
            "host.json: `prefetchCount` has no effect here, for devhost does not prefetch",
        );
    }
    if !host.service_bus.auto_complete_messages {
        console::warning(
            "host.json: with `autoCompleteMessages` false nobody completes a message of a custom handler",
        );
    }
    for function in functions {
        let by_setting = function.disabled && function.config["disabled"] != true;
        if by_setting && function.name.contains('-') {
            console::warning(format_args!(
                "{} is disabled by a setting; in Azure on Linux that does not work for a name with a hyphen",
                function.name
            ));
        }
    }
}

/// The handler is built unless a setting names another executable, or there is nothing to build.
async fn build_handler(app: &Path, host: &HostJson) -> Result<Option<PathBuf>, String> {
    if host.custom_handler.executable_is_overridden || !app.join("Cargo.toml").is_file() {
        return Ok(None);
    }
    let path = Path::new(&host.custom_handler.default_executable_path);
    let package = path.file_stem().unwrap_or_default().to_string_lossy();
    cargo_build::build(app, &package).await.map(Some)
}

/// The file that the flag names, or else the app's; an app without one has an empty namespace.
fn read_topology(app: &Path, flag: Option<&Path>) -> Result<Topology, String> {
    let file = flag.map_or_else(|| app.join(TOPOLOGY), Path::to_owned);
    if flag.is_some() || file.is_file() {
        Topology::read(&file).map_err(|error| error.to_string())
    } else {
        Ok(Topology {
            queues: Vec::new(),
            topics: Vec::new(),
        })
    }
}

/// Every trigger's entity must exist.
fn check_entities(
    functions: &[Function],
    topology: &Topology,
    flag: Option<&Path>,
) -> Result<(), String> {
    for function in functions {
        if let Trigger::ServiceBus(trigger) = &function.trigger
            && max_delivery_count(topology, &trigger.entity).is_none()
        {
            return Err(format!(
                "{}/function.json: the messaging entity `{}` could not be found: {} has no such queue or \
                 subscription; --topology names another file",
                function.name,
                trigger.entity,
                flag.unwrap_or(Path::new(TOPOLOGY)).display()
            ));
        }
    }
    Ok(())
}

/// The maximum delivery count of a queue or subscription; a dead-letter queue has none that is ever reached.
fn max_delivery_count(topology: &Topology, entity: &EntityPath) -> Option<u32> {
    let subscriptions = topology.topics.iter().flat_map(|topic| {
        topic.subscriptions.iter().map(|subscription| {
            let path = format!("{}/Subscriptions/{}", topic.name, subscription.queue.name);
            (path, &subscription.queue)
        })
    });
    let queues = topology
        .queues
        .iter()
        .map(|queue| (queue.name.clone(), queue));
    let (_, queue) = queues
        .chain(subscriptions)
        .find(|(path, _)| path.eq_ignore_ascii_case(entity.entity()))?;
    Some(if entity.is_dead_letter() {
        u32::MAX
    } else {
        queue.max_delivery_count
    })
}

/// Says when the bus cannot store messages and when it can again, and stops devhost if the bus has ended by a fault.
async fn watch(bus: ServiceBus, stopping: Stopping) {
    let mut store_failure = bus.store_failure();
    while store_failure.changed().await.is_ok() {
        match store_failure.borrow_and_update().as_deref() {
            Some(reason) => console::error(format_args!("The bus cannot store messages: {reason}")),
            None => console::info("The bus stores messages again."),
        }
    }
    let words = "the bus ended by a fault of its own; what it has answered is in the data folder";
    stopping.stop(Reason::HostStopped(words.to_owned()));
}

fn listen(
    function: &Function,
    topology: &Topology,
    host: &HostJson,
    receiver_of: &impl Fn(EntityPath) -> Receiver,
    invoker: &Arc<Invoker>,
    stopping: &Stopping,
) {
    let Trigger::ServiceBus(trigger) = &function.trigger else {
        return;
    };
    if function.disabled {
        return;
    }
    let pump = Pump {
        function: function.name.clone(),
        trigger: trigger.clone(),
        max_delivery_count: max_delivery_count(topology, &trigger.entity).unwrap_or(u32::MAX),
        options: host.service_bus.clone(),
        receiver: receiver_of(trigger.entity.clone()),
        invoker: Arc::clone(invoker),
        stopping: stopping.clone(),
    };
    tokio::spawn(pump.run());
}

/// The four listeners: functions, the two of the bus, and the outside world.
struct Doors {
    functions: CuttableListener,
    bus: CuttableListener,
    amqp: CuttableListener,
    outside: CuttableListener,
}

/// What is served behind them.
struct Rooms<'a> {
    functions: &'a [Function],
    host: &'a HostJson,
    invoker: &'a Arc<Invoker>,
    timers: &'a [Arc<Timer>],
    bus: &'a ServiceBus,
    journals: Journals,
    stand_ins: &'a StandIns,
    started: Instant,
    stopping: &'a Stopping,
}

impl Doors {
    async fn open(arguments: &Arguments) -> Result<Self, String> {
        Ok(Self {
            functions: bind(arguments.port, "--port").await?,
            bus: bind(arguments.bus_port, "--bus-port").await?,
            amqp: bind(arguments.amqp_port, "--amqp-port").await?,
            outside: bind_any("the stand-ins").await?,
        })
    }

    fn ports(&self) -> Ports {
        Ports {
            functions: self.functions.port(),
            bus: self.bus.port(),
            amqp: self.amqp.port(),
            outside: self.outside.port(),
        }
    }

    fn serve(self, rooms: &Rooms<'_>) -> JoinHandle<()> {
        let journals = &rooms.journals;
        let faults = Faults::default();
        let outside = acs::router(Arc::clone(&journals.emails))
            .merge(square::router(Arc::clone(&journals.square)))
            .merge(vendors::router(
                rooms.stand_ins.vendors.clone(),
                Arc::clone(&journals.webhooks),
            ))
            .layer(middleware::from_fn_with_state(faults.clone(), on_outside))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&journals.square),
                square::counted,
            ))
            // Faults are for those whom orders depend on.
            .merge(traces::router(Arc::clone(&journals.traces)));
        let policy = stand_ins::bus_policy();
        let worker = rooms.invoker.worker.clone();
        // On the port of AMQP, too, but for the faults, which cut connections of their own listener.
        let administration = rest::router(rooms.bus.clone(), policy.clone());
        tokio::spawn(amqp::serve(
            self.amqp.into_inner(),
            rooms.bus.clone(),
            policy.clone(),
            amqp::Limits::default(),
            administration,
            async move { worker.ended().await },
        ));
        let bus = rest::router(rooms.bus.clone(), policy)
            .layer(middleware::from_fn_with_state(faults.clone(), on_bus));
        let prefix = &rooms.host.route_prefix;
        let front_door = Arc::new(FrontDoor::new(
            rooms.functions,
            prefix,
            rooms.host.custom_handler.http_mode,
            Arc::clone(rooms.invoker),
        ));
        let own_pages = admin::router(admin::Admin {
            functions: rooms.functions.to_vec(),
            invoker: Arc::clone(rooms.invoker),
            timers: rooms.timers.to_vec(),
            started: rooms.started,
            base_url: banner::base_url(prefix, self.functions.port()),
        })
        .merge(dev_api::router(dev_api::Dev {
            journals: journals.clone(),
            bus: rooms.bus.clone(),
            faults,
            timers: rooms.timers.to_vec(),
            vendors: rooms
                .stand_ins
                .vendors
                .iter()
                .map(|vendor| vendor.id.clone())
                .collect(),
            own_email: rooms.stand_ins.own_email,
            has_own_till: rooms.stand_ins.has_own_till,
            has_own_vendors: rooms.stand_ins.generated.is_none(),
        }))
        .layer(middleware::from_fn(local_only));
        let functions = Router::new()
            .fallback(move |request: Request| front_door.answer(request))
            .merge(own_pages);
        let stopping = rooms.stopping.clone();
        let stopped = async move { drop(stopping.stopped().await) };
        let front = tokio::spawn(serve(self.functions, functions, stopped));
        // Invocations that finish while devhost stops still send messages and emails.
        for (listener, router) in [(self.bus, bus), (self.outside, outside)] {
            let worker = rooms.invoker.worker.clone();
            tokio::spawn(serve(listener, router, async move { worker.ended().await }));
        }
        front
    }
}
