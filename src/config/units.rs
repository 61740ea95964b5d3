//! The small values of a configuration file: numbers with bounds, percentages, addresses, port ranges, URLs.
//!
//! Each one says what it must be when it is not, and describes itself to the schema. Nothing here looks at
//! two values at once; that is `check`'s part.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use crate::core::route::Percent;
use crate::core::settings::Authority;

/// A whole number with bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Int<MIN, MAX> {
    /// The nearest number within the bounds.
    pub(super) fn clamped(number: u64) -> Self {
        Self(number.clamp(MIN, MAX))
    }

    /// The number.
    pub(super) fn get(self) -> u64 {
        self.0
    }

    /// The number, which must be given bounds that fit.
    pub(super) fn as_u32(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }

    /// As milliseconds.
    pub(super) fn millis(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// As seconds.
    pub(super) fn seconds(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounds<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Bounds<MIN, MAX> {
            type Value = Int<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                if (MIN..=MAX).contains(&number) {
                    return Ok(Int(number));
                }
                Err(E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_u64(Bounds)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Int<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Int<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Int{MIN}To{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// Requests at once on a replica: a number, 0 for no limit, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concurrency {
    /// Found from what passes by.
    Auto,
    /// So many; 0 is no limit.
    Most(u32),
}

impl Concurrency {
    const MOST: u32 = 1_000_000;
}

impl<'de> Deserialize<'de> for Concurrency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConcurrencyVisitor;
        impl Visitor<'_> for ConcurrencyVisitor {
            type Value = Concurrency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {}, or `auto`", Concurrency::MOST)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Concurrency, E> {
                // As all words.
                if text.eq_ignore_ascii_case("auto") {
                    return Ok(Concurrency::Auto);
                }
                let most = text.parse().ok().filter(|most| *most <= Concurrency::MOST);
                most.map(Concurrency::Most).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(ConcurrencyVisitor)
    }
}

impl Serialize for Concurrency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Most(most) => serializer.serialize_u32(*most),
        }
    }
}

impl JsonSchema for Concurrency {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Concurrency".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "integer", "minimum": 0, "maximum": Self::MOST },
            { "type": "string", "const": "auto" },
        ] })
    }
}

/// A share of traffic in percent, with at most two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share(pub(super) Percent);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShareVisitor;
        impl Visitor<'_> for ShareVisitor {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 100 with at most two decimals, without a percent sign")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Share, E> {
                let percent = Percent::new(number).filter(|_| (0.0..=100.0).contains(&number));
                percent.map(Share).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_f64(ShareVisitor)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parts() {
            parts if parts % 100 == 0 => serializer.serialize_u16(parts / 100),
            _ => serializer.serialize_f64(self.0.as_f64()),
        }
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
    }
}

/// A small share of the requests in percent, greater than nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget(pub(super) f64);

impl Budget {
    const LEAST: f64 = 0.001;
    const MOST: f64 = 50.0;
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BudgetVisitor;
        impl Visitor<'_> for BudgetVisitor {
            type Value = Budget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0.001 to 50, without a percent sign")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Budget, E> {
                let fits = (Budget::LEAST..=Budget::MOST).contains(&number);
                fits.then_some(Budget(number))
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_f64(BudgetVisitor)
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl JsonSchema for Budget {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": Self::LEAST, "maximum": Self::MOST })
    }
}

/// Requests a second, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PerSecond(pub(super) NonZeroU32);

/// Most requests a second that can be asked for.
const MOST_PER_SECOND: f64 = 1_000_000.0;

impl<'de> Deserialize<'de> for PerSecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PerSecondVisitor;
        impl Visitor<'_> for PerSecondVisitor {
            type Value = PerSecond;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0.001 to 1000000 with at most three decimals")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<PerSecond, E> {
                let thousandths = (number * 1000.0).round();
                // A decimal number is seldom a whole number of thousandths in binary; it is the one nearest to it.
                let exact = thousandths / 1000.0 == number;
                let fits = exact && (0.001..=MOST_PER_SECOND).contains(&number);
                let thousandths = fits.then(|| NonZeroU32::new(thousandths as u32)).flatten();
                thousandths.map(PerSecond).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_f64(PerSecondVisitor)
    }
}

impl Serialize for PerSecond {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.get() {
            whole if whole.is_multiple_of(1000) => serializer.serialize_u32(whole / 1000),
            thousandths => serializer.serialize_f64(f64::from(thousandths) / 1000.0),
        }
    }
}

impl JsonSchema for PerSecond {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PerSecond".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0.001, "maximum": MOST_PER_SECOND as u32 })
    }
}

/// A value that is written as a text of a certain form.
pub(super) trait Form: Sized {
    /// What the text must be, as the rest of the sentence "it must be …".
    const MUST_BE: &'static str;
    /// The form as a regular expression, for the schema; must accept whatever `read` accepts.
    const PATTERN: Option<&'static str> = None;

    /// Takes a text of the form.
    fn read(text: &str) -> Option<Self>;
    /// The text again.
    fn write(&self) -> Cow<'_, str>;
}

/// Implements the traits of serde and schemars by `Form`.
macro_rules! written_as_text {
    ($($name:ty),* $(,)?) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)
                    .map_err(|_| D::Error::custom(<Self as Form>::MUST_BE))?;
                <Self as Form>::read(&text).ok_or_else(|| D::Error::custom(<Self as Form>::MUST_BE))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&Form::write(self))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!({ "type": "string" });
                if let Some(pattern) = <Self as Form>::PATTERN {
                    schema.insert("pattern".to_owned(), pattern.into());
                }
                schema
            }
        }
    )* };
}
pub(super) use written_as_text;

/// IP address and port of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener(pub(super) SocketAddr);

impl Form for Listener {
    const MUST_BE: &'static str =
        "an IP address and a port, such as `127.0.0.1:8080`, `0.0.0.0:80` or `[::]:80`";
    const PATTERN: Option<&'static str> = Some(r"^.+:[0-9]+$");

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn write(&self) -> Cow<'_, str> {
        self.0.to_string().into()
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortRange(pub(super) u16, pub(super) u16);

impl Form for PortRange {
    const MUST_BE: &'static str = "two ports from 1 to 65535, the lower one first, such as `20000-29999`";
    const PATTERN: Option<&'static str> = Some("^[0-9]+-[0-9]+$");

    fn read(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first >= 1 && first <= last).then_some(Self(first, last))
    }

    fn write(&self) -> Cow<'_, str> {
        format!("{}-{}", self.0, self.1).into()
    }
}

/// URL of a model server: scheme http, host and port only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaUrl(pub(super) Authority);

impl Form for ReplicaUrl {
    const MUST_BE: &'static str = "an http URL of host and port only, such as `http://127.0.0.1:5001`";
    const PATTERN: Option<&'static str> = Some("^[hH][tT][tT][pP]://[^/?#@]+/?$");

    fn read(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let bare = uri.path() == "/" && uri.query().is_none() && !text.contains(['#', '@']);
        let authority = uri.authority().filter(|_| bare && uri.scheme_str() == Some("http"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // `port_u16` is `None` for a port that is not there and for one that is not a number.
        let port = match authority.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some(_) => authority.port_u16().filter(|port| *port > 0)?,
            None => 80,
        };
        (!host.is_empty()).then_some(Self(Authority { host, port }))
    }

    fn write(&self) -> Cow<'_, str> {
        format!("http://{}", self.0).into()
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogTarget {
    /// To a file.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
}

impl Form for LogTarget {
    const MUST_BE: &'static str = "`stdout`, `off` or `file:PATH`";
    const PATTERN: Option<&'static str> = Some("^([sS][tT][dD][oO][uU][tT]|[oO][fF][fF]|file:.+)$");

    fn read(text: &str) -> Option<Self> {
        match text.strip_prefix("file:") {
            Some("") => None,
            Some(path) => Some(Self::File(path.into())),
            None if text.eq_ignore_ascii_case("stdout") => Some(Self::Stdout),
            None if text.eq_ignore_ascii_case("off") => Some(Self::Off),
            None => None,
        }
    }

    fn write(&self) -> Cow<'_, str> {
        match self {
            Self::File(path) => format!("file:{}", path.display()).into(),
            Self::Off => "off".into(),
            Self::Stdout => "stdout".into(),
        }
    }
}

/// A path of a file or folder; a relative one begins at the folder of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Form for FilePath {
    const MUST_BE: &'static str = "a path";
    const PATTERN: Option<&'static str> = Some("^.+$");

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| Self(text.into()))
    }

    fn write(&self) -> Cow<'_, str> {
        self.0.to_string_lossy()
    }
}

/// A path of a route: begins with a slash, and has no query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoutePath(pub(super) String);

impl Form for RoutePath {
    const MUST_BE: &'static str = "a path that begins with `/`, of visible characters without `?`, `#`, `\"` and `\\`, \
        and without the steps `.` and `..`";
    const PATTERN: Option<&'static str> = Some("^/[^?#]*$");

    fn read(text: &str) -> Option<Self> {
        let visible = text.chars().all(|c| c.is_ascii_graphic() && !"?#\"\\<>`{}^|".contains(c));
        let steps = text.split('/').any(|step| step == "." || step == "..");
        (text.starts_with('/') && visible && !steps).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> Cow<'_, str> {
        self.0.as_str().into()
    }
}

written_as_text!(Listener, PortRange, ReplicaUrl, LogTarget, FilePath, RoutePath);

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Option<String> {
        ReplicaUrl::read(text).map(|url| url.0.to_string())
    }

    #[test]
    fn replica_urls() {
        assert_eq!(url("http://127.0.0.1:9001").as_deref(), Some("127.0.0.1:9001"));
        assert_eq!(url("http://model/").as_deref(), Some("model:80"));
        assert_eq!(url("http://[::1]:9001").as_deref(), Some("[::1]:9001"));
        assert_eq!(url("http://[::1]").as_deref(), Some("[::1]:80"));
        for bad in [
            "https://a",
            "a:80",
            "http://a/score",
            "http://a?x",
            "http://u@a",
            "http://a:0",
            "http://a:99999",
            "http://",
            "http://a/#x",
            "",
            "http://a:",
            "ftp://a",
        ] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn port_ranges_and_routes() {
        assert_eq!(PortRange::read("20000-20009"), Some(PortRange(20000, 20009)));
        for bad in ["20000", "9-8", "0-5", "1-70000", "a-b", "-", ""] {
            assert_eq!(PortRange::read(bad), None, "{bad}");
        }
        assert!(RoutePath::read("/v1/models/half_plus_two:predict").is_some());
        for bad in ["v1", "", "/a?b", "/a b", "/../x", "/a/./b", "/ä"] {
            assert_eq!(RoutePath::read(bad), None, "{bad}");
        }
    }
}
