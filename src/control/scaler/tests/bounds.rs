//! Schedules, operators, scale to zero, slow start and events: what moves the number beside the interval.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::number::{Look, Number};
use super::*;
use crate::core::admission::{Load, Tally};
use crate::core::bounds::Override;
use crate::core::ledger::Question;
use crate::core::schedule::Schedule;
use crate::core::settings::{ProviderSettings, ScalePolicy};
use fake::BEGIN;

/// At 8:00 in Berlin, which is a minute after a test begins, for ten minutes.
fn morning(min: u32) -> Schedule {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let schedule = Schedule::new("0 8 * * 1-5", zone, 600 * SECOND, min).unwrap();
    schedule.named(Some("morning".to_owned()))
}

fn by_load(settings: &mut DeploymentSettings) -> &mut crate::core::settings::UtilizationScale {
    let ScaleSettings::Utilization(rule) = &mut settings.scale else { unreachable!() };
    rule
}

fn held(min: u32, max: u32, seconds: u64) -> Option<Override> {
    let begin: Timestamp = BEGIN.parse().unwrap();
    Some(Override { min: Some(min), max: Some(max), until: begin + Duration::from_secs(seconds) })
}

impl World {
    fn hold(&self, hold: Option<Override>) {
        self.overrides.set(&self.endpoint, &Name::parse("blue").unwrap(), hold).unwrap();
    }

    fn desired(&self) -> u32 {
        self.status().desired
    }

    fn reason(&self) -> String {
        self.status().last_decision.expect("decided").reason
    }

    async fn until_second(&self, second: u64) {
        tokio::time::sleep_until(self.start + Duration::from_secs(second)).await;
        sleep(MOMENT).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_raises_the_number_at_its_moment_and_not_at_the_next_interval() {
    let mut slow = settings(1);
    by_load(&mut slow).interval = 1000 * SECOND;
    slow.capacity.schedules = vec![morning(3)];
    let world = World::begin(slow).await;
    let moment = world.start + Duration::from_millis(59_700);
    tokio::time::sleep_until(moment - MOMENT).await;
    assert_eq!(world.desired(), 1);
    tokio::time::sleep_until(moment + 2 * MOMENT).await;
    assert_eq!(world.desired(), 3);
    assert_eq!(
        world.reason(),
        "at least 3 by the schedule `morning` until 08:10 CET: there is 1 replica, at least 3 asked for"
    );
    tokio::time::sleep_until(moment + 600 * SECOND - MOMENT).await;
    assert_eq!(world.status().bounds.unwrap().min_instances, 3);
    tokio::time::sleep_until(moment + 600 * SECOND + 2 * MOMENT).await;
    assert_eq!(world.status().bounds.unwrap().min_instances, 1, "the end is a moment of change as well");
}

#[tokio::test(start_paused = true)]
async fn a_router_that_starts_within_a_window_begins_with_its_number() {
    let mut scheduled = settings(1);
    let mut earlier = morning(3);
    earlier.duration = 86_400 * SECOND;
    // The one of Friday is over; Sunday to Sunday is not.
    let zone = earlier.zone().clone();
    let daily = Schedule::new("0 8 * * *", zone, 86_400 * SECOND, 2).unwrap();
    scheduled.capacity.schedules = vec![earlier, daily];
    let world = World::begin(scheduled).await;
    assert_eq!(world.desired(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_goes_before_a_schedule_and_a_schedule_before_the_load() {
    let mut scheduled = settings(1);
    scheduled.capacity.schedules = vec![morning(3)];
    let world = World::begin(scheduled).await;
    world.until_second(70).await;
    assert_eq!(world.desired(), 3);
    world.hold(held(2, 2, 200));
    world.until_second(71).await;
    assert_eq!(world.desired(), 2);
    assert!(
        world.reason().starts_with("held at 2 by an operator until 07:02:20 UTC: "),
        "{}",
        world.reason()
    );
    // Load that would need all four, and a reload, change nothing.
    let _busy = world.hold_slots(2).await;
    let waiting = tokio::time::timeout(5 * SECOND, world.ask());
    assert!(waiting.await.is_err());
    let mut reloaded = settings(1);
    reloaded.capacity.schedules = vec![morning(4)];
    world.set(reloaded);
    world.until_second(90).await;
    assert_eq!(world.desired(), 2);
    let bounds = world.status().bounds.unwrap();
    assert_eq!((bounds.min_instances, bounds.max_instances), (2, 2));
    // It ends by itself, at its moment.
    world.until_second(199).await;
    assert_eq!(world.desired(), 2);
    world.until_second(200).await;
    assert_eq!(world.desired(), 4);
    assert!(world.reason().starts_with("at least 4 by the schedule `morning`"), "{}", world.reason());
}

#[tokio::test(start_paused = true)]
async fn an_operator_moves_a_fixed_number_and_can_take_it_back() {
    let mut two = settings(1);
    two.scale = ScaleSettings::Manual { replicas: 2 };
    let world = World::begin(two).await;
    world.hold(held(4, 4, 3600));
    sleep(MOMENT).await;
    assert_eq!(world.desired(), 4);
    assert!(world.reason().starts_with("held at 4 by an operator until 07:59 UTC"), "{}", world.reason());
    world.hold(None);
    sleep(MOMENT).await;
    assert_eq!(world.desired(), 2);
    assert_eq!(world.reason(), "the configuration fixes the number at 2 replicas");
}

#[tokio::test(start_paused = true)]
async fn an_override_that_ends_after_the_deployment_became_a_list_means_nothing() {
    let world = World::begin(settings(1)).await;
    world.hold(held(2, 2, 20));
    world.until_second(10).await;
    assert_eq!(world.desired(), 2);
    let mut list = settings(1);
    list.provider = fixed(&[1]);
    world.set(list);
    // If the scaler woke up for it again and again, the clock of this test would never come so far.
    world.until_second(30).await;
    assert_eq!((world.desired(), world.status().bounds), (1, None));
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_goes_after_the_idle_time_and_the_next_request_waits_for_a_new_one() {
    let mut idle = settings(0);
    idle.capacity.idle_time = 300 * SECOND;
    let world = World::new(idle);
    let permit = world.ask().await.expect("a slot");
    sleep(10 * SECOND).await;
    drop(permit);
    let begun = world.seconds();
    sleep(299 * SECOND).await;
    assert_eq!(world.desired(), 1, "the second one goes by the rule, the last one stays");
    assert!(world.reason().starts_with("the last replica stays"), "{}", world.reason());
    // A request that is answered between two evaluations counts as well.
    drop(world.ask().await.expect("a slot"));
    sleep(299 * SECOND).await;
    assert_eq!((world.desired(), world.seconds() - begun), (1, 598.0));
    sleep(3 * SECOND).await;
    assert_eq!((world.desired(), world.status().replicas.len()), (0, 0));
    assert!(world.reason().starts_with("no request for 5 min"), "{}", world.reason());
    let asked = world.seconds();
    drop(world.ask().await.expect("a slot"));
    assert_eq!(world.seconds() - asked, START.as_secs_f64(), "at once, and not at the next interval");
}

#[tokio::test(start_paused = true)]
async fn one_request_from_zero_starts_one_replica_whatever_is_known_of_it() {
    let mut idle = settings(0);
    idle.request.max_queue_wait = SECOND / 2;
    idle.capacity.cold_start_wait = Some(300 * SECOND);
    let world = World::new(idle);
    sleep(SECOND / 2).await;
    // At first nothing is known of the service time; then, that it is five seconds.
    for _ in 0..2 {
        let before = world.fake.started();
        let permit = world.ask().await.expect("a slot");
        assert_eq!((world.desired(), world.fake.started() - before), (1, 1), "{}", world.reason());
        sleep(5 * SECOND).await;
        drop(permit);
        sleep(900 * SECOND).await;
        assert_eq!(world.desired(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_at_once_wakes_a_deployment_as_well() {
    let adaptive = ScalePolicy::Adaptive { reject_budget_percent: None };
    for policy in [ScalePolicy::Azureml, ScalePolicy::AzuremlStrict, adaptive] {
        for (wait, places) in [(Duration::ZERO, None), (60 * SECOND, Some(0))] {
            let mut idle = settings(0);
            idle.request.max_queue_wait = wait;
            let rule = by_load(&mut idle);
            (rule.policy, rule.interval, rule.count_queue) = (policy, 1000 * SECOND, false);
            let world = World::new(idle);
            world.gate.set_limits(Limits { slots: std::num::NonZeroU32::new(1), max_queue_length: places });
            sleep(10 * SECOND).await;
            assert_eq!(world.desired(), 0);
            let refused = world.gate.acquire(Instant::now().into_std(), wait, Ask::default()).await;
            assert!(refused.is_err());
            sleep(START + MOMENT).await;
            assert!(world.desired() > 0 && world.gate.load().ready > 0, "{policy:?} {places:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_gets_no_more_replicas_than_there_are_ports() {
    let world = World::begin(settings(1)).await;
    world.hold(held(4, 4, 3600));
    sleep(START + MOMENT).await;
    assert_eq!(world.desired(), 4);
    let mut fewer = settings(1);
    by_load(&mut fewer).max = 2;
    let ProviderSettings::Process(process) = &mut fewer.provider else { unreachable!() };
    process.ports.1 = process.ports.0 + 1;
    world.set(fewer);
    sleep(START + MOMENT).await;
    assert_eq!(world.desired(), 2);
    let (said, reason) = ("who asked for 4, but `process.ports` has 2 only", world.reason());
    assert!(reason.starts_with("held at 2 by an operator until") && reason.contains(said), "{reason}");
    let started = world.fake.started();
    sleep(600 * SECOND).await;
    assert_eq!((world.fake.started(), world.states().len()), (started, 2), "nothing is tried in vain");
}

#[tokio::test(start_paused = true)]
async fn that_nothing_is_there_in_the_beginning_is_not_told() {
    let world = World::new(settings(0));
    sleep(3 * SECOND).await;
    let told = || world.board.ledger().find(&Question::default(), 10).entries;
    assert_eq!((world.desired(), told().as_slice()), (0, &[][..]));
    drop(world.ask().await.expect("a slot"));
    assert!(told()[0].to_string().starts_with("blue: from 0 to "), "{:?}", told());
}

#[test]
fn what_is_asked_for_is_recorded_beside_what_the_rule_said() {
    let mut idle = settings(0);
    idle.capacity.idle_time = 300 * SECOND;
    by_load(&mut idle).max = 1;
    let begin = std::time::Instant::now();
    let mut number = Number::new(begin);
    let mut ask = |second: u32, queued| {
        let load = Load { queued, ready: u32::from(second > 0), ..Load::default() };
        let (now, wall) = (begin + second * SECOND, BEGIN.parse().unwrap());
        let (tally, limit) = (Tally { seconds: 1.0, ..Tally::default() }, Some(1));
        let look = Look { now, wall, load, tally, projected: None, limit, busy: 0, draining: 0, hold: None };
        number.evaluate(&idle, &look);
        let asked = number.take_asked().expect("asked");
        (asked.from, asked.to, asked.said)
    };
    assert_eq!(ask(0, 1), (0, 1, 1));
    let last =
        (1..=250).map(|second| ask(second, 0)).inspect(|(from, to, _)| assert_eq!((from, to), (&1, &1)));
    assert_eq!(last.last(), Some((1, 1, 0)), "the last one stays");
    assert_eq!(ask(400, 0), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_new_replica_come_one_after_the_other() {
    let mut warm = settings(1);
    warm.scale = ScaleSettings::Manual { replicas: 1 };
    warm.request.slots = std::num::NonZeroU32::new(4);
    warm.capacity.warm_up = 20 * SECOND;
    let world = World::new(warm);
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(world.ask())).collect();
    let mut seen = Vec::new();
    let looks = async {
        for second in [3, 12, 14, 18, 22, 24] {
            world.until_second(second).await;
            seen.push(world.gate.load().busy);
        }
    };
    tokio::select! {
        _ = futures_util::future::join_all(waiting.iter_mut()) => unreachable!("four slots for five"),
        () = looks => {}
    }
    // Ready after 3 s; then a quarter of the slots for each quarter of the time.
    assert_eq!(seen, [1, 1, 2, 3, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_server_of_a_list_starts_slowly_only_when_it_comes_back() {
    let mut list = settings(1);
    list.provider = fixed(&[1]);
    list.request.slots = std::num::NonZeroU32::new(4);
    list.capacity.warm_up = 20 * SECOND;
    let world = World::begin(list).await;
    assert_eq!(world.gate.load().slots, Some(4));
    world.fake.find(0, Health::Unready("503".into()));
    sleep(SECOND).await;
    world.fake.find(0, Health::Ready);
    sleep(MOMENT).await;
    assert_eq!(world.gate.load().slots, Some(1));
    sleep(20 * SECOND).await;
    assert_eq!(world.gate.load().slots, Some(4));
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_nobody_is_ready_raises_the_number_at_once_and_a_burst_does_it_once() {
    let mut slow = settings(1);
    by_load(&mut slow).interval = 1000 * SECOND;
    let world = World::new(slow);
    sleep(SECOND).await;
    let burst: Vec<_> = (0..3).map(|_| Box::pin(world.ask())).collect();
    let all = futures_util::future::join_all(burst);
    let decisions = async {
        sleep(MOMENT).await;
        let first = world.status().last_decision.unwrap();
        sleep(SECOND).await;
        (first, world.status().last_decision.unwrap())
    };
    let (_, (first, later)) = tokio::join!(tokio::time::timeout(2 * SECOND, all), decisions);
    assert_eq!((first.from, first.to), (1, 4), "{}", first.reason);
    assert!(first.reason.contains("3 requests were waiting"), "{}", first.reason);
    assert_eq!(later.at_unix_seconds, first.at_unix_seconds);
}

#[tokio::test(start_paused = true)]
async fn a_draining_replica_is_taken_back_before_another_one_is_started() {
    let mut two = settings(1);
    two.scale = ScaleSettings::Manual { replicas: 2 };
    let world = World::begin(two.clone()).await;
    let held = world.hold_slots(2).await;
    let by_rule = settings(1);
    two.scale = ScaleSettings::Manual { replicas: 1 };
    world.set(two);
    sleep(SECOND).await;
    assert_eq!(world.states(), [Ready, Draining]);
    // The one that serves fails its probe, and somebody comes.
    world.set(by_rule);
    sleep(MOMENT).await;
    world.fake.find(0, Health::Unready("503".into()));
    let waiting = tokio::time::timeout(SECOND / 2, world.ask()).await;
    assert!(waiting.is_err(), "both slots are held");
    assert!(world.desired() >= 2);
    assert_eq!(world.states()[..2], [Unready, Ready], "it serves again");
    let more = world.desired() - 2;
    assert_eq!(world.fake.started(), u64::from(2 + more), "no more than the number that is wanted");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_told_when_starting_replicas_will_be_ready() {
    let world = World::begin(settings(1)).await;
    assert!(world.gate.expected().is_empty());
    let _busy = world.hold_slots(1).await;
    sleep(SECOND).await;
    assert_eq!(world.states(), [Ready, Starting]);
    // The first start took three seconds.
    let expected = world.gate.expected();
    let left = expected[0].duration_since(Instant::now().into_std());
    assert_eq!(expected.len(), 1);
    assert!(left > SECOND && left <= START, "{left:?}");
    // A reload does not make it forget.
    world.set(settings(1));
    sleep(MOMENT).await;
    assert_eq!(world.gate.expected(), expected);
    sleep(START).await;
    assert!(world.gate.expected().is_empty());
}

/// So many requests a second of 50 ms each, for so many seconds. Who comes while nothing is ready waits for it.
async fn requests(world: &World, per_second: u32, seconds: u32, most: u32) {
    for number in 0..per_second * seconds {
        let gate = Arc::clone(&world.gate);
        world.tasks.spawn(async move {
            let wait = if gate.load().ready == 0 { 300 * SECOND } else { SECOND / 2 };
            if let Ok(permit) = gate.acquire(Instant::now().into_std(), wait, Ask::default()).await {
                sleep(50 * MOMENT).await;
                drop(permit);
            }
        });
        sleep(SECOND / per_second).await;
        let desired = world.desired();
        assert!(desired <= most, "{desired} after {number} of {per_second} a second: {}", world.reason());
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fills_during_a_cold_start_asks_for_no_more_than_the_load_needs() {
    for policy in [ScalePolicy::Azureml, ScalePolicy::Adaptive { reject_budget_percent: None }] {
        let mut cold = settings(0);
        let rule = by_load(&mut cold);
        (rule.policy, rule.max) = (policy, 100);
        cold.request.max_queue_wait = SECOND / 2;
        cold.capacity.cold_start_wait = Some(300 * SECOND);
        let world = World::new(cold);
        sleep(MOMENT).await;
        requests(&world, 29, 3, 2).await;
        assert!(world.gate.load().queued > 60 && world.desired() > 0);
        requests(&world, 10, 20, 3).await;
        requests(&world, 200, 10, 100).await;
        assert!(world.desired() >= 10, "{policy:?}: {}", world.reason());
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_becomes_processes_begins_with_what_the_rule_asks_for() {
    let mut changed = settings(1);
    changed.provider = fixed(&[1]);
    changed.request.max_queue_wait = SECOND / 2;
    let world = World::begin(changed.clone()).await;
    // An hour of it, in which some were turned away.
    let busy = world.hold_slots(1).await;
    for _ in 0..50 {
        let late = world.gate.acquire(Instant::now().into_std(), MOMENT, Ask::default()).await;
        assert!(late.is_err());
    }
    drop(busy);
    sleep(3600 * SECOND).await;
    changed.provider = process("model");
    world.set(changed);
    for _ in 0..50 {
        sleep(SECOND / 10).await;
        assert_eq!(world.desired(), 1, "{}", world.reason());
    }
}

#[test]
fn what_runs_on_a_replica_that_fails_its_probes_is_load() {
    let now = std::time::Instant::now();
    let tally = Tally { seconds: 2.0, busy_time: 1.0, busy_draining_time: 5.0, ..Tally::default() };
    let look = Look {
        now,
        wall: BEGIN.parse().unwrap(),
        load: Load { ready: 1, busy: 0, busy_draining: 3, ..Load::default() },
        tally,
        projected: None,
        limit: Some(4),
        // It serves, but admits nothing.
        busy: 3,
        draining: 0,
        hold: None,
    };
    let mut number = Number::new(now);
    number.evaluate(&settings(1), &look);
    let seen = number.take_asked().unwrap().seen;
    assert_eq!((seen.inflight, seen.inflight_draining), (3, 0));
    assert_eq!((seen.inflight_avg, seen.inflight_draining_avg), (0.5, Some(2.5)));
}
