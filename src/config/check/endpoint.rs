//! Rules of one endpoint: names, routes, and how traffic is split. Credentials are in `auth`, what runs behind it in
//! `deployment`.

use std::sync::Arc;

use super::{Check, items, seconds, texts};
use crate::config::diagnostic::Place;
use crate::config::field::{At, Field};
use crate::config::units::RoutePath;
use crate::config::{file, suggest};
use crate::core::admission::Class;
use crate::core::route::{Percent, Traffic};
use crate::core::settings::{
    ClassHeader, ClassSettings, CorsSettings, DeploymentSettings, EndpointSettings, Name, Profile,
};

/// Longest names of an endpoint and a deployment together (reference §10).
const LONGEST_NAMES: usize = 62;
/// Routes of scoregate itself.
const OWN_ROUTES: [&str; 3] = ["/", "/healthz", "/readyz"];

/// The deployments of an endpoint as far as references to them are concerned.
struct Names<'f> {
    known: Vec<&'f str>,
    /// Every deployment has a good name, so that an unknown one is a mistake of its own.
    complete: bool,
}

impl From<file::Profile> for Profile {
    fn from(profile: file::Profile) -> Self {
        match profile {
            file::Profile::Aks => Self::Aks,
            file::Profile::AksV1 => Self::AksV1,
            file::Profile::Managed => Self::Managed,
        }
    }
}

impl Check<'_> {
    pub(super) fn endpoint(
        &mut self,
        at: &At<file::Endpoint>,
        profile: file::Profile,
        limit: u64,
    ) -> Option<EndpointSettings> {
        let At { value: endpoint, place } = at;
        let profile = endpoint.profile.value().copied().unwrap_or(profile).into();
        let name = self.name(&endpoint.name, "an endpoint", *place);
        let label =
            name.as_ref().map_or_else(|| "this endpoint".to_owned(), |name| format!("endpoint `{name}`"));
        let auth = self.auth(endpoint, &label, *place);
        let default_limits = self.default_limits(endpoint, &auth, &label);
        self.callers(endpoint, auth.mode, &label);
        let cors = endpoint.cors.given().map(|cors| self.cors(cors));
        let scoring_route = self.scoring_route(&endpoint.scoring_route);
        let deployments = self.deployments(endpoint, name.as_ref(), &label, *place, profile, limit);
        let (traffic, default_deployment) = self.traffic(endpoint, &label, profile);
        Some(EndpointSettings {
            name: name?,
            profile,
            auth,
            default_limits,
            cors,
            scoring_route,
            classes: classes(&endpoint.classes),
            server_timing: endpoint.server_timing.value().copied().unwrap_or(false),
            traffic,
            default_deployment,
            deployments: deployments?,
        })
    }

    fn deployments(
        &mut self,
        endpoint: &file::Endpoint,
        name: Option<&Name>,
        label: &str,
        place: Place,
        profile: Profile,
        limit: u64,
    ) -> Option<Vec<Arc<DeploymentSettings>>> {
        let list = match self.may_be_empty {
            true => items(&endpoint.deployments),
            false => self.list(&endpoint.deployments, "deployments", label, place),
        };
        self.unique(list.iter().map(|at| &at.value.name), "deployment");
        if let Some(first_too_many) = list.get(limit as usize) {
            let message = format!("{label} has {} deployments; at most {limit} are allowed", list.len());
            let help = "raise `max_deployments_per_endpoint` at the top of the file (up to 20)";
            self.error(first_too_many.place, message, help);
        }
        let controls = list.iter().filter_map(|at| at.value.r#type.given());
        for second in controls.filter(|at| at.value == file::DeploymentType::Control).skip(1) {
            let help = "make one of them `type: treatment`";
            self.error(second.place, format!("{label} has more than one `control` deployment"), help);
        }
        for at in list.iter().filter_map(|at| at.value.name.given()) {
            let together = name.map_or(0, |name| name.as_str().len()) + at.value.len();
            if together > LONGEST_NAMES && Name::parse(&at.value).is_ok() {
                let message = format!(
                    "the names of endpoint and deployment have {together} characters together; at most \
                     {LONGEST_NAMES} are allowed"
                );
                self.error(at.place, message, "shorten one of them");
            }
        }
        let checked: Vec<_> = list.iter().map(|at| self.deployment(at, profile)).collect();
        checked.into_iter().map(|deployment| deployment.map(Arc::new)).collect()
    }

    fn traffic(
        &mut self,
        endpoint: &file::Endpoint,
        label: &str,
        profile: Profile,
    ) -> (Traffic, Option<usize>) {
        let names = Names::of(endpoint);
        let default = self.default_deployment(endpoint, &names, label, profile);
        let mut weights = vec![Percent::default(); names.known.len().min(256)];
        let mut all_good = true;
        for (key, share) in endpoint.traffic.value().into_iter().flat_map(|entries| &entries.0) {
            let index = self.reference(&names, &key.value, key.place, "traffic");
            match (index, share.value()) {
                (Some(index), Some(share)) => weights[index] = share.0,
                _ => all_good = false,
            }
        }
        let total: u32 = weights.iter().map(|weight| u32::from(weight.parts())).sum();
        if let (Some(at), true) = (endpoint.traffic.given(), all_good) {
            let percent = f64::from(total) / 100.0;
            if total > 10_000 {
                self.error(
                    at.place,
                    format!("`traffic` adds up to {percent} %"),
                    "at most 100 % can be given away",
                );
            } else if !total.is_multiple_of(10_000)
                && default.is_none()
                && endpoint.default.is_absent()
                // The others share what a declared deployment that cannot run would have had.
                && !self.may_be_empty
            {
                let message = format!("`traffic` adds up to {percent} % and nobody gets the rest");
                self.error(
                    at.place,
                    message,
                    "name the deployment that gets it (`default: NAME`), or give away 100 %",
                );
            }
        }
        if total > 10_000 {
            weights.clear();
        }
        (Traffic::new(&weights, default), default)
    }

    /// The default deployment: the one that is named; the first one under v1, where making the first version made
    /// it the default (reference §1.5); or the only one, unless its traffic is given.
    fn default_deployment(
        &mut self,
        endpoint: &file::Endpoint,
        names: &Names<'_>,
        label: &str,
        profile: Profile,
    ) -> Option<usize> {
        if let Some(at) = endpoint.default.given() {
            return self.reference(names, &at.value, at.place, "default");
        }
        if profile == Profile::AksV1 && !names.known.is_empty() {
            return Some(0);
        }
        let silent = endpoint.traffic.is_absent() && endpoint.default.is_absent();
        if names.known.len() == 1 {
            return silent.then_some(0);
        }
        if let (Some(at), true) =
            (endpoint.deployments.given(), silent && names.complete && !names.known.is_empty())
        {
            let message = format!("{label} has several deployments and neither `traffic` nor `default`");
            let help = "only requests with the header `azureml-model-deployment` will be served";
            self.warning(at.place, message, help);
        }
        None
    }

    /// The index of the deployment with this name.
    fn reference(&mut self, names: &Names<'_>, name: &str, place: Place, key: &str) -> Option<usize> {
        let index = names.known.iter().position(|known| *known == name);
        if index.is_none() && names.complete {
            let quote = self.source.quote(place);
            let near = suggest::nearest(name, &names.known).map(|near| format!("did you mean `{near}`? "));
            let help =
                format!("{}the deployments are {}", near.unwrap_or_default(), suggest::list(&names.known));
            self.error(place, format!("`{key}` names `{quote}`, but there is no such deployment"), help);
        }
        index
    }

    fn scoring_route(&mut self, field: &Field<RoutePath>) -> Option<String> {
        let at = field.given()?;
        let route = &at.value.0;
        if OWN_ROUTES.contains(&route.as_str()) || route == "/api/v1" || route.starts_with("/api/v1/") {
            let message =
                format!("`scoring_route` must not be `{route}`, which is a route of scoregate itself");
            self.error(
                at.place,
                message,
                "all paths are free but `/`, `/healthz`, `/readyz` and `/api/v1/…`",
            );
        }
        Some(route.clone())
    }

    fn cors(&mut self, cors: &At<file::Cors>) -> CorsSettings {
        for at in self.list(&cors.value.allow_origins, "allow_origins", "`cors`", cors.place) {
            let origin: Option<http::Uri> = at.value.parse().ok();
            let bare = |uri: http::Uri| {
                let web = matches!(uri.scheme_str(), Some("http" | "https"));
                web && uri.path() == "/" && uri.query().is_none() && !at.value.ends_with('/')
            };
            if at.value != "*" && !origin.is_some_and(bare) {
                let message = format!("`{}` is not an origin", self.source.quote(at.place));
                self.error(
                    at.place,
                    message,
                    "an origin is `*` or scheme and host, such as `https://app.example.com`",
                );
            }
        }
        for at in items(&cors.value.allow_headers) {
            if http::HeaderName::from_bytes(at.value.as_bytes()).is_err() {
                let message = format!("`{}` is not the name of a header", self.source.quote(at.place));
                self.error(at.place, message, "name one header in each item");
            }
        }
        CorsSettings {
            allow_origins: texts(&cors.value.allow_origins),
            allow_headers: texts(&cors.value.allow_headers),
            max_age: seconds(&cors.value.max_age_s, 600),
        }
    }
}

impl<'f> Names<'f> {
    fn of(endpoint: &'f file::Endpoint) -> Self {
        let list = endpoint.deployments.value();
        let known: Vec<_> = items(&endpoint.deployments)
            .into_iter()
            .filter_map(|at| at.value.name.value())
            .map(String::as_str)
            .collect();
        let complete = list.is_some_and(|list| list.len() == known.len());
        Self { known, complete }
    }
}

fn classes(field: &Field<file::Classes>) -> ClassSettings {
    let Some(classes) = field.value() else { return ClassSettings::default() };
    let class = |class: &file::Class| match class {
        file::Class::Critical => Class::Critical,
        file::Class::Default => Class::Default,
        file::Class::Sheddable => Class::Sheddable,
    };
    let callers = classes.callers.value().into_iter().flat_map(|entries| &entries.0);
    ClassSettings {
        callers: callers
            .filter_map(|(name, value)| Some((name.value.clone(), class(value.value()?))))
            .collect(),
        swagger: classes.swagger.value().map(class),
        header: match classes.header.value() {
            Some(file::ClassHeader::Ignore) => ClassHeader::Ignore,
            None | Some(file::ClassHeader::Lower) => ClassHeader::Lower,
            Some(file::ClassHeader::Trust) => ClassHeader::Trust,
        },
    }
}
