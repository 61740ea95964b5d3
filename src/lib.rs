//! scoregate: an inference router. `ARCHITECTURE.md` is the map; this is its index.

pub mod app; // the start-up and the end, in order
pub mod cli; // the commands
pub mod config; // from a file to settings, or to every mistake in it
pub mod control; // reload, probes, scaling, the admin listener
pub mod core; // decisions without I/O
pub mod data; // the path of a request
pub mod observe; // metrics and the access log
pub mod provider; // what makes replicas exist
pub mod shutdown; // drain and tasks
