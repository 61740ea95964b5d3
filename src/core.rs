//! Decisions without I/O: no socket, no clock, no randomness, no async. Time and draws are arguments.

pub mod admission;
pub mod bounds;
pub mod declared;
pub mod identity;
pub mod ramp;
pub mod route;
pub mod scale;
pub mod schedule;
pub mod settings;
pub mod suggest;
