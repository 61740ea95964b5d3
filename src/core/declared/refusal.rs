//! Why a change is refused: a code for programs and a sentence for people.

/// What kind of refusal it is; the word is the `code` of the error's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The name is taken.
    AlreadyExists,
    /// Another change came first.
    Conflict,
    /// The deployment takes all traffic that is not allotted.
    DeploymentIsDefault,
    /// There is no such deployment.
    DeploymentNotFound,
    /// The deployment holds traffic.
    DeploymentHasTraffic,
    /// There is no such endpoint.
    EndpointNotFound,
    /// The document or value breaks a rule.
    Invalid,
    /// The endpoint has no keys.
    NoKeys,
    /// The endpoint issues no tokens.
    NoTokens,
    /// The endpoint stands in the configuration file.
    OwnedByFile,
}

impl Code {
    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::DeploymentIsDefault => "deployment_is_default",
            Self::DeploymentNotFound => "deployment_not_found",
            Self::DeploymentHasTraffic => "deployment_has_traffic",
            Self::EndpointNotFound => "endpoint_not_found",
            Self::Invalid => "invalid",
            Self::NoKeys => "no_keys",
            Self::NoTokens => "no_tokens",
            Self::OwnedByFile => "owned_by_file",
        }
    }
}

/// A change that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people: where, what, and what to do.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A document or value that breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    pub(crate) fn no_endpoint(name: &str) -> Self {
        Self::new(Code::EndpointNotFound, format!("there is no endpoint `{name}`"))
    }

    pub(crate) fn no_deployment(endpoint: &str, name: &str, known: &[&str]) -> Self {
        let known = match known {
            [] => "it has none".to_owned(),
            known => format!("it has {}", crate::core::suggest::list(known)),
        };
        let message = format!("endpoint `{endpoint}` has no deployment `{name}`; {known}");
        Self::new(Code::DeploymentNotFound, message)
    }
}
