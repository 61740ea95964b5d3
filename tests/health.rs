//! Probes against a scripted replica: when it is ready, when not, and when it is taken to be dead.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and their tasks end with the test"
)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scoregate::control::health::{Health, watch};
use scoregate::core::settings::{Authority, ProbeSettings, ReplicaRoutes};
use scoregate::shutdown::Tasks;
use tokio::sync::{Notify, mpsc};

#[path = "support/replica.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod replica;
#[path = "support/router.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod router;
use replica::{Act, Replica};
use router::{PATIENCE, eventually};

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

/// Probes each `period`; two failures are a verdict.
fn probe(initial_delay: Duration, period: Duration) -> ProbeSettings {
    ProbeSettings {
        initial_delay,
        period,
        timeout: PATIENCE,
        success_threshold: NonZeroU32::MIN,
        failure_threshold: NonZeroU32::new(2).unwrap(),
    }
}

/// The same; gives up after `SOON`.
fn hasty(initial_delay: Duration, period: Duration) -> ProbeSettings {
    ProbeSettings { timeout: SOON, ..probe(initial_delay, period) }
}

struct Watching {
    reports: mpsc::UnboundedReceiver<Health>,
    recheck: Arc<Notify>,
    busy: Arc<AtomicBool>,
}

impl Watching {
    fn start(replica: &Replica, alive_path: &str, liveness: ProbeSettings, readiness: ProbeSettings) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let (recheck, busy) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let routes = ReplicaRoutes {
            scoring: "/score".into(),
            swagger: "/swagger.json".into(),
            liveness: alive_path.into(),
            readiness: "/".into(),
            pass_through: false,
        };
        let is_busy = {
            let busy = Arc::clone(&busy);
            move || busy.load(Ordering::Relaxed)
        };
        let authority =
            Authority { host: replica.address().ip().to_string(), port: replica.address().port() };
        let report = move |health| sender.send(health).unwrap_or(());
        let watching = watch(authority, routes, liveness, readiness, is_busy, Arc::clone(&recheck), report);
        Tasks::new().spawn(watching);
        Self { reports, recheck, busy }
    }

    /// The next report; `None` when the watch has ended.
    async fn next(&mut self) -> Option<Health> {
        tokio::time::timeout(PATIENCE, self.reports.recv()).await.expect("a report in time")
    }
}

fn unready(reason: &str) -> Option<Health> {
    Some(Health::Unready(format!("readiness probe /: {reason}")))
}

#[tokio::test]
async fn an_open_port_is_not_ready_and_early_failures_do_not_count() {
    let replica = Replica::start();
    replica.answer_probes(0);
    let mut watching = Watching::start(&replica, "/", hasty(NEVER, NEVER), hasty(NEVER, NEVER));
    eventually("four probes", async || (replica.probes().len() >= 4).then_some(())).await;
    assert!(watching.reports.is_empty(), "accepted three times, answered never");
    replica.answer_probes(u64::MAX);
    assert_eq!(watching.next().await, Some(Health::Ready));
}

#[tokio::test]
async fn bad_answers_make_it_unready_at_the_threshold_and_a_good_one_ready_again() {
    let replica = Replica::start();
    replica.probe_status("/", 302);
    let mut watching = Watching::start(&replica, "/", probe(NEVER, NEVER), probe(NEVER, SOON));
    assert_eq!(watching.next().await, Some(Health::Ready));
    let before = replica.probes().len();
    replica.probe_status("/", 503);
    assert_eq!(watching.next().await, unready("answered 503 Service Unavailable"));
    assert!(replica.probes().len() >= before + 2);
    replica.probe_status("/", 200);
    assert_eq!(watching.next().await, Some(Health::Ready));
}

#[tokio::test]
async fn a_recheck_is_answered_at_once_and_recovery_is_noticed_before_the_period() {
    let replica = Replica::start();
    let mut watching = Watching::start(&replica, "/", probe(NEVER, NEVER), probe(NEVER, NEVER));
    assert_eq!(watching.next().await, Some(Health::Ready));
    watching.recheck.notify_one();
    assert_eq!(watching.next().await, Some(Health::Ready), "no change, but somebody waits for it");
    replica.kill();
    let address = replica.address();
    eventually("refuses", async || tokio::net::TcpStream::connect(address).await.is_err().then_some(()))
        .await;
    watching.busy.store(true, Ordering::Relaxed);
    watching.recheck.notify_one();
    assert_eq!(watching.next().await, unready("cannot connect: Connection refused (os error 111)"));
    let _again = Replica::at(address, Act::ok("{}"));
    assert_eq!(watching.next().await, Some(Health::Ready));
}

#[tokio::test]
async fn silence_of_a_busy_replica_proves_nothing() {
    let replica = Replica::start();
    replica.answer_probes(1);
    let mut watching =
        Watching::start(&replica, "/", hasty(Duration::ZERO, SOON), hasty(Duration::ZERO, SOON));
    watching.busy.store(true, Ordering::Relaxed);
    assert_eq!(watching.next().await, Some(Health::Ready));
    eventually("six probes", async || (replica.probes().len() >= 6).then_some(())).await;
    assert!(watching.reports.is_empty());
    watching.busy.store(false, Ordering::Relaxed);
    let dead = watching.next().await.unwrap();
    assert!(matches!(&dead, Health::Dead(reason) if reason.contains("no answer within 20ms")), "{dead:?}");
    assert_eq!(watching.next().await, None);
}

#[tokio::test]
async fn a_replica_can_be_dead_by_its_own_path_after_it_was_ready() {
    let replica = Replica::start();
    replica.probe_status("/live", 500);
    let mut watching = Watching::start(&replica, "/live", probe(SOON, SOON), probe(NEVER, NEVER));
    assert_eq!(watching.next().await, Some(Health::Ready));
    let reason = "liveness probe /live: answered 500 Internal Server Error";
    assert_eq!(watching.next().await, Some(Health::Dead(reason.into())));
    assert_eq!(watching.next().await, None);
}

#[tokio::test]
async fn one_request_serves_both_probes_and_takes_a_connection_of_its_own() {
    let replica = Replica::start();
    let both = || probe(Duration::ZERO, NEVER);
    let mut watching = Watching::start(&replica, "/", both(), both());
    assert_eq!(watching.next().await, Some(Health::Ready));
    watching.recheck.notify_one();
    assert_eq!(watching.next().await, Some(Health::Ready));
    let probes = replica.probes();
    assert_eq!(probes.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(probes[0].headers["connection"], "close");
    assert_eq!(probes[0].headers["host"], replica.address().to_string());
}
