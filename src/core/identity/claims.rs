//! What the claims of a token say about its bearer: who, from when to when, and whether that is enough.
//!
//! Signatures are checked before, by `data::verify`; the time is an argument. A claim of a wrong form is never
//! taken for an absent one.

use serde_json::{Map, Value};

use super::{AuthError, AuthType, Caller, Identity, JwtSettings};

/// Last second of the year 9999. Later times are mistakes (milliseconds, mostly) that would never expire.
const LATEST_TIME: u64 = 253_402_300_799;

/// An identity with the time in which it holds; what a cache of verified tokens keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    identity: Identity,
    /// First second, seconds since 1970, leeway taken off.
    from: u64,
    /// First second in which it holds no more, leeway added.
    until: u64,
}

impl Grant {
    /// The same for a caller whose requests are counted.
    #[must_use]
    pub fn counted_for(mut self, caller: Caller) -> Self {
        self.identity.caller = caller;
        self
    }

    /// The identity, if it holds at `now` (seconds since 1970).
    ///
    /// # Errors
    /// [`AuthError::Expired`] and [`AuthError::NotYetValid`].
    pub fn at(&self, now: u64) -> Result<&Identity, AuthError> {
        if now >= self.until {
            return Err(AuthError::Expired);
        }
        if now < self.from {
            return Err(AuthError::NotYetValid);
        }
        Ok(&self.identity)
    }
}

/// Judges the claims of a token whose signature is good, at `now` (seconds since 1970).
///
/// # Errors
/// [`AuthError::Forbidden`] for a required claim that is missing and nothing else wrong, otherwise
/// [`AuthError::Expired`], [`AuthError::NotYetValid`] or [`AuthError::Invalid`].
pub fn judge(claims: &Map<String, Value>, rules: &JwtSettings, now: u64) -> Result<Grant, AuthError> {
    let leeway = rules.leeway.as_secs();
    let expires = claims.get("exp").and_then(numeric_date).ok_or(AuthError::Invalid)?;
    let begins = match claims.get("nbf") {
        Some(nbf) => numeric_date(nbf).ok_or(AuthError::Invalid)?,
        None => 0,
    };
    let grant = Grant {
        identity: Identity {
            auth: AuthType::Jwt,
            subject: claims.get("sub").and_then(printable_subject),
            caller: Caller::Anybody,
        },
        from: begins.saturating_sub(leeway),
        until: expires.saturating_add(leeway),
    };
    grant.at(now)?;
    if !rules.issuers.is_empty() && !claims.get("iss").is_some_and(|iss| is_one_of(iss, &rules.issuers)) {
        return Err(AuthError::Invalid);
    }
    if !rules.audiences.is_empty()
        && !claims.get("aud").is_some_and(|aud| names_one_of(aud, &rules.audiences))
    {
        return Err(AuthError::Invalid);
    }
    for (name, accepted) in &rules.required_claims {
        if !claims.get(name).is_some_and(|claim| satisfies(name, claim, accepted)) {
            return Err(AuthError::Forbidden);
        }
    }
    Ok(grant)
}

/// Whole seconds since 1970, also when written as `1.7e9`.
fn numeric_date(value: &Value) -> Option<u64> {
    let seconds = match value.as_u64() {
        Some(seconds) => seconds,
        // The comparison refuses NaN, and the cast is exact below 2^53.
        None => value
            .as_f64()
            .filter(|x| x.fract() == 0.0 && (0.0..=LATEST_TIME as f64).contains(x))
            .map(|x| x as u64)?,
    };
    (seconds <= LATEST_TIME).then_some(seconds)
}

fn is_one_of(value: &Value, accepted: &[String]) -> bool {
    value.as_str().is_some_and(|text| accepted.iter().any(|a| a == text))
}

fn names_one_of(value: &Value, accepted: &[String]) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| is_one_of(value, accepted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            is_one_of(value, accepted)
        }
    }
}

fn satisfies(name: &str, claim: &Value, accepted: &[String]) -> bool {
    match claim {
        // RFC 8693 §4.2 and Microsoft's `scp`: one text with the scopes between spaces.
        Value::String(scopes) if name == "scope" || name == "scp" => {
            scopes.split(' ').any(|scope| accepted.iter().any(|a| a == scope))
        }
        Value::Bool(_) | Value::Number(_) => {
            let text = claim.to_string();
            accepted.contains(&text)
        }
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => names_one_of(claim, accepted),
    }
}

/// The subject as it may stand in a log line: no control characters, at most 100 bytes.
fn printable_subject(sub: &Value) -> Option<std::sync::Arc<str>> {
    let sub = sub.as_str().filter(|sub| !sub.is_empty())?;
    let cut = &sub[..sub.floor_char_boundary(100)];
    Some(if cut.contains(char::is_control) { cut.replace(char::is_control, "?").into() } else { cut.into() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::core::identity::JwtKeys;

    const NOW: u64 = 1_800_000_000;

    fn rules() -> JwtSettings {
        JwtSettings {
            keys: JwtKeys::Static(Vec::new()),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(60),
            required_claims: [].into(),
        }
    }

    fn try_claims(claims: &Value, rules: &JwtSettings, now: u64) -> Result<Option<String>, AuthError> {
        let grant = judge(claims.as_object().unwrap(), rules, now)?;
        Ok(grant.at(now)?.subject.as_deref().map(str::to_owned))
    }

    fn outcome(claims: &Value, rules: &JwtSettings) -> Result<(), AuthError> {
        try_claims(claims, rules, NOW).map(drop)
    }

    #[test]
    fn expiry_ends_at_the_second_after_the_leeway() {
        let claims = json!({"exp": NOW});
        assert_eq!(try_claims(&claims, &rules(), NOW + 59), Ok(None));
        assert_eq!(try_claims(&claims, &rules(), NOW + 60), Err(AuthError::Expired));
        let strict = JwtSettings { leeway: Duration::ZERO, ..rules() };
        assert_eq!(try_claims(&claims, &strict, NOW - 1), Ok(None));
        assert_eq!(try_claims(&claims, &strict, NOW), Err(AuthError::Expired));
    }

    #[test]
    fn not_before_begins_at_its_second_less_the_leeway() {
        let claims = json!({"exp": NOW + 600, "nbf": NOW});
        assert_eq!(try_claims(&claims, &rules(), NOW - 61), Err(AuthError::NotYetValid));
        assert_eq!(try_claims(&claims, &rules(), NOW - 60), Ok(None));
        let strict = JwtSettings { leeway: Duration::ZERO, ..rules() };
        assert_eq!(try_claims(&claims, &strict, NOW - 1), Err(AuthError::NotYetValid));
        assert_eq!(try_claims(&claims, &strict, NOW), Ok(None));
    }

    #[test]
    fn a_grant_kept_for_later_is_refused_outside_its_time() {
        let claims = json!({"exp": NOW + 10, "nbf": NOW - 10});
        let grant = judge(claims.as_object().unwrap(), &rules(), NOW).unwrap();
        assert!(grant.at(NOW + 69).is_ok());
        assert_eq!(grant.at(NOW + 70), Err(AuthError::Expired));
        assert_eq!(grant.at(NOW - 71), Err(AuthError::NotYetValid));
    }

    #[test]
    fn odd_times_neither_pass_nor_panic() {
        let fraction = NOW as f64 + 600.5;
        for exp in [
            json!(null),
            json!("1900000000"),
            json!(-1),
            json!(-1.0e9),
            json!(fraction),
            json!(1.0e300),
            json!(u64::MAX),
            json!(u64::MAX as f64),
            json!(LATEST_TIME + 1),
            json!(1_900_000_000_000_u64), // milliseconds
            json!(true),
            json!([NOW + 600]),
            json!({}),
        ] {
            assert_eq!(outcome(&json!({"exp": exp}), &rules()), Err(AuthError::Invalid), "exp {exp}");
            let nbf = json!({"exp": NOW + 600, "nbf": exp});
            assert_eq!(outcome(&nbf, &rules()), Err(AuthError::Invalid), "nbf {exp}");
        }
        assert_eq!(outcome(&json!({}), &rules()), Err(AuthError::Invalid));
        assert_eq!(outcome(&json!({"exp": 0}), &rules()), Err(AuthError::Expired));
        assert_eq!(outcome(&json!({"exp": 1.9e9}), &rules()), Ok(()));
        let longest = JwtSettings { leeway: Duration::MAX, ..rules() };
        assert_eq!(outcome(&json!({"exp": LATEST_TIME, "nbf": LATEST_TIME}), &longest), Ok(()));
    }

    #[test]
    fn issuer_and_audience_must_be_among_the_accepted() {
        let rules =
            JwtSettings { issuers: vec!["a".into(), "b".into()], audiences: vec!["x".into()], ..rules() };
        let with = |iss: Value, aud: Value| json!({"exp": NOW + 1, "iss": iss, "aud": aud});
        assert_eq!(outcome(&with(json!("b"), json!("x")), &rules), Ok(()));
        assert_eq!(outcome(&with(json!("b"), json!(["y", "x"])), &rules), Ok(()));
        for (iss, aud) in [
            (json!("c"), json!("x")),
            (json!(["a"]), json!("x")),
            (json!(null), json!("x")),
            (json!("a"), json!("xy")),
            (json!("a"), json!([])),
            (json!("a"), json!([["x"]])),
            (json!("a"), json!({"x": "x"})),
        ] {
            assert_eq!(outcome(&with(iss, aud), &rules), Err(AuthError::Invalid));
        }
        assert_eq!(outcome(&json!({"exp": NOW + 1}), &rules), Err(AuthError::Invalid));
    }

    #[test]
    fn a_missing_required_claim_is_forbidden_and_nothing_else_is() {
        let required = [("role".to_owned(), vec!["scorer".to_owned(), "7".to_owned()])];
        let required = JwtSettings { required_claims: required.into(), ..rules() };
        for good in [json!("scorer"), json!(["x", "scorer"]), json!(7)] {
            assert_eq!(outcome(&json!({"exp": NOW + 1, "role": good}), &required), Ok(()));
        }
        for bad in [json!("Scorer"), json!("x scorer"), json!([]), json!(null), json!({"scorer": true})] {
            let claims = json!({"exp": NOW + 1, "role": bad});
            assert_eq!(outcome(&claims, &required), Err(AuthError::Forbidden), "{bad}");
        }
        assert_eq!(outcome(&json!({"exp": NOW + 1}), &required), Err(AuthError::Forbidden));
        assert_eq!(outcome(&json!({"exp": 1}), &required), Err(AuthError::Expired));
    }

    #[test]
    fn a_scope_claim_is_a_list_between_spaces() {
        let required = [("scp".to_owned(), vec!["score".to_owned()])];
        let required = JwtSettings { required_claims: required.into(), ..rules() };
        assert_eq!(outcome(&json!({"exp": NOW + 1, "scp": "read score"}), &required), Ok(()));
        assert_eq!(
            outcome(&json!({"exp": NOW + 1, "scp": "read scores"}), &required),
            Err(AuthError::Forbidden)
        );
    }

    #[test]
    fn the_subject_is_short_and_fit_to_print() {
        let subject = |sub: Value| try_claims(&json!({"exp": NOW + 1, "sub": sub}), &rules(), NOW).unwrap();
        assert_eq!(subject(json!("alice")).as_deref(), Some("alice"));
        assert_eq!(subject(json!("a\nb\u{1b}[m")).as_deref(), Some("a?b?[m"));
        assert_eq!(subject(json!("é".repeat(80))), Some("é".repeat(50)));
        assert_eq!(subject(json!("")), None);
        assert_eq!(subject(json!(5)), None);
    }
}
