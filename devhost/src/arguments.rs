//! The command line.

use std::path::PathBuf;

/// Runs the app on this machine: the handler under a stand-in Functions host, a local Service Bus, and
/// stand-ins for the email provider and the vendors. All of it listens on 127.0.0.1 only.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "devhost", version)]
pub struct Arguments {
    /// The folder of the app, with host.json and one folder per function
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub app: PathBuf,
    /// The queues and topics of the bus [default: servicebus.json in the app's folder]
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Where accepted messages, emails and webhooks are kept, relative to the app's folder
    #[arg(long, value_name = "DIR", default_value = ".orderup")]
    pub data: PathBuf,
    /// The port of the functions; 0 takes any free one
    #[arg(long, default_value_t = 7071)]
    pub port: u16,
    /// The port of Service Bus's REST data plane; 0 takes any free one
    #[arg(long, default_value_t = 5300)]
    pub bus_port: u16,
    /// The port of Service Bus's AMQP 1.0; 0 takes any free one
    #[arg(long, default_value_t = 5672)]
    pub amqp_port: u16,
    /// How the functions' messages are received
    #[arg(long, value_enum, default_value_t = Pump::Direct)]
    pub pump: Pump,
    /// Start with an empty data folder
    #[arg(long)]
    pub fresh: bool,
}

/// What messages are received over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pump {
    /// From the bus, which is in this process
    Direct,
    /// Over AMQP, as the host in Azure receives
    Amqp,
}
