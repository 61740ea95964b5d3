//! What is seen from outside: metrics, the access log and the ledger of decisions.

pub mod access;
pub mod ledger;
mod lines;
pub mod metrics;
