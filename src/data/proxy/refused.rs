//! What a refusal leaves behind for the ledger: what was there, and what it turned on.

use crate::core::identity::Identity;
use crate::core::ledger::{Grounds, Seen};
use crate::core::quota::Denied;
use crate::core::wait::LongestWait;
use crate::data::gate::Refusal;
use crate::data::reject::Reject;
use crate::data::world::Deployment;
use crate::observe::ledger::Refused;

/// Of a request that was refused a slot. What is there now is nearly what was there then.
pub(super) fn by_gate(
    deployment: &Deployment,
    refusal: &Refusal,
    longest: LongestWait,
) -> Option<Box<Refused>> {
    let (load, limits) = (deployment.gate.load(), &deployment.settings.request);
    let seen = Seen {
        ready: load.ready,
        busy: load.busy,
        slots: load.slots,
        waiting: load.queued,
        max_wait_ms: u64::try_from(longest.time.as_millis()).unwrap_or(u64::MAX),
        max_wait_setting: longest.setting,
        max_length: limits.max_queue_length,
    };
    let grounds = Grounds::of_gate(refusal.why, refusal.prospect);
    Some(Box::new(Refused { seen: Some(seen), grounds }))
}

/// Of a request whose caller is at a limit.
pub(super) fn by_limit(denied: &Denied, identity: Option<&Identity>) -> Option<Box<Refused>> {
    let grounds = Some(Grounds::of_limit(denied.limit, identity));
    Some(Box::new(Refused { seen: None, grounds }))
}

/// Of a request whose head cannot be passed on.
pub(super) fn by_head(reject: &Reject) -> Option<Box<Refused>> {
    let problem = match reject {
        Reject::BadRequest { problem } => (*problem).into(),
        Reject::HeaderTooLong { header } => format!("{header} is over 100 characters").into(),
        _ => return None,
    };
    Some(Box::new(Refused { seen: None, grounds: Some(Grounds::Head { problem }) }))
}
