//! The open loop: sends each request when it is due, or as soon after as there is a place for it, and waits for none.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::client::Client;
use super::exchange::Exchange;
use super::failure;
use super::pacer::Pacer;
use super::plan::Plan;
use super::schedule::{Arrival, Schedule};
use super::tally::{Failure, Outcome, Tally};
use crate::shutdown::Tasks;

/// What a run shares with the tasks of its requests.
pub(super) struct Generator {
    pub(super) plan: Plan,
    pub(super) client: Client,
    pub(super) tally: RefCell<Tally>,
    pub(super) stage: Cell<Stage>,
    /// A place has become free.
    freed: Notify,
    freed_at: Cell<Instant>,
    in_flight: Cell<usize>,
    tasks: Tasks,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Requests become due.
    Sending,
    /// The last answers are waited for.
    Waiting,
}

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// By a signal, before everything was sent and answered.
    pub(super) is_interrupted: bool,
    /// Time after the start until which requests became due.
    pub(super) due_until: Duration,
}

/// Ctrl-C and SIGTERM.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Completes at the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Generator {
    /// A generator that has not begun.
    pub(super) fn new(plan: Plan, client: Client, tasks: Tasks) -> Self {
        Self {
            plan,
            client,
            tally: RefCell::new(Tally::new()),
            stage: Cell::new(Stage::Sending),
            freed: Notify::new(),
            freed_at: Cell::new(Instant::now()),
            in_flight: Cell::new(0),
            tasks,
        }
    }

    /// Sends everything that becomes due from `start` on and waits for the answers. A signal ends the one or the other.
    ///
    /// # Errors
    /// The system has no timer for it.
    pub(super) async fn run(self: &Rc<Self>, start: Instant, signals: &mut Interrupts) -> io::Result<Ending> {
        let pacer = Pacer::new()?;
        let Plan { rate, arrivals, warm_up, length, .. } = self.plan;
        let mut schedule = Schedule::new(rate, arrivals, warm_up, length);
        let mut is_interrupted = tokio::select! {
            () = signals.next() => true,
            sent = self.send_all(start, &mut schedule, &pacer) => sent.map(|()| false)?,
        };
        let due_until = start.elapsed();
        while let Some(arrival) = schedule.peek().filter(|arrival| arrival.due <= due_until) {
            self.give_up(&arrival, start, failure::interrupted());
            schedule.advance();
        }
        self.stage.set(Stage::Waiting);
        let all_answered = async {
            while self.in_flight.get() > 0 {
                self.freed.notified().await;
            }
        };
        tokio::select! {
            () = all_answered => {}
            () = signals.next() => is_interrupted = true,
        }
        if self.in_flight.get() > 0 {
            self.tally.borrow_mut().cut(&failure::interrupted());
        }
        Ok(Ending { is_interrupted, due_until })
    }

    async fn send_all(
        self: &Rc<Self>,
        start: Instant,
        schedule: &mut Schedule,
        pacer: &Pacer,
    ) -> io::Result<()> {
        // Requests that were due before this time waited for a place until then.
        let mut free_since = start;
        let mut was_full = false;
        while let Some(arrival) = schedule.peek() {
            let (now, due) = (Instant::now(), start + arrival.due);
            if due > now {
                pacer.wait(due - now).await?;
                continue;
            }
            let limit = due + self.plan.timeout;
            if now >= limit {
                self.give_up(&arrival, start, failure::not_sent(self.plan.timeout, self.plan.max_in_flight));
            } else if self.in_flight.get() >= self.plan.max_in_flight {
                was_full = true;
                tokio::select! {
                    () = self.freed.notified() => {}
                    waited = pacer.wait(limit - now) => waited?,
                }
                continue;
            } else {
                if std::mem::take(&mut was_full) {
                    free_since = self.freed_at.get();
                }
                self.send(arrival, due, due.max(free_since));
            }
            schedule.advance();
        }
        Ok(())
    }

    fn send(self: &Rc<Self>, arrival: Arrival, due: Instant, free: Instant) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.tally.borrow_mut().sent(arrival.is_counted);
        let this = Rc::clone(self);
        self.tasks.spawn_local(async move {
            let exchange =
                Exchange { plan: &this.plan, client: &this.client, tally: &this.tally, arrival, due, free };
            let outcome = exchange.run().await;
            this.tally.borrow_mut().done(outcome);
            this.in_flight.set(this.in_flight.get() - 1);
            this.freed_at.set(Instant::now());
            this.freed.notify_one();
        });
    }

    /// A request that was due and is not sent.
    fn give_up(&self, arrival: &Arrival, start: Instant, failure: Failure) {
        self.tally.borrow_mut().not_sent(Outcome {
            due: arrival.due,
            is_counted: arrival.is_counted,
            latency: (start + arrival.due).elapsed(),
            sending: None,
            answer: None,
            failure: Some(failure),
        });
    }
}
