//! What is declared through the admin API: rules, roll-outs under traffic, failures, credentials, restarts.
//!
//! The program itself, with a state directory; replicas are its own model server, started as child processes.

#![allow(
    clippy::allow_attributes,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking"
)]

#[path = "support/process.rs"]
#[allow(dead_code, reason = "shared with tests that use other parts")]
mod process;

#[path = "declared/admin.rs"]
mod admin;
#[path = "declared/crash.rs"]
mod crash;
#[path = "declared/credentials.rs"]
mod credentials;
#[path = "declared/failures.rs"]
mod failures;
#[path = "declared/rollout.rs"]
mod rollout;
#[path = "declared/rules.rs"]
mod rules;
#[path = "declared/scale.rs"]
mod scale;
#[path = "declared/schema.rs"]
mod schema;
