//! What the control side asks of a switch.

use std::sync::mpsc::Receiver;

use api::state::{
    Captured, ConnectionState, Coverage, DenialState, DropState, NeighborState, PortState, Probe, StationState, Traced,
    Walked, WorkerState,
};
use api::{Attached, BridgeId, Change, MacAddr, PortId, ServiceKey, Transaction};

/// Why something was not done: the thing, the value and the rule, in one line, without a verb in front.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// A switch that can be programmed and looked at. One thread at a time talks to it.
pub trait Switch {
    /// Carry out a transaction, whole or not at all. When it returns `Ok`, every packet sees it. New ports are opened
    /// and their devices made; ports that go are closed and their devices removed.
    ///
    /// # Errors
    /// What could not be done, naming the port or bridge; the switch is as it was before.
    fn apply(&mut self, transaction: &Transaction) -> Result<(), Refusal>;

    /// All ports, by number.
    fn ports(&self) -> Vec<PortState>;

    /// The Ethernet address of a port's device; `None` when it has none, or is gone.
    fn mac(&self, port: PortId) -> Option<MacAddr> {
        self.ports().into_iter().find(|state| state.id == port)?.mac
    }

    /// The MAC table of a bridge: learned and static stations, in no order.
    fn stations(&self, bridge: BridgeId) -> Vec<StationState>;

    /// Forget the learned stations of a bridge, or of all. Returns how many.
    fn flush_stations(&mut self, bridge: Option<BridgeId>) -> usize;

    /// Frames dropped, by ingress port and reason; only rows that are not zero.
    fn drops(&self) -> Vec<DropState>;

    /// All workers, by number.
    fn workers(&self) -> Vec<WorkerState>;

    /// Event counters, by name.
    fn coverage(&self) -> Vec<Coverage>;

    /// Copy what enters and leaves by a port, until the receiver is dropped. Frames that the receiver does not take in
    /// time are lost to the capture, never to their owners.
    ///
    /// # Errors
    /// When there is no such port, or too many captures.
    fn capture(&mut self, port: PortId) -> Result<Receiver<Captured>, Refusal>;

    /// All tracked connections, in no order.
    fn connections(&self) -> Vec<ConnectionState>;

    /// Forget the connections of which `doomed` holds; their next packet is a first one. Returns how many.
    fn flush_connections(&mut self, doomed: &dyn Fn(&ConnectionState) -> bool) -> usize;

    /// All neighbours, static and learned, in no order.
    fn neighbors(&self) -> Vec<NeighborState>;

    /// Why processes of the node do not reach the service at this address, although others do; `None` when they do.
    fn unreached_by_node(&self, _service: &ServiceKey) -> Option<String> {
        None
    }

    /// Walk a packet through the live program, without any effect.
    fn trace(&self, probe: &Probe) -> Traced;

    /// Walk many packets through the live program, without any effect. For who walks millions: nothing is put into words.
    /// As many answers as probes, or none from a switch that cannot.
    fn probe_all(&self, _probes: &[Probe]) -> Vec<Walked> {
        Vec::new()
    }

    /// The rows of the live program's tables, read out of them, as the changes that would make them of nothing. In no order.
    fn programmed(&self) -> Vec<Change> {
        Vec::new()
    }

    /// What policies did not let through, since each was first denied; the busiest are kept if there are very many.
    fn denials(&self) -> Vec<DenialState> {
        Vec::new()
    }

    /// What follows from the cluster's objects was refused, or is in force again. While it is not, it is tried again every
    /// second.
    fn behind(&mut self, _behind: bool) {}

    /// The interface of a port, as it is in its namespace now: of a port that was attached for a container.
    ///
    /// # Errors
    /// When there is no such port, or its device or namespace is gone.
    fn interface(&self, port: PortId) -> Result<Attached, Refusal> {
        Err(Refusal(format!("port #{port}: has no interface that can be looked at")))
    }

    /// All that was configured, and what follows from the cluster's objects, was told: packets may be read. Until then
    /// none is, so that nothing is decided by half of it.
    fn restored(&mut self) {}

    /// Called about once a second between requests, for the switch's own housekeeping: devices that went, counters to
    /// sum up. Must not take long: no request is answered meanwhile.
    fn tick(&mut self) {}
}
