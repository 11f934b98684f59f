//! Who answers: TCP and UDP servers that tell their name and whom they see, and then send back what comes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Host;

/// How soon a server notices that it is to end.
const TURN: Duration = Duration::from_millis(20);

/// A TCP and a UDP server of both IP versions at one port of a host. Its connections end with it.
pub(crate) struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Datagrams that came.
    heard: AtomicUsize,
}

impl Server {
    pub(super) fn new(host: &Host, port: u16) -> Self {
        let name = host.name;
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let (listener, socket) =
            host.space.run(|| (TcpListener::bind((any, port)).unwrap(), UdpSocket::bind((any, port)).unwrap()));
        let shared = Arc::new(Shared::default());
        let (tcp, udp) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || accept(name, &listener, &tcp)),
            std::thread::spawn(move || answer(name, &socket, &udp)),
        ];
        Self { shared, threads }
    }

    /// Datagrams that came so far.
    pub(crate) fn heard(&self) -> usize {
        self.shared.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "a server died");
        }
    }
}

fn accept(name: &'static str, listener: &TcpListener, shared: &Arc<Shared>) {
    listener.set_nonblocking(true).unwrap();
    let mut threads = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                let shared = Arc::clone(shared);
                threads.push(std::thread::spawn(move || converse(name, stream, peer, &shared)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn converse(name: &str, mut stream: TcpStream, peer: SocketAddr, shared: &Shared) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(TURN)).unwrap();
    let mut gone = stream.write_all(told(name, peer).as_bytes()).is_err();
    let mut octets = vec![0; 65536];
    while !gone && !shared.stop.load(Ordering::Relaxed) {
        gone = match stream.read(&mut octets) {
            Ok(0) => true,
            Ok(len) => stream.write_all(&octets[..len]).is_err(),
            Err(why) => !matches!(why.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        };
    }
}

fn answer(name: &str, socket: &UdpSocket, shared: &Shared) {
    socket.set_read_timeout(Some(TURN)).unwrap();
    let mut octets = vec![0; 65536];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((len, peer)) = socket.recv_from(&mut octets) else { continue };
        shared.heard.fetch_add(1, Ordering::Relaxed);
        let answer = [told(name, peer).as_bytes(), &octets[..len]].concat();
        // Who asked may be gone.
        let _ = socket.send_to(&answer, peer);
    }
}

/// Who we are, and whom we see.
fn told(name: &str, peer: SocketAddr) -> String {
    format!("{name} {}\n", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}
