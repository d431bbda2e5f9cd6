//! When a timer is due: NCRONTAB expressions of five or six fields, and time spans, always in UTC.
//!
//! As the library NCrontab reads them, which is not as cron does: a day has to fit both the day of the month and the day of
//! the week, Sunday is 0 and never 7, and a range that runs backwards is turned round.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use crate::time_span;

/// A schedule of a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    Cron(Cron),
    /// The time between two invocations.
    Every(Duration),
}

/// The values that each field allows, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// What a field may hold.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const fn field(name: &'static str, least: u32, most: u32, names: &'static [&'static str]) -> Field {
    Field {
        name,
        least,
        most,
        names,
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const FIELDS: [Field; 6] = [
    field("second", 0, 59, &[]),
    field("minute", 0, 59, &[]),
    field("hour", 0, 23, &[]),
    field("day", 1, 31, &[]),
    field("month", 1, 12, &MONTHS),
    field("day of week", 0, 6, &WEEKDAYS),
];

/// Every combination of month, day and day of the week comes round within this time, if it ever does: 29 February is
/// on the same day of the week every 28 years, and once every 40 where a century leaves one out.
const MOST_DAYS: i32 = 41 * 366;

impl Schedule {
    /// Reads an expression; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let fields = match fields.as_slice() {
            [_, _, _, _, _] => [&["0"], fields.as_slice()].concat(),
            [_, _, _, _, _, _] => fields,
            _ => {
                return time_span::parse(text)
                    .filter(|span| !span.is_zero())
                    .map(Self::Every)
                    .ok_or_else(|| {
                        // The words of the timer extension.
                        format!(
                            "The schedule expression '{text}' was not recognized as a valid cron expression or timespan \
                             string."
                        )
                    });
            }
        };
        let mut bits = [0; 6];
        for ((bits, field), text) in bits.iter_mut().zip(&FIELDS).zip(fields) {
            *bits = field
                .parse(text)
                .map_err(|why| format!("the {} `{text}`: {why}", field.name))?;
        }
        let [seconds, minutes, hours, days, months, weekdays] = bits;
        let cron = Cron {
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
        };
        match cron.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(Self::Cron(cron)),
            None => Err(format!("`{text}` is never due: no month has such a day")),
        }
    }

    /// The first time after this one at which it is due; `None` beyond the end of time.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(time),
            Self::Every(span) => time.checked_add(*span).ok(),
        }
    }

    /// What `Schedule.AdjustForDST` of the timer's data says; in UTC it makes no difference.
    pub fn adjusts_for_dst(&self) -> bool {
        matches!(self, Self::Cron(_))
    }

    /// Whether it is due more than once in the minute from now, and then the host keeps no status.
    pub fn is_frequent(&self, now: Timestamp) -> bool {
        match self {
            Self::Cron(cron) => cron
                .next_after(now)
                .and_then(|first| cron.next_after(first))
                .is_some_and(|second| {
                    second.duration_since(now) < jiff::SignedDuration::from_secs(60)
                }),
            Self::Every(span) => *span < Duration::from_secs(60),
        }
    }
}

impl Cron {
    fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = time.checked_add(1.second()).ok()?;
        let start = TimeZone::UTC.to_datetime(start);
        let start_time = (
            start.hour().unsigned_abs(),
            start.minute().unsigned_abs(),
            start.second().unsigned_abs(),
        );
        for days in 0..MOST_DAYS {
            let date = start.date().checked_add(days.days()).ok()?;
            if !self.has_date(date) {
                continue;
            }
            let from = if days == 0 { start_time } else { (0, 0, 0) };
            if let Some((hour, minute, second)) = self.time_from(from) {
                let due = date.at(
                    i8::try_from(hour).ok()?,
                    i8::try_from(minute).ok()?,
                    i8::try_from(second).ok()?,
                    0,
                );
                return TimeZone::UTC.to_timestamp(due).ok();
            }
        }
        None
    }

    fn has_date(&self, date: Date) -> bool {
        has(self.months, date.month().unsigned_abs())
            && has(self.days, date.day().unsigned_abs())
            && has(
                self.weekdays,
                date.weekday().to_sunday_zero_offset().unsigned_abs(),
            )
    }

    /// The first time of a day from this one on.
    fn time_from(&self, from: (u8, u8, u8)) -> Option<(u8, u8, u8)> {
        let values = |bits: u64| (0..60).filter(move |value| has(bits, *value));
        values(self.hours)
            .filter(|hour| *hour >= from.0)
            .flat_map(|hour| values(self.minutes).map(move |minute| (hour, minute)))
            .filter(|time| *time >= (from.0, from.1))
            .flat_map(|(hour, minute)| {
                values(self.seconds).map(move |second| (hour, minute, second))
            })
            .find(|time| *time >= from)
    }
}

fn has(bits: u64, value: u8) -> bool {
    bits & (1 << value) != 0
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',')
            .map(|part| self.parse_part(part))
            .try_fold(0, |bits, part| Ok(bits | part?))
    }

    fn parse_part(&self, part: &str) -> Result<u64, String> {
        let (values, step) = match part.split_once('/') {
            None => (part, None),
            Some((values, step)) => {
                let step: u32 = step
                    .parse()
                    .map_err(|_| format!("`{step}` is not a number"))?;
                (values, Some(step.max(1)))
            }
        };
        let (first, last) = match (values, values.split_once('-')) {
            ("*", _) => (self.least, self.most),
            (_, Some((first, last))) => {
                let (first, last) = (self.value(first)?, self.value(last)?);
                (first.min(last), first.max(last))
            }
            (value, None) => {
                let first = self.value(value)?;
                (first, if step.is_some() { self.most } else { first })
            }
        };
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        Ok((first..=last)
            .step_by(step)
            .fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .filter(|value| (self.least..=self.most).contains(value))
                .ok_or_else(|| {
                    format!(
                        "`{text}` is not a number from {} to {}",
                        self.least, self.most
                    )
                });
        }
        let is_meant = |name: &&str| {
            text.len() >= 3
                && name
                    .get(..text.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(text))
        };
        self.names
            .iter()
            .position(is_meant)
            .and_then(|index| u32::try_from(index).ok())
            .map(|index| index + self.least)
            .ok_or_else(|| format!("`{text}` is not one of its values"))
    }
}
