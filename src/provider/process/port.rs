//! Which ports are given to replicas: free ones, each to one replica at a time, the longest unused first.
//! Shared by the process providers of all deployments, whose ranges may overlap, and in agreement with every other
//! scoregate of the machine: two that gave out one port would both find "their" replica ready, and one of them would
//! send its requests to the other's model.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

/// The ports that are given out.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    /// Where the last search ended.
    last: Arc<Mutex<u16>>,
}

/// A port that no other replica gets until this is dropped.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    /// Only one socket of the machine (of the network namespace, as with ports) can have its name; the system frees the
    /// name with the process, however that ends.
    _claim: UnixDatagram,
}

impl Ports {
    /// A free port of the range (both ends included); `None` when there is none. The search goes on where the
    /// last one ended, so that a port that has just been in use rests for as long as the range allows.
    pub(super) fn take(&self, (first, last): (u16, u16)) -> Option<Port> {
        // Every write leaves a whole number.
        let mut previous = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let start = if (first..last).contains(&*previous) { *previous + 1 } else { first };
        let port = (start..=last).chain(first..start).find_map(Port::claim)?;
        *previous = port.number;
        Some(port)
    }
}

impl Port {
    fn claim(number: u16) -> Option<Self> {
        let name = UnixAddr::from_abstract_name(format!("scoregate-replica-port-{number}")).ok()?;
        let claim = UnixDatagram::bind_addr(&name).ok()?;
        is_free(number).then_some(Self { number, _claim: claim })
    }

    /// Its number.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Whether somebody else listens on it; meaningful when the replica does not run.
    pub(super) fn is_taken(&self) -> bool {
        !is_free(self.number)
    }
}

/// Whether a server could bind the port now. The real model server binds every address, so that is what is
/// tried; nothing listens, so nobody can connect meanwhile.
fn is_free(port: u16) -> bool {
    let bind = || -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As servers do: a connection of the last user that is still being closed is no hindrance.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
    };
    bind().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A listener, and a range that begins at its port.
    fn taken() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let (listener, port) = taken();
        assert!(Ports::default().take((port, port)).is_none());
        drop(listener);
        assert!(Ports::default().take((port, port)).is_some());
    }

    #[test]
    fn a_port_is_given_once_at_a_time() {
        let (listener, port) = taken();
        drop(listener);
        let ports = Ports::default();
        let held = ports.take((port, port)).unwrap();
        assert!(ports.take((port, port)).is_none());
        assert!(Ports::default().take((port, port)).is_none(), "another scoregate does not get it either");
        drop(held);
        assert_eq!(ports.take((port, port)).unwrap().number(), port);
    }

    #[test]
    fn the_next_search_goes_on_behind_the_last_port() {
        let range = (21_300, 21_399);
        let ports = Ports::default();
        let first = ports.take(range).unwrap().number();
        let second = ports.take(range).unwrap().number();
        assert!(second > first, "{first} was given up and rests, but {second} came next");
        *ports.last.lock().unwrap() = range.1;
        assert!(ports.take(range).is_some(), "begins again at the start");
    }
}
