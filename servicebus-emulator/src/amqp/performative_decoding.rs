//! Reads performatives, and the composite types in them, from a frame.
//!
//! Runs for every frame that a client sends. Clients are not exact: rhea sends strings where symbols are due, and every
//! client leaves fields out. So each field is read for what it can only mean, and what the broker does not use
//! (`unsettled`, `dynamic-node-properties`) is dropped. An error means that the peer is told `amqp:decode-error`.

use fe2o3_amqp_types::{
    definitions::{Error, Handle, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{
        Accepted, DeliveryState, DistributionMode, Modified, Outcome, Received, Rejected, Released,
        Source, Target, TargetArchetype, TerminusDurability, TerminusExpiryPolicy,
    },
    performatives::{
        Attach, Begin, ChannelMax, Close, Detach, Disposition, End, Flow, MaxFrameSize, Open,
        Performative, Transfer,
    },
    sasl::SaslInit,
    transaction::{Coordinator, Declared, TransactionalState, TxnCapability},
};
use serde_amqp::{
    Value, from_value,
    primitives::{Array, Symbol},
};

use super::{
    fields::Fields,
    value_decoding::{DecodeError, Reader},
};

use DecodeError::{Missing, Type};

/// The performative at the front of a frame's body; what is left in the reader is its payload.
pub(crate) fn performative(reader: &mut Reader<'_>) -> Result<Performative, DecodeError> {
    let code = reader.descriptor()?;
    let fields = reader.fields()?;
    Ok(match code {
        0x10 => Performative::Open(open(fields)?),
        0x11 => Performative::Begin(begin(fields)?),
        0x12 => Performative::Attach(attach(fields)?),
        0x13 => Performative::Flow(flow(fields)?),
        0x14 => Performative::Transfer(transfer(fields)?),
        0x15 => Performative::Disposition(disposition(fields)?),
        0x16 => Performative::Detach(detach(fields)?),
        0x17 => Performative::End(End {
            error: { fields }.error()?,
        }),
        0x18 => Performative::Close(Close {
            error: { fields }.error()?,
        }),
        _ => return Err(Type("performative")),
    })
}

pub(crate) enum ClientSasl {
    Init(SaslInit),
    Response,
}

/// What a client says while it authenticates.
pub(crate) fn sasl(reader: &mut Reader<'_>) -> Result<ClientSasl, DecodeError> {
    let code = reader.descriptor()?;
    let mut fields = reader.fields()?;
    match code {
        0x41 => Ok(ClientSasl::Init(SaslInit {
            mechanism: Symbol(fields.text("mechanism")?.ok_or(Missing("mechanism"))?),
            initial_response: fields.binary("initial-response")?.map(Into::into),
            hostname: fields.text("hostname")?,
        })),
        0x43 => Ok(ClientSasl::Response),
        _ => Err(Type("sasl frame")),
    }
}

fn open(mut fields: Fields<'_>) -> Result<Open, DecodeError> {
    Ok(Open {
        container_id: fields.text("container-id")?.unwrap_or_default(),
        hostname: fields.text("hostname")?,
        max_frame_size: MaxFrameSize(fields.number("max-frame-size")?.unwrap_or(u32::MAX)),
        channel_max: ChannelMax(fields.number("channel-max")?.unwrap_or(u16::MAX)),
        idle_time_out: fields.number("idle-time-out")?,
        outgoing_locales: fields.symbols("outgoing-locales")?,
        incoming_locales: fields.symbols("incoming-locales")?,
        offered_capabilities: fields.symbols("offered-capabilities")?,
        desired_capabilities: fields.symbols("desired-capabilities")?,
        properties: fields.map("properties")?,
    })
}

fn begin(mut fields: Fields<'_>) -> Result<Begin, DecodeError> {
    Ok(Begin {
        remote_channel: fields.number("remote-channel")?,
        next_outgoing_id: fields
            .number("next-outgoing-id")?
            .ok_or(Missing("next-outgoing-id"))?,
        incoming_window: fields
            .number("incoming-window")?
            .ok_or(Missing("incoming-window"))?,
        outgoing_window: fields
            .number("outgoing-window")?
            .ok_or(Missing("outgoing-window"))?,
        handle_max: Handle(fields.number("handle-max")?.unwrap_or(u32::MAX)),
        offered_capabilities: fields.symbols("offered-capabilities")?,
        desired_capabilities: fields.symbols("desired-capabilities")?,
        properties: fields.map("properties")?,
    })
}

fn attach(mut fields: Fields<'_>) -> Result<Attach, DecodeError> {
    Ok(Attach {
        name: fields.text("name")?.ok_or(Missing("name"))?,
        handle: fields.handle()?.ok_or(Missing("handle"))?,
        role: fields.role()?,
        snd_settle_mode: match fields.number("snd-settle-mode")? {
            Some(0u8) => SenderSettleMode::Unsettled,
            Some(1) => SenderSettleMode::Settled,
            Some(2) | None => SenderSettleMode::Mixed,
            Some(_) => return Err(Type("snd-settle-mode")),
        },
        rcv_settle_mode: fields.receiver_settle_mode()?.unwrap_or_default(),
        source: fields.source()?.map(Box::new),
        target: fields.target()?.map(Box::new),
        // Deliveries are not resumed: what a link had not settled when it went is the broker's.
        unsettled: {
            fields.value()?;
            None
        },
        incomplete_unsettled: fields.flag("incomplete-unsettled")?.unwrap_or_default(),
        initial_delivery_count: fields.number("initial-delivery-count")?,
        max_message_size: fields.number("max-message-size")?,
        offered_capabilities: fields.symbols("offered-capabilities")?,
        desired_capabilities: fields.symbols("desired-capabilities")?,
        properties: fields.map("properties")?,
    })
}

fn flow(mut fields: Fields<'_>) -> Result<Flow, DecodeError> {
    Ok(Flow {
        next_incoming_id: fields.number("next-incoming-id")?,
        incoming_window: fields
            .number("incoming-window")?
            .ok_or(Missing("incoming-window"))?,
        next_outgoing_id: fields
            .number("next-outgoing-id")?
            .ok_or(Missing("next-outgoing-id"))?,
        outgoing_window: fields
            .number("outgoing-window")?
            .ok_or(Missing("outgoing-window"))?,
        handle: fields.handle()?,
        delivery_count: fields.number("delivery-count")?,
        link_credit: fields.number("link-credit")?,
        available: fields.number("available")?,
        drain: fields.flag("drain")?.unwrap_or_default(),
        echo: fields.flag("echo")?.unwrap_or_default(),
        properties: fields.map("properties")?,
    })
}

fn transfer(mut fields: Fields<'_>) -> Result<Transfer, DecodeError> {
    Ok(Transfer {
        handle: fields.handle()?.ok_or(Missing("handle"))?,
        delivery_id: fields.number("delivery-id")?,
        delivery_tag: fields.binary("delivery-tag")?.map(Into::into),
        message_format: fields.number("message-format")?,
        settled: fields.flag("settled")?,
        more: fields.flag("more")?.unwrap_or_default(),
        rcv_settle_mode: fields.receiver_settle_mode()?,
        state: fields.state()?,
        resume: fields.flag("resume")?.unwrap_or_default(),
        aborted: fields.flag("aborted")?.unwrap_or_default(),
        batchable: fields.flag("batchable")?.unwrap_or_default(),
    })
}

fn disposition(mut fields: Fields<'_>) -> Result<Disposition, DecodeError> {
    Ok(Disposition {
        role: fields.role()?,
        first: fields.number("first")?.ok_or(Missing("first"))?,
        last: fields.number("last")?,
        settled: fields.flag("settled")?.unwrap_or_default(),
        state: fields.state()?,
        batchable: fields.flag("batchable")?.unwrap_or_default(),
    })
}

fn detach(mut fields: Fields<'_>) -> Result<Detach, DecodeError> {
    Ok(Detach {
        handle: fields.handle()?.ok_or(Missing("handle"))?,
        closed: fields.flag("closed")?.unwrap_or_default(),
        error: fields.error()?,
    })
}

/// What performatives have in common.
impl Fields<'_> {
    fn handle(&mut self) -> Result<Option<Handle>, DecodeError> {
        Ok(self.number("handle")?.map(Handle))
    }

    fn role(&mut self) -> Result<Role, DecodeError> {
        Ok(match self.flag("role")?.ok_or(Missing("role"))? {
            false => Role::Sender,
            true => Role::Receiver,
        })
    }

    fn receiver_settle_mode(&mut self) -> Result<Option<ReceiverSettleMode>, DecodeError> {
        Ok(match self.number("rcv-settle-mode")? {
            None => None,
            Some(0u8) => Some(ReceiverSettleMode::First),
            Some(1) => Some(ReceiverSettleMode::Second),
            Some(_) => return Err(Type("rcv-settle-mode")),
        })
    }

    fn durability(&mut self) -> Result<TerminusDurability, DecodeError> {
        Ok(match self.number("durable")? {
            None | Some(0u8) => TerminusDurability::None,
            Some(1) => TerminusDurability::Configuration,
            Some(2) => TerminusDurability::UnsettledState,
            Some(_) => return Err(Type("durable")),
        })
    }

    fn expiry_policy(&mut self) -> Result<TerminusExpiryPolicy, DecodeError> {
        Ok(match self.text("expiry-policy")?.as_deref() {
            None | Some("session-end") => TerminusExpiryPolicy::SessionEnd,
            Some("link-detach") => TerminusExpiryPolicy::LinkDetach,
            Some("connection-close") => TerminusExpiryPolicy::ConnectionClose,
            Some("never") => TerminusExpiryPolicy::Never,
            Some(_) => return Err(Type("expiry-policy")),
        })
    }

    fn source(&mut self) -> Result<Option<Source>, DecodeError> {
        let Some((code, mut fields)) = self.composite()? else {
            return Ok(None);
        };
        if code != 0x28 {
            return Err(Type("source"));
        }
        Ok(Some(Source {
            address: fields.text("address")?,
            durable: fields.durability()?,
            expiry_policy: fields.expiry_policy()?,
            timeout: fields.number("timeout")?.unwrap_or_default(),
            dynamic: fields.flag("dynamic")?.unwrap_or_default(),
            dynamic_node_properties: {
                fields.value()?;
                None
            },
            distribution_mode: match fields.text("distribution-mode")?.as_deref() {
                None => None,
                Some("move") => Some(DistributionMode::Move),
                Some("copy") => Some(DistributionMode::Copy),
                Some(_) => return Err(Type("distribution-mode")),
            },
            filter: fields.map("filter")?,
            default_outcome: fields.outcome()?,
            outcomes: fields.symbols("outcomes")?,
            capabilities: fields.symbols("capabilities")?,
        }))
    }

    fn target(&mut self) -> Result<Option<TargetArchetype>, DecodeError> {
        let Some((code, mut fields)) = self.composite()? else {
            return Ok(None);
        };
        Ok(Some(match code {
            0x29 => TargetArchetype::Target(Target {
                address: fields.text("address")?,
                durable: fields.durability()?,
                expiry_policy: fields.expiry_policy()?,
                timeout: fields.number("timeout")?.unwrap_or_default(),
                dynamic: fields.flag("dynamic")?.unwrap_or_default(),
                dynamic_node_properties: {
                    fields.value()?;
                    None
                },
                capabilities: fields.symbols("capabilities")?,
            }),
            0x30 => TargetArchetype::Coordinator(Coordinator {
                capabilities: fields.transaction_capabilities()?,
            }),
            _ => return Err(Type("target")),
        }))
    }

    /// Those that are not known are left out.
    fn transaction_capabilities(&mut self) -> Result<Option<Array<TxnCapability>>, DecodeError> {
        let symbols = self.symbols("capabilities")?;
        Ok(symbols.map(|Array(symbols)| {
            let known = symbols
                .iter()
                .filter_map(|symbol| TxnCapability::try_from(symbol.as_str()).ok());
            Array(known.collect())
        }))
    }

    fn state(&mut self) -> Result<Option<DeliveryState>, DecodeError> {
        let Some((code, mut fields)) = self.composite()? else {
            return Ok(None);
        };
        Ok(Some(match code {
            0x23 => DeliveryState::Received(Received {
                section_number: fields.number("section-number")?.unwrap_or_default(),
                section_offset: fields.number("section-offset")?.unwrap_or_default(),
            }),
            0x34 => DeliveryState::TransactionalState(TransactionalState {
                txn_id: fields.binary("txn-id")?.ok_or(Missing("txn-id"))?.into(),
                outcome: fields.outcome()?,
            }),
            code => outcome(code, fields)?.into(),
        }))
    }

    fn outcome(&mut self) -> Result<Option<Outcome>, DecodeError> {
        match self.composite()? {
            None => Ok(None),
            Some((code, fields)) => outcome(code, fields).map(Some),
        }
    }

    fn error(&mut self) -> Result<Option<Error>, DecodeError> {
        let Some((code, mut fields)) = self.composite()? else {
            return Ok(None);
        };
        if code != 0x1d {
            return Err(Type("error"));
        }
        let condition = fields.text("condition")?.ok_or(Missing("condition"))?;
        Ok(Some(Error {
            condition: from_value(Value::Symbol(Symbol(condition)))
                .map_err(|_| Type("condition"))?,
            description: fields.text("description")?,
            info: fields.map("info")?.map(Box::new),
        }))
    }
}

fn outcome(code: u64, mut fields: Fields<'_>) -> Result<Outcome, DecodeError> {
    Ok(match code {
        0x24 => Outcome::Accepted(Accepted {}),
        0x25 => Outcome::Rejected(Rejected {
            error: fields.error()?,
        }),
        0x26 => Outcome::Released(Released {}),
        0x27 => Outcome::Modified(Modified {
            delivery_failed: fields.flag("delivery-failed")?,
            undeliverable_here: fields.flag("undeliverable-here")?,
            message_annotations: fields.map("message-annotations")?,
        }),
        0x33 => Outcome::Declared(Declared {
            txn_id: fields.binary("txn-id")?.ok_or(Missing("txn-id"))?.into(),
        }),
        _ => return Err(Type("delivery state")),
    })
}
