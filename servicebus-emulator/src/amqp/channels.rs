//! The sessions of an open connection, by channel.
//!
//! Frames go to the session of their channel, and what has come of the work that they caused goes back to it. Channels have
//! the same number in both directions.

use std::collections::BTreeMap;

use bytes::Bytes;
use fe2o3_amqp_types::performatives::{Begin, End, Performative};

use super::{
    address::Node,
    errors::{FRAMING_ERROR, NOT_ALLOWED, Refusal},
    frame::{Frame, FrameBody},
    outgoing_link::Source,
    session::Session,
    work::{Context, Done, LinkId},
};

/// What comes after a frame.
pub(crate) enum Next {
    Frame,
    /// The client has closed the connection, or has to be told why it is closed.
    Close(Option<Refusal>),
}

pub(crate) struct Channels {
    pub(crate) context: Context,
    sessions: BTreeMap<u16, Session>,
}

impl Channels {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, frame: Frame) -> Next {
        let channel = frame.channel;
        let (performative, payload) = match frame.body {
            FrameBody::Empty => return Next::Frame,
            FrameBody::Amqp {
                performative,
                payload,
            } => (performative, payload),
            FrameBody::SaslInit(_) | FrameBody::SaslResponse => {
                return refuse(
                    FRAMING_ERROR,
                    "a SASL frame on an open connection".to_owned(),
                );
            }
        };
        match performative {
            Performative::Close(_) => return Next::Close(None),
            Performative::Open(_) => {
                return refuse(NOT_ALLOWED, "the connection is open already".to_owned());
            }
            Performative::Begin(begin) => return self.begin(channel, &begin),
            _ => {}
        }
        let Some(session) = self.sessions.get_mut(&channel) else {
            return refuse(NOT_ALLOWED, format!("channel {channel} has no session"));
        };
        if let Performative::End(_) = performative {
            let answer = !session.is_ended();
            session.flush(&mut self.context);
            session.close(&mut self.context);
            self.sessions.remove(&channel);
            if answer {
                let end = Performative::End(End { error: None });
                self.context.send(channel, &end, &[]);
            }
        } else {
            session.take(performative, &payload, &mut self.context);
        }
        Next::Frame
    }

    fn begin(&mut self, channel: u16, begin: &Begin) -> Next {
        if self.sessions.contains_key(&channel) {
            return refuse(
                NOT_ALLOWED,
                format!("channel {channel} has a session already"),
            );
        }
        let most = self.context.shared.limits.max_channel;
        if channel > most {
            return refuse(
                NOT_ALLOWED,
                format!("a connection has channels up to {most}"),
            );
        }
        let session = Session::begin(channel, begin, &mut self.context);
        self.sessions.insert(channel, session);
        Next::Frame
    }

    /// Something that was under way is done.
    pub(crate) fn done(&mut self, done: Done) {
        let (sessions, context) = (&mut self.sessions, &mut self.context);
        match done {
            Done::Attach(id, admitted) => {
                if let Some(session) = sessions.get_mut(&id.channel) {
                    session.attached(id, admitted, context);
                }
            }
            Done::Delivery(id, delivery, state) => {
                if let Some(session) = sessions.get_mut(&id.channel) {
                    session.delivered(id, delivery, state, context);
                }
            }
            Done::Settlement {
                channel,
                session,
                delivery,
                state,
            } => {
                if let Some(here) = sessions.get_mut(&channel)
                    && here.is(session)
                {
                    here.settled(delivery, state, context);
                }
            }
            Done::Received(id, received) => {
                if let Some(session) = sessions.get_mut(&id.channel) {
                    session.received(id, received, context);
                }
            }
            Done::Answer {
                request,
                node,
                reply_to,
                payload,
            } => self.answer(request, &node, reply_to.as_deref(), payload),
            Done::Nothing => {}
        }
    }

    /// Sends an answer on the link that the request names. Where it names none that there is, on the one in the session of
    /// the request that is attached to the same node: the Python client expects it there.
    fn answer(&mut self, request: LinkId, node: &Node, reply_to: Option<&str>, payload: Bytes) {
        let is_for = |source: &Source, by_name: bool| match source {
            Source::Answers {
                node: from,
                reply_to: name,
            } => from == node && (!by_name || Some(name.as_str()) == reply_to),
            Source::Entity { .. } => false,
        };
        let find = |session: &mut Session, by_name| {
            session
                .answer_link(|source| is_for(source, by_name))
                .map(|link| link.id)
        };
        let sessions = &mut self.sessions;
        let mut here = |by_name| {
            let session = sessions.get_mut(&request.channel)?;
            find(session, by_name)
        };
        let link = here(true)
            .or_else(|| {
                self.sessions
                    .values_mut()
                    .find_map(|session| find(session, true))
            })
            .or_else(|| find(self.sessions.get_mut(&request.channel)?, false));
        if let Some(link) = link
            && let Some(session) = self.sessions.get_mut(&link.channel)
        {
            session.answer(link.handle, payload, &mut self.context);
        }
    }

    /// Says what has been settled and not been said yet.
    pub(crate) fn flush(&mut self) {
        for session in self.sessions.values_mut() {
            session.flush(&mut self.context);
        }
    }

    /// Has links go on that had to wait for the client to read.
    pub(crate) fn go_on(&mut self) {
        if !self.context.stalled || self.context.is_full() {
            return;
        }
        self.context.stalled = false;
        for session in self.sessions.values_mut() {
            session.go_on(&mut self.context);
        }
    }

    /// The connection ends.
    pub(crate) fn close(&mut self) {
        for session in self.sessions.values_mut() {
            session.close(&mut self.context);
        }
        self.sessions.clear();
    }
}

fn refuse(condition: &'static str, description: String) -> Next {
    Next::Close(Some(Refusal::new(condition, description)))
}
