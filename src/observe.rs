//! What is seen from outside: metrics, the access log, the ledger of decisions and recordings.

pub mod access;
pub mod ledger;
mod lines;
pub mod metrics;
pub mod recording;
