//! The search against replicas with a known knee, in virtual time.

use crate::core::admission::ReplicaId;
use crate::core::admission::health::tests::{Account, Manner, World};

fn world(replicas: usize, knee: u32, spread: f64, rate: f64, seed: u64) -> World {
    let mut world = World::new(1, rate, &vec![Manner::Batches(50.0, spread, knee); replicas], seed);
    let start = world.moment(0);
    world.pool.set_auto_limit(true, start);
    world
}

fn good(world: &World) -> u64 {
    world.accounts.iter().map(|account| account.good).sum()
}

/// Runs until so many more answers.
fn answers(world: &mut World, count: u64) {
    let end = good(world) + count;
    while good(world) < end {
        world.run(1);
    }
}

#[test]
fn the_knee_is_found_within_500_requests_and_followed_when_it_moves() {
    for seed in 0..4 {
        // 80 each second is what one replica can do at its knee.
        let mut world = world(1, 4, 0.3, 200.0, seed);
        answers(&mut world, 450);
        let limit = world.pool.limit().unwrap();
        assert!((4..=8).contains(&limit), "seed {seed}: {limit}");
        world.accounts.fill(Account::default());
        world.run(100);
        let share = good(&world) as f64 / 100.0 / 80.0;
        assert!(share >= 0.97, "seed {seed}: {share} of the best static throughput");

        world.manners[0] = Manner::Batches(50.0, 0.3, 2);
        answers(&mut world, 800);
        world.accounts.fill(Account::default());
        world.run(100);
        let limit = world.pool.limit().unwrap();
        let share = good(&world) as f64 / 100.0 / 40.0;
        assert!((2..=4).contains(&limit) && share >= 0.97, "seed {seed}: {limit}, {share}");

        world.manners[0] = Manner::Batches(50.0, 0.3, 8);
        world.rate = 400.0;
        world.run(60);
        world.accounts.fill(Account::default());
        world.run(100);
        let share = good(&world) as f64 / 100.0 / 160.0;
        assert!(share >= 0.97, "seed {seed}: {share} of a larger one");
    }
}

#[test]
fn many_replicas_and_noise() {
    for (replicas, knee, spread) in [(4, 1, 0.3), (4, 6, 0.5), (3, 16, 0.5), (2, 4, 1.0)] {
        for seed in 0..2 {
            let best = f64::from(knee) / 0.05 * replicas as f64;
            let mut world = world(replicas, knee, spread, 1.5 * best, seed);
            answers(&mut world, 4_000);
            world.accounts.fill(Account::default());
            world.run(60);
            let share = good(&world) as f64 / 60.0 / best;
            let limit = world.pool.limit().unwrap();
            assert!(
                share >= 0.95 && limit <= 2 * knee,
                "{replicas} {knee} {spread} {seed}: {share} at {limit}"
            );
        }
    }
}

#[test]
fn nobody_waits_nothing_is_tried() {
    let mut world = world(4, 8, 0.3, 2.0, 1);
    world.run(300);
    assert_eq!(world.pool.limit(), Some(1));
    assert_eq!(world.pool.load().slots, Some(4));
}

#[test]
fn without_auto_the_given_limit_holds() {
    let mut world = World::new(3, 1.0, &[Manner::Serves(50.0, 0.3)], 1);
    assert_eq!(world.pool.limit(), Some(3));
    let start = world.moment(0);
    world.pool.set_auto_limit(true, start);
    assert_eq!(world.pool.limit(), Some(1));
    world.pool.set_auto_limit(false, start);
    assert_eq!(world.pool.limit(), Some(3));
}

#[test]
fn a_replica_that_warms_up_does_not_hold_the_search_up() {
    for seed in 0..2 {
        let best = 8.0 / 0.05 * 3.0;
        let mut world = world(4, 8, 0.3, 1.5 * best, seed);
        let start = world.moment(0);
        assert!(world.pool.cap(ReplicaId(3), Some(1), start).is_empty());
        answers(&mut world, 4_000);
        let limit = world.pool.limit().unwrap();
        assert!((7..=16).contains(&limit), "seed {seed}: {limit}");
    }
}
