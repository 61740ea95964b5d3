//! Rules of what changes capacity beside the load: schedules, the end of the last replica, slow start, and the wait for a
//! cold start.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::deployment::place;
use super::{Check, number, seconds};
use crate::config::field::{At, Field};
use crate::config::file;
use crate::core::schedule::Schedule;
use crate::core::settings::{CapacitySettings, ProviderSettings, ScaleSettings};
use crate::core::suggest::nearest;

impl Check<'_> {
    pub(super) fn capacity(
        &mut self,
        deployment: &file::Deployment,
        scale: &ScaleSettings,
        provider: Option<&ProviderSettings>,
    ) -> CapacitySettings {
        let (none, default) = (file::ScaleSettings::default(), file::RequestSettings::default());
        let given = deployment.scale_settings.value().unwrap_or(&none);
        let request = deployment.request_settings.value().unwrap_or(&default);
        let (min, max) = match scale {
            ScaleSettings::Manual { replicas } => (*replicas, *replicas),
            ScaleSettings::Utilization(rule) => (rule.min, rule.max),
        };
        let by_load = matches!(scale, ScaleSettings::Utilization(_));
        if let Some(place) = place(&given.idle_time).filter(|_| by_load && min > 0) {
            let help = "the last replica is ended with `min_instances: 0` only";
            self.warning(place, format!("`idle_time` has no effect: `min_instances` is {min}"), help);
        }
        let own_wait = request.cold_start_wait_ms.value().map(|wait| wait.millis());
        CapacitySettings {
            schedules: if by_load { self.schedules(&given.schedules, max) } else { Vec::new() },
            idle_time: seconds(&given.idle_time, 300),
            warm_up: seconds(&given.warm_up_time, 0),
            cold_start_wait: own_wait.or_else(|| start_time(provider).filter(|_| min == 0)),
        }
    }

    fn schedules(&mut self, field: &Field<file::List<file::Schedule>>, max: u32) -> Vec<Schedule> {
        let Some(list) = field.given() else { return Vec::new() };
        if list.value.len() > file::MAX_SCHEDULES {
            let message =
                format!("there are {} schedules, at most {}", list.value.len(), file::MAX_SCHEDULES);
            self.error(list.place, message, "one expression can name several times, such as `0 8,20 * * *`");
            return Vec::new();
        }
        let given: Vec<_> = list.value.iter().filter_map(Field::given).collect();
        given.into_iter().filter_map(|at| self.schedule(at, max)).collect()
    }

    fn schedule(&mut self, at: &At<file::Schedule>, max: u32) -> Option<Schedule> {
        let At { value: schedule, place: whole } = at;
        for (key, is_absent) in [
            ("cron", schedule.cron.is_absent()),
            ("duration", schedule.duration.is_absent()),
            ("min_instances", schedule.min_instances.is_absent()),
        ] {
            if is_absent {
                self.missing(*whole, key, "a schedule");
            }
        }
        let min = number(&schedule.min_instances, 1);
        if let Some(place) = place(&schedule.min_instances).filter(|_| min > max) {
            let message = format!("the schedule asks for {min} replicas, but `max_instances` is {max}");
            self.error(place, message, "`max_instances` must not be less");
        }
        let zone = self.time_zone(&schedule.time_zone);
        let cron = schedule.cron.given()?;
        match Schedule::new(&cron.value, zone?, seconds(&schedule.duration, 1), min) {
            Ok(made) => Some(made.named(schedule.name.value().cloned())),
            Err(error) => {
                let message = format!("this is no cron expression: {error}");
                self.error(cron.place, message, "`0 8 * * 1-5` is at 8:00 from Monday to Friday");
                None
            }
        }
    }

    fn time_zone(&mut self, field: &Field<String>) -> Option<TimeZone> {
        let Some(at) = field.given() else {
            return matches!(field, Field::Absent).then_some(TimeZone::UTC);
        };
        if let Ok(zone) = TimeZone::get(&at.value) {
            return Some(zone);
        }
        let all: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let help = match nearest(&at.value, &all) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "use a name such as `Europe/Berlin` or `UTC`".to_owned(),
        };
        self.error(at.place, "there is no such time zone", help);
        None
    }
}

/// How long a replica may take until it is ready.
fn start_time(provider: Option<&ProviderSettings>) -> Option<Duration> {
    match provider? {
        ProviderSettings::Process(process) => Some(process.start_timeout),
        ProviderSettings::Fixed(_) => None,
    }
}
