//! Both ends of the path: a client on one kept-alive connection, and a replica that answers as it is told. Blocking and
//! plain, since their time does not count.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Longest wait for the other side. A program under valgrind is some fifty times slower, and its start takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// One connection, one request at a time.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the router takes connections");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a whole request at once.
    pub(crate) fn send(&mut self, request: &[u8]) {
        self.stream.get_mut().write_all(request).expect("the router reads");
    }

    /// Takes the head of an answer, which must be a good one.
    pub(crate) fn head(&mut self) -> Framing {
        let head = head(&mut self.stream).expect("the router answers");
        assert!(head.starts_with("http/1.1 200 "), "the router answered:\n{head}");
        framing(&head)
    }

    /// Takes one chunk; `false` for the last one.
    pub(crate) fn chunk(&mut self) -> bool {
        chunk(&mut self.stream).expect("the answer goes on") > 0
    }

    /// Takes a whole answer.
    pub(crate) fn answer(&mut self) {
        let framing = self.head();
        body(&mut self.stream, &framing).expect("the answer is whole");
    }
}

/// A model server on a port of its own; its threads end with the process.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    /// Says that a scoring request has come.
    arrived: Receiver<()>,
    /// Lets the next piece of an answer go out.
    go: Sender<()>,
}

/// What a replica answers.
pub(crate) struct Script {
    /// Each is written at once.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Whether it says that a request has come, and waits for a word before each piece.
    pub(crate) paced: bool,
}

impl Replica {
    /// Listens.
    pub(crate) fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (say_arrived, arrived) = channel();
        let (go, wait_go) = channel();
        let (script, wait_go) = (Arc::new(script), Arc::new(Mutex::new(wait_go)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, say_arrived) = (Arc::clone(&script), say_arrived.clone());
                let wait_go = Arc::clone(&wait_go);
                // A connection that breaks is the router's to tell of.
                thread::spawn(move || serve(stream, &script, &say_arrived, &wait_go));
            }
        });
        Self { address, arrived, go }
    }

    /// Waits for a request, where the script is paced.
    pub(crate) fn wait_for_request(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("the router sends the request on");
    }

    /// Lets the next piece go.
    pub(crate) fn go(&self) {
        self.go.send(()).expect("the replica is there");
    }
}

/// How long a body is.
pub(crate) enum Framing {
    Chunked,
    Length(usize),
}

fn serve(
    stream: TcpStream,
    script: &Script,
    arrived: &Sender<()>,
    go: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let head = head(&mut stream)?;
        body(&mut stream, &framing(&head))?;
        if head.starts_with("get ") {
            // A probe.
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        if script.paced {
            let _ = arrived.send(());
        }
        for piece in &script.pieces {
            if script.paced && go.lock().map_or(true, |go| go.recv().is_err()) {
                return Ok(());
            }
            stream.get_mut().write_all(piece)?;
        }
    }
}

/// A head in lower case, with its empty line.
fn head(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head.to_ascii_lowercase())
}

fn framing(head: &str) -> Framing {
    if head.contains("transfer-encoding: chunked") {
        return Framing::Chunked;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    Framing::Length(length.map_or(0, |length| length.parse().expect("a length is a number")))
}

fn body(stream: &mut BufReader<TcpStream>, framing: &Framing) -> std::io::Result<()> {
    match *framing {
        Framing::Chunked => while chunk(stream)? > 0 {},
        Framing::Length(length) => skip(stream, length)?,
    }
    Ok(())
}

/// Takes one chunk and gives its length.
fn chunk(stream: &mut BufReader<TcpStream>) -> std::io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
    skip(stream, length + 2)?;
    Ok(length)
}

fn skip(stream: &mut BufReader<TcpStream>, bytes: usize) -> std::io::Result<()> {
    let skipped = std::io::copy(&mut stream.take(bytes as u64), &mut std::io::sink())?;
    if skipped < bytes as u64 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
