//! Keeps the JWKS of a verifier up to date, from a file or a URL.
//!
//! A refresh that fails changes nothing: the last good keys stay, because an outage of the issuer must not
//! become one of ours. Which keys of a set are fit for use is decided in `jwks::document`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::control::fetch::{self, Address, FetchError};
use crate::core::identity::{JwtKeys, KeyDigest};
use crate::data::files::read_small;
use crate::data::verify::{JwksSlot, digest_of};
use crate::shutdown::Drain;

use document::{Trust, parse};

mod document;

/// Time between two looks at a file.
const FILE_PERIOD: Duration = Duration::from_secs(1);

/// Shortest time between two fetches, however many tokens name an unknown key.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// Pauses after fetches that failed: the first one, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why a set was not taken.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is no JSON of the form `{"keys": [...]}`.
    #[error("it is no JSON Web Key Set (line {line}, column {column})")]
    Form {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// No key in it can verify a token here.
    #[error("it holds no usable key ({skipped} skipped)")]
    NoKeys {
        /// Keys that were left out.
        skipped: usize,
    },
    /// The file could not be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
}

/// Keeps a slot filled until the end of the drain, or until its verifier is gone.
///
/// Spawn one for each slot. It loads at once; [`JwksSlot::is_empty`] says whether that has happened.
pub async fn keep(slot: Arc<JwksSlot>, mut drain: Drain) {
    tokio::select! {
        () = drain.over() => {}
        () = slot.abandoned() => {}
        () = refresh(&slot) => {}
    }
}

async fn refresh(slot: &JwksSlot) {
    let mut keeper = Keeper { slot, taken: None };
    match slot.source() {
        JwtKeys::JwksFile(path) => keeper.follow_file(path).await,
        JwtKeys::JwksUrl { url, refresh } => match Address::parse(url) {
            Ok(address) => {
                if address.is_exposed() {
                    tracing::warn!(url = %address, "key set in clear text: whoever changes it can sign tokens");
                }
                keeper.follow_url(&address, *refresh, || fetch::get(&address)).await;
            }
            Err(error) => tracing::error!(%error, "no token of this endpoint can be verified"),
        },
        JwtKeys::Static(_) => {}
    }
}

/// Fills one slot.
struct Keeper<'a> {
    slot: &'a JwksSlot,
    /// Digest of the set that is in the slot, so that an equal one does not empty the caches of tokens.
    taken: Option<KeyDigest>,
}

impl Keeper<'_> {
    async fn follow_file(&mut self, path: &Path) {
        let mut ticks = interval(FILE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = String::new();
        loop {
            ticks.tick().await;
            let outcome = read_small(path)
                .map_err(JwksError::from)
                .and_then(|content| self.take(&content, Trust::File, &path.display().to_string()));
            let said = outcome.map_or_else(|error| error.to_string(), |()| String::new());
            // Once for each cause, not once a second.
            if !said.is_empty() && said != complaint {
                tracing::warn!(file = %path.display(), error = said, "key set not taken; the last one stays");
            }
            complaint = said;
        }
    }

    async fn follow_url<F>(&mut self, address: &Address, period: Duration, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<Bytes, FetchError>>,
    {
        let mut retry = RETRY.0;
        loop {
            let fetched = fetch().await.map_err(JwksError::from);
            let done = Instant::now();
            let pause = match fetched.and_then(|body| self.take(&body, Trust::Url, &address.to_string())) {
                Ok(()) => {
                    retry = RETRY.0;
                    period
                }
                Err(error) => {
                    tracing::warn!(url = %address, %error, "key set not taken; the last one stays");
                    let pause = retry.min(period);
                    retry = (retry * 2).min(RETRY.1);
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = async { self.slot.refresh_wanted().await; sleep_until(done + FETCH_PAUSE).await } => {}
            }
        }
    }

    fn take(&mut self, content: &[u8], trust: Trust, origin: &str) -> Result<(), JwksError> {
        let digest = digest_of(content);
        if self.taken == Some(digest) {
            return Ok(());
        }
        let keys = parse(content, trust)?;
        tracing::info!(origin, keys = keys.len(), "key set taken");
        self.slot.replace(keys);
        self.taken = Some(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
