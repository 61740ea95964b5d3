//! The control plane: one thread of its own that reloads, probes, scales and answers operators.

pub mod admin;
pub mod board;
pub mod certificates;
pub mod fetch;
pub mod health;
pub mod jwks;
pub mod operations;
pub mod overrides;
pub mod recipe;
pub mod registry;
pub mod reload;
pub mod scaler;
pub mod store;
