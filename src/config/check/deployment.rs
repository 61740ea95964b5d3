//! Rules of one deployment: where replicas come from, how many there are, and the limits of a request.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{Check, at_least_one, millis, number, seconds, texts};
use crate::config::diagnostic::Place;
use crate::config::field::{At, Field};
use crate::config::file;
use crate::config::units::Concurrency;
use crate::core::settings::{
    DeploymentKind, DeploymentSettings, FixedSettings, HedgeAfter, ProbeSettings, ProcessSettings, Profile,
    ProviderSettings, RepeatSettings, ReplicaRoutes, RequestSettings, ScalePolicy, ScaleSettings,
    UtilizationScale,
};

/// Where Linux begins to take ports for outgoing connections (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL_PORT: u16 = 32_768;
/// What `command` and `environment_variables` may name in braces.
const PLACEHOLDERS: [&str; 3] = ["{port}", "{replica}", "{scoregate}"];

impl Check<'_> {
    pub(super) fn deployment(
        &mut self,
        at: &At<file::Deployment>,
        profile: Profile,
    ) -> Option<DeploymentSettings> {
        let At { value: deployment, place } = at;
        let name = self.name(&deployment.name, "a deployment", *place);
        let scale = self.scale(deployment, profile);
        let provider = self.provider(deployment, &scale, *place);
        let capacity = self.capacity(deployment, &scale, provider.as_ref());
        self.without_effect(deployment, &scale);
        let slow = profile == Profile::AksV1;
        let kind = match deployment.r#type.value() {
            Some(file::DeploymentType::Control) => DeploymentKind::Control,
            Some(file::DeploymentType::Treatment) | None => DeploymentKind::Treatment,
        };
        Some(DeploymentSettings {
            kind,
            request: self.request(&deployment.request_settings, profile),
            capacity,
            scale,
            // v1's defaults are 310, 10, 2, 1, 3, and it had no readiness probe; v2's are 10, 10, 2, 1, 30 (§6).
            liveness: probe(&deployment.liveness_probe, if slow { (310, 3) } else { (10, 30) }),
            readiness: probe(&deployment.readiness_probe, (10, 30)),
            routes: self.routes(&deployment.inference_config),
            forward_authorization: deployment.forward_authorization.value().copied().unwrap_or(false),
            passive_health: deployment.passive_health.value().copied().unwrap_or(true),
            name: name?,
            provider: provider?,
        })
    }

    fn scale(&mut self, deployment: &file::Deployment, profile: Profile) -> ScaleSettings {
        let default = file::ScaleSettings::default();
        let scale = deployment.scale_settings.value().unwrap_or(&default);
        if let Some(list) = deployment.replicas.given() {
            return self.fixed_scale(deployment, scale, list.value.len());
        }
        let count = &deployment.instance_count;
        let by_count =
            if count.is_absent() { file::ScaleType::TargetUtilization } else { file::ScaleType::Default };
        if scale.r#type.value().copied().unwrap_or(by_count) == file::ScaleType::Default {
            self.no_bounds(scale, "the number of replicas is fixed by `instance_count`");
            return ScaleSettings::Manual { replicas: number(count, 1) };
        }
        if let Some(at) = count.given() {
            let help = "remove it and set `min_instances` and `max_instances`, or choose `type: default`";
            self.error(at.place, "`instance_count` is only for scale type `default`", help);
        }
        ScaleSettings::Utilization(self.utilization(scale, profile))
    }

    /// The number of a fixed list is its length; whatever says otherwise is a mistake.
    fn fixed_scale(
        &mut self,
        deployment: &file::Deployment,
        scale: &file::ScaleSettings,
        length: usize,
    ) -> ScaleSettings {
        if let Some(at) = scale.r#type.given().filter(|at| at.value == file::ScaleType::TargetUtilization) {
            let help = "remove `scale_settings`, or let scoregate start the replicas (`process`)";
            self.error(at.place, "`replicas` is a fixed list, which cannot scale", help);
        } else {
            self.no_bounds(scale, "the number of replicas is that of the list `replicas`");
        }
        if let Some(at) = deployment.instance_count.given().filter(|at| at.value.get() != length as u64) {
            let message = format!("`instance_count` is {}, but `replicas` lists {length}", at.value.get());
            self.error(at.place, message, "remove it: with `replicas` the list decides");
        }
        ScaleSettings::Manual { replicas: u32::try_from(length).unwrap_or(u32::MAX) }
    }

    fn no_bounds(&mut self, scale: &file::ScaleSettings, why: &str) {
        let fields = [
            ("min_instances", place(&scale.min_instances)),
            ("max_instances", place(&scale.max_instances)),
            ("polling_interval", place(&scale.polling_interval)),
            ("target_utilization_percentage", place(&scale.target_utilization_percentage)),
            ("policy", place(&scale.policy)),
            ("idle_time", place(&scale.idle_time)),
            ("schedules", place(&scale.schedules)),
            ("reject_budget_percentage", place(&scale.reject_budget_percentage)),
        ];
        for (key, place) in fields.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            let help = "it belongs to `type: target_utilization`";
            self.error(place, format!("`{key}` has no effect: {why}"), help);
        }
    }

    fn utilization(&mut self, scale: &file::ScaleSettings, profile: Profile) -> UtilizationScale {
        let v1 = profile == Profile::AksV1;
        let (min, max) =
            (number(&scale.min_instances, 1), number(&scale.max_instances, if v1 { 10 } else { 1 }));
        let known = !matches!(scale.max_instances, Field::Bad) && !matches!(scale.min_instances, Field::Bad);
        if let (true, true, Some(place)) =
            (min > max, known, place(&scale.max_instances).or_else(|| place(&scale.min_instances)))
        {
            let default = if scale.max_instances.is_absent() { " (the default)" } else { "" };
            let message = format!("`min_instances` is {min}, but `max_instances` is {max}{default}");
            self.error(place, message, "`max_instances` must not be less than `min_instances`");
        }
        let interval = seconds(&scale.polling_interval, 1);
        UtilizationScale {
            policy: self.policy(scale),
            min,
            max,
            interval,
            target_percent: number(&scale.target_utilization_percentage, 70),
            down_after: if v1 { Duration::from_secs(60) } else { interval * 20 },
            count_queue: !v1,
        }
    }

    fn policy(&mut self, scale: &file::ScaleSettings) -> ScalePolicy {
        let budget = scale.reject_budget_percentage.given();
        let policy = match scale.policy.value().copied().unwrap_or(file::ScalePolicy::Azureml) {
            file::ScalePolicy::Azureml => ScalePolicy::Azureml,
            file::ScalePolicy::AzuremlStrict => ScalePolicy::AzuremlStrict,
            file::ScalePolicy::Adaptive => {
                return ScalePolicy::Adaptive { reject_budget_percent: budget.map(|at| at.value.0) };
            }
        };
        if let Some(at) = budget.filter(|_| !matches!(scale.policy, Field::Bad)) {
            let help = "remove it, or choose `policy: adaptive`";
            self.error(at.place, "`reject_budget_percentage` is only for the policy `adaptive`", help);
        }
        policy
    }

    fn provider(
        &mut self,
        deployment: &file::Deployment,
        scale: &ScaleSettings,
        place: Place,
    ) -> Option<ProviderSettings> {
        match (&deployment.replicas, &deployment.process) {
            (Field::Absent, Field::Absent)
                if self.is_misspelled(place, "process") || self.is_misspelled(place, "replicas") =>
            {
                None
            }
            (Field::Absent, Field::Absent) => {
                let help = "add `replicas: [http://HOST:PORT]` for servers that run already, or `process:` with a \
                    `command` to start them";
                self.error(place, "the deployment does not say where its replicas come from", help);
                None
            }
            (Field::Absent, process) => {
                self.process(process.given()?, deployment, scale).map(ProviderSettings::Process)
            }
            (_, Field::Absent) => {
                if let Some(at) = deployment.environment_variables.given() {
                    let message =
                        "`environment_variables` has no effect on servers that run already (`replicas`)";
                    self.error(at.place, message, "remove it, or start the servers with `process`");
                }
                Some(ProviderSettings::Fixed(FixedSettings { replicas: self.replicas(&deployment.replicas) }))
            }
            (_, process) => {
                let place = process.given().map_or(place, |at| at.place);
                self.error(place, "the deployment has both `replicas` and `process`", "keep one of them");
                None
            }
        }
    }

    fn replicas(
        &mut self,
        field: &Field<file::List<crate::config::units::ReplicaUrl>>,
    ) -> Vec<crate::core::settings::Authority> {
        let list = self.list(field, "replicas", "the deployment", Place::default());
        for (index, at) in list.iter().enumerate() {
            if list[..index].iter().any(|earlier| earlier.value == at.value) {
                let message = format!("the replica {} is listed twice", at.value.0);
                self.error(
                    at.place,
                    message,
                    "its slots would be counted twice; for more slots raise \
                    `max_concurrent_requests_per_instance`",
                );
            }
        }
        list.into_iter().map(|at| at.value.0.clone()).collect()
    }

    fn process(
        &mut self,
        at: &At<file::Process>,
        deployment: &file::Deployment,
        scale: &ScaleSettings,
    ) -> Option<ProcessSettings> {
        let process = &at.value;
        let command = self.list(&process.command, "command", "`process`", at.place);
        if let Some(program) = command.first().filter(|program| program.value.is_empty()) {
            self.error(
                program.place,
                "the program is empty",
                "the first item of `command` is the program to start",
            );
        }
        for argument in &command {
            self.placeholders(&argument.value, argument.place);
        }
        let ports = process.ports.value().map_or((20_000, 29_999), |ports| (ports.0, ports.1));
        if let Some(at) = process.ports.given() {
            self.ports(at.place, ports, scale);
        }
        Some(ProcessSettings {
            command: texts(&process.command),
            directory: process.directory.given().map(|at| self.base.join(&at.value.0)),
            environment: self.environment(deployment),
            ports,
            start_timeout: seconds(&process.start_timeout_s, 300),
            stop_timeout: seconds(&process.stop_timeout_s, 30),
        })
    }

    fn ports(&mut self, place: Place, (first, last): (u16, u16), scale: &ScaleSettings) {
        let most = match scale {
            ScaleSettings::Manual { replicas } => *replicas,
            ScaleSettings::Utilization(scale) => scale.max,
        };
        let count = u32::from(last - first) + 1;
        if count < most {
            let message = format!("`ports` has {count} ports for up to {most} replicas");
            self.error(place, message, "every replica needs a port of its own");
        }
        if last >= FIRST_EPHEMERAL_PORT {
            let message = format!(
                "`ports` reaches {last}; from {FIRST_EPHEMERAL_PORT} on Linux takes ports for itself"
            );
            self.warning(place, message, "a port may be taken when a replica wants it; use ports below");
        }
    }

    fn environment(&mut self, deployment: &file::Deployment) -> BTreeMap<String, String> {
        let entries = deployment.environment_variables.value();
        let mut environment = BTreeMap::new();
        for (name, value) in entries.into_iter().flat_map(|entries| &entries.0) {
            if name.value.is_empty() || name.value.contains(['=', '\0']) {
                let message =
                    format!("`{}` is not the name of an environment variable", self.source.quote(name.place));
                self.error(name.place, message, "a name has one character or more and no `=`");
            }
            if name.value == "PORT" {
                let help = "remove it; to give the port another name, use `OTHER: \"{port}\"`";
                self.warning(name.place, "`PORT` is always set to the replica's port", help);
            }
            if let Some(value) = value.given() {
                self.placeholders(&value.value, value.place);
                environment.insert(name.value.clone(), value.value.clone());
            }
        }
        environment
    }

    /// A word in braces that is not replaced is probably misspelled; braces around anything else are not ours.
    fn placeholders(&mut self, text: &str, place: Place) {
        if text.contains('\0') {
            self.error(place, "the text holds a zero byte", "no process can be given one");
        }
        let words = text.match_indices('{').filter_map(|(start, _)| {
            let end = start + text[start..].find('}')? + 1;
            let word = &text[start..end];
            let inner = &word[1..word.len() - 1];
            (!inner.is_empty() && inner.chars().all(|c| c.is_ascii_lowercase() || c == '_')).then_some(word)
        });
        for word in words.filter(|word| !PLACEHOLDERS.contains(word)) {
            let help = "`{port}`, `{replica}` and `{scoregate}` are replaced";
            self.warning(place, format!("`{word}` is passed on as it is"), help);
        }
    }

    fn request(&mut self, field: &Field<file::RequestSettings>, profile: Profile) -> RequestSettings {
        let default = file::RequestSettings::default();
        let request = field.value().unwrap_or(&default);
        // v1 60,000 ms, v2 5,000 ms; 1 slot and 500 ms in both; 100 MB is v1's limit (reference §3.1).
        let timeout = if profile == Profile::AksV1 { 60_000 } else { 5_000 };
        let concurrency = request.max_concurrent_requests_per_instance.value().copied();
        let slots = match concurrency.unwrap_or(Concurrency::Most(1)) {
            Concurrency::Auto => None,
            Concurrency::Most(slots) => NonZeroU32::new(slots),
        };
        RequestSettings {
            timeout: millis(&request.request_timeout_ms, timeout),
            connect_timeout: millis(&request.connect_timeout_ms, 1_000),
            slots,
            auto_slots: concurrency == Some(Concurrency::Auto),
            max_queue_wait: millis(&request.max_queue_wait_ms, 500),
            max_queue_length: request.max_queue_length.value().map(|length| length.as_u32()),
            max_body_bytes: request.max_body_bytes.value().map_or(100 * 1024 * 1024, |bytes| bytes.get()),
            newest_first: request.queue_order.value() == Some(&file::QueueOrder::NewestFirst),
            fair_share: request.fair_share.value().copied().unwrap_or(false),
            repeat: self.repeat(request, millis(&request.request_timeout_ms, timeout)),
        }
    }

    fn repeat(&mut self, request: &file::RequestSettings, timeout: Duration) -> RepeatSettings {
        let default = RepeatSettings::default();
        let retry = request.retry.value().cloned().unwrap_or_default();
        RepeatSettings {
            idempotent: request.idempotent.value().copied().unwrap_or(default.idempotent),
            attempts: number(&retry.attempts, default.attempts),
            budget_percent: number(&retry.budget_percentage, default.budget_percent),
            hedge: request.hedge.given().and_then(|hedge| self.hedge(hedge, request, timeout)),
        }
    }

    fn hedge(
        &mut self,
        at: &At<file::Hedge>,
        request: &file::RequestSettings,
        timeout: Duration,
    ) -> Option<HedgeAfter> {
        if request.idempotent.is_absent() {
            let help = "add `idempotent: true` if the model may compute a request twice, or `idempotent: false` if \
                only these are meant";
            self.warning(at.place, "`hedge` is only for GET and HEAD requests here", help);
        }
        let hedge = &at.value;
        if let Some(after) = hedge.after_ms.given().filter(|after| after.value.millis() >= timeout) {
            let message =
                "`after_ms` has no effect: no request waits for an answer so long (`request_timeout_ms`)";
            self.warning(after.place, message, "make it less than `request_timeout_ms`");
        }
        match (&hedge.after_ms, &hedge.after) {
            (Field::Absent, Field::Absent) => {
                if !self.is_misspelled(at.place, "after_ms") && !self.is_misspelled(at.place, "after") {
                    let help = "add `after_ms: 200`, or `after: p95` to go by what is measured";
                    self.error(at.place, "`hedge` does not say when a second copy is sent", help);
                }
                None
            }
            (time, Field::Absent) => time.value().map(|time| HedgeAfter::Time(time.millis())),
            (Field::Absent, after) => after.value().map(|file::HedgeMoment::P95| HedgeAfter::P95),
            (_, after) => {
                let place = after.given().map_or(at.place, |after| after.place);
                self.error(place, "`hedge` has both `after_ms` and `after`", "keep one of them");
                None
            }
        }
    }

    fn routes(&mut self, field: &Field<file::InferenceConfig>) -> ReplicaRoutes {
        let default = file::InferenceConfig::default();
        let config = field.value().unwrap_or(&default);
        ReplicaRoutes {
            scoring: self.route(&config.scoring_route, "/score"),
            swagger: self.route(&config.swagger_route, "/swagger.json"),
            liveness: self.route(&config.liveness_route, "/"),
            readiness: self.route(&config.readiness_route, "/"),
            pass_through: false,
        }
    }

    fn route(&mut self, field: &Field<file::Route>, default: &str) -> String {
        let Some(at) = field.given() else { return default.to_owned() };
        if at.value.path.is_absent() {
            self.missing(at.place, "path", "this route");
        }
        if let Some(port) = at.value.port.given() {
            let help = "remove it: the port of a replica is that of its URL in `replicas`, or is given by `process.ports`";
            self.error(port.place, "a route has no port of its own here", help);
        }
        at.value.path.value().map_or_else(|| default.to_owned(), |path| path.0.clone())
    }
}

fn probe(field: &Field<file::Probe>, (initial_delay, failures): (u64, u32)) -> ProbeSettings {
    let default = file::Probe::default();
    let probe = field.value().unwrap_or(&default);
    ProbeSettings {
        initial_delay: seconds(&probe.initial_delay, initial_delay),
        period: seconds(&probe.period, 10),
        timeout: seconds(&probe.timeout, 2),
        success_threshold: at_least_one(&probe.success_threshold, 1),
        failure_threshold: at_least_one(&probe.failure_threshold, failures),
    }
}

pub(super) fn place<T>(field: &Field<T>) -> Option<Place> {
    field.given().map(|at| at.place)
}
