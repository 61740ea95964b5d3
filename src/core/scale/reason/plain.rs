//! A rule's reason for people who do not know its words. Those that are plain as they are stay; the numbers are the same.

use std::fmt;

use super::Reason;
use crate::core::scale::Sample;
use crate::core::scale::adaptive::Staffing;
use crate::core::words::{count, was_or_were};

/// A reason in plain words.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a> {
    /// The reason.
    pub reason: &'a Reason,
    /// Replicas asked for before.
    pub from: u32,
}

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Adaptive(numbers) => write_adaptive(f, numbers, self.from),
            Reason::Lower { sample, peak, window } => write_lower(f, sample, *peak, *window),
            Reason::Over(sample) => write_over(f, sample),
            Reason::AboveMax { .. }
            | Reason::AtOnce { .. }
            | Reason::BelowMin { .. }
            | Reason::Kept { .. }
            | Reason::Manual { .. }
            | Reason::NobodyThere { .. } => fmt::Display::fmt(self.reason, f),
        }
    }
}

/// Of a load over its target, for whoever does not know what is busy, queued and turned away.
fn write_over(f: &mut fmt::Formatter<'_>, sample: &Sample) -> fmt::Result {
    let Sample { busy, queued, ghosts, slots, target_percent, needed, max, .. } = *sample;
    write!(f, "{} {} running", count(busy, "request"), was_or_were(busy))?;
    if let Some(queued) = queued {
        write!(f, " and {queued} waiting")?;
    }
    match slots {
        0 => f.write_str(" and there was no replica")?,
        1 => f.write_str(" for 1 slot")?,
        slots => write!(f, " for {slots} slots")?,
    }
    if let Some(ghosts) = ghosts.filter(|ghosts| *ghosts >= 0.5) {
        write!(f, ", and {ghosts:.0} had been turned away that would still run")?;
    }
    let replicas = count(needed, "replica");
    write!(f, "; to have at most {target_percent} % of the slots in use, {replicas} would be needed")?;
    if needed > max { write!(f, ", of which {max} are allowed") } else { Ok(()) }
}

/// Of fewer that were enough for long.
fn write_lower(f: &mut fmt::Formatter<'_>, sample: &Sample, peak: u32, window: f64) -> fmt::Result {
    let replicas = format!("{} {}", count(peak, "replica"), was_or_were(peak));
    write!(f, "{replicas} enough at any time in the {window} s before; ")?;
    let busy = sample.busy;
    let slots = if sample.slots == 1 { "slot" } else { "slots" };
    write!(f, "{busy} of {} {slots} {} busy", sample.slots, was_or_were(busy))?;
    match sample.queued {
        Some(queued) => write!(f, ", and {} waited", count(queued, "request")),
        None => Ok(()),
    }
}

/// Of the rule `adaptive`: how much comes, what that keeps busy, and what is put by for chance; first what ran or waited at
/// one time, if it was that which decided, and last what else had a say.
fn write_adaptive(f: &mut fmt::Formatter<'_>, numbers: &Staffing, from: u32) -> fmt::Result {
    if numbers.has_no_need() {
        return fmt::Display::fmt(numbers, f);
    }
    if from == 0 && numbers.waiting > 0 {
        let waiting = count(numbers.waiting, "request");
        return write!(f, "{waiting} waited and there was no replica");
    }
    if numbers.arrivals_per_second < 0.05 && numbers.needed <= numbers.min {
        let least = count(numbers.min, "replica");
        return write!(f, "next to nothing came, and at least {least} must be there");
    }
    if numbers.peak().is_some() {
        let most = numbers.recent.ceil() as u32;
        write!(
            f,
            "up to {} ran, waited or {} turned away at one time in the 60 s before; on average it would be less: ",
            count(most, "request"),
            was_or_were(most)
        )?;
    }
    write!(
        f,
        "{:.1} requests a second came, each of which takes {:.2} s, so that {:.1} slots are busy on average; with {:.1} \
         more for what chance adds, that is {}",
        numbers.arrivals_per_second,
        numbers.service,
        numbers.offered,
        numbers.margin,
        count(numbers.on_average(), "replica")
    )?;
    numbers.write_held(f)?;
    numbers.write_others(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            busy: 2,
            queued: Some(12),
            ghosts: Some(5.2),
            can_wait: false,
            service: None,
            load: 19.2,
            total: 2,
            slots: 2,
            target_percent: 70,
            needed: 28,
            min: 1,
            max: 5,
        }
    }

    fn staffing() -> Staffing {
        Staffing {
            arrivals_per_second: 8.4,
            fast: 8.4,
            slow: 8.0,
            service: 0.5,
            offered: 4.2,
            demand: 4.0,
            ghosts: 0.0,
            burstiness: 2.3,
            may_wait: 0.5,
            queue_wait: 0.5,
            correction: None,
            margin: 3.1,
            hold: 300.0,
            held: 7.3,
            recent: 5.0,
            cold: 3.0,
            slots: 1,
            first: None,
            raised: 0,
            idle: false,
            waiting: 0,
            min: 1,
            max: 10,
            needed: 8,
        }
    }

    fn plain(reason: Reason, from: u32) -> String {
        Plain { reason: &reason, from }.to_string()
    }

    #[test]
    fn a_load_over_its_target_is_told_plainly() {
        assert_eq!(
            plain(Reason::Over(sample()), 2),
            "2 requests were running and 12 waiting for 2 slots, and 5 had been turned away that would still run; to have \
             at most 70 % of the slots in use, 28 replicas would be needed, of which 5 are allowed"
        );
        let one = Sample { busy: 1, queued: None, ghosts: None, slots: 1, needed: 1, ..sample() };
        assert_eq!(
            plain(Reason::Over(one), 1),
            "1 request was running for 1 slot; to have at most 70 % of the slots in use, 1 replica would be needed"
        );
    }

    #[test]
    fn fewer_that_were_enough_are_told_plainly() {
        let lower = |busy, queued, slots| {
            let sample = Sample { busy, queued: Some(queued), slots, ..sample() };
            plain(Reason::Lower { sample, peak: 1, window: 60.0 }, 5)
        };
        let begin = "1 replica was enough at any time in the 60 s before;";
        assert_eq!(lower(0, 0, 5), format!("{begin} 0 of 5 slots were busy, and 0 requests waited"));
        assert_eq!(lower(1, 1, 5), format!("{begin} 1 of 5 slots was busy, and 1 request waited"));
    }

    #[test]
    fn the_formula_is_told_plainly_with_all_that_had_a_say() {
        let average = "8.4 requests a second came, each of which takes 0.50 s, so that 4.2 slots are busy on average; with \
                       3.1 more for what chance adds, that is 8 replicas";
        assert_eq!(plain(Reason::Adaptive(staffing()), 5), average);
        let most = Staffing { recent: 11.5, needed: 12, ..staffing() };
        let begin = "up to 12 requests ran, waited or were turned away at one time in the 60 s before; on average it would be \
                     less: ";
        assert_eq!(plain(Reason::Adaptive(most), 5), format!("{begin}{average}; at most 10 allowed"));
        let kept = Staffing { held: 9.0, needed: 9, correction: Some(0.1), ..staffing() };
        assert_eq!(
            plain(Reason::Adaptive(kept), 9),
            format!(
                "{average}; 9 were needed in the 300 s before, and are kept; the reject budget changes the margin by +10 %"
            )
        );
        let cold = Staffing { waiting: 1, ..staffing() };
        assert_eq!(plain(Reason::Adaptive(cold), 0), "1 request waited and there was no replica");
        let quiet = Staffing { arrivals_per_second: 0.0, offered: 0.0, needed: 1, ..staffing() };
        assert_eq!(
            plain(Reason::Adaptive(quiet), 1),
            "next to nothing came, and at least 1 replica must be there"
        );
        let idle = Reason::Adaptive(Staffing { idle: true, needed: 0, min: 0, ..staffing() });
        assert_eq!(plain(idle, 1), idle.to_string());
    }
}
