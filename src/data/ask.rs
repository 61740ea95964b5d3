//! From a request to what it asks the gate for: its class, its deadline, whose it is, and how it is known again.
//!
//! A class comes from the caller or the route; a header may lower it, or set it where the endpoint trusts its callers.
//! Nothing here waits or refuses for lack of slots: that is the gate's part.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};

use crate::core::admission::{Ask, Class, Mark, Tenant};
use crate::core::identity::Identity;
use crate::core::route::Call;
use crate::core::settings::{ClassHeader, ClassSettings};
use crate::data::head::{Ids, Known, Survey};
use crate::data::reject::Reject;

/// Longest time until a deadline that is taken for one, as in the configuration: a year.
const LONGEST: Duration = Duration::from_secs(31_536_000);

/// What is known of a request when it asks.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// When it came.
    pub arrived: Instant,
    /// Its headers, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Which of them there are.
    pub survey: Survey,
    /// Who calls.
    pub identity: Option<&'a Identity>,
    /// The class of a client that has one of its own.
    pub client: Option<Class>,
    /// Which route.
    pub call: Call,
    /// How it is called.
    pub ids: Option<&'a Ids>,
    /// The number of the connection that it came on, where that takes one request after the other.
    pub connection: Option<NonZeroU64>,
}

impl Asking<'_> {
    /// What it asks the gate for; `fair_share` says that it matters whose it is.
    ///
    /// # Errors
    /// A deadline that is none.
    pub fn ask(&self, classes: &ClassSettings, fair_share: bool) -> Result<Ask, Reject> {
        // Who gives no id is known by the connection, if it is kept.
        let by_connection = self.connection.map(|number| number.get() | 1 << 63);
        let id = self.ids.and_then(Ids::given).map(mark);
        let whose = self.identity.map_or_else(Tenant::default, |identity| identity.caller.tenant());
        Ok(Ask {
            class: self.class(classes),
            tenant: if fair_share { whose } else { Tenant::default() },
            deadline: if self.survey.has_any(DEADLINES) { self.deadline()? } else { None },
            mark: Mark { id: id.or(by_connection).unwrap_or(0), whose, of_connection: id.is_none() },
        })
    }

    fn class(&self, classes: &ClassSettings) -> Class {
        let identity = self.identity.filter(|_| !classes.callers.is_empty());
        let subject = identity.and_then(|identity| identity.subject.as_deref());
        let by_name = || subject.and_then(|name| classes.callers.get(name)).copied();
        let of_caller = self.client.or_else(by_name).unwrap_or_default();
        let own = match self.call {
            Call::Swagger => classes.swagger.unwrap_or(of_caller),
            Call::Score | Call::PassThrough => of_caller,
        };
        if classes.header == ClassHeader::Ignore || !self.survey.has(Known::RequestClass) {
            return own;
        }
        let wanted = self.headers.get(Known::RequestClass.name()).and_then(word_of_class);
        match (classes.header, wanted) {
            (ClassHeader::Trust, Some(wanted)) => wanted,
            // The later class matters less.
            (ClassHeader::Lower, Some(wanted)) => own.max(wanted),
            _ => own,
        }
    }

    /// The earliest of the deadlines that it names. Another program's header that is not understood is none.
    fn deadline(&self) -> Result<Option<Instant>, Reject> {
        let value = |known: Known| self.survey.has(known).then(|| self.headers.get(known.name())).flatten();
        let own = match value(Known::RequestDeadline) {
            None => None,
            Some(value) => Some(number(value).map(Duration::from_millis).filter(|time| *time <= LONGEST).ok_or(
                Reject::BadRequest {
                    problem: "x-request-deadline-ms must be a number of milliseconds from the arrival of the request, 31536000000 (a year) at most",
                },
            )?),
        };
        let seconds = |known| value(known).and_then(seconds);
        let others = [
            seconds(Known::StainlessTimeout),
            seconds(Known::StainlessReadTimeout),
            value(Known::EnvoyTimeout).and_then(number).map(Duration::from_millis),
            value(Known::GrpcTimeout).and_then(grpc_timeout),
        ];
        // 0 is "no time-out" to these.
        let others = others.into_iter().flatten().filter(|time| !time.is_zero() && *time <= LONGEST);
        Ok(own.into_iter().chain(others).min().and_then(|time| self.arrived.checked_add(time)))
    }
}

/// Headers that say how long the client will wait: ours, those of the clients of OpenAI and Anthropic, Envoy's and
/// gRPC's.
const DEADLINES: u32 = Known::RequestDeadline.bit()
    | Known::StainlessTimeout.bit()
    | Known::StainlessReadTimeout.bit()
    | Known::EnvoyTimeout.bit()
    | Known::GrpcTimeout.bit();

fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Python's clients write a float.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse().ok().filter(|_| is_plain)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn word_of_class(value: &HeaderValue) -> Option<Class> {
    let word = value.as_bytes().trim_ascii();
    Class::ALL.into_iter().find(|class| word.eq_ignore_ascii_case(class.word().as_bytes()))
}

/// A number for an id: of its beginning, its middle and its end, which together differ for ids that are made by
/// counting as well as for random ones. 0 is none.
fn mark(id: &HeaderValue) -> u64 {
    let bytes = id.as_bytes();
    let word = |from: usize| {
        let mut word = [0; 8];
        let part = &bytes[from..bytes.len().min(from + 8)];
        word[..part.len()].copy_from_slice(part);
        u64::from_le_bytes(word)
    };
    let end = bytes.len().saturating_sub(8);
    let mixed = [word(0), word(end / 2), word(end)].into_iter().fold(bytes.len() as u64, |mixed, word| {
        (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    mixed.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::core::identity::{AuthType, Caller};

    fn ask(pairs: &[(&'static str, &str)], classes: &ClassSettings, call: Call) -> Result<Ask, Reject> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let identity =
            Identity { auth: AuthType::Key, subject: Some(Arc::from("secondary")), caller: Caller::Key };
        let survey = Survey::of(&headers);
        let arrived = start();
        let asking = Asking {
            arrived,
            headers: &headers,
            survey,
            identity: Some(&identity),
            client: None,
            call,
            ids: None,
            connection: None,
        };
        asking.ask(classes, true)
    }

    fn start() -> Instant {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        *START
    }

    #[test]
    fn a_class_is_the_callers_or_the_routes_and_a_header_lowers_it() {
        let callers = BTreeMap::from([("secondary".to_owned(), Class::Critical)]);
        let rules =
            |header| ClassSettings { callers: callers.clone(), swagger: Some(Class::Sheddable), header };
        let class =
            |word, header, call| ask(&[("x-request-class", word)], &rules(header), call).unwrap().class;
        for (word, lowered, trusted) in [
            ("critical", Class::Critical, Class::Critical),
            ("Default", Class::Default, Class::Default),
            (" sheddable ", Class::Sheddable, Class::Sheddable),
            ("urgent", Class::Critical, Class::Critical),
        ] {
            assert_eq!(class(word, ClassHeader::Lower, Call::Score), lowered, "{word}");
            assert_eq!(class(word, ClassHeader::Trust, Call::Score), trusted, "{word}");
            assert_eq!(class(word, ClassHeader::Ignore, Call::Score), Class::Critical);
            assert_eq!(class(word, ClassHeader::Lower, Call::Swagger), Class::Sheddable);
        }
        assert_eq!(class("critical", ClassHeader::Trust, Call::Swagger), Class::Critical);
        let nobody = ClassSettings::default();
        assert_eq!(
            ask(&[("x-request-class", "critical")], &nobody, Call::Score).unwrap().class,
            Class::Default
        );
    }

    #[test]
    fn a_deadline_is_the_earliest_that_is_named() {
        let deadline = |pairs: &[(&'static str, &str)]| {
            let ask = ask(pairs, &ClassSettings::default(), Call::Score);
            ask.map(|ask| ask.deadline.map(|at| at.duration_since(start()).as_millis()))
        };
        assert_eq!(deadline(&[]), Ok(None));
        assert_eq!(deadline(&[("x-request-deadline-ms", "1500")]), Ok(Some(1_500)));
        assert_eq!(deadline(&[("x-request-deadline-ms", "0")]), Ok(Some(0)));
        assert_eq!(deadline(&[("x-stainless-timeout", "600")]), Ok(Some(600_000)));
        assert_eq!(deadline(&[("x-stainless-read-timeout", "2.5")]), Ok(Some(2_500)));
        assert_eq!(deadline(&[("x-stainless-timeout", "0.5")]), Ok(Some(500)));
        assert_eq!(deadline(&[("grpc-timeout", "250m"), ("x-stainless-timeout", "60")]), Ok(Some(250)));
        assert_eq!(deadline(&[("x-envoy-expected-rq-timeout-ms", "15000")]), Ok(Some(15_000)));
        for ignored in ["", "soon", "-1", "0", "99999999999", "1e3"] {
            assert_eq!(deadline(&[("x-stainless-timeout", ignored)]), Ok(None), "{ignored}");
            assert_eq!(deadline(&[("grpc-timeout", ignored)]), Ok(None), "{ignored}");
        }
        for garbage in ["", "soon", "-1", "1e3", "99999999999999"] {
            let answer = deadline(&[("x-request-deadline-ms", garbage)]);
            assert!(matches!(answer, Err(Reject::BadRequest { .. })), "{garbage}: {answer:?}");
        }
    }

    #[test]
    fn a_mark_is_its_callers_own_where_shares_are_not_fair_as_well() {
        let (headers, id) = (HeaderMap::new(), HeaderValue::from_static("job-1"));
        let mark = |caller| {
            let identity = Identity { auth: AuthType::Key, subject: None, caller };
            let ids = Ids { request: id.clone(), client: None, sent: true };
            let asking = Asking {
                arrived: start(),
                headers: &headers,
                survey: Survey::of(&headers),
                identity: Some(&identity),
                client: None,
                call: Call::Score,
                ids: Some(&ids),
                connection: None,
            };
            let ask = asking.ask(&ClassSettings::default(), false).unwrap();
            assert_eq!(ask.tenant, Tenant::default());
            ask.mark
        };
        assert_eq!(mark(Caller::Key), mark(Caller::Key));
        let marks =
            [Caller::Anybody, Caller::Key, Caller::Client(0), Caller::Client(1), Caller::Bearer([7; 16])];
        let different: std::collections::BTreeSet<Mark> = marks.into_iter().map(mark).collect();
        assert_eq!(different.len(), marks.len());
    }

    #[test]
    fn ids_are_told_apart() {
        let of = |text: &str| mark(&HeaderValue::from_str(text).unwrap());
        let mut seen: Vec<u64> = (0..10_000).map(|n| of(&format!("job-{n:05}-of-a-long-name"))).collect();
        seen.extend((0..10_000).map(|n| of(&n.to_string())));
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() >= 19_990, "{}", seen.len());
        assert_eq!(of("a"), of("a"));
    }
}
