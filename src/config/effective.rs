//! From settings back to a file: everything that holds, defaults included. Reading it again gives the same
//! settings, if their secrets are references; secrets that stood in the file are replaced by a placeholder.

use std::num::NonZeroU32;
use std::time::Duration;

use super::diagnostic::Place;
use super::field::{At, Entries, Field};
use super::secret::SecretRef;
use super::units::{
    Budget, Concurrency, FilePath, Int, Listener, LogTarget, PerSecond, PortRange, ReplicaUrl, RoutePath,
    Share,
};
use super::{check, file};
use crate::core::admission::Class;
use crate::core::identity::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings};
use crate::core::quota::Allowance;
use crate::core::schedule::Schedule;
use crate::core::settings::{
    AccessLogTarget, AuthMode, AuthSettings, ClassHeader, ClassSettings, ClientSettings, CorsSettings,
    DeploymentKind, DeploymentSettings, EndpointSettings, HedgeAfter, Key, ListenSettings, ProbeSettings,
    ProcessSettings, Profile, ProviderSettings, RecordingSettings, ReplicaRoutes, ScalePolicy, ScaleSettings,
    Settings,
};

/// The settings as YAML, every default filled in. Secrets appear as references or as `***`, which is not
/// accepted as a key.
pub fn effective(settings: &Settings) -> String {
    let most = settings.endpoints.iter().map(|endpoint| endpoint.deployments.len() as u64).max();
    let file = file::File {
        // Every endpoint says its own.
        profile: Field::Absent,
        listen: listen(&settings.listen).into(),
        admin: file::Admin {
            address: Listener(settings.admin.address).into(),
            key: settings.admin.key.as_ref().map(reference).into(),
        }
        .into(),
        drain_timeout_ms: millis(settings.drain_timeout),
        access_log: match &settings.access_log {
            AccessLogTarget::File(path) => LogTarget::File(path.clone()),
            AccessLogTarget::Off => LogTarget::Off,
            AccessLogTarget::Stdout => LogTarget::Stdout,
        }
        .into(),
        recording: settings.recording.as_ref().map(recording).into(),
        max_deployments_per_endpoint: int(most.unwrap_or_default().max(check::MAX_DEPLOYMENTS)),
        endpoints: list(settings.endpoints.iter().map(|settings| endpoint(settings))),
    };
    serde_saphyr::to_string(&file).expect("the types of a file are maps, lists and scalars")
}

fn recording(recording: &RecordingSettings) -> file::Recording {
    file::Recording {
        directory: FilePath(recording.directory.clone()).into(),
        max_file_mb: int(recording.max_file_bytes >> 20),
        files: int(recording.files.into()),
    }
}

/// What a recording says of a deployment: limits of requests and the scale rule, with all defaults, and nothing that may be
/// a secret.
pub fn recorded(settings: &DeploymentSettings) -> serde_json::Value {
    let mut deployment =
        file::Deployment { request_settings: request(settings).into(), ..file::Deployment::default() };
    deployment.scale_settings = scale(settings).into();
    if let ScaleSettings::Manual { replicas } = settings.scale {
        deployment.instance_count = int(replicas.into());
    }
    let mut value =
        serde_json::to_value(&deployment).expect("the types of a file are maps, lists and scalars");
    let is_v1 = matches!(&settings.scale, ScaleSettings::Utilization(rule) if !rule.count_queue);
    value["profile"] = if is_v1 { "aks-v1" } else { "aks" }.into();
    value
}

fn listen(listen: &ListenSettings) -> file::Listen {
    let tls = listen.tls.as_ref().map(|tls| file::Tls {
        certificates: list(tls.certificates.iter().map(|files| file::Certificate {
            certificate: FilePath(files.certificate.clone()).into(),
            key: FilePath(files.key.clone()).into(),
        })),
        redirect_from: tls.redirect_from.map(Listener).into(),
    });
    file::Listen {
        address: Listener(listen.address).into(),
        workers: listen.workers.map(|workers| Int::clamped(workers.get().into())).into(),
        max_connections: int(listen.max_connections.get().into()),
        header_timeout_ms: millis(listen.header_timeout),
        write_timeout_ms: millis(listen.write_timeout),
        tls: tls.into(),
    }
}

fn endpoint(settings: &EndpointSettings) -> file::Endpoint {
    let names = || settings.deployments.iter().map(|deployment| deployment.name.to_string());
    let shares =
        names().zip(settings.traffic.weights()).map(|(name, weight)| (at(name), Share(*weight).into()));
    let AuthSettings { mode, keys, clients, jwt } = &settings.auth;
    file::Endpoint {
        name: settings.name.to_string().into(),
        profile: match settings.profile {
            Profile::Aks => file::Profile::Aks,
            Profile::AksV1 => file::Profile::AksV1,
            Profile::Managed => file::Profile::Managed,
        }
        .into(),
        auth_mode: match mode {
            AuthMode::Key => file::AuthMode::Key,
            AuthMode::Jwt => file::AuthMode::Jwt,
            AuthMode::KeyOrJwt => file::AuthMode::KeyOrJwt,
            AuthMode::None => file::AuthMode::None,
        }
        .into(),
        keys: keys
            .first()
            .map(|primary| file::Keys {
                primary: reference(primary).into(),
                secondary: keys.get(1).map(reference).into(),
            })
            .into(),
        clients: (!clients.is_empty())
            .then(|| clients.iter().map(|c| client(c).into()).collect::<Vec<_>>())
            .into(),
        default_limits: Some(&settings.default_limits).filter(|it| !it.is_unlimited()).map(limits).into(),
        jwt: jwt.as_ref().map(token_rules).into(),
        cors: settings.cors.as_ref().map(cors).into(),
        scoring_route: settings.scoring_route.clone().map(RoutePath).into(),
        classes: classes(&settings.classes).into(),
        server_timing: settings.server_timing.into(),
        traffic: Entries(shares.collect()).into(),
        default: settings.default_deployment.and_then(|index| names().nth(index)).into(),
        deployments: list(settings.deployments.iter().map(|settings| deployment(settings))),
    }
}

fn client(client: &ClientSettings) -> file::Client {
    file::Client {
        name: client.name.to_string().into(),
        key: client.keys.first().map(reference).into(),
        secondary_key: client.keys.get(1).map(reference).into(),
        class: client.class.map(file::Class::from).into(),
        limits: client.limits.as_ref().map(limits).into(),
    }
}

fn limits(allowed: &Allowance) -> file::Limits {
    file::Limits {
        concurrency: allowed.concurrency.map(|limit| Int::clamped(limit.get().into())).into(),
        requests_per_second: allowed.rate.map(|rate| PerSecond(rate.thousandths())).into(),
        burst: allowed.rate.map(|rate| Int::clamped(rate.burst().get().into())).into(),
        quota: allowed
            .quota
            .map(|quota| file::Quota {
                requests: int(quota.requests.get()),
                per: file::Period::from(quota.per).into(),
            })
            .into(),
    }
}

fn classes(settings: &ClassSettings) -> file::Classes {
    let class = |class: Class| match class {
        Class::Critical => file::Class::Critical,
        Class::Default => file::Class::Default,
        Class::Sheddable => file::Class::Sheddable,
    };
    let callers = settings.callers.iter().map(|(name, of)| (at(name.clone()), class(*of).into()));
    file::Classes {
        callers: Entries(callers.collect()).into(),
        swagger: settings.swagger.map(class).into(),
        header: match settings.header {
            ClassHeader::Ignore => file::ClassHeader::Ignore,
            ClassHeader::Lower => file::ClassHeader::Lower,
            ClassHeader::Trust => file::ClassHeader::Trust,
        }
        .into(),
    }
}

fn token_rules(jwt: &JwtSettings) -> file::Jwt {
    let claims = jwt.required_claims.iter().map(|(claim, values)| (at(claim.clone()), texts(values)));
    let mut rules = file::Jwt {
        issuers: texts(&jwt.issuers),
        audiences: texts(&jwt.audiences),
        leeway_s: seconds(jwt.leeway),
        required_claims: Entries(claims.collect()).into(),
        ..file::Jwt::default()
    };
    match &jwt.keys {
        JwtKeys::Static(keys) => rules.keys = list(keys.iter().map(jwt_key)),
        JwtKeys::JwksFile(path) => rules.jwks_file = FilePath(path.clone()).into(),
        JwtKeys::JwksUrl { url, refresh } => {
            rules.jwks_url = url.clone().into();
            rules.jwks_refresh_s = seconds(*refresh);
        }
    }
    rules
}

fn jwt_key(key: &JwtKey) -> file::JwtKey {
    let algorithm = match key.algorithm {
        JwtAlgorithm::EdDsa => file::Algorithm::EdDSA,
        JwtAlgorithm::Es256 => file::Algorithm::ES256,
        JwtAlgorithm::Es384 => file::Algorithm::ES384,
        JwtAlgorithm::Hs256 => file::Algorithm::HS256,
        JwtAlgorithm::Hs384 => file::Algorithm::HS384,
        JwtAlgorithm::Hs512 => file::Algorithm::HS512,
        JwtAlgorithm::Rs256 => file::Algorithm::RS256,
        JwtAlgorithm::Rs384 => file::Algorithm::RS384,
        JwtAlgorithm::Rs512 => file::Algorithm::RS512,
    };
    let symmetric = matches!(key.algorithm, JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512);
    let origin: Field<SecretRef> = SecretRef::from_origin(&key.origin).into();
    let (secret, public_key) = if symmetric { (origin, Field::Absent) } else { (Field::Absent, origin) };
    file::JwtKey { kid: key.kid.clone().into(), algorithm: algorithm.into(), public_key, secret }
}

fn cors(cors: &CorsSettings) -> file::Cors {
    file::Cors {
        allow_origins: texts(&cors.allow_origins),
        allow_headers: texts(&cors.allow_headers),
        max_age_s: seconds(cors.max_age),
    }
}

fn deployment(settings: &DeploymentSettings) -> file::Deployment {
    let mut deployment = file::Deployment {
        name: settings.name.to_string().into(),
        r#type: match settings.kind {
            DeploymentKind::Control => file::DeploymentType::Control,
            DeploymentKind::Treatment => file::DeploymentType::Treatment,
        }
        .into(),
        request_settings: request(settings).into(),
        liveness_probe: probe(&settings.liveness).into(),
        readiness_probe: probe(&settings.readiness).into(),
        inference_config: routes(&settings.routes).into(),
        forward_authorization: settings.forward_authorization.into(),
        passive_health: settings.passive_health.into(),
        ..file::Deployment::default()
    };
    deployment.scale_settings = scale(settings).into();
    if let ScaleSettings::Manual { replicas } = settings.scale {
        deployment.instance_count = int(replicas.into());
    }
    match &settings.provider {
        ProviderSettings::Fixed(fixed) => {
            deployment.replicas = list(fixed.replicas.iter().map(|authority| ReplicaUrl(authority.clone())));
        }
        ProviderSettings::Process(settings) => {
            let variables = settings.environment.iter();
            let variables = variables.map(|(name, value)| (at(name.clone()), value.clone().into()));
            deployment.environment_variables = Entries(variables.collect()).into();
            deployment.process = process(settings).into();
        }
    }
    deployment
}

fn scale(settings: &DeploymentSettings) -> file::ScaleSettings {
    let capacity = &settings.capacity;
    let warm_up_time = seconds(capacity.warm_up);
    match &settings.scale {
        ScaleSettings::Manual { .. } => file::ScaleSettings {
            r#type: file::ScaleType::Default.into(),
            warm_up_time,
            ..file::ScaleSettings::default()
        },
        // `down_after` and `count_queue` follow from the profile.
        ScaleSettings::Utilization(scale) => file::ScaleSettings {
            r#type: file::ScaleType::TargetUtilization.into(),
            policy: match scale.policy {
                ScalePolicy::Azureml => file::ScalePolicy::Azureml,
                ScalePolicy::AzuremlStrict => file::ScalePolicy::AzuremlStrict,
                ScalePolicy::Adaptive { .. } => file::ScalePolicy::Adaptive,
            }
            .into(),
            reject_budget_percentage: match scale.policy {
                ScalePolicy::Adaptive { reject_budget_percent: Some(percent) } => Budget(percent).into(),
                ScalePolicy::Adaptive { .. } | ScalePolicy::Azureml | ScalePolicy::AzuremlStrict => {
                    Field::Absent
                }
            },
            min_instances: int(scale.min.into()),
            max_instances: int(scale.max.into()),
            polling_interval: seconds(scale.interval),
            // It has no effect there, and is told of where it stands.
            target_utilization_percentage: match (scale.policy, scale.target_percent) {
                (ScalePolicy::Adaptive { .. }, 70) => Field::Absent,
                (_, percent) => int(percent.into()),
            },
            idle_time: if scale.min == 0 { seconds(capacity.idle_time) } else { Field::Absent },
            warm_up_time,
            schedules: list(capacity.schedules.iter().map(schedule)),
        },
    }
}

fn schedule(schedule: &Schedule) -> file::Schedule {
    file::Schedule {
        name: schedule.name.clone().into(),
        cron: schedule.cron().to_owned().into(),
        time_zone: schedule.time_zone().to_owned().into(),
        duration: seconds(schedule.duration),
        min_instances: int(schedule.min.into()),
    }
}

fn process(process: &ProcessSettings) -> file::Process {
    file::Process {
        command: texts(&process.command),
        directory: process.directory.clone().map(FilePath).into(),
        ports: PortRange(process.ports.0, process.ports.1).into(),
        start_timeout_s: seconds(process.start_timeout),
        stop_timeout_s: seconds(process.stop_timeout),
    }
}

fn request(settings: &DeploymentSettings) -> file::RequestSettings {
    let request = &settings.request;
    let cold = settings.capacity.cold_start_wait;
    file::RequestSettings {
        request_timeout_ms: millis(request.timeout),
        connect_timeout_ms: millis(request.connect_timeout),
        max_concurrent_requests_per_instance: match request.slots {
            None if request.auto_slots => Concurrency::Auto,
            slots => Concurrency::Most(slots.map_or(0, NonZeroU32::get)),
        }
        .into(),
        max_queue_wait_ms: millis(request.max_queue_wait),
        cold_start_wait_ms: cold.map_or(Field::Absent, millis),
        max_queue_length: request.max_queue_length.map(|length| Int::clamped(length.into())).into(),
        max_body_bytes: int(request.max_body_bytes),
        queue_order: match request.newest_first {
            false => file::QueueOrder::Fifo,
            true => file::QueueOrder::NewestFirst,
        }
        .into(),
        fair_share: request.fair_share.into(),
        idempotent: request.repeat.idempotent.into(),
        retry: file::Retry {
            attempts: int(request.repeat.attempts.into()),
            budget_percentage: int(request.repeat.budget_percent.into()),
        }
        .into(),
        hedge: request.repeat.hedge.map(hedge).into(),
    }
}

fn hedge(after: HedgeAfter) -> file::Hedge {
    match after {
        HedgeAfter::Time(time) => file::Hedge { after_ms: millis(time), after: Field::Absent },
        HedgeAfter::P95 => file::Hedge { after_ms: Field::Absent, after: file::HedgeMoment::P95.into() },
    }
}

fn probe(probe: &ProbeSettings) -> file::Probe {
    file::Probe {
        initial_delay: seconds(probe.initial_delay),
        period: seconds(probe.period),
        timeout: seconds(probe.timeout),
        success_threshold: int(probe.success_threshold.get().into()),
        failure_threshold: int(probe.failure_threshold.get().into()),
    }
}

fn routes(routes: &ReplicaRoutes) -> file::InferenceConfig {
    let route =
        |path: &str| file::Route { path: RoutePath(path.to_owned()).into(), port: Field::Absent }.into();
    file::InferenceConfig {
        scoring_route: route(&routes.scoring),
        swagger_route: route(&routes.swagger),
        liveness_route: route(&routes.liveness),
        readiness_route: route(&routes.readiness),
    }
}

fn reference(key: &Key) -> SecretRef {
    SecretRef::from_origin(&key.origin)
}

fn int<const MIN: u64, const MAX: u64>(number: u64) -> Field<Int<MIN, MAX>> {
    Int::clamped(number).into()
}

fn millis<const MIN: u64, const MAX: u64>(time: Duration) -> Field<Int<MIN, MAX>> {
    int(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn seconds<const MIN: u64, const MAX: u64>(time: Duration) -> Field<Int<MIN, MAX>> {
    int(time.as_secs())
}

fn list<T>(items: impl Iterator<Item = T>) -> Field<file::List<T>> {
    Field::from(items.map(Field::from).collect::<Vec<_>>())
}

fn texts(texts: &[String]) -> Field<file::List<String>> {
    list(texts.iter().cloned())
}

fn at<T>(value: T) -> At<T> {
    At { value, place: Place::default() }
}
