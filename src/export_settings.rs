//! What is exported, whereto and how: the standard `OTEL_…` settings (OpenTelemetry, "Environment Variable Specification").
//!
//! Read once, at start. Nothing is exported unless an endpoint is set; what is wrong then is told with its name.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use tracing::warn;
use uuid::Uuid;

use crate::{
    config::{ConfigError, Settings},
    otlp::Resource,
    sampler::Sampler,
};

/// All that the exporter has to know.
#[derive(Debug)]
pub struct ExportSettings {
    pub(crate) traces: Option<Endpoint>,
    pub(crate) metrics: Option<Endpoint>,
    pub(crate) resource: Resource,
    pub(crate) sampler: Sampler,
    pub(crate) is_delta: bool,
    /// Spans that wait to be exported.
    pub(crate) queue: usize,
    pub(crate) batch: usize,
    /// The longest that a span waits for others to go with.
    pub(crate) delay: Duration,
    pub(crate) interval: Duration,
}

/// Where one kind is sent.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// For one request and its answer.
    pub(crate) timeout: Duration,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

impl ExportSettings {
    /// Reads the settings, if anything is to be exported. It connects to nothing.
    ///
    /// # Errors
    /// Each setting that is wrong.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, Vec<ConfigError>> {
        let is_disabled = settings.optional("OTEL_SDK_DISABLED");
        if is_disabled.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let mut errors = Vec::new();
        let mut usable = |read| match read {
            Ok(endpoint) => endpoint,
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let traces = usable(Endpoint::from_settings(settings, "TRACES", "v1/traces"));
        let metrics = usable(Endpoint::from_settings(settings, "METRICS", "v1/metrics"));
        if traces.is_none() && metrics.is_none() && errors.is_empty() {
            return Ok(None);
        }
        let read = Self::read(settings, traces, metrics);
        match (read, errors.is_empty()) {
            (Ok(read), true) => Ok(Some(read)),
            (read, _) => {
                errors.extend(read.err());
                errors.dedup();
                Err(errors)
            }
        }
    }

    fn read(
        settings: &Settings,
        traces: Option<Endpoint>,
        metrics: Option<Endpoint>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            traces,
            metrics,
            resource: resource(settings)?,
            sampler: Sampler::from_settings(settings)?,
            is_delta: is_delta(settings)?,
            queue: number(settings, "OTEL_BSP_MAX_QUEUE_SIZE", 2048, 100_000)?,
            batch: number(settings, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 10_000)?,
            delay: milliseconds(settings, "OTEL_BSP_SCHEDULE_DELAY", 5000)?,
            interval: milliseconds(settings, "OTEL_METRIC_EXPORT_INTERVAL", 60_000)?,
        })
    }
}

impl Endpoint {
    /// Of what is called `signal` in the settings; nothing if it goes nowhere.
    fn from_settings(
        settings: &Settings,
        signal: &str,
        path: &str,
    ) -> Result<Option<Self>, ConfigError> {
        let exporter = settings.optional(&format!("OTEL_{signal}_EXPORTER"));
        if exporter.as_deref() == Some("none") {
            return Ok(None);
        }
        let own = |name: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{name}");
        // The setting for both is a base, to which the path is added; that for one of them is the whole.
        let (variable, text) = match settings.optional(&own("ENDPOINT")) {
            Some(text) => (own("ENDPOINT"), text),
            None => match settings.optional(ENDPOINT) {
                Some(text) => (
                    ENDPOINT.to_owned(),
                    format!("{}/{path}", text.trim_end_matches('/')),
                ),
                None => return Ok(None),
            },
        };
        // Known by the standard is not spoken by us. Azure Container Apps sets `grpc` by itself, and others `console` for a
        // whole machine, which must not keep an app from taking orders.
        let unspoken = |why: &str| {
            let signal = signal.to_ascii_lowercase();
            warn!("no {signal} are exported: {why}");
            Ok(None)
        };
        if exporter.is_some_and(|exporter| exporter != "otlp") {
            return unspoken(&format!(
                "OTEL_{signal}_EXPORTER is neither otlp nor none, and there is nothing else"
            ));
        }
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty()
        });
        let url = url.ok_or_else(|| {
            let expected =
                "the http:// or https:// URL of a collector, as in http://localhost:4318";
            ConfigError::invalid(&variable, "that is no URL to export to", expected)
        })?;
        let either = |name: &str| {
            let all = format!("OTEL_EXPORTER_OTLP_{name}");
            [own(name), all]
                .into_iter()
                .find(|variable| settings.optional(variable).is_some())
        };
        let known = |name: &str, known: [&'static str; 3]| {
            let Some(variable) = either(name) else {
                return Ok(known[0]);
            };
            let text = settings.optional(&variable).unwrap_or_default();
            let found = known.into_iter().find(|known| *known == text);
            found
                .ok_or_else(|| ConfigError::invalid(&variable, "it is not known", known.join(", ")))
        };
        let protocol = known("PROTOCOL", ["http/protobuf", "http/json", "grpc"])?;
        if protocol != "http/protobuf" {
            return unspoken(&format!(
                "OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and only http/protobuf is spoken"
            ));
        }
        // Nobody has to compress, whoever is allowed to.
        known("COMPRESSION", ["none", "gzip", "deflate"])?;
        let timeout = either("TIMEOUT").unwrap_or_default();
        Ok(Some(Self {
            url,
            headers: match either("HEADERS") {
                Some(variable) => headers(settings, &variable)?,
                None => HeaderMap::new(),
            },
            timeout: milliseconds(settings, &timeout, 10_000)?,
        }))
    }
}

/// `name=value,…`, each value percent-encoded; no value is told.
fn headers(settings: &Settings, variable: &str) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(settings, variable)? {
        let invalid = || ConfigError::invalid(variable, "a part of it is no header", PAIRS);
        let name: HeaderName = name.parse().map_err(|_| invalid())?;
        let mut value: HeaderValue = value.parse().map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

const PAIRS: &str = "a list as in name=value,name=value, with values percent-encoded";

fn pairs(settings: &Settings, variable: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let text = settings.optional(variable).unwrap_or_default();
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    };
    let pairs: Option<_> = parts.map(pair).collect();
    pairs.ok_or_else(|| ConfigError::invalid(variable, "it is no list of pairs", PAIRS))
}

fn is_delta(settings: &Settings) -> Result<bool, ConfigError> {
    const VARIABLE: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let text = settings
        .optional(VARIABLE)
        .map(|text| text.to_ascii_lowercase());
    match text.as_deref() {
        None | Some("cumulative") => Ok(false),
        // What they differ in is a kind of instrument that we do not have.
        Some("delta" | "lowmemory") => Ok(true),
        Some(_) => Err(ConfigError::invalid(
            VARIABLE,
            "it is not known",
            "cumulative, delta or lowmemory",
        )),
    }
}

fn number(
    settings: &Settings,
    variable: &str,
    default: usize,
    most: usize,
) -> Result<usize, ConfigError> {
    let Some(text) = settings.optional(variable) else {
        return Ok(default);
    };
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| {
        let expected = format!("a whole number from 1 to {most}");
        ConfigError::invalid(variable, "it is out of bounds", expected)
    })
}

fn milliseconds(
    settings: &Settings,
    variable: &str,
    default: usize,
) -> Result<Duration, ConfigError> {
    const A_DAY: usize = 24 * 60 * 60 * 1000;
    let number = number(settings, variable, default, A_DAY)?;
    Ok(Duration::from_millis(number as u64))
}

/// Where an instance finds its own name; the first that is there.
const INSTANCE: [&str; 4] = [
    "WEBSITE_INSTANCE_ID",
    "CONTAINER_APP_REPLICA_NAME",
    "CONTAINER_NAME",
    "HOSTNAME",
];

/// Who we are to those who look at it, by the semantic conventions.
fn resource(settings: &Settings) -> Result<Resource, ConfigError> {
    let platform = match () {
        () if settings.optional("CONTAINER_APP_NAME").is_some() => Some("azure.container_apps"),
        () if settings.optional("WEBSITE_SITE_NAME").is_some() => Some("azure.functions"),
        () => None,
    };
    let mut resource = Resource::new();
    for (name, value) in [
        ("service.name", Some("orderup")),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("cloud.provider", platform.map(|_| "azure")),
        ("cloud.platform", platform),
        ("telemetry.sdk.language", Some("rust")),
        ("telemetry.sdk.name", Some("orderup")),
        ("telemetry.sdk.version", Some(env!("CARGO_PKG_VERSION"))),
    ] {
        resource.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
    for (name, variables) in [
        ("cloud.region", &["REGION_NAME"][..]),
        ("faas.name", &["WEBSITE_SITE_NAME", "CONTAINER_APP_NAME"]),
        ("service.instance.id", &INSTANCE),
    ] {
        let value = variables
            .iter()
            .find_map(|variable| settings.optional(variable));
        let value = match value {
            None if name == "service.instance.id" => Some(Uuid::new_v4().to_string()),
            value => value,
        };
        resource.extend(value.map(|value| (name.to_owned(), value)));
    }
    let name = settings
        .optional("OTEL_SERVICE_NAME")
        .map(|name| ("service.name".to_owned(), name));
    for (name, value) in pairs(settings, "OTEL_RESOURCE_ATTRIBUTES")?
        .into_iter()
        .chain(name)
    {
        resource.retain(|(known, _)| *known != name);
        resource.push((name, value));
    }
    Ok(resource)
}
