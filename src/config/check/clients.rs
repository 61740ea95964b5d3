//! Rules of the clients of an endpoint and of limits: names and keys that are nobody else's, limits that can hold.

use std::collections::HashMap;
use std::num::NonZeroU64;

use super::{Check, items};
use crate::config::diagnostic::Place;
use crate::config::field::{At, Field};
use crate::config::file;
use crate::core::admission::Class;
use crate::core::quota::{Allowance, Period, Quota, Rate};
use crate::core::settings::{AuthMode, AuthSettings, ClientSettings, Key, Name};

/// Most clients of one endpoint: every key is compared with each credential that is new on its connection.
const MAX_CLIENTS: usize = 1_000;
/// What the keys of `keys` are called where clients are called by name.
pub(super) const KEY_NAMES: [&str; 2] = ["primary", "secondary"];

impl From<file::Class> for Class {
    fn from(class: file::Class) -> Self {
        match class {
            file::Class::Critical => Self::Critical,
            file::Class::Default => Self::Default,
            file::Class::Sheddable => Self::Sheddable,
        }
    }
}

impl From<Class> for file::Class {
    fn from(class: Class) -> Self {
        match class {
            Class::Critical => Self::Critical,
            Class::Default => Self::Default,
            Class::Sheddable => Self::Sheddable,
        }
    }
}

impl From<file::Period> for Period {
    fn from(per: file::Period) -> Self {
        match per {
            file::Period::Minute => Self::Minute,
            file::Period::Hour => Self::Hour,
            file::Period::Day => Self::Day,
            file::Period::Month => Self::Month,
        }
    }
}

impl From<Period> for file::Period {
    fn from(per: Period) -> Self {
        match per {
            Period::Minute => Self::Minute,
            Period::Hour => Self::Hour,
            Period::Day => Self::Day,
            Period::Month => Self::Month,
        }
    }
}

impl Check<'_> {
    /// The clients whose names and keys are good. `keys` are those of the endpoint itself.
    pub(super) fn clients(
        &mut self,
        field: &Field<file::List<file::Client>>,
        keys: &[Key],
    ) -> Vec<ClientSettings> {
        let list = items(field);
        self.unique(list.iter().map(|at| &at.value.name), "client");
        if let Some(first_too_many) = list.get(MAX_CLIENTS) {
            let message = format!("there are {} clients; at most {MAX_CLIENTS} are allowed", list.len());
            self.error(
                first_too_many.place,
                message,
                "let the others call with tokens (`auth_mode: key_or_jwt`)",
            );
        }
        let named = KEY_NAMES.into_iter().map(|name| format!("`{name}` of `keys`"));
        let mut taken = keys.iter().map(|key| key.digest.0).zip(named).collect();
        list.into_iter().filter_map(|at| self.client(at, &mut taken)).collect()
    }

    fn client(
        &mut self,
        at: &At<file::Client>,
        taken: &mut HashMap<[u8; 32], String>,
    ) -> Option<ClientSettings> {
        let At { value: client, place } = at;
        let name = self.client_name(&client.name, *place);
        if client.key.is_absent() {
            self.missing(*place, "key", "this client");
        }
        let mut keys = Vec::new();
        for field in [&client.key, &client.secondary_key] {
            let Some(at) = field.given() else { continue };
            let Some(key) = self.key(at) else { continue };
            let whose = client.name.value().map_or("another client", String::as_str);
            if let Some(owner) = taken.insert(key.digest.0, format!("a key of the client `{whose}`")) {
                let help =
                    "who calls is known by the key alone; make another one with `openssl rand -hex 24`";
                self.error(at.place, format!("the same key is {owner} already"), help);
            }
            keys.push(key);
        }
        Some(ClientSettings {
            class: client.class.value().map(|class| (*class).into()),
            limits: client.limits.given().map(|at| self.limits(at)),
            keys,
            name: name?,
        })
    }

    fn client_name(&mut self, field: &Field<String>, owner: Place) -> Option<Name> {
        let name = self.name(field, "a client", owner)?;
        if KEY_NAMES.iter().any(|own| own.eq_ignore_ascii_case(name.as_str()))
            && let Some(at) = field.given()
        {
            let message = format!("a client must not be called `{name}`");
            self.error(at.place, message, "access log and metrics call the keys of `keys` so");
        }
        Some(name)
    }

    pub(super) fn default_limits(
        &mut self,
        endpoint: &file::Endpoint,
        auth: &AuthSettings,
        label: &str,
    ) -> Allowance {
        let Some(at) = endpoint.default_limits.given() else { return Allowance::default() };
        let limits = self.limits(at);
        if auth.mode == AuthMode::None && !matches!(endpoint.auth_mode, Field::Bad) {
            let message = format!(
                "`default_limits` has no effect, because {label} does not ask its callers who they are"
            );
            self.warning(at.place, message, "set `auth_mode`, or remove the block");
            return Allowance::default();
        }
        limits
    }

    fn limits(&mut self, at: &At<file::Limits>) -> Allowance {
        let limits = &at.value;
        if let (Some(burst), true) = (limits.burst.given(), limits.requests_per_second.is_absent()) {
            self.error(burst.place, "`burst` is only for `requests_per_second`", "give both, or neither");
        }
        let burst = limits.burst.value().and_then(|burst| burst.as_u32().try_into().ok());
        Allowance {
            concurrency: limits.concurrency.value().and_then(|limit| limit.as_u32().try_into().ok()),
            rate: limits.requests_per_second.value().map(|rate| Rate::new(rate.0, burst)),
            quota: limits.quota.given().and_then(|at| self.quota(at)),
        }
    }

    fn quota(&mut self, at: &At<file::Quota>) -> Option<Quota> {
        let At { value: quota, place } = at;
        for (key, absent) in [("requests", quota.requests.is_absent()), ("per", quota.per.is_absent())] {
            if absent {
                self.missing(*place, key, "`quota`");
            }
        }
        let requests = NonZeroU64::new(quota.requests.value()?.get())?;
        Some(Quota { requests, per: (*quota.per.value()?).into() })
    }
}
