//! Decides what stands in for the outside world, and puts it into the handler's settings.
//!
//! The bus is always devhost's own. The email provider, the till and the vendors are stand-ins, and the order book is
//! a folder, unless the user configured their own: a value in the environment, or one in local.settings.json that
//! differs from the example's.

use std::path::{Path, PathBuf};

use servicebus_emulator::rest::SharedAccessPolicy;

use crate::{acs, function_json::CONNECTION, settings::Settings, square, vendors::Vendor};

/// The stand-ins' addresses.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub functions: u16,
    pub bus: u16,
    pub amqp: u16,
    pub outside: u16,
}

/// What was decided.
#[derive(Debug)]
pub struct StandIns {
    /// The vendors of the app's list, also when the handler notifies the user's own.
    pub vendors: Vec<Vendor>,
    /// One line each, saying who gets the emails, the payments and the webhooks, and where the order book is.
    pub lines: Vec<String>,
    /// The setting by which emails go to the user's own provider.
    pub own_email: Option<&'static str>,
    /// Whether payments go to the user's own till, or to none.
    pub has_own_till: bool,
    /// The vendor list that devhost made, and what it made it from; `None` where the user has a list of their own.
    pub generated: Option<Generated>,
}

/// A vendor list with the addresses of the stand-ins.
#[derive(Debug)]
pub struct Generated {
    pub file: PathBuf,
    pub from: PathBuf,
}

/// Any of them, if it is the user's own, means that the email provider is, too.
const EMAIL_SETTINGS: [&str; 6] = [
    "EMAIL_PROVIDER",
    "ACS_CONNECTION_STRING",
    "ACS_ENDPOINT",
    "SMTP_URL",
    "SENDGRID_API_KEY",
    "RESEND_API_KEY",
];

const VENDORS_FILE: &str = "VENDORS_FILE";
const TILL: &str = "TILL";
const ORDER_BOOK: &str = "ORDER_BOOK";

/// The key that the official emulator's documentation uses in place of a secret.
pub const BUS_KEY: &str = "SAS_KEY_VALUE";
/// The name of the policy that goes with it.
pub const BUS_KEY_NAME: &str = "RootManageSharedAccessKey";

/// Both together, as the bus takes them.
pub fn bus_policy() -> SharedAccessPolicy {
    SharedAccessPolicy {
        name: BUS_KEY_NAME.to_owned(),
        key: BUS_KEY.to_owned(),
    }
}

/// Sets what devhost stands in for; the error names the setting or file that is wrong.
pub fn install(
    settings: &mut Settings,
    app: &Path,
    data: &Path,
    ports: Ports,
) -> Result<StandIns, String> {
    settings.remove_starting_with(&format!("{CONNECTION}__"));
    settings.set(
        CONNECTION,
        format!(
            "Endpoint=sb://localhost:{};SharedAccessKeyName={BUS_KEY_NAME};SharedAccessKey={BUS_KEY};UseDevelopmentEmulator=true;",
            ports.amqp
        ),
    );
    settings.set(
        "SERVICEBUS_REST_ENDPOINT",
        format!("http://127.0.0.1:{}", ports.bus),
    );
    // As under `func start`.
    settings.set("AZURE_FUNCTIONS_ENVIRONMENT", "Development");
    settings.set("WEBSITE_HOSTNAME", format!("localhost:{}", ports.functions));
    let own_email = EMAIL_SETTINGS
        .into_iter()
        .find(|name| settings.is_users_own(name));
    let email = match own_email {
        Some(name) => format!("Emails:   go to your own provider, because {name} is yours"),
        None => install_email(settings, ports),
    };
    let has_own_till = settings.is_users_own(TILL);
    let till = if has_own_till {
        format!("Payments: go where {TILL} says, because it is yours")
    } else {
        install_till(settings, ports)
    };
    let order_book = install_order_book(settings, data)?;
    let (vendors, generated) = install_vendors(settings, app, data, ports)?;
    let webhooks = match &generated {
        Some(_) => format!(
            "Webhooks: go to the stand-ins; see http://localhost:{}/_dev/webhooks",
            ports.functions
        ),
        None => {
            format!("Webhooks: go to your own vendors, because {VENDORS_FILE} is yours")
        }
    };
    Ok(StandIns {
        vendors,
        lines: vec![
            email,
            till,
            webhooks,
            order_book,
            install_traces(settings, ports),
        ],
        own_email,
        has_own_till,
        generated,
    })
}

fn install_email(settings: &mut Settings, ports: Ports) -> String {
    settings.remove_starting_with("ACS_ENDPOINT");
    settings.set("EMAIL_PROVIDER", "acs");
    settings.set(
        "ACS_CONNECTION_STRING",
        format!(
            "endpoint=http://127.0.0.1:{}/;accesskey={}",
            ports.outside,
            acs::ACCESS_KEY
        ),
    );
    if settings.get("EMAIL_FROM").is_none_or(str::is_empty) {
        settings.set("EMAIL_FROM", "orders@orderup.example");
    }
    // The stand-in takes whatever comes; ACS itself begins with a hundred emails an hour.
    if settings.get("EMAIL_RATE_LIMIT").is_none_or(str::is_empty) {
        settings.set("EMAIL_RATE_LIMIT", "none");
    }
    format!(
        "Emails:   go to the stand-in; see http://localhost:{}/_dev/emails",
        ports.functions
    )
}

/// Any of them, if it is the user's own, means that telemetry goes elsewhere, or nowhere.
const TRACES_SETTINGS: [&str; 3] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SDK_DISABLED",
];

fn install_traces(settings: &mut Settings, ports: Ports) -> String {
    let own = TRACES_SETTINGS
        .into_iter()
        .find(|name| settings.is_users_own(name));
    if let Some(name) = own {
        return format!("Traces:   go where {name} says, because it is yours");
    }
    settings.set(
        TRACES_SETTINGS[0],
        format!("http://127.0.0.1:{}", ports.outside),
    );
    // Whoever has just placed an order wants to see it.
    let delay = "OTEL_BSP_SCHEDULE_DELAY";
    if settings.get(delay).is_none_or(str::is_empty) {
        settings.set(delay, "100");
    }
    format!(
        "Traces:   go to the stand-in; see http://localhost:{}/_dev/traces",
        ports.functions
    )
}

fn install_till(settings: &mut Settings, ports: Ports) -> String {
    let url = format!("http://127.0.0.1:{}", ports.outside);
    let line = format!(
        "Payments: go to a stand-in of Square at {url}; see http://localhost:{}/_dev/till",
        ports.functions
    );
    settings.set(TILL, "square");
    settings.set("SQUARE_BASE_URL", url);
    settings.set("SQUARE_ACCESS_TOKEN", square::ACCESS_TOKEN);
    settings.set("SQUARE_LOCATION_ID", square::LOCATION_ID);
    line
}

/// A path with a slash is a folder to the handler, and any other value a container of the storage account.
fn install_order_book(settings: &mut Settings, data: &Path) -> Result<String, String> {
    if settings.is_users_own(ORDER_BOOK) {
        return Ok(format!(
            "Orders:   are kept where {ORDER_BOOK} says, because it is yours"
        ));
    }
    let folder = data.join("order-book");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    settings.set(ORDER_BOOK, folder.display().to_string());
    Ok(format!("Orders:   are kept in {}", folder.display()))
}

/// The handler ends at its start without the list, so there has to be one.
fn install_vendors(
    settings: &mut Settings,
    app: &Path,
    data: &Path,
    ports: Ports,
) -> Result<(Vec<Vendor>, Option<Generated>), String> {
    let from = app.join(
        settings
            .get(VENDORS_FILE)
            .filter(|file| !file.is_empty())
            .unwrap_or("vendors.json"),
    );
    let vendors =
        Vendor::read_all(&from, settings).map_err(|why| format!("{VENDORS_FILE}: {why}"))?;
    if settings.is_users_own(VENDORS_FILE) {
        return Ok((vendors, None));
    }
    let entries: Vec<_> = vendors
        .iter()
        .map(|vendor| vendor.entry_at(ports.outside))
        .collect();
    let file = data.join("vendors.generated.json");
    std::fs::write(&file, format!("{:#}\n", serde_json::Value::from(entries)))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    settings.set(VENDORS_FILE, file.display().to_string());
    Ok((vendors, Some(Generated { file, from })))
}
