//! What survives the end of the daemon's processes: a daemon as in life, kernel TCP through a service, and kill -9.

use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::Signal;

use load::{Echo, Load, Outcome, Shape};
use node::{End, Node, SERVICE};

mod load;
mod manager;
mod node;
mod others;

/// These tests are heavy, and measure: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock()
}

/// A thousand connections that ask ten times a second.
const MANY: Shape = Shape { connections: 1000, octets: 64, every: Duration::from_millis(100) };
/// A few that are never idle, in super-frames.
const BULK: Shape = Shape { connections: 4, octets: 256 * 1024, every: Duration::ZERO };
/// No connection waits longer, whatever happened to the daemon: what is sent again is sent in time.
const RECOVERED: Duration = Duration::from_secs(15);

/// A data plane that lived so long is started again at once.
const LIVED: Duration = Duration::from_millis(1100);

/// A cluster under load.
struct Bed {
    node: Node,
    many: Load,
    bulk: Load,
    _servers: Vec<Echo>,
}

impl Bed {
    fn new(test: &str, workers: usize) -> Option<Self> {
        let node = Node::new(test, 3, workers)?;
        node.make_cluster();
        let servers = node.pods[1..].iter().map(|pod| Echo::new(pod, 8080)).collect();
        let to: SocketAddr = SERVICE.parse().unwrap();
        let [many, bulk] = [MANY, BULK].map(|shape| Load::start(&node.pods[0], to, shape));
        Some(Self { node, many, bulk, _servers: servers })
    }

    /// What the connections saw since they were last asked, when all of them had the time to go on.
    fn outcomes(&self) -> [Outcome; 2] {
        [&self.many, &self.bulk].map(|load| {
            load.settle(RECOVERED);
            load.outcome()
        })
    }
}

/// Every connection goes on, with all its octets, over ends of one kind at instants that nothing foresees.
fn go_on(test: &str, end: End, rounds: usize) {
    let _alone = alone();
    for workers in [1, 2] {
        let Some(mut bed) = Bed::new(test, workers) else { return };
        for round in 0..rounds {
            // Since the last end, which is none of the clock's doing.
            std::thread::sleep(
                LIVED + Duration::from_micros(u64::from(std::process::id()) * 7919 * (round as u64 + 1) % 300_000),
            );
            let before = bed.outcomes();
            bed.node.end(end);
            std::thread::sleep(Duration::from_millis(300));
            let after = bed.outcomes();
            let [many, bulk] = &after;
            println!(
                "{end:?}, {workers} workers: nothing came for {:?} (before: {:?}); a connection waited {:?}, one in a hundred \
                 {:?}, one in two {:?}; bulk {:?}",
                many.gap,
                before[0].gap,
                many.wait_of(1000),
                many.wait_of(100),
                many.wait_of(2),
                bulk.wait_of(1000),
            );
            for outcome in before.iter().chain(&after) {
                assert!(outcome.broken.is_empty(), "{end:?}: {:?}", outcome.broken);
                assert!(
                    outcome.octets > 0 && outcome.wait_of(1000) < RECOVERED,
                    "{end:?}: {:?}",
                    outcome.wait_of(1000)
                );
            }
        }
        let coverage = bed.node.vsctl("coverage/show");
        assert!(!coverage.contains("cache_divergence"), "{coverage}");
    }
}

#[test]
fn a_thousand_connections_outlive_the_data_plane() {
    go_on("a_thousand_connections_outlive_the_data_plane", End::DataPlane, 3);
}

#[test]
fn a_thousand_connections_outlive_the_keeper() {
    go_on("a_thousand_connections_outlive_the_keeper", End::Keeper, 2);
}

#[test]
fn a_thousand_connections_outlive_both_processes() {
    go_on("a_thousand_connections_outlive_both_processes", End::Both, 2);
}

#[test]
fn a_thousand_connections_outlive_an_orderly_restart() {
    go_on("a_thousand_connections_outlive_an_orderly_restart", End::Restart, 2);
}

#[test]
fn a_thousand_connections_outlive_an_upgrade() {
    go_on("a_thousand_connections_outlive_an_upgrade", End::Upgrade, 1);
    go_on("a_thousand_connections_outlive_an_upgrade", End::UpgradeOfDataPlane, 1);
}

/// The control of the tests above: what they find is owed to the memory of connections and to nothing else.
#[test]
fn without_the_memory_of_connections_they_are_reset() {
    let _alone = alone();
    let Some(mut bed) = Bed::new("without_the_memory_of_connections_they_are_reset", 1) else { return };
    bed.node.kill(End::Both);
    std::fs::remove_file(bed.node.run_dir().join("connections")).unwrap();
    bed.node.start();
    bed.many.settle(RECOVERED);
    let broken = bed.many.outcome().broken;
    // Whom chance sends to the same backend again goes on.
    assert!(broken.len() > 100, "{} of {} ended", broken.len(), MANY.connections);
    assert!(broken.iter().any(|why| why.contains("reset")), "{broken:?}");
}

#[test]
fn connections_that_are_none_of_this_layout_begin_again_and_new_ones_are_made() {
    let _alone = alone();
    let test = "connections_that_are_none_of_this_layout_begin_again_and_new_ones_are_made";
    let Some(mut node) = Node::new(test, 2, 1) else { return };
    node.make_cluster();
    let _server = Echo::new(&node.pods[1], 8080);
    let shape = Shape { connections: 10, octets: 64, every: Duration::from_millis(10) };
    let connect = |node: &Node| drop(Load::start(&node.pods[0], SERVICE.parse().unwrap(), shape));
    connect(&node);
    node.stop(Signal::TERM);
    let file = node.run_dir().join("connections");
    let octets = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0xff; octets as usize]).unwrap();
    node.start();
    assert!(
        node.log().contains("connections: it is no table of connections, or damaged; started anew"),
        "{}",
        node.log()
    );
    connect(&node);
}

/// What a start spends on a large cluster is time in which nothing is delivered.
#[test]
fn a_data_plane_with_ten_thousand_services_is_back_soon() {
    const SERVICES: u32 = 10_000;
    let _alone = alone();
    let Some(mut bed) = Bed::new("a_data_plane_with_ten_thousand_services_is_back_soon", 1) else { return };
    let numbers: Vec<u32> = (0..SERVICES).collect();
    numbers.chunks(500).for_each(|some| bed.node.add_services(some));
    for end in [End::DataPlane, End::Restart] {
        std::thread::sleep(LIVED);
        bed.outcomes();
        bed.node.end(end);
        let [many, bulk] = bed.outcomes();
        println!(
            "{end:?}, {SERVICES} services: nothing came for {:?}; a connection waited {:?}, bulk {:?}",
            many.gap,
            many.wait_of(1000),
            bulk.wait_of(1000)
        );
        for outcome in [many, bulk] {
            assert!(outcome.broken.is_empty() && outcome.octets > 0, "{end:?}: {:?}", outcome.broken);
        }
    }
}
