//! The figures that tell how the shop is doing: counted here, exported every minute ([`crate::otlp_export`]).
//!
//! Where nothing is exported, each call costs a comparison. Label values are words from lists that the code or the settings hold, so
//! that there is a bounded number of series; more than that are not kept, which is told once for each figure.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tracing::warn;

use crate::{span::unix_nanos, telemetry};

/// Of one figure: far more than there can be of a shop's providers and vendors. What is beyond is not counted.
const MOST_SERIES: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    Accepted,
    Refused,
    Notifications,
    Dead,
    NotificationAge,
    OutboxWaiting,
    OutboxOldestAge,
    BreakerOpen,
    ProviderDuration,
    BusSendDuration,
    Dropped,
}

/// What becomes of the values of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// They are added up.
    Counter,
    /// They are sorted into buckets, each up to and including its bound.
    Histogram(&'static [f64]),
    /// The last one counts.
    Gauge,
    /// The last one counts, once: who measured it may not be who measures the next.
    Glimpse,
}

/// In seconds; those of the semantic conventions for requests, and beyond them what our timeouts allow.
const DURATIONS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 30.0,
];

/// In seconds: from at once to the longest `RETRY_DEADLINE`.
const AGES: &[f64] = &[
    1.0,
    10.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    172_800.0,
    259_200.0,
    604_800.0,
    1_209_600.0,
];

impl Figure {
    /// Name, unit (UCUM) and form.
    pub fn described(self) -> (&'static str, &'static str, Form) {
        match self {
            Self::Accepted => ("orderup.orders.accepted", "{order}", Form::Counter),
            Self::Refused => ("orderup.orders.refused", "{order}", Form::Counter),
            Self::Notifications => ("orderup.notifications", "{notification}", Form::Counter),
            Self::Dead => ("orderup.dead", "{notification}", Form::Counter),
            Self::NotificationAge => ("orderup.notification.age", "s", Form::Histogram(AGES)),
            Self::OutboxWaiting => ("orderup.outbox.waiting", "{event}", Form::Glimpse),
            Self::OutboxOldestAge => ("orderup.outbox.oldest_age", "s", Form::Glimpse),
            Self::BreakerOpen => ("orderup.breaker.open", "1", Form::Gauge),
            Self::ProviderDuration => {
                ("orderup.provider.duration", "s", Form::Histogram(DURATIONS))
            }
            Self::BusSendDuration => ("orderup.bus.send.duration", "s", Form::Histogram(DURATIONS)),
            Self::Dropped => ("orderup.telemetry.dropped", "{item}", Form::Counter),
        }
    }
}

/// Adds to a counter.
pub fn add(figure: Figure, count: u64, labels: &[(&'static str, &str)]) {
    if let Some(registry) = telemetry::metrics() {
        registry.record(figure, count as f64, labels);
    }
}

/// Sorts a duration into a histogram, in seconds.
pub fn observe(figure: Figure, duration: Duration, labels: &[(&'static str, &str)]) {
    if let Some(registry) = telemetry::metrics() {
        registry.record(figure, duration.as_secs_f64(), labels);
    }
}

/// Sets a gauge.
pub fn set(figure: Figure, value: f64, labels: &[(&'static str, &str)]) {
    if let Some(registry) = telemetry::metrics() {
        registry.record(figure, value, labels);
    }
}

pub type Labels = Vec<(&'static str, String)>;

/// What a series has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub figure: Figure,
    pub labels: Labels,
    /// The sum, or the last value of a gauge.
    pub value: f64,
    pub count: u64,
    pub least: f64,
    pub most: f64,
    /// One more than there are bounds; empty for what is no histogram.
    pub buckets: Vec<u64>,
}

/// All series of one process.
#[derive(Debug)]
pub struct Registry {
    series: Mutex<Series>,
    pub is_delta: bool,
}

#[derive(Debug)]
struct Series {
    /// In the order of figures and labels.
    points: Vec<Point>,
    since: u64,
    /// Those of which it was told that there are too many series.
    full: Vec<Figure>,
}

/// What is exported at a time: the points, and from when to when they count, in nanoseconds since 1970.
#[derive(Debug)]
pub struct Snapshot {
    /// Those of a figure come one after the other.
    pub points: Vec<Point>,
    pub since: u64,
    pub until: u64,
    pub is_delta: bool,
}

impl Registry {
    /// `is_delta` says that each export has only what came since the last.
    pub fn new(is_delta: bool) -> Self {
        let series = Series {
            points: Vec::new(),
            since: unix_nanos(SystemTime::now()),
            full: Vec::new(),
        };
        Self {
            series: Mutex::new(series),
            is_delta,
        }
    }

    fn record(&self, figure: Figure, value: f64, labels: &[(&'static str, &str)]) {
        let (figure_name, _, form) = figure.described();
        let mut series = self.lock();
        let place = series.points.binary_search_by(|point| {
            let known = point
                .labels
                .iter()
                .map(|(name, value)| (*name, value.as_str()));
            let by_labels = || known.cmp(labels.iter().copied());
            point.figure.cmp(&figure).then_with(by_labels)
        });
        let place = match place {
            Ok(place) => place,
            Err(place) => {
                let first = series.points.partition_point(|point| point.figure < figure);
                let end = series
                    .points
                    .partition_point(|point| point.figure <= figure);
                if end - first >= MOST_SERIES {
                    if !series.full.contains(&figure) {
                        series.full.push(figure);
                        drop(series);
                        warn!(
                            "{figure_name} has {MOST_SERIES} series; what belongs to none of them is not counted"
                        );
                    }
                    return;
                }
                let labels = labels
                    .iter()
                    .map(|(name, value)| (*name, (*value).to_owned()));
                let point = Point {
                    figure,
                    labels: labels.collect(),
                    value: 0.0,
                    count: 0,
                    least: value,
                    most: value,
                    buckets: match form {
                        Form::Histogram(bounds) => vec![0; bounds.len() + 1],
                        Form::Counter | Form::Gauge | Form::Glimpse => Vec::new(),
                    },
                };
                series.points.insert(place, point);
                place
            }
        };
        let point = &mut series.points[place];
        point.count += 1;
        match form {
            Form::Counter => point.value += value,
            Form::Gauge | Form::Glimpse => point.value = value,
            Form::Histogram(bounds) => {
                point.value += value;
                point.least = point.least.min(value);
                point.most = point.most.max(value);
                point.buckets[bounds.partition_point(|bound| *bound < value)] += 1;
            }
        }
    }

    /// What is to be exported now.
    pub fn collect(&self) -> Snapshot {
        let until = unix_nanos(SystemTime::now());
        let mut series = self.lock();
        let since = series.since;
        let points = series.points.clone();
        let is_delta = self.is_delta;
        series
            .points
            .retain(|point| match point.figure.described().2 {
                Form::Counter | Form::Histogram(_) => !is_delta,
                Form::Gauge => true,
                Form::Glimpse => false,
            });
        if is_delta {
            series.since = until;
        }
        Snapshot {
            points,
            since,
            until,
            is_delta,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(is_delta: bool) -> Registry {
        let registry = Registry::new(is_delta);
        registry.record(Figure::Accepted, 1.0, &[("sink", "topic")]);
        registry.record(Figure::Accepted, 2.0, &[("sink", "topic")]);
        registry.record(Figure::Accepted, 1.0, &[("sink", "outbox")]);
        registry.record(Figure::BreakerOpen, 1.0, &[("provider", "acs")]);
        registry.record(Figure::OutboxWaiting, 7.0, &[]);
        for seconds in [0.005, 0.006, 99.0] {
            registry.record(Figure::BusSendDuration, seconds, &[]);
        }
        registry
    }

    fn values(snapshot: &Snapshot) -> Vec<(&'static str, f64)> {
        let points = snapshot.points.iter();
        points
            .map(|point| (point.figure.described().0, point.value))
            .collect()
    }

    #[test]
    fn counters_add_up_and_a_gauge_has_its_last_value() {
        let registry = recorded(false);
        let first = registry.collect();
        let names: Vec<_> = values(&first);
        assert_eq!(names[0], ("orderup.orders.accepted", 1.0));
        assert_eq!(names[1], ("orderup.orders.accepted", 3.0));
        assert_eq!(names[2], ("orderup.outbox.waiting", 7.0));
        assert_eq!(names[3], ("orderup.breaker.open", 1.0));
        let mut points = first.points.iter();
        let histogram = points
            .find(|point| point.figure == Figure::BusSendDuration)
            .unwrap();
        assert_eq!(
            (histogram.count, histogram.least, histogram.most),
            (3, 0.005, 99.0)
        );
        // A bound belongs to the bucket below it.
        assert_eq!(histogram.buckets[..2], [1, 1]);
        assert_eq!(*histogram.buckets.last().unwrap(), 1);
        assert_eq!(histogram.buckets.len(), DURATIONS.len() + 1);

        registry.record(Figure::Accepted, 1.0, &[("sink", "topic")]);
        let second = registry.collect();
        assert_eq!(second.since, first.since);
        assert_eq!(values(&second)[1], ("orderup.orders.accepted", 4.0));
        let has_glimpse = second
            .points
            .iter()
            .any(|point| point.figure == Figure::OutboxWaiting);
        assert!(!has_glimpse, "another instance may run the timer by now");
    }

    #[test]
    fn a_delta_has_only_what_is_new() {
        let registry = recorded(true);
        let first = registry.collect();
        registry.record(Figure::Accepted, 1.0, &[("sink", "topic")]);
        let second = registry.collect();
        assert_eq!(second.since, first.until);
        let expected = [
            ("orderup.orders.accepted", 1.0),
            ("orderup.breaker.open", 1.0),
        ];
        assert_eq!(values(&second), expected);
    }

    #[test]
    fn there_is_a_bounded_number_of_series() {
        let registry = Registry::new(false);
        for number in 0..=MOST_SERIES {
            registry.record(Figure::Dead, 1.0, &[("reason", &number.to_string())]);
        }
        registry.record(Figure::Dead, 1.0, &[("reason", "0")]);
        // Those before and behind it in the order have room of their own.
        registry.record(Figure::Accepted, 1.0, &[("sink", "topic")]);
        registry.record(Figure::Dropped, 1.0, &[("signal", "traces")]);
        let points = registry.collect().points;
        assert_eq!(points.len(), MOST_SERIES + 2);
        assert_eq!(points[0].figure, Figure::Accepted);
        assert_eq!(
            (points[1].labels[0].1.as_str(), points[1].value),
            ("0", 2.0)
        );
        assert_eq!(points.last().unwrap().figure, Figure::Dropped);
        assert_eq!(registry.lock().full, [Figure::Dead]);
    }
}
