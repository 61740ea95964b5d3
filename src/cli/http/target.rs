//! Where requests go. It can be printed: the query of a URL, which may hold a secret, is left out.

use std::fmt;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

/// Where requests go.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) struct Target {
    pub(in crate::cli) is_tls: bool,
    /// What is connected to: a name or an address without brackets.
    pub(in crate::cli) host: String,
    pub(in crate::cli) port: u16,
    /// What requests say the host is.
    pub(in crate::cli) authority: Authority,
    pub(in crate::cli) path: PathAndQuery,
}

impl Target {
    /// Takes an absolute http or https URL.
    ///
    /// # Errors
    /// What is wrong, for the user, without anything that may be a secret.
    pub(in crate::cli) fn parse(url: &str) -> Result<Self, String> {
        // Nothing of a URL that cannot be taken apart is shown where it may hold a password or a query.
        let shown = if url.contains(['@', '?']) { String::new() } else { format!(" {url:?}") };
        let wrong = |what: &str| format!("the URL{shown} {what}");
        let must = "must be like http://HOST:PORT/PATH or https://HOST/PATH";
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("is not valid ({error}): it {must}")))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong(must)),
        };
        let authority = uri.authority().ok_or_else(|| wrong(must))?.clone();
        if authority.as_str().contains('@') {
            return Err(wrong("must not hold a user or password: give keys with --key"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let has_port =
            authority.as_str().strip_prefix(authority.host()).is_some_and(|rest| rest.starts_with(':'));
        let port = match authority.port_u16() {
            Some(0) => return Err(wrong("has port 0: it must be from 1 to 65535")),
            Some(port) => port,
            None if has_port => return Err(wrong("has no valid port: it must be from 1 to 65535")),
            None if is_tls => 443,
            None => 80,
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { is_tls, host, port, authority, path })
    }

    /// How requests say where they go: HTTP/1.1 with the path and a Host header, HTTP/2 with the whole URL.
    pub(in crate::cli) fn uri_and_host(
        &self,
        is_http2: bool,
    ) -> Result<(Uri, Option<HeaderValue>), http::Error> {
        let uri = Uri::builder().path_and_query(self.path.clone());
        if !is_http2 {
            return Ok((uri.build()?, Some(HeaderValue::from_str(self.authority.as_str())?)));
        }
        let scheme = if self.is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        Ok((uri.scheme(scheme).authority(self.authority.clone()).build()?, None))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}:{}{}", self.port, self.path.path())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://models.example/score?code=hush").unwrap();
        assert_eq!((target.is_tls, target.host.as_str(), target.port), (true, "models.example", 443));
        assert_eq!(target.path.as_str(), "/score?code=hush");
        assert_eq!(target.to_string(), "https://models.example:443/score");
        let (uri, host) = target.uri_and_host(true).unwrap();
        assert_eq!((uri.to_string().as_str(), host), ("https://models.example/score?code=hush", None));
        let (uri, host) = target.uri_and_host(false).unwrap();
        assert_eq!(
            (uri.to_string().as_str(), host.unwrap()),
            ("/score?code=hush", HeaderValue::from_static("models.example"))
        );
        let target = Target::parse("http://[::1]:8080").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 8080, "/"));
    }

    #[test]
    fn wrong_urls_are_explained_without_their_secrets() {
        for wrong in
            ["", "localhost:8080", "ftp://a/", "http://", "/score", "http://a:99999/", "http://a:0/", "a b"]
        {
            let error = Target::parse(wrong).unwrap_err();
            assert!(error.contains("the URL"), "{wrong}: {error}");
        }
        for secret in ["http://me:hush@a/", "ftp://a/?code=hush", "a?code=hush b"] {
            let error = Target::parse(secret).unwrap_err();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
