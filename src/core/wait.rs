//! How long a request may wait for a slot, by which setting, and how such times are told in whole milliseconds.
//!
//! Which of the settings holds for a request is seen at its deployment's gate; nothing here looks at one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest wait of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongestWait {
    /// How long it is.
    pub time: Duration,
    /// Which setting says so.
    pub setting: WaitSetting,
}

/// A setting that limits the wait for a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitSetting {
    /// For a request that comes while no replica is ready.
    #[serde(rename = "cold_start_wait_ms")]
    ColdStart,
    /// For every other one.
    #[default]
    #[serde(rename = "max_queue_wait_ms")]
    Queue,
}

impl WaitSetting {
    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ColdStart => "cold_start_wait_ms",
            Self::Queue => "max_queue_wait_ms",
        }
    }
}

/// When to come back, in milliseconds: rounded up and at least 1, as nobody should come too early.
pub fn until_return(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000).max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_called_the_same_everywhere() {
        for setting in [WaitSetting::ColdStart, WaitSetting::Queue] {
            assert_eq!(serde_json::to_value(setting).unwrap(), setting.as_str());
        }
    }
}
