//! `protocols` of a rule: a protocol with ports of it, or the name of a container port.

use api::Proto;
use serde::Deserialize;
use serde_json::Value;

use super::{Checked, OneOf, Part, check, only, part, typed_part};
use crate::cluster::model::{PolicyPort, PolicyPorts};
use crate::cluster::objects::Texts;

#[derive(Debug, Deserialize)]
struct Range {
    start: Option<i32>,
    end: Option<i32>,
}

pub(super) fn protocol(field: &str, given: &OneOf, texts: &mut Texts) -> Checked<Part<PolicyPort>> {
    let (key, value) = only(field, given)?;
    let field = format!("{field}.{}", check::shown(key));
    let proto = match key {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        "destinationNamedPort" => {
            let name: String = typed_part(&field, value)?.0;
            check::port_name(&field, &name)?;
            return Ok(Part::Known(PolicyPort { proto: None, ports: PolicyPorts::Named(texts.of(&name)) }));
        }
        _ => return Ok(Part::Unknown(field)),
    };
    let fields: OneOf = typed_part(&field, value)?.0;
    // That there is something is all that the CRD asks; what beside ports there may be one day we cannot match.
    if let Some(other) = fields.keys().find(|key| *key != "destinationPort") {
        return Ok(Part::Unknown(format!("{field}.{}", check::shown(other))));
    }
    let (_, port) = only(&field, &fields)?;
    let field = format!("{field}.destinationPort");
    Ok(match ports(&field, port)? {
        Part::Known(ports) => Part::Known(PolicyPort { proto: Some(proto), ports }),
        Part::Unknown(what) => Part::Unknown(what),
    })
}

fn ports(field: &str, value: &Value) -> Checked<Part<PolicyPorts>> {
    let fields: OneOf = typed_part(field, value)?.0;
    let (key, value) = only(field, &fields)?;
    let field = format!("{field}.{}", check::shown(key));
    match key {
        "number" => {
            let number = check::port(&field, typed_part(&field, value)?.0)?;
            Ok(Part::Known(PolicyPorts::Range(number, number)))
        }
        "range" => Ok(match part::<Range>(&field, value)? {
            Part::Known(range) => Part::Known(span(&field, &range)?),
            Part::Unknown(what) => Part::Unknown(what),
        }),
        _ => Ok(Part::Unknown(field)),
    }
}

fn span(field: &str, range: &Range) -> Checked<PolicyPorts> {
    let end = |name: &str, value: Option<i32>| match value {
        Some(value) => check::port(format_args!("{field}.{name}"), value),
        None => Err(format!("{field}.{name}: must be given")),
    };
    let (first, last) = (end("start", range.start)?, end("end", range.end)?);
    match first < last {
        true => Ok(PolicyPorts::Range(first, last)),
        false => Err(check::fault(field, format_args!("{first} to {last}"), "start must be less than end")),
    }
}
