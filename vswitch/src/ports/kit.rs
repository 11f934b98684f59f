//! What tests of ports share.

/// A TAP port called `web-0` with these options.
pub(super) fn port(options: &[(&str, &str)]) -> api::Port {
    api::Port {
        id: api::PortId(1),
        name: "web-0".into(),
        bridge: api::BridgeId(1),
        ofport: 1,
        kind: "tap".into(),
        options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        vlan: api::Vlan::default(),
        mac: None,
        mtu: api::Port::MTU,
        external_ids: Default::default(),
    }
}
