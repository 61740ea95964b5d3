//! At whatever step the power is cut, the disk is full or a step fails: what is found is what was before the change or
//! what it made.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::power::{Fault, Power};
use super::{assert_tidy, changed, document, endpoint, folder, holding, name, opened, sample};
use crate::control::store::{Declared, Store, StoreError, new_key};

/// One of each kind of change, and one that does all at once.
fn changes() -> Vec<(&'static str, Declared)> {
    let before = sample();
    let change = |label, change: fn(&mut Declared)| (label, changed(&before, change));
    vec![
        change("create an endpoint", |state| state.endpoints.extend([endpoint("third", &["blue"])])),
        change("create a deployment with traffic", |state| {
            let orders = state.endpoints.get_mut("orders").unwrap();
            orders.deployments.insert(name("red"), document(json!({"name": "red"})));
            orders.document.insert("traffic".to_owned(), json!({"red": 100}));
        }),
        change("replace", |state| {
            let orders = state.endpoints.get_mut("orders").unwrap();
            orders.deployments.insert(name("blue"), document(json!({"version": 2})));
        }),
        change("regenerate a key", |state| {
            state.endpoints.get_mut("orders").unwrap().secrets.primary = new_key();
        }),
        change("delete a deployment", |state| {
            state.endpoints.get_mut("orders").unwrap().deployments.remove("green");
        }),
        change("delete an endpoint", |state| {
            state.endpoints.remove("orders");
        }),
        change("everything", |state| {
            state.endpoints.remove("other");
            state.endpoints.extend([endpoint("third", &["blue", "Blue"])]);
            let orders = state.endpoints.get_mut("orders").unwrap();
            orders.deployments.remove("blue");
            orders.deployments.insert(name("red"), document(json!({"name": "red"})));
            orders.document.insert("traffic".to_owned(), json!({"red": 100}));
            orders.secrets.secondary = new_key();
        }),
    ]
}

/// A machine that holds `before`, with a store that is open.
fn machine(before: &Declared) -> (tempfile::TempDir, Power, Store) {
    let folder = holding(before);
    let power = Power::new();
    let (store, found) = Store::open_on(folder.path(), power.disk()).unwrap();
    assert_eq!(found, *before);
    (folder, power, store)
}

fn nothing(_: &Path) -> bool {
    false
}

fn everything(_: &Path) -> bool {
    true
}

/// Does `run` with each step until one is beyond the end.
fn at_every_step(mut run: impl FnMut(usize) -> bool) {
    let steps = (0..1000).take_while(|step| run(*step)).count();
    assert!((5..500).contains(&steps), "{steps} steps");
}

#[test]
fn a_cut_at_any_step_leaves_before_or_after() {
    for (label, after) in changes() {
        let before = sample();
        for kept in [everything, nothing] {
            let mut seen = [false; 2];
            at_every_step(|step| {
                let (folder, power, mut store) = machine(&before);
                power.arm(Fault::Cut(step));
                let done = store.commit(&before, &after);
                drop(store);
                power.lose(kept);
                let found = opened(folder.path());
                assert!(found == before || found == after, "{label}, step {step}: {found:?}");
                assert!(done.is_err() || found == after, "{label}, step {step}: a change was lost");
                assert_tidy(folder.path(), &found);
                seen[usize::from(found == after)] = true;
                power.tripped()
            });
            assert_eq!(seen, [true; 2], "{label}");
        }
    }
}

#[test]
fn a_cut_while_a_cut_is_healed_changes_nothing() {
    for (label, after) in changes() {
        // Short ones: there is a run for each pair of steps.
        if ["create a deployment with traffic", "delete a deployment"].contains(&label) {
            // What is lost with the power: everything that was not durable, or the journal alone.
            heal(&sample(), &after, false);
            heal(&sample(), &after, true);
        }
    }
}

fn heal(before: &Declared, after: &Declared, journal_only: bool) {
    at_every_step(|first| {
        let mut tripped = false;
        let mut outcome = None;
        for second in 0.. {
            let (folder, power, mut store) = machine(before);
            // The process is killed, so nothing is lost yet; then the power is cut.
            power.arm(Fault::Cut(first));
            let done = store.commit(before, after);
            tripped = power.tripped();
            drop(store);
            power.arm(Fault::Cut(second));
            let seen = Store::open_on(folder.path(), power.disk()).map(|(_, declared)| declared);
            let healed = !power.tripped();
            power.lose(|path| journal_only && path != folder.path());
            let found = opened(folder.path());
            assert!(found == *before || found == *after, "steps {first}, {second}: {found:?}");
            assert!(done.is_err() || found == *after, "steps {first}, {second}: a change was lost");
            if let Ok(seen) = seen {
                assert_eq!(seen, found, "steps {first}, {second}: what was seen is lost");
                outcome = Some(seen);
            }
            assert_tidy(folder.path(), &found);
            if healed {
                break;
            }
        }
        assert!(outcome.is_some());
        tripped
    });
}

/// The process lives on: what `commit` says holds, then and after a restart, and the next change works.
fn fails_and_lives_on(fault: fn(usize) -> Fault) {
    for (label, after) in changes() {
        let before = sample();
        at_every_step(|step| {
            let mut tripped = false;
            for restart in [true, false] {
                let (folder, power, mut store) = machine(&before);
                power.arm(fault(step));
                let done = store.commit(&before, &after);
                tripped = power.tripped();
                let truth = if done.is_ok() { &after } else { &before };
                if restart {
                    drop(store);
                    let found = opened(folder.path());
                    let in_doubt = matches!(done, Err(StoreError::InDoubt { .. })) && found == after;
                    assert!(found == *truth || in_doubt, "{label}, step {step}: {done:?}, {found:?}");
                } else {
                    power.arm(Fault::Never);
                    let next = changed(truth, |state| state.endpoints.extend([endpoint("last", &["one"])]));
                    store.commit(truth, &next).unwrap();
                    drop(store);
                    assert_eq!(opened(folder.path()), next, "{label}, step {step}");
                    assert_tidy(folder.path(), &next);
                }
            }
            tripped
        });
    }
}

#[test]
fn a_step_that_fails_leaves_the_truth_as_it_was_told() {
    fails_and_lives_on(Fault::Once);
}

#[test]
fn a_disk_that_refuses_everything_leaves_the_truth_as_it_was_told() {
    fails_and_lives_on(Fault::Cut);
}

#[test]
fn a_journal_that_stays_makes_no_mixture() {
    fails_and_lives_on(Fault::Stuck);
}

#[test]
fn a_full_disk_is_found_out_before_the_change_is_a_fact() {
    for (label, after) in changes() {
        let before = sample();
        at_every_step(|step| {
            let (folder, power, mut store) = machine(&before);
            power.arm(Fault::Full(step));
            let done = store.commit(&before, &after);
            let tripped = power.tripped();
            assert_eq!(done.is_err(), tripped, "{label}, step {step}: {done:?}");
            assert!(store.leftover.is_none(), "{label}, step {step}: it needed room after the commit");
            // Nothing waits, so the disk is as full as it was, and no fuller.
            assert_tidy(folder.path(), if tripped { &before } else { &after });
            tripped
        });
    }
}

#[derive(Clone, Debug)]
enum Action {
    DeleteDeployment(usize, usize),
    DeleteEndpoint(usize),
    Key(usize),
    PutDeployment(usize, usize, u32),
    PutEndpoint(usize, u32),
}

/// Two of each differ only in case.
const ENDPOINTS: [&str; 3] = ["orders", "Orders", "other"];
const DEPLOYMENTS: [&str; 3] = ["blue", "BLUE", "green"];

impl Action {
    fn apply(&self, state: &mut Declared) {
        let of = |endpoint: usize| name(ENDPOINTS[endpoint]);
        match *self {
            Self::DeleteDeployment(e, d) => {
                if let Some(declared) = state.endpoints.get_mut(&of(e)) {
                    declared.deployments.remove(DEPLOYMENTS[d]);
                }
            }
            Self::DeleteEndpoint(e) => {
                state.endpoints.remove(&of(e));
            }
            Self::Key(e) => {
                if let Some(declared) = state.endpoints.get_mut(&of(e)) {
                    declared.secrets.primary = new_key();
                }
            }
            Self::PutDeployment(e, d, value) => {
                if let Some(declared) = state.endpoints.get_mut(&of(e)) {
                    declared.deployments.insert(name(DEPLOYMENTS[d]), document(json!({"value": value})));
                }
            }
            Self::PutEndpoint(e, value) => {
                let (name, new) = endpoint(ENDPOINTS[e], &[]);
                let declared = state.endpoints.entry(name).or_insert(new);
                declared.document.insert("value".to_owned(), value.into());
            }
        }
    }
}

fn action() -> impl Strategy<Value = Action> {
    let (e, d, value) = (0..ENDPOINTS.len(), 0..DEPLOYMENTS.len(), 0..3u32);
    prop_oneof![
        1 => (e.clone(), d.clone()).prop_map(|(e, d)| Action::DeleteDeployment(e, d)),
        1 => e.clone().prop_map(Action::DeleteEndpoint),
        1 => e.clone().prop_map(Action::Key),
        3 => (e.clone(), d, value.clone()).prop_map(|(e, d, value)| Action::PutDeployment(e, d, value)),
        2 => (e, value).prop_map(|(e, value)| Action::PutEndpoint(e, value)),
    ]
}

/// Commits: what they do, the step at which the power is cut, and which folders keep what was not durable.
fn commits() -> impl Strategy<Value = Vec<(Vec<Action>, usize, u64)>> {
    prop::collection::vec((prop::collection::vec(action(), 1..6), 0..90usize, any::<u64>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn random_changes_with_random_cuts_are_whole_or_not_at_all(commits in commits()) {
        let folder = folder();
        let power = Power::new();
        let (mut store, mut state) = Store::open_on(folder.path(), power.disk()).unwrap();
        for (actions, step, kept) in commits {
            let after = changed(&state, |state| actions.iter().for_each(|action| action.apply(state)));
            power.arm(Fault::Cut(step));
            let done = store.commit(&state, &after);
            prop_assert!(done.is_ok() || power.tripped());
            if power.tripped() {
                drop(store);
                power.lose(|path| {
                    // Not the folder's own name, which is another one in each run.
                    let path = path.strip_prefix(folder.path()).unwrap_or(path);
                    let bytes = path.as_os_str().as_encoded_bytes();
                    kept >> (bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 64) & 1 == 1
                });
                power.arm(Fault::Never);
                let found;
                (store, found) = Store::open_on(folder.path(), power.disk()).unwrap();
                prop_assert!(found == state || found == after, "{:?}", found);
                prop_assert!(done.is_err() || found == after, "a change was lost");
                state = found;
            } else {
                state = after;
            }
            assert_tidy(folder.path(), &state);
        }
        drop(store);
        prop_assert_eq!(opened(folder.path()), state);
    }
}
