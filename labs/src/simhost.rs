//! A test host in memory: a smoltcp stack on the far end of a memory port, and the probes of `ping` and `traffic` for
//! it.
//!
//! It needs no privilege and no thread: whoever probes polls both hosts until the probe is over. Evidence is, as
//! everywhere, what the other host's socket received.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::MacAddr;
use pipeline::raw::{Pool, Stash};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant as SimInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use vswitch::ports::memory::Wire;

use crate::claim::Probe;
use crate::ping::{COUNT, Echo};
use crate::traffic::{Hash, content};

/// How long a probe waits for each answer: smoltcp asks for neighbours once a second, for all sockets together.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Octets of an Ethernet frame with an IP packet of 1500.
const FRAME: usize = 1514;

/// A host on a wire.
pub struct SimHost {
    name: &'static str,
    device: WireDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    born: Instant,
}

impl SimHost {
    /// A host at the far end of a memory port; frames are taken from `pool`.
    ///
    /// # Errors
    /// When there are more addresses than smoltcp was built for.
    pub fn new(
        name: &'static str,
        wire: Wire,
        pool: &Pool,
        mac: MacAddr,
        addresses: [(IpAddr, u8); 2],
    ) -> anyhow::Result<Self> {
        let mut device = WireDevice { wire, stash: pool.stash() };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        let mut interface = Interface::new(config, &mut device, SimInstant::ZERO);
        let mut room = true;
        interface.update_ip_addrs(|list| {
            for (address, prefix) in addresses {
                room &= list.push(IpCidr::new(address.into(), prefix)).is_ok();
            }
        });
        ensure!(room, "host {name}: too many addresses");
        Ok(Self { name, device, interface, sockets: SocketSet::new(Vec::new()), born: Instant::now() })
    }

    /// Let the host look at its wire, its timers and its sockets once.
    fn poll(&mut self) {
        let now = SimInstant::from_micros(i64::try_from(self.born.elapsed().as_micros()).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }
}

/// Poll both hosts until `done` says so; false if it never does.
fn drive(
    a: &mut SimHost,
    b: &mut SimHost,
    limit: Duration,
    mut done: impl FnMut(&mut SimHost, &mut SimHost) -> bool,
) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        a.poll();
        b.poll();
        if done(a, b) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        // The workers of the switch may need this CPU.
        std::thread::yield_now();
    }
}

/// Ping `address` from `a` and look whether `b` received it and its answers came back.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn ping(a: &mut SimHost, b: &mut SimHost, address: IpAddr, id: u16) -> anyhow::Result<Probe> {
    let v6 = address.is_ipv6();
    let (near, far) = (icmp_socket(a, id)?, icmp_socket(b, id)?);
    let (mut requests, mut replies, mut peer) = (0, 0, None);
    for sequence in 1..=COUNT {
        let request = Echo { request: true, id, sequence };
        let socket = a.sockets.get_mut::<icmp::Socket<'_>>(near);
        socket.send_slice(&request.build(v6), address.into()).context("send an echo request")?;
        let answered = drive(a, b, PATIENCE, |a, b| {
            if let Ok((bytes, source)) = b.sockets.get_mut::<icmp::Socket<'_>>(far).recv()
                && Echo::parse_message(bytes, v6).as_ref() == Some(&request)
            {
                requests += 1;
                peer = Some(source);
            }
            a.sockets.get_mut::<icmp::Socket<'_>>(near).recv().is_ok_and(|(bytes, source)| {
                source == IpAddress::from(address)
                    && Echo::parse_message(bytes, v6) == Some(Echo { request: false, id, sequence })
            })
        });
        if !answered {
            break;
        }
        replies += 1;
    }
    a.sockets.remove(near);
    b.sockets.remove(far);
    let (near, far) = (a.name, b.name);
    Ok(match peer {
        Some(peer) if requests == COUNT && replies == COUNT => Probe::Arrived(format!(
            "{far} received {requests} echo requests from {peer}, {near} {replies} replies from {address}"
        )),
        _ => Probe::Silent(format!("{far} received {requests} echo requests, {near} {replies} replies from {address}")),
    })
}

/// Send datagrams of several sizes from `a` to an echo server on `b` and compare what comes back.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn udp_echo(a: &mut SimHost, b: &mut SimHost, address: SocketAddr) -> anyhow::Result<Probe> {
    const SIZES: [usize; 3] = [1, 18, 1472];
    let (near, far) = (udp_socket(a, 49152)?, udp_socket(b, address.port())?);
    let (mut sent, mut received, mut peer, mut answered) = (Hash::default(), Hash::default(), None, 0);
    for size in SIZES {
        let datagram: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        sent.add(&datagram);
        a.sockets.get_mut::<udp::Socket<'_>>(near).send_slice(&datagram, address).context("send a datagram")?;
        let came_back = drive(a, b, PATIENCE, |a, b| {
            let server = b.sockets.get_mut::<udp::Socket<'_>>(far);
            if let Ok((bytes, from)) = server.recv() {
                let bytes = bytes.to_vec();
                received.add(&bytes);
                peer = Some(from.endpoint);
                let _ = server.send_slice(&bytes, from.endpoint);
            }
            a.sockets.get_mut::<udp::Socket<'_>>(near).recv().is_ok_and(|(bytes, _)| bytes == datagram)
        });
        if !came_back {
            break;
        }
        answered += 1;
    }
    a.sockets.remove(near);
    b.sockets.remove(far);
    let (near, far, datagrams) = (a.name, b.name, SIZES.len());
    Ok(match peer {
        Some(peer) if answered == datagrams && received == sent => Probe::Arrived(format!(
            "{far} received {datagrams} datagrams, {} octets, hash {sent} from {peer}; {near} received the same back",
            sent.octets
        )),
        _ => Probe::Silent(format!(
            "{far} received {} octets, {near} {answered} of {datagrams} echoes, within {} ms",
            received.octets,
            PATIENCE.as_millis()
        )),
    })
}

/// Send a megabyte over TCP from `a` to `b`.
///
/// # Errors
/// When the hosts' sockets fail; silence is no error.
pub fn transfer(a: &mut SimHost, b: &mut SimHost, address: SocketAddr, limit: Duration) -> anyhow::Result<Probe> {
    let content = content();
    let (near, far) = (tcp_socket(a), tcp_socket(b));
    b.sockets.get_mut::<tcp::Socket<'_>>(far).listen(address.port()).context("listen")?;
    // Ports differ from one transfer to the next: smoltcp's listener would take a late segment of the last for its own.
    let local = 50_000 + u16::try_from(a.born.elapsed().as_millis() % 10_000).unwrap_or(0);
    a.sockets.get_mut::<tcp::Socket<'_>>(near).connect(a.interface.context(), address, local).context("connect")?;
    let (mut sent, mut received, mut peer) = (0, Vec::with_capacity(content.len()), None);
    let complete = drive(a, b, limit, |a, b| {
        let client = a.sockets.get_mut::<tcp::Socket<'_>>(near);
        if client.can_send() && sent < content.len() {
            sent += client.send_slice(&content[sent..]).unwrap_or(0);
        }
        let server = b.sockets.get_mut::<tcp::Socket<'_>>(far);
        if server.can_recv() {
            peer = server.remote_endpoint();
            let _ = server.recv(|bytes| {
                received.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        received.len() >= content.len()
    });
    for (host, socket) in [(&mut *a, near), (&mut *b, far)] {
        host.sockets.get_mut::<tcp::Socket<'_>>(socket).abort();
        host.poll();
        host.sockets.remove(socket);
    }
    let (mut want, mut have) = (Hash::default(), Hash::default());
    want.add(&content);
    have.add(&received);
    let far = b.name;
    Ok(match peer {
        Some(peer) if complete && want == have => {
            Probe::Arrived(format!("{far} received {} octets, hash {have} from {peer}, as sent", have.octets))
        }
        _ => Probe::Silent(format!("{far} received {} of {} octets within {limit:?}", have.octets, want.octets)),
    })
}

fn icmp_socket(host: &mut SimHost, id: u16) -> anyhow::Result<SocketHandle> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 2048]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(id)).with_context(|| format!("host {}: ICMP socket", host.name))?;
    Ok(host.sockets.add(socket))
}

fn udp_socket(host: &mut SimHost, port: u16) -> anyhow::Result<SocketHandle> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).with_context(|| format!("host {}: UDP socket {port}", host.name))?;
    Ok(host.sockets.add(socket))
}

fn tcp_socket(host: &mut SimHost) -> SocketHandle {
    let buffer = || tcp::SocketBuffer::new(vec![0; 64 * 1024]);
    host.sockets.add(tcp::Socket::new(buffer(), buffer()))
}

/// The wire as smoltcp sees it. It copies: the hosts are not what is measured.
struct WireDevice {
    wire: Wire,
    stash: Stash,
}

impl Device for WireDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _now: SimInstant) -> Option<(Received, Sender<'_>)> {
        let frame = self.wire.receive()?;
        let bytes = frame.to_vec();
        self.stash.give(frame);
        Some((Received { bytes }, Sender { device: self }))
    }

    fn transmit(&mut self, _now: SimInstant) -> Option<Sender<'_>> {
        Some(Sender { device: self })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// One received frame.
struct Received {
    bytes: Vec<u8>,
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.bytes)
    }
}

/// Leave to send one frame.
struct Sender<'a> {
    device: &'a mut WireDevice,
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut bytes = vec![0; len];
        let result = write(&mut bytes);
        let WireDevice { wire, stash } = self.device;
        // A frame for which there is no memory or no room is lost, as on any wire: TCP sends it again.
        if let Some(mut frame) = stash.take() {
            if frame.fill(&bytes) {
                match wire.send(frame) {
                    Ok(()) => wire.kick(),
                    Err(frame) => stash.give(frame),
                }
            } else {
                stash.give(frame);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;

    use api::PortId;
    use pipeline::burst::Burst;
    use vswitch::ports::{Opened, TxBatch, memory};

    use super::*;

    const A4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

    /// Two hosts whose ports are joined by a cable in the place of a switch.
    struct Cabled {
        a: SimHost,
        b: SimHost,
        cut: Arc<AtomicBool>,
        end: Arc<AtomicBool>,
        cable: Option<JoinHandle<()>>,
    }

    impl Cabled {
        fn new() -> Self {
            let pool = Pool::heap(2048, 0);
            let (port_a, wire_a) = memory::pair(256, false).expect("a descriptor");
            let (port_b, wire_b) = memory::pair(256, false).expect("a descriptor");
            let a = SimHost::new("a", wire_a, &pool, MacAddr([2, 0, 0, 0, 0, 1]), [(A4, 24), (A6, 64)]);
            let b = SimHost::new("b", wire_b, &pool, MacAddr([2, 0, 0, 0, 0, 2]), [(B4, 24), (B6, 64)]);
            let (cut, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let cable = Some(std::thread::spawn({
                let (cut, end) = (Arc::clone(&cut), Arc::clone(&end));
                move || carry([port_a, port_b], &pool, &cut, &end)
            }));
            Self { a: a.expect("host a"), b: b.expect("host b"), cut, end, cable }
        }
    }

    impl Drop for Cabled {
        fn drop(&mut self) {
            self.end.store(true, Ordering::Relaxed);
            if let Some(cable) = self.cable.take() {
                let _ = cable.join();
            }
        }
    }

    fn carry(mut ports: [Opened; 2], pool: &Pool, cut: &AtomicBool, end: &AtomicBool) {
        let (mut stash, mut burst) = (pool.stash(), Burst::new());
        while !end.load(Ordering::Relaxed) {
            for (from, to) in [(0, 1), (1, 0)] {
                burst.reset(PortId::NONE);
                ports[from].queues[0].rx(&mut burst, 64, &mut stash);
                let mut batch = TxBatch::new();
                for lane in &mut burst.frames {
                    match lane.take() {
                        Some(frame) if cut.load(Ordering::Relaxed) => stash.give(frame),
                        Some(frame) => batch.push(frame, PortId::NONE),
                        None => break,
                    }
                }
                ports[to].device.tx(&mut batch, &mut stash);
                while let Some((frame, _)) = batch.pop() {
                    stash.give(frame);
                }
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn probes_arrive_over_a_cable_and_not_when_it_is_cut() {
        let mut net = Cabled::new();
        for cut in [false, true] {
            net.cut.store(cut, Ordering::Relaxed);
            let (a, b) = (&mut net.a, &mut net.b);
            let probes = [
                ping(a, b, B4, 1).expect("sockets"),
                ping(a, b, B6, 2).expect("sockets"),
                udp_echo(a, b, SocketAddr::new(B4, 7)).expect("sockets"),
                transfer(a, b, SocketAddr::new(B4, 80), Duration::from_secs(if cut { 1 } else { 20 }))
                    .expect("sockets"),
            ];
            for probe in probes {
                assert_eq!(probe.arrived(), !cut, "cut: {cut}: {}", probe.text());
            }
        }
    }

    #[test]
    fn an_address_that_nobody_has_does_not_answer() {
        let mut net = Cabled::new();
        let nobody = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
        assert!(!ping(&mut net.a, &mut net.b, nobody, 1).expect("sockets").arrived());
    }
}
