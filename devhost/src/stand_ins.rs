//! Decides what stands in for the outside world, and puts it into the handler's settings.
//!
//! The bus is always devhost's own. The email provider and the vendors are stand-ins unless the user configured
//! their own: a value in the environment, or one in local.settings.json that differs from the example's.

use std::path::{Path, PathBuf};

use crate::{acs, function_json::CONNECTION, settings::Settings, vendors::Vendor};

/// The stand-ins' addresses.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub functions: u16,
    pub bus: u16,
    pub outside: u16,
}

/// What was decided.
#[derive(Debug)]
pub struct StandIns {
    /// The vendors of the app's list, also when the handler notifies the user's own.
    pub vendors: Vec<Vendor>,
    /// One line each, saying who gets the emails and the webhooks.
    pub lines: Vec<String>,
    /// The setting by which emails go to the user's own provider.
    pub own_email: Option<&'static str>,
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

/// The key that the official emulator's documentation uses in place of a secret.
pub const BUS_KEY: &str = "SAS_KEY_VALUE";
/// The name of the policy that goes with it.
pub const BUS_KEY_NAME: &str = "RootManageSharedAccessKey";

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
            "Endpoint=sb://localhost;SharedAccessKeyName={BUS_KEY_NAME};SharedAccessKey={BUS_KEY};UseDevelopmentEmulator=true;"
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
        lines: vec![email, webhooks],
        own_email,
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
