//! The commands, one file each. They print; everything else logs.

pub mod check;
pub mod launch;
pub mod load;
pub mod model;
pub mod serve;
pub mod sidecar;
pub mod status;
