//! From settings back to a file: everything that holds, defaults included. Reading it again gives the same
//! settings, if their secrets are references; secrets that stood in the file are replaced by a placeholder.

use std::num::NonZeroU32;
use std::time::Duration;

use super::diagnostic::Place;
use super::field::{At, Entries, Field};
use super::secret::SecretRef;
use super::units::{
    Concurrency, FilePath, Int, Listener, LogTarget, PortRange, ReplicaUrl, RoutePath, Share,
};
use super::{check, file};
use crate::core::identity::{JwtAlgorithm, JwtKey, JwtKeys, JwtSettings};
use crate::core::settings::{
    AccessLogTarget, AuthMode, AuthSettings, CorsSettings, DeploymentKind, DeploymentSettings,
    EndpointSettings, Key, ListenSettings, ProbeSettings, ProcessSettings, Profile, ProviderSettings,
    ReplicaRoutes, RequestSettings, ScaleSettings, Settings,
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
        max_deployments_per_endpoint: int(most.unwrap_or_default().max(check::MAX_DEPLOYMENTS)),
        endpoints: list(settings.endpoints.iter().map(|settings| endpoint(settings))),
    };
    serde_saphyr::to_string(&file).expect("the types of a file are maps, lists and scalars")
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
    let AuthSettings { mode, keys, jwt } = &settings.auth;
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
        jwt: jwt.as_ref().map(token_rules).into(),
        cors: settings.cors.as_ref().map(cors).into(),
        scoring_route: settings.scoring_route.clone().map(RoutePath).into(),
        server_timing: settings.server_timing.into(),
        traffic: Entries(shares.collect()).into(),
        default: settings.default_deployment.and_then(|index| names().nth(index)).into(),
        deployments: list(settings.deployments.iter().map(|settings| deployment(settings))),
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
        request_settings: request(&settings.request).into(),
        liveness_probe: probe(&settings.liveness).into(),
        readiness_probe: probe(&settings.readiness).into(),
        inference_config: routes(&settings.routes).into(),
        forward_authorization: settings.forward_authorization.into(),
        passive_health: settings.passive_health.into(),
        ..file::Deployment::default()
    };
    scale(&settings.scale, &mut deployment);
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

fn scale(settings: &ScaleSettings, deployment: &mut file::Deployment) {
    let scale = match settings {
        ScaleSettings::Manual { replicas } => {
            deployment.instance_count = int((*replicas).into());
            file::ScaleSettings { r#type: file::ScaleType::Default.into(), ..file::ScaleSettings::default() }
        }
        // `down_after` and `count_queue` follow from the profile.
        ScaleSettings::Utilization(scale) => file::ScaleSettings {
            r#type: file::ScaleType::TargetUtilization.into(),
            policy: file::ScalePolicy::Azureml.into(),
            min_instances: int(scale.min.into()),
            max_instances: int(scale.max.into()),
            polling_interval: seconds(scale.interval),
            target_utilization_percentage: int(scale.target_percent.into()),
        },
    };
    deployment.scale_settings = scale.into();
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

fn request(request: &RequestSettings) -> file::RequestSettings {
    file::RequestSettings {
        request_timeout_ms: millis(request.timeout),
        connect_timeout_ms: millis(request.connect_timeout),
        max_concurrent_requests_per_instance: match request.slots {
            None if request.auto_slots => Concurrency::Auto,
            slots => Concurrency::Most(slots.map_or(0, NonZeroU32::get)),
        }
        .into(),
        max_queue_wait_ms: millis(request.max_queue_wait),
        max_queue_length: request.max_queue_length.map(|length| Int::clamped(length.into())).into(),
        max_body_bytes: int(request.max_body_bytes),
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
