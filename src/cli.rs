//! The commands, one file each. They print; everything else logs.

mod admin;
pub mod azure;
pub mod check;
pub mod decide;
pub mod explain;
mod http;
pub mod launch;
pub mod load;
pub mod model;
pub mod papers;
pub mod replay;
pub mod scale;
pub mod serve;
pub mod sidecar;
pub mod status;

/// Whoever read what is printed does not want more of it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
