//! The management API: queues, topics, subscriptions and rules over HTTP, as ATOM entries and feeds.
//!
//! It is asked for every path that is not the data plane's, once the signature has been verified, and speaks what the
//! administration clients of the SDKs and explorers speak. `PUT` creates; with an `If-Match` header it replaces
//! what exists. The headers with tokens for the targets of forwarding are taken and not looked at: there is one policy, and
//! who signs with it may do everything.
//! <https://learn.microsoft.com/rest/api/servicebus/entities>

use axum::{
    body::Body,
    http::{
        HeaderName, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, IF_MATCH},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::{
    EntityPath, ServiceBus,
    atom_entries::{self, Place},
    atom_request,
    atom_xml::bad_request,
    body,
    description::Kind,
    rest_error::RestError,
    sas,
};

/// The largest body, in bytes: that of a message in the Standard tier.
const LARGEST_BODY: usize = 262_144;

/// How many entries a page has at most.
const LARGEST_PAGE: usize = 100;

/// What the path of a request addresses.
enum Resource {
    Namespace,
    Entities(Kind),
    QueueOrTopic(EntityPath),
    Subscription {
        topic: String,
        name: String,
        path: EntityPath,
    },
    Rules(EntityPath),
    Rule {
        subscription: EntityPath,
        name: String,
    },
}

/// Answers a request of the management API; `since` is when the namespace was opened.
pub(crate) async fn answer(
    bus: &ServiceBus,
    head: &Parts,
    body: Body,
    host: &str,
    since: Timestamp,
) -> Result<Response, RestError> {
    let place = Place {
        host: host.to_owned(),
        limits: bus.limits(),
    };
    let resource = resource(&head.uri)?;
    let request = Request {
        bus,
        head,
        place,
        since,
    };
    match head.method {
        Method::GET => request.get(resource).await,
        Method::PUT => request.put(resource, body).await,
        Method::DELETE => request.delete(resource).await,
        ref method => Err(not_allowed(method)),
    }
}

struct Request<'a> {
    bus: &'a ServiceBus,
    head: &'a Parts,
    place: Place,
    since: Timestamp,
}

impl Request<'_> {
    async fn get(&self, resource: Resource) -> Result<Response, RestError> {
        match resource {
            Resource::Namespace => Ok(entry(
                StatusCode::OK,
                atom_entries::namespace(&self.place, self.since),
            )),
            Resource::Entities(kind) => {
                let (skip, most) = page(&self.head.uri)?;
                let list = match &kind {
                    Kind::Queues => "$Resources/queues".to_owned(),
                    Kind::Topics => "$Resources/topics".to_owned(),
                    Kind::SubscriptionsOf(topic) => format!("{topic}/Subscriptions"),
                };
                let mut found = self.bus.describe_all(kind, skip, most + 1).await?;
                let next = (found.len() > most).then(|| next_page(&list, skip, most));
                found.truncate(most);
                let feed = atom_entries::entities(&self.place, &list, &found, next.as_deref());
                Ok(feed_response(feed))
            }
            Resource::QueueOrTopic(path) | Resource::Subscription { path, .. } => {
                let described = self.bus.describe(&path).await?;
                Ok(entry(
                    StatusCode::OK,
                    atom_entries::entity(&self.place, &described),
                ))
            }
            Resource::Rules(subscription) => {
                let (skip, most) = page(&self.head.uri)?;
                let rules = self.bus.rules(&subscription).await?;
                let rest = rules.get(skip..).unwrap_or_default();
                let subscription = subscription.to_string();
                let list = format!("{subscription}/Rules");
                let next = (rest.len() > most).then(|| next_page(&list, skip, most));
                let rest = &rest[..most.min(rest.len())];
                Ok(feed_response(atom_entries::rules(
                    &self.place,
                    &list,
                    &subscription,
                    rest,
                    next.as_deref(),
                )))
            }
            Resource::Rule { subscription, name } => {
                let rules = self.bus.rules(&subscription).await?;
                let wanted = name.to_lowercase();
                let rule = rules
                    .iter()
                    .find(|rule| rule.name.to_lowercase() == wanted)
                    .ok_or_else(|| {
                        RestError::entity_not_found(&format!("{subscription}/Rules/{name}"))
                    })?;
                let subscription = subscription.to_string();
                Ok(entry(
                    StatusCode::OK,
                    atom_entries::rule(&self.place, &subscription, rule),
                ))
            }
        }
    }

    async fn put(&self, resource: Resource, body: Body) -> Result<Response, RestError> {
        let body = read(body).await?;
        let updates = self.head.headers.contains_key(IF_MATCH);
        let status = if updates {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        let description = match resource {
            Resource::QueueOrTopic(path) => atom_request::queue_or_topic(&body, path.entity())?,
            Resource::Subscription { topic, name, .. } => {
                atom_request::subscription(&body, &topic, &name)?
            }
            Resource::Rule { subscription, name } => {
                let rule = atom_request::rule(&body, &name)?;
                let rule = if updates {
                    self.bus.update_rule(&subscription, rule).await?
                } else {
                    self.bus.add_rule(&subscription, rule).await?
                };
                let subscription = subscription.to_string();
                let rule = atom_entries::rule(&self.place, &subscription, &rule);
                return Ok(entry(status, rule));
            }
            Resource::Namespace | Resource::Entities(_) | Resource::Rules(_) => {
                return Err(not_allowed(&Method::PUT));
            }
        };
        let described = if updates {
            self.bus.update(description).await?
        } else {
            self.bus.create(description).await?
        };
        Ok(entry(status, atom_entries::entity(&self.place, &described)))
    }

    async fn delete(&self, resource: Resource) -> Result<Response, RestError> {
        match resource {
            Resource::QueueOrTopic(path) | Resource::Subscription { path, .. } => {
                self.bus.delete(&path).await?;
            }
            Resource::Rule { subscription, name } => {
                self.bus.remove_rule(&subscription, &name).await?;
            }
            Resource::Namespace | Resource::Entities(_) | Resource::Rules(_) => {
                return Err(not_allowed(&Method::DELETE));
            }
        }
        Ok(StatusCode::OK.into_response())
    }
}

fn resource(uri: &Uri) -> Result<Resource, RestError> {
    let not_found = || RestError::entity_not_found(uri.path().trim_matches('/'));
    let segments = sas::segments(uri.path());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let path = |segments: &[&str]| {
        let path: Result<EntityPath, _> = segments.join("/").parse();
        path.ok()
            .filter(|path| !path.is_dead_letter())
            .ok_or_else(not_found)
    };
    match segments[..] {
        [only] if is(only, "$namespaceinfo") => Ok(Resource::Namespace),
        [list, kind] if is(list, "$Resources") => match kind.to_ascii_lowercase().as_str() {
            "queues" => Ok(Resource::Entities(Kind::Queues)),
            "topics" => Ok(Resource::Entities(Kind::Topics)),
            _ => Err(not_found()),
        },
        [ref subscription @ .., rules] if is(rules, "Rules") && is_subscription(subscription) => {
            Ok(Resource::Rules(path(subscription)?))
        }
        [ref subscription @ .., rules, name]
            if is(rules, "Rules") && is_subscription(subscription) =>
        {
            Ok(Resource::Rule {
                subscription: path(subscription)?,
                name: name.to_owned(),
            })
        }
        [ref topic @ .., list] if is(list, "Subscriptions") && !topic.is_empty() => {
            let topic = path(topic)?.entity().to_owned();
            Ok(Resource::Entities(Kind::SubscriptionsOf(topic)))
        }
        [ref topic @ .., _, name] if is_subscription(&segments) => Ok(Resource::Subscription {
            topic: path(topic)?.entity().to_owned(),
            name: name.to_owned(),
            path: path(&segments)?,
        }),
        [] => Err(not_found()),
        _ => Ok(Resource::QueueOrTopic(path(&segments)?)),
    }
}

/// Whether these are `{topic}/Subscriptions/{subscription}`.
fn is_subscription(segments: &[&str]) -> bool {
    matches!(segments, [_, .., word, _] if word.eq_ignore_ascii_case("Subscriptions"))
}

/// `$skip` and `$top` of the query.
fn page(uri: &Uri) -> Result<(usize, usize), RestError> {
    let number = |wanted: &str, default: usize| {
        let pairs = uri.query().unwrap_or_default().split('&');
        let value = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| {
                let name = percent_decode_str(name).decode_utf8_lossy();
                name.eq_ignore_ascii_case(wanted)
            });
        match value {
            None => Ok(default),
            Some((_, value)) => value.parse().map_err(|_| {
                bad_request(format!(
                    "The value of the query parameter {wanted} is not a number."
                ))
            }),
        }
    };
    let most = number("$top", LARGEST_PAGE)?.clamp(1, LARGEST_PAGE);
    Ok((number("$skip", 0)?, most))
}

fn next_page(list: &str, skip: usize, most: usize) -> String {
    format!("{list}?$skip={}&$top={most}", skip + most)
}

async fn read(body: Body) -> Result<String, RestError> {
    let bytes = body::read(body, LARGEST_BODY).await?.ok_or_else(|| {
        RestError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body of the request is larger than {LARGEST_BODY} bytes."),
        )
    })?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| bad_request("The body of the request is not UTF-8."))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

fn entry(status: StatusCode, xml: String) -> Response {
    respond(status, "application/atom+xml;type=entry;charset=utf-8", xml)
}

fn feed_response(xml: String) -> Response {
    let content_type = "application/atom+xml;type=feed;charset=utf-8";
    respond(StatusCode::OK, content_type, xml)
}

fn respond(status: StatusCode, content_type: &'static str, xml: String) -> Response {
    let headers: [(HeaderName, &str); 1] = [(CONTENT_TYPE, content_type)];
    (status, headers, xml).into_response()
}

fn not_allowed(method: &Method) -> RestError {
    RestError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("The specified HTTP verb ({method}) is not valid."),
    )
}
