//! The promises of the router, end to end: the real library on real sockets, in front of scripted replicas.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test and its helpers fail by panicking, and their tasks end with the test"
)]

#[path = "../support/replica.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod replica;
#[path = "../support/router.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod router;

mod auth;
mod exactness;
mod forwarding;
mod outcomes;
mod reload;
mod retries;
mod routes;
mod status;
mod tls;
mod traffic;
