//! The task with the real gate, a made-up provider and probes, and a clock that moves only when all wait.

mod bounds;
mod down;
mod fake;

use tokio::time::{Instant, sleep};

use super::*;
use crate::control::board::{DeploymentStatus, ReplicaState};
use crate::core::admission::{Ask, Limits};
use crate::core::ledger::Question;
use crate::data::gate::{Permit, Refusal};
use crate::shutdown::{DrainTrigger, drain};
use ReplicaState::{Draining, Ready, Starting, Unready};
use fake::{Fake, START, fixed, process, settings};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

struct World {
    fake: Fake,
    gate: Arc<Gate>,
    board: Board,
    endpoint: Name,
    tasks: Tasks,
    drain: DrainTrigger,
    settings: watch::Sender<Arc<DeploymentSettings>>,
    overrides: Overrides,
    start: Instant,
}

impl World {
    fn new(settings: DeploymentSettings) -> Self {
        let fake = Fake::default();
        let slots = settings.request.slots;
        let gate = Gate::new(Limits { slots, max_queue_length: None });
        let (board, tasks, overrides) = (Board::new(), Tasks::new(), Overrides::default());
        fake.wall_clock();
        let endpoint = Name::parse("demo").unwrap();
        let (trigger, drain) = drain();
        let scaler = Scaler {
            endpoint: endpoint.clone(),
            gate: Arc::clone(&gate),
            board: board.clone(),
            overrides: overrides.clone(),
            tasks: tasks.clone(),
            drain,
            drain_timeout: 30 * SECOND,
            hands: fake.clone(),
        };
        let (sender, receiver) = watch::channel(Arc::new(settings));
        tasks.spawn(scaler.run(receiver));
        let start = Instant::now();
        Self { fake, gate, board, endpoint, tasks, drain: trigger, settings: sender, overrides, start }
    }

    fn set(&self, settings: DeploymentSettings) {
        self.settings.send_replace(Arc::new(settings));
    }

    async fn ask(&self) -> Result<Permit, Refusal> {
        self.gate.acquire(Instant::now().into_std(), 60 * SECOND, Ask::default()).await
    }

    /// Takes so many slots, one after the other.
    async fn hold_slots(&self, count: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(self.ask().await.expect("a slot"));
        }
        permits
    }

    /// Until the first replicas are ready; nobody waits for them, so that there are `min`.
    async fn begin(settings: DeploymentSettings) -> Self {
        let world = Self::new(settings);
        sleep(START + MOMENT).await;
        world
    }

    fn seconds(&self) -> f64 {
        Instant::now().duration_since(self.start).as_secs_f64()
    }

    fn status(&self) -> DeploymentStatus {
        self.board.get(&self.endpoint, &Name::parse("blue").unwrap()).expect("on the board")
    }

    fn states(&self) -> Vec<ReplicaState> {
        self.status().replicas.iter().map(|replica| replica.state).collect()
    }

    fn is_on_board(&self) -> bool {
        self.board.get(&self.endpoint, &Name::parse("blue").unwrap()).is_some()
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_at_the_moment_a_replica_becomes_ready() {
    let world = World::new(settings(1));
    let permit = world.ask().await.expect("a slot");
    assert_eq!(permit.target().name.as_ref(), "blue-0");
    assert_eq!(world.seconds(), START.as_secs_f64());
}

#[tokio::test(start_paused = true)]
async fn from_zero_the_first_who_waits_starts_one_without_waiting_for_the_interval() {
    let mut slow = settings(0);
    let ScaleSettings::Utilization(rule) = &mut slow.scale else { unreachable!() };
    rule.interval = 1000 * SECOND;
    let world = World::new(slow);
    sleep(10 * SECOND).await;
    assert_eq!(world.fake.started(), 0);
    world.ask().await.expect("a slot");
    assert_eq!(world.seconds(), 10.0 + START.as_secs_f64());
    let decision = world.status().last_decision.expect("decided");
    assert_eq!((decision.from, decision.to), (0, 2));
    assert!(decision.reason.starts_with("1 request waits and there is no replica"), "{}", decision.reason);
}

#[tokio::test(start_paused = true)]
async fn load_scales_up_within_an_interval_and_down_after_a_minute_without_cutting_a_request() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::begin(settings(1)).await;
    let mut held = world.hold_slots(1).await;
    sleep(SECOND).await;
    assert_eq!(world.status().desired, 2);
    held.extend(world.hold_slots(1).await);
    sleep(SECOND + START).await;
    assert_eq!(world.states(), [Ready, Ready, Ready]);
    // One goes on, on the newest but one.
    let last = held.remove(1);
    assert_eq!(last.target().name.as_ref(), "blue-1");
    drop(held);
    sleep(59 * SECOND).await;
    assert_eq!(world.states().len(), 3);
    sleep(2 * SECOND).await;
    assert_eq!(world.status().desired, 2, "one busy needs two at 70 %");
    drop(last);
    sleep(61 * SECOND).await;
    assert_eq!(world.states(), [Ready]);
    assert_eq!(world.gate.load().ready, 1);
    let text = recorder.handle().render();
    let labels = r#"{endpoint="demo",deployment="blue",direction="#;
    for line in [format!("{labels}\"up\"}} 3"), format!("{labels}\"down\"}} 2")] {
        assert!(text.contains(&format!("scoregate_scale_decisions_total{line}")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_count_when_load_goes_before_they_are_ready() {
    let world = World::new(settings(1));
    let short = tokio::time::timeout(SECOND + SECOND / 2, world.ask()).await;
    assert!(short.is_err(), "nobody was ready");
    assert_eq!(world.status().desired, 2);
    sleep(30 * SECOND).await;
    assert_eq!(world.status().desired, 2, "down only after a minute");
    assert_eq!(world.fake.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_is_busy_drains_until_its_last_request_ends() {
    let mut two = settings(1);
    two.scale = ScaleSettings::Manual { replicas: 2 };
    let world = World::new(two.clone());
    let held = world.hold_slots(2).await;
    two.scale = ScaleSettings::Manual { replicas: 1 };
    world.set(two);
    sleep(20 * SECOND).await;
    assert_eq!(world.states(), [Ready, Draining]);
    drop(held);
    sleep(MOMENT).await;
    assert_eq!(world.states(), [Ready]);
    assert_eq!(world.fake.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_probed_at_once_and_admitted_again() {
    let world = World::begin(settings(1)).await;
    let permit = world.ask().await.expect("a slot");
    let before = world.seconds();
    let again = permit.suspect().await.expect("the slot again");
    assert_eq!(again.target().name.as_ref(), "blue-0");
    assert_eq!(world.fake.rechecks(), 1);
    assert_eq!(world.seconds(), before);
}

#[tokio::test(start_paused = true)]
async fn an_unready_replica_admits_nothing_until_it_is_ready_again() {
    let world = World::begin(settings(1)).await;
    world.fake.find(0, Health::Unready("503".into()));
    sleep(SECOND).await;
    assert_eq!(world.states(), [Unready]);
    assert_eq!(world.status().replicas[0].detail.as_deref(), Some("503"));
    assert_eq!(world.gate.load().ready, 0);
    world.fake.find(0, Health::Ready);
    assert!(world.ask().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_is_replaced() {
    let world = World::begin(settings(1)).await;
    world.fake.find(0, Health::Dead("no answer".into()));
    sleep(MOMENT).await;
    assert_eq!(world.states(), [Starting]);
    let told = world.board.ledger().find(&Question::default(), 10).entries;
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    let says = "blue-0 is dead from now on, because no answer; it is ended when";
    assert!(told.iter().any(|sentence| sentence.starts_with(says)), "{told:?}");
    let permit = world.ask().await.expect("a slot");
    assert_eq!(permit.target().name.as_ref(), "blue-1");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_leaves_the_gate_and_another_follows() {
    let world = World::begin(settings(1)).await;
    world.fake.kill(0);
    sleep(MOMENT).await;
    assert_eq!(world.gate.load().ready, 0);
    assert_eq!(world.ask().await.expect("a slot").target().name.as_ref(), "blue-1");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_never_ready_is_ended_after_the_start_timeout() {
    let world = World::new(settings(1));
    world.fake.new_ones_never_become_ready(true);
    sleep(29 * SECOND).await;
    assert_eq!(world.states(), [Starting]);
    assert_eq!(world.status().replicas[0].detail.as_deref(), Some("503"));
    world.fake.new_ones_never_become_ready(false);
    sleep(2 * SECOND).await;
    assert_eq!(world.fake.started(), 2);
    assert_eq!(world.ask().await.expect("a slot").target().name.as_ref(), "blue-1");
}

#[tokio::test(start_paused = true)]
async fn a_new_template_replaces_replicas_without_a_gap() {
    let mut changed = settings(2);
    let world = World::begin(changed.clone()).await;
    changed.provider = process("model --new");
    world.set(changed);
    for _ in 0..80 {
        sleep(Duration::from_millis(100)).await;
        assert!(world.gate.load().ready >= 2, "at {} s", world.seconds());
    }
    let names: Vec<_> = world.status().replicas.into_iter().map(|replica| replica.name).collect();
    assert_eq!(names, ["blue-2", "blue-3"]);
}

#[tokio::test(start_paused = true)]
async fn old_replicas_stay_when_new_ones_never_become_ready() {
    let mut changed = settings(1);
    let world = World::begin(changed.clone()).await;
    world.fake.new_ones_never_become_ready(true);
    changed.provider = process("model --broken");
    world.set(changed);
    sleep(200 * SECOND).await;
    assert_eq!(world.gate.load().ready, 1);
    assert_eq!(world.states(), [Ready, Starting]);
    assert_eq!(world.ask().await.expect("a slot").target().name.as_ref(), "blue-0");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_list_is_what_it_is_and_can_become_processes() {
    let mut changed = settings(1);
    changed.provider = fixed(&[1, 2, 3]);
    let world = World::begin(changed.clone()).await;
    assert_eq!(world.states(), [Ready, Ready, Ready]);
    assert_eq!(world.status().desired, 3);
    changed.provider = fixed(&[1, 3]);
    world.set(changed.clone());
    sleep(SECOND).await;
    assert_eq!(world.states(), [Ready, Ready]);
    changed.provider = process("model");
    world.set(changed);
    sleep(START - SECOND).await;
    assert_eq!(world.gate.load().ready, 2, "the servers of the list serve until the process is ready");
    sleep(3 * SECOND).await;
    assert_eq!(world.status().replicas.len(), world.status().desired as usize);
    assert_eq!(world.fake.providers(), 1);
    assert_eq!(world.ask().await.expect("a slot").target().id.0, 3);
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_of_a_list_is_probed_on_and_comes_back() {
    let mut list = settings(1);
    list.provider = fixed(&[1]);
    let world = World::begin(list).await;
    world.fake.find(0, Health::Dead("no answer".into()));
    sleep(MOMENT).await;
    assert_eq!(world.states(), [Unready]);
    world.fake.find(0, Health::Ready);
    sleep(START + MOMENT).await;
    assert_eq!((world.states(), world.gate.load().ready), (vec![Ready], 1));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_ends_by_itself_is_started_again() {
    let world = World::begin(settings(1)).await;
    world.fake.quit();
    sleep(MOMENT).await;
    assert_eq!((world.fake.providers(), world.gate.load().ready), (0, 0));
    assert!(world.ask().await.is_ok());
    assert_eq!(world.fake.providers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_deployment_serves_what_it_has_and_ends() {
    let World { fake, gate, board, endpoint, tasks, drain: _drain, settings, start, overrides: _ } =
        World::new(settings(1));
    let ask = || gate.acquire(Instant::now().into_std(), 60 * SECOND, Ask::default());
    let first = ask().await.expect("a slot");
    let second = tokio::time::timeout(20 * SECOND, ask());
    drop(settings);
    let (second, ()) = tokio::join!(second, async {
        sleep(10 * SECOND).await;
        drop(first);
    });
    let second = second.expect("in time").expect("who waited is served");
    assert!(board.get(&endpoint, &Name::parse("blue").unwrap()).is_some());
    drop(second);
    tasks.ended().await;
    assert!(Instant::now().duration_since(start) < START + 11 * SECOND);
    assert_eq!(fake.providers(), 0);
    assert_eq!(gate.load().ready, 0);
    assert!(board.get(&endpoint, &Name::parse("blue").unwrap()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_and_when_forced() {
    for forced in [false, true] {
        let world = World::new(settings(1));
        let held = world.ask().await.expect("a slot");
        let begun = Instant::now();
        world.drain.start((begun + 8 * SECOND).into_std());
        sleep(2 * SECOND).await;
        assert!(world.is_on_board());
        if forced {
            world.drain.force();
        }
        world.tasks.ended().await;
        assert_eq!(Instant::now().duration_since(begun), if forced { 2 } else { 8 } * SECOND);
        assert!(!world.is_on_board());
        drop(held);
    }
}
