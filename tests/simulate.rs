//! Seeded simulation of admission and scaling with a virtual clock: one number decides over arrivals, service
//! times, clients that leave, replicas that start slowly, die or flap, and limits that change meanwhile.
//! A failing seed is named; `SEED=n cargo test --test simulate` runs that one alone.

#[path = "simulate/requests.rs"]
mod requests;
#[path = "simulate/world.rs"]
mod world;

use std::panic::catch_unwind;

use world::{Totals, World};

const SEEDS: u64 = 300;

#[test]
fn no_seed_breaks_a_promise() {
    let chosen = std::env::var("SEED").ok().map(|text| text.parse::<u64>().expect("SEED is a number"));
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut all = Totals::default();
    for seed in seeds {
        match catch_unwind(|| World::new(seed).run()) {
            Ok(totals) => all += totals,
            Err(_) => panic!("seed {seed} breaks a promise; replay: SEED={seed} cargo test --test simulate"),
        }
    }
    if chosen.is_none() {
        // A simulation in which a thing never happens shows nothing about it.
        let happened = [
            all.served,
            all.refused,
            all.timed_out,
            all.left_waiting,
            all.left_running,
            all.cut,
            all.unreachable,
            all.ups,
            all.downs,
            all.taken_back,
            all.deaths,
            all.flaps,
            all.limits,
        ];
        assert!(happened.iter().all(|count| *count >= 10), "{all:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    assert_eq!(World::new(7).run(), World::new(7).run());
}
