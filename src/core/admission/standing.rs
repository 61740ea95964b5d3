//! What the router thinks of a replica from what has passed by, in words that operators and the scaler read.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::core::admission::ReplicaId;

/// How a replica has done, beside its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing is held against it.
    #[default]
    Good,
    /// Far slower than its siblings; given work last, because they cannot carry the load without it.
    Slow,
    /// Fails where its siblings do not; given little and last, because they cannot carry the load without it.
    Failing,
    /// Holds a request for far longer than its siblings need; given nothing new until it answers.
    Silent,
    /// Given nothing; the others carry the load.
    Ejected,
    /// Was ejected; one request at a time shows whether it has recovered.
    Probation,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 6] =
        [Self::Good, Self::Slow, Self::Failing, Self::Silent, Self::Ejected, Self::Probation];

    /// As it is written in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Silent => "silent",
            Self::Ejected => "ejected",
            Self::Probation => "probation",
        }
    }

    /// Whether the replica is worth replacing if this lasts. One that is silent may only have a long request.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Good | Self::Silent)
    }
}

/// What a standing was given for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// So many of its last requests failed.
    Failed {
        /// That failed.
        failed: u32,
        /// That ended, eight at most.
        of: u32,
    },
    /// It answered 500 again and again while its siblings did not.
    Erred {
        /// So often in a row, at least.
        row: u32,
    },
    /// Its typical service time is so many times that of its siblings.
    Slow {
        /// 1 is as fast as they are.
        times: f64,
    },
    /// It has not answered for so long while its siblings did.
    Silent {
        /// In seconds.
        seconds: f64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { failed, of: 1 } if *failed == 1 => f.write_str("its last request failed"),
            Self::Failed { failed, of } => write!(f, "{failed} of its last {of} requests failed"),
            Self::Erred { row } => {
                write!(f, "its last {row} answers were all 500, and hardly any of its siblings' were")
            }
            Self::Slow { times } => write!(f, "it takes {times:.1} times as long as its siblings"),
            Self::Silent { seconds } => {
                write!(f, "it has not answered for {seconds:.1} s while its siblings did")
            }
        }
    }
}

/// The standing of one replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Whose it is.
    pub replica: ReplicaId,
    /// How it has done.
    pub standing: Standing,
    /// Since when it is not good, through all standings since then; `None` while it is good.
    pub since: Option<Instant>,
    /// What for.
    pub why: Option<Why>,
    /// It has been there for less than a minute, or has hardly answered anything: may yet have to warm up.
    pub is_new: bool,
}
