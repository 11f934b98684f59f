//! `acl-load`: a file of access rules, read and understood here, sent as one request.

use api::{AclRule, AclWay, Request};

use super::{CommandDef, ask, manifests, words};
use crate::Failure;
use crate::options::{Options, Segment};

pub(crate) const LOAD: CommandDef = CommandDef {
    name: "acl-load",
    usage: "BRIDGE|PORT from-lport|to-lport FILE|-",
    help: "replace an access list at once: PRIORITY MATCH ACTION a line, # for comments",
    run: |options, segment| load(options, segment),
};

fn load(options: &Options, segment: &Segment) -> Result<u8, Failure> {
    let [at, way, file] = words(&LOAD, segment, 3)? else {
        return Err(Failure::Usage("'acl-load' command requires at least 3 arguments".to_owned()));
    };
    let way: AclWay = way.parse().map_err(|why| Failure::Usage(format!("acl-load: {why}")))?;
    let refused = |why: String| Failure::Refused(format!("acl-load: {file}: {why}"));
    let text = manifests::text_of(file).map_err(|e| refused(api::reason(&e)))?;
    let rules = AclRule::list(&text).map_err(refused)?;
    ask::run(options, &Request::AclLoad { at: at.clone(), way, rules })
}
