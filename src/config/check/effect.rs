//! Settings that change nothing where they stand, because another one rules them out: warnings, since they do no harm.
//! What contradicts another setting is an error, and found where the two are read.

use super::clients::KEY_NAMES;
use super::deployment::place;
use super::{Check, items};
use crate::config::diagnostic::Place;
use crate::config::field::Field;
use crate::config::units::Concurrency;
use crate::config::{file, suggest};
use crate::core::settings::{AuthMode, ScalePolicy, ScaleSettings};

/// Names by which an endpoint knows its callers before it has seen a token.
struct Callers<'f> {
    /// Those of keys and clients.
    known: Vec<&'f str>,
    /// Clients with a class of their own.
    own_class: Vec<&'f str>,
    /// Every name could be read, so that an unknown one is a mistake of its own.
    complete: bool,
}

impl<'f> Callers<'f> {
    fn of(endpoint: &'f file::Endpoint, mode: AuthMode) -> Self {
        let mut callers = Self { known: Vec::new(), own_class: Vec::new(), complete: true };
        if mode == AuthMode::Jwt {
            return callers;
        }
        let [primary, secondary] = KEY_NAMES;
        if !endpoint.keys.is_absent() {
            callers.known.push(primary);
        }
        let has_secondary = match &endpoint.keys {
            Field::Absent => false,
            Field::Bad => true,
            Field::Given(keys) => !keys.value.secondary.is_absent(),
        };
        if has_secondary {
            callers.known.push(secondary);
        }
        let clients = items(&endpoint.clients);
        let named = clients.iter().filter(|at| at.value.name.value().is_some()).count();
        callers.complete = match &endpoint.clients {
            Field::Absent => true,
            Field::Bad => false,
            Field::Given(list) => list.value.len() == named,
        };
        for client in clients {
            let Some(name) = client.value.name.value() else { continue };
            callers.known.push(name);
            if !client.value.class.is_absent() {
                callers.own_class.push(name);
            }
        }
        callers
    }
}

impl Check<'_> {
    /// Callers of `classes` that nobody is.
    pub(super) fn callers(&mut self, endpoint: &file::Endpoint, mode: AuthMode, label: &str) {
        let given = endpoint.classes.value().and_then(|classes| classes.callers.given());
        let Some(given) = given.filter(|at| !at.value.0.is_empty()) else { return };
        if matches!(endpoint.auth_mode, Field::Bad) {
            return;
        }
        if mode == AuthMode::None {
            let message =
                format!("`callers` has no effect, because {label} does not ask its callers who they are");
            let help = "set `auth_mode`, or let requests say it themselves (`header: trust`)";
            self.warning(given.place, message, help);
            return;
        }
        let callers = Callers::of(endpoint, mode);
        for (name, _) in &given.value.0 {
            self.caller(&callers, &name.value, name.place, mode, label);
        }
    }

    fn caller(&mut self, callers: &Callers<'_>, name: &str, place: Place, mode: AuthMode, label: &str) {
        if callers.own_class.contains(&name) {
            let message = format!("`callers` names the client `{name}`, whose own `class` goes first");
            return self.warning(place, message, "keep one of the two");
        }
        if callers.known.contains(&name) || !callers.complete {
            return;
        }
        let is_key = KEY_NAMES.iter().any(|key| key.eq_ignore_ascii_case(name));
        // Any other name may be the subject of a token.
        if mode != AuthMode::Key && !is_key {
            return;
        }
        let quote = self.source.quote(place);
        let near = suggest::nearest(name, &callers.known).map(|near| format!("did you mean `{near}`? "));
        let help = match callers.known.as_slice() {
            [] => "callers are known by the `sub` of their tokens here".to_owned(),
            known => format!(
                "{}keys and clients are called {} here",
                near.unwrap_or_default(),
                suggest::list(known)
            ),
        };
        self.warning(
            place,
            format!("`callers` names `{quote}`, but no caller of {label} is called so"),
            help,
        );
    }

    /// Settings of a deployment that others of its own make meaningless.
    pub(super) fn without_effect(&mut self, deployment: &file::Deployment, scale: &ScaleSettings) {
        let (no_scale, no_request) = (file::ScaleSettings::default(), file::RequestSettings::default());
        let given = deployment.scale_settings.value().unwrap_or(&no_scale);
        let request = deployment.request_settings.value().unwrap_or(&no_request);
        let policy = if let ScaleSettings::Utilization(rule) = scale { Some(rule.policy) } else { None };
        if let (Some(place), Some(ScalePolicy::Adaptive { .. })) =
            (place(&given.target_utilization_percentage), policy)
        {
            let message = "`target_utilization_percentage` has no effect with `policy: adaptive`";
            self.warning(place, message, "remove it, or choose `policy: azureml`");
        }
        let slots = &request.max_concurrent_requests_per_instance;
        if matches!(slots, Field::Bad) || matches!(deployment.request_settings, Field::Bad) {
            return;
        }
        let slots = slots.value().copied().unwrap_or(Concurrency::Most(1));
        if slots == Concurrency::Auto {
            self.without_queue(request);
        }
        self.without_slots(given, request, slots);
    }

    /// The number of slots is found by trying one that somebody waits for.
    fn without_queue(&mut self, request: &file::RequestSettings) {
        let key = "max_concurrent_requests_per_instance";
        let Some(place) = place(&request.max_concurrent_requests_per_instance) else { return };
        let no_wait = request.max_queue_wait_ms.value().is_some_and(|wait| wait.get() == 0);
        let no_length = request.max_queue_length.value().is_some_and(|length| length.get() == 0);
        let none = match (no_wait, no_length) {
            (true, _) => "max_queue_wait_ms",
            (false, true) => "max_queue_length",
            (false, false) => return,
        };
        let message =
            format!("`{key}: auto` stays at 1: with `{none}: 0` nobody waits for a slot, and none is tried");
        self.warning(place, message, format!("let requests wait, or set `{key}` to what a replica can take"));
    }

    fn without_slots(
        &mut self,
        scale: &file::ScaleSettings,
        request: &file::RequestSettings,
        slots: Concurrency,
    ) {
        let key = "max_concurrent_requests_per_instance";
        let warm_up = scale.warm_up_time.given().filter(|at| at.value.get() > 0);
        if let (Some(at), Concurrency::Most(slots @ 0..=1)) = (warm_up, slots) {
            let why = if slots == 1 { "one slot for each replica" } else { "no limit of slots" };
            let help = format!("set `{key}` to 2 or more, or to `auto`, or remove it");
            self.warning(at.place, format!("`warm_up_time` has no effect with {why}"), help);
        }
        if slots != Concurrency::Most(0) {
            return;
        }
        let fair = request.fair_share.given().filter(|at| at.value);
        let newest = request.queue_order.given().filter(|at| at.value == file::QueueOrder::NewestFirst);
        let fair = fair.map(|at| (at.place, "fair_share"));
        let newest = newest.map(|at| (at.place, "queue_order"));
        for (place, name) in fair.into_iter().chain(newest) {
            let message = format!("`{name}` has no effect: with `{key}: 0` nobody waits for a slot");
            self.warning(place, message, format!("set `{key}` to what a replica can take, or to `auto`"));
        }
    }
}
