//! The key that a connection used last. Clients send the same key with every request of a connection, and comparing it
//! costs a tenth of digesting it.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::core::identity::Identity;
use crate::data::verify::Verifier;

/// Longest header that is kept. What is longer is no usual key, and would be kept for as long as the connection lives.
const LONGEST: usize = 256;

/// The Authorization header of a connection that was accepted last, if it held a key.
#[derive(Debug, Default)]
pub struct LastKey(RefCell<Option<Accepted>>);

#[derive(Debug)]
struct Accepted {
    /// Another verifier has other keys. Weak, so that an idle connection does not keep it.
    verifier: Weak<Verifier>,
    header: SecretSlice<u8>,
    identity: Identity,
}

impl LastKey {
    /// Whose the header is, if this verifier has just accepted the same one.
    pub(super) fn identity(&self, verifier: &Arc<Verifier>, header: &HeaderValue) -> Option<Identity> {
        let last = self.0.borrow();
        let last =
            last.as_ref().filter(|last| std::ptr::eq(last.verifier.as_ptr(), Arc::as_ptr(verifier)))?;
        // In constant time: behind a proxy, one connection carries the requests of many clients.
        verify_slices_are_equal(last.header.expose_secret(), header.as_bytes()).ok()?;
        Some(last.identity.clone())
    }

    pub(super) fn remember(&self, verifier: &Arc<Verifier>, header: &HeaderValue, identity: &Identity) {
        if header.len() > LONGEST {
            return;
        }
        let accepted = Accepted {
            verifier: Arc::downgrade(verifier),
            header: header.as_bytes().to_vec().into(),
            identity: identity.clone(),
        };
        self.0.replace(Some(accepted));
    }
}
