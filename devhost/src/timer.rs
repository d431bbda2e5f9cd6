//! The timers: each function with a timer trigger is invoked when it is due, one invocation at a time.
//!
//! A timer that is due less often than once a minute keeps its status in the data folder, as the host keeps it in the
//! storage account: what came due while devhost was not running is made up for by one invocation, and that is told
//! `IsPastDue`. A failed invocation is not tried again before the next time that is due.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    console,
    envelope::timer_envelope,
    function_json::{Function, TimerTrigger, Trigger},
    invocation::Invoker,
    stopping::Stopping,
};

/// The clock is looked at this often: it may be set, and the machine may sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// When a timer was last due, and when it is next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// `None` before the first time.
    pub last: Option<Timestamp>,
    pub next: Timestamp,
    pub last_updated: Timestamp,
}

/// One function with a timer trigger.
#[derive(Debug)]
pub struct Timer {
    pub function: String,
    pub is_disabled: bool,
    trigger: TimerTrigger,
    invoker: Arc<Invoker>,
    /// Where the status is kept; `None` where none is.
    file: Option<PathBuf>,
    /// Locked while an invocation runs. `None` until the timer starts.
    status: Mutex<Option<ScheduleStatus>>,
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The status that the handler answered, if it did.
    pub status: Option<u16>,
    pub succeeded: bool,
}

/// Why an invocation is not one that just came due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unscheduled {
    IsPastDue,
    RunOnStartup,
}

impl Timer {
    /// The timers among these functions, whose statuses are in this folder.
    pub fn all(
        functions: &[Function],
        data: &Path,
        invoker: &Arc<Invoker>,
    ) -> Result<Vec<Arc<Self>>, String> {
        let folder = data.join("timers");
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let timers = functions.iter().filter_map(|function| {
            let Trigger::Timer(trigger) = &function.trigger else {
                return None;
            };
            let is_monitored =
                trigger.use_monitor && !trigger.schedule.is_frequent(Timestamp::now());
            Some(Arc::new(Self {
                function: function.name.clone(),
                is_disabled: function.disabled,
                trigger: trigger.clone(),
                invoker: Arc::clone(invoker),
                file: is_monitored.then(|| folder.join(format!("{}.json", function.name))),
                status: Mutex::new(None),
            }))
        });
        Ok(timers.collect())
    }

    /// Invokes the function whenever it is due, until devhost stops.
    pub async fn run(self: Arc<Self>, stopping: Stopping) {
        let now = Timestamp::now();
        let Some(status) = self.first_status(now) else {
            return;
        };
        self.keep(&status);
        let mut next = status.next;
        let mut unscheduled = if next < now {
            Some(Unscheduled::IsPastDue)
        } else {
            self.trigger
                .run_on_startup
                .then_some(Unscheduled::RunOnStartup)
        };
        *self.status.lock().await = Some(status);
        loop {
            if unscheduled.is_none() {
                tokio::select! {
                    () = sleep_until(next) => {}
                    _ = stopping.stopped() => return,
                }
            }
            match self.due(next, unscheduled.take()).await {
                Some(time) => next = time,
                None => return,
            }
        }
    }

    /// What was kept, brought up to a schedule that may have changed since; or a first status.
    fn first_status(&self, now: Timestamp) -> Option<ScheduleStatus> {
        let from_now = self.trigger.schedule.next_after(now)?;
        let kept: Option<ScheduleStatus> = self
            .file
            .as_ref()
            .and_then(|file| std::fs::read(file).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Some(match kept {
            None => ScheduleStatus {
                last: None,
                next: from_now,
                last_updated: now,
            },
            Some(kept) => ScheduleStatus {
                next: match kept.last {
                    Some(last) => self.trigger.schedule.next_after(last)?,
                    None => kept.next.min(from_now),
                },
                ..kept
            },
        })
    }

    /// One invocation that came due, and when the next one does; `None` when devhost stops.
    async fn due(&self, due: Timestamp, unscheduled: Option<Unscheduled>) -> Option<Timestamp> {
        let mut status = self.status.lock().await;
        if self.invoker.worker.is_stopping() {
            return None;
        }
        let now = Timestamp::now();
        let details = match unscheduled {
            None => String::new(),
            Some(Unscheduled::IsPastDue) => {
                format!("UnscheduledInvocationReason: IsPastDue, OriginalSchedule: {due}")
            }
            Some(Unscheduled::RunOnStartup) => {
                "UnscheduledInvocationReason: RunOnStartup".to_owned()
            }
        };
        let is_past_due = unscheduled == Some(Unscheduled::IsPastDue);
        self.invoke(status.as_ref(), is_past_due, &details).await;
        let next = self.trigger.schedule.next_after(now)?;
        let new = ScheduleStatus {
            last: Some(now),
            next,
            last_updated: now,
        };
        self.keep(&new);
        *status = Some(new);
        Some(next)
    }

    /// Runs it now, by hand, after what runs already.
    pub async fn run_now(&self) -> Ended {
        let status = self.status.lock().await;
        self.invoke(status.as_ref(), false, "").await
    }

    async fn invoke(
        &self,
        status: Option<&ScheduleStatus>,
        is_past_due: bool,
        details: &str,
    ) -> Ended {
        let (function, now) = (&self.function, Timestamp::now());
        let status = status.filter(|_| self.file.is_some());
        let envelope = timer_envelope(function, &self.trigger, status, is_past_due, now);
        let answered = OnceLock::new();
        let reason = format!(
            "Timer fired at {}",
            now.strftime("%Y-%m-%dT%H:%M:%S%.f+00:00")
        );
        let exchange = |id| {
            self.invoker
                .exchange_noting_status(function, id, &envelope, &answered)
        };
        // The invocation has logged its outcome.
        let outcome = self.invoker.run(function, &reason, details, exchange).await;
        Ended {
            status: answered.get().copied(),
            succeeded: outcome.is_ok(),
        }
    }

    /// A kill in between leaves the old status or the new one. Without it only the making up is lost.
    fn keep(&self, status: &ScheduleStatus) {
        let Some(file) = &self.file else {
            return;
        };
        let written = serde_json::to_vec(status)
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                let rewritten = file.with_extension("rewritten");
                std::fs::write(&rewritten, bytes)?;
                std::fs::rename(&rewritten, file)
            });
        if let Err(error) = written {
            console::error(format_args!("{}: {error}", file.display()));
        }
    }
}

/// Until the clock on the wall says so.
async fn sleep_until(time: Timestamp) {
    loop {
        let left = time.duration_since(Timestamp::now());
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => tokio::time::sleep(left.min(LONGEST_SLEEP)).await,
            _ => return,
        }
    }
}
