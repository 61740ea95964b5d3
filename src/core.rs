//! Decisions without I/O: no socket, no clock, no randomness, no async. Time and draws are arguments.

pub mod admission;
pub mod bounds;
pub mod declared;
pub mod identity;
pub mod ledger;
pub mod quota;
pub mod ramp;
pub mod recording;
pub mod replay;
pub mod retry;
pub mod route;
pub mod scale;
pub mod schedule;
pub mod settings;
pub mod suggest;
pub mod wait;
pub mod words;
