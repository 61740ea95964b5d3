//! What is seen from outside: metrics and the access log.

pub mod access;
pub mod metrics;
