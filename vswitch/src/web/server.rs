//! The loop: one thread, all listeners, all clients.
//!
//! Nobody can hold up anybody: nothing is waited for but the poll, a client has its turn and its time, a listener has room
//! for [`CLIENTS_EACH`] clients and all of them for [`CLIENTS`]; when there is no room, who has been silent longest makes
//! some. A listener that cannot be had is tried again every second, and the network does not wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::reason;
use crossbeam::channel::{Receiver, Sender};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use parking_lot::Mutex;

use super::answers::{Answers, Purpose};
use super::client::{Client, Turn};
use super::listen::{listener, meant};
use super::told::Told;
use super::watch::{Look, Watch};
use super::{Settings, Workers};

/// Clients of one listener.
const CLIENTS_EACH: usize = 256;
/// Clients of all.
const CLIENTS: usize = 1024;
/// How often listeners are tried again, the switch is looked at, and clients that are late are closed.
const LOOK: Duration = Duration::from_secs(1);
pub(super) const WAKER: Token = Token(0);

/// What a listener is for, and where.
type Key = (Purpose, SocketAddr);

/// The servers' thread.
pub(super) struct Server {
    poll: Poll,
    settings: Settings,
    told: Arc<Mutex<Told>>,
    workers: Workers,
    stop: Arc<AtomicBool>,
    /// Who waits until listeners are as they shall be.
    waiting: Receiver<Sender<()>>,
    answers: Answers,
    watch: Watch,
    listeners: BTreeMap<Key, (Token, TcpListener)>,
    /// Why listeners cannot be had, as it was logged.
    complaints: BTreeMap<Key, String>,
    /// Each with its listener.
    clients: BTreeMap<Token, (Key, Client)>,
    next_token: usize,
}

impl Server {
    pub(super) fn new(
        poll: Poll,
        settings: Settings,
        told: Arc<Mutex<Told>>,
        workers: Workers,
        answers: Answers,
        (stop, waiting): (Arc<AtomicBool>, Receiver<Sender<()>>),
    ) -> Self {
        Self {
            poll,
            settings,
            told,
            workers,
            stop,
            waiting,
            answers,
            watch: Watch::default(),
            listeners: BTreeMap::new(),
            complaints: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_token: WAKER.0 + 1,
        }
    }

    /// Serve until stopped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        // Clients that had more to ask when their turn was over.
        let mut ready = BTreeSet::new();
        let mut next_look = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + LOOK;
                self.look(now);
                self.settle();
                // Room may have been made since one of them could not accept.
                let all: Vec<Token> = self.listeners.values().map(|(token, _)| *token).collect();
                all.into_iter().for_each(|token| self.accept(token, &mut ready));
            }
            let timeout = if ready.is_empty() { next_look.saturating_duration_since(now) } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => return tracing::error!("health checks and metrics are not served any more: {why}"),
            }
            let woken: Vec<Token> = events.iter().map(|event| event.token()).collect();
            for token in woken {
                match token {
                    WAKER => self.settle(),
                    _ if self.clients.contains_key(&token) => drop(ready.insert(token)),
                    _ => self.accept(token, &mut ready),
                }
            }
            for token in std::mem::take(&mut ready) {
                match self.turn(token) {
                    Turn::Waits => {}
                    Turn::More => drop(ready.insert(token)),
                    Turn::Over => drop(self.clients.remove(&token)),
                }
            }
        }
    }

    /// See whether the switch goes on, and close clients that are late.
    fn look(&mut self, now: Instant) {
        let (rounds, behind) = {
            let told = self.told.lock();
            (told.rounds, told.behind)
        };
        self.watch.look(&Look { rounds, behind, workers: self.workers.progress() });
        self.clients.retain(|_, (_, client)| !client.is_late(now));
    }

    /// Open the listeners that there shall be, close the others and their clients, and tell who waits for it.
    fn settle(&mut self) {
        let wanted = self.wanted();
        self.listeners.retain(|key, _| wanted.contains(key));
        self.clients.retain(|_, (key, _)| wanted.contains(key));
        self.complaints.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.listeners.contains_key(&key) {
                self.open(key);
            }
        }
        while let Ok(done) = self.waiting.try_recv() {
            let _ = done.send(());
        }
    }

    fn wanted(&self) -> BTreeSet<Key> {
        let fixed = [(Purpose::Health, self.settings.healthz), (Purpose::Metrics, self.settings.metrics)];
        let mut wanted: BTreeSet<Key> =
            fixed.into_iter().filter_map(|(purpose, address)| Some((purpose, meant(address?)))).collect();
        for check in self.told.lock().checks.values() {
            let at = |address: &_| meant(SocketAddr::new(*address, check.port));
            wanted.extend(check.addresses.iter().map(|address| (Purpose::Check(check.port), at(address))));
        }
        wanted
    }

    fn open(&mut self, key: Key) {
        let token = Token(self.next_token);
        let opened = listener(key.1).and_then(|mut listener| {
            self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
            Ok(listener)
        });
        match opened {
            Ok(listener) => {
                self.next_token += 1;
                self.listeners.insert(key, (token, listener));
                if self.complaints.remove(&key).is_some() {
                    tracing::info!("{}: {} now", key.1, served(key.0));
                }
            }
            Err(why) => {
                let why = reason(&why);
                if self.complaints.get(&key) != Some(&why) {
                    tracing::warn!("{}: {why}: not {}; tried again every second", key.1, served(key.0));
                    self.complaints.insert(key, why);
                }
            }
        }
    }

    fn accept(&mut self, token: Token, ready: &mut BTreeSet<Token>) {
        let Some(key) = self.listeners.iter().find(|(_, (other, _))| *other == token).map(|(key, _)| *key) else {
            return;
        };
        let now = Instant::now();
        for _ in 0..CLIENTS_EACH {
            let Some((_, listener)) = self.listeners.get(&key) else { return };
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                // Out of descriptors, most likely; or the client is gone already.
                Err(_) if self.make_room(|_| true) => continue,
                Err(_) => return,
            };
            if self.clients.values().filter(|(other, _)| *other == key).count() >= CLIENTS_EACH {
                self.make_room(|other| *other == key);
            } else if self.clients.len() >= CLIENTS {
                self.make_room(|_| true);
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            if self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                self.clients.insert(token, (key, Client::new(stream, now)));
                ready.insert(token);
            }
        }
    }

    /// Close who has been silent longest of some clients.
    fn make_room(&mut self, of: impl Fn(&Key) -> bool) -> bool {
        let some = self.clients.iter().filter(|(_, (key, _))| of(key));
        let silent = some.min_by_key(|(_, (_, client))| client.last()).map(|(token, _)| *token);
        silent.is_some_and(|token| self.clients.remove(&token).is_some())
    }

    fn turn(&mut self, token: Token) -> Turn {
        let Self { clients, answers, watch, .. } = self;
        let Some(((purpose, _), client)) = clients.get_mut(&token) else { return Turn::Waits };
        client.turn(Instant::now(), &mut |request| answers.answer(*purpose, request, watch.is_healthy()))
    }
}

/// What is served, for people.
fn served(purpose: Purpose) -> String {
    match purpose {
        Purpose::Health => "serving /healthz and /livez".to_owned(),
        Purpose::Metrics => "serving /metrics and /proxyMode".to_owned(),
        Purpose::Check(port) => format!("serving health checks of port {port}"),
    }
}
