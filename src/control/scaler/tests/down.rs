//! Scale-downs under load: whatever the number does, no replica is removed while it serves a stream.

use std::cell::Cell;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::core::admission::ReplicaId;

/// Removals that are to be seen.
const REMOVALS: usize = 1_000;
/// How long a stream holds its slot.
const STREAM: Duration = Duration::from_secs(30);
/// Clients, each with one stream after the other.
const CLIENTS: u64 = 16;

fn fixed_number(replicas: u32) -> DeploymentSettings {
    let mut settings = settings(1);
    settings.scale = ScaleSettings::Manual { replicas };
    settings.request.slots = std::num::NonZeroU32::new(4);
    settings
}

#[tokio::test(start_paused = true)]
async fn a_thousand_replicas_are_removed_and_no_stream_is_cut() {
    let world = World::begin(fixed_number(4)).await;
    let (streams, on_draining) = (Cell::new(0_u32), Cell::new(0_u32));
    let client = async |number: u64| {
        let mut random = SmallRng::seed_from_u64(number);
        loop {
            sleep(Duration::from_millis(random.random_range(1..10_000))).await;
            let Ok(permit) = world.ask().await else { continue };
            let replica: ReplicaId = permit.target().id;
            sleep(STREAM).await;
            let removed = world.fake.removed();
            assert!(
                !removed.contains(&replica),
                "{replica:?} was removed under a stream at {} s",
                world.seconds()
            );
            streams.set(streams.get() + 1);
            on_draining.set(on_draining.get() + u32::from(world.gate.load().draining > 0));
        }
    };
    let operator = async {
        let mut random = SmallRng::seed_from_u64(CLIENTS);
        while world.fake.removed().len() < REMOVALS {
            // Many at once, some of them taken back before their last stream has ended.
            for numbers in [1..=4, 10..=20] {
                world.set(fixed_number(random.random_range(numbers)));
                sleep(Duration::from_millis(random.random_range(1..40_000))).await;
            }
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| Box::pin(client(number))).collect();
    tokio::select! {
        _ = join_all(clients) => unreachable!("clients go on for ever"),
        () = operator => {}
    }
    assert!(streams.get() > 1_000, "{} streams", streams.get());
    assert!(on_draining.get() > 100, "{} ended while a replica drained", on_draining.get());
    let mut removed = world.fake.removed();
    removed.sort_unstable();
    assert!(removed.is_sorted_by(|one, next| one < next), "each once");
}
