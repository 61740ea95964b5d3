//! The data plane: what a request passes through, from accept to the last byte of the answer.

pub mod again;
pub mod ask;
pub mod body;
pub mod cork;
pub mod cors;
pub mod files;
pub mod gate;
pub mod head;
pub mod listener;
pub mod nudge;
pub mod peer;
pub mod proxy;
pub mod quota;
pub mod record;
pub mod reject;
pub mod signal;
pub mod tls;
pub mod upstream;
pub mod verify;
pub mod worker;
pub mod world;
