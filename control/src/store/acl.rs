//! The store's part of access lists: rules in the order in which they are asked, at bridges and ports.

use std::sync::Arc;

use api::reply::{AclRow, AclTable};
use api::{Acl, AclKey, AclMatch, AclPlace, AclRule, AclWay};

use super::Store;
use super::config::{Config, shown};
use crate::{Refusal, Switch};

/// Rules of one list at most: what fits a request, with room.
const RULES: usize = 100_000;
const WAYS: [AclWay; 2] = [AclWay::FromPort, AclWay::ToPort];

/// The highest priority first; of equal ones, who stood first stays first.
fn ordered(mut rules: Vec<AclRule>) -> Arc<[AclRule]> {
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
    rules.into()
}

fn put(config: &mut Config, key: AclKey, rules: Vec<AclRule>) {
    if rules.is_empty() {
        config.acls.remove(&key);
    } else {
        config.acls.insert(key, Acl { key, rules: ordered(rules) });
    }
}

impl Store {
    /// Add a rule. One of the same priority and match is refused, or left as it is.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn add_acl(
        &mut self,
        at: &str,
        way: AclWay,
        rule: AclRule,
        may_exist: bool,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = AclKey { at: self.acl_place(at)?, way };
        rule.check().map_err(Refusal)?;
        let mut rules = self.acl_rules(key);
        if rules.iter().any(|other| (other.priority, other.matches) == (rule.priority, rule.matches)) {
            if may_exist {
                return Ok(());
            }
            let (way, priority, matches) = (way.name(), rule.priority, rule.matches);
            return Err(Refusal(format!("{at}: the same rule is there: {way} {priority} ({matches})")));
        }
        rules.push(rule);
        self.replace_acls(at, [(key, rules)].into(), switch)
    }

    /// Put these rules in the place of a list.
    ///
    /// # Errors
    /// Thing, value and rule.
    pub(crate) fn load_acl(
        &mut self,
        at: &str,
        way: AclWay,
        rules: Vec<AclRule>,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let key = AclKey { at: self.acl_place(at)?, way };
        for (number, rule) in (1..).zip(&rules) {
            rule.check().map_err(|why| Refusal(format!("rule {number}: {why}")))?;
        }
        let mut told: Vec<(u16, String)> = rules.iter().map(|rule| (rule.priority, rule.matches.to_string())).collect();
        told.sort_unstable();
        if let Some(((priority, matches), _)) = told.iter().zip(told.iter().skip(1)).find(|(a, b)| a == b) {
            return Err(Refusal(format!("{at}: two rules are the same: {} {priority} ({matches})", way.name())));
        }
        self.replace_acls(at, [(key, rules)].into(), switch)
    }

    /// Take rules away: all of a place, of one way, or one.
    ///
    /// # Errors
    /// When the one that is named is not there.
    pub(crate) fn remove_acls(
        &mut self,
        at: &str,
        way: Option<AclWay>,
        only: Option<(u16, AclMatch)>,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let place = self.acl_place(at)?;
        let mut lists = Vec::new();
        for way in WAYS.into_iter().filter(|own| way.is_none_or(|way| way == *own)) {
            let key = AclKey { at: place, way };
            let mut rules = self.acl_rules(key);
            if let Some((priority, matches)) = only {
                let before = rules.len();
                rules.retain(|rule| (rule.priority, rule.matches) != (priority, matches));
                if rules.len() == before {
                    continue;
                }
            } else {
                rules.clear();
            }
            lists.push((key, rules));
        }
        if let (Some((priority, matches)), true) = (only, lists.is_empty()) {
            let way = way.map_or("", AclWay::name);
            return Err(Refusal(format!("{at}: no such rule: {way} {priority} ({matches})")));
        }
        self.replace_acls(at, lists, switch)
    }

    /// The rules of a place.
    ///
    /// # Errors
    /// When there is neither a bridge nor a port of this name.
    pub(crate) fn acls(&self, at: &str) -> Result<AclTable, Refusal> {
        let at = self.acl_place(at)?;
        let rules = WAYS.into_iter().flat_map(|way| {
            let row = move |rule: AclRule| AclRow {
                way,
                priority: rule.priority,
                matches: rule.matches.to_string(),
                action: rule.action,
            };
            self.acl_rules(AclKey { at, way }).into_iter().map(row)
        });
        Ok(AclTable(rules.collect()))
    }

    fn acl_rules(&self, key: AclKey) -> Vec<AclRule> {
        self.config.acls.get(&key).map_or_else(Vec::new, |acl| acl.rules.to_vec())
    }

    /// A bridge, or else a port. The LOCAL port has the name of its bridge, so it has no list of its own.
    fn acl_place(&self, name: &str) -> Result<AclPlace, Refusal> {
        if let Some(bridge) = self.config.bridge(name) {
            return Ok(AclPlace::Bridge(bridge.id));
        }
        let port = self.config.port(name).map(|port| AclPlace::Port(port.id));
        let name = shown(name);
        port.ok_or_else(|| Refusal(format!("{name}: no bridge or port named {name}")))
    }

    fn replace_acls(
        &mut self,
        at: &str,
        lists: Vec<(AclKey, Vec<AclRule>)>,
        switch: &mut dyn Switch,
    ) -> Result<(), Refusal> {
        let mut config = self.config.clone();
        for (key, rules) in lists {
            if rules.len() > RULES {
                return Err(Refusal(format!("{at}: {} rules: a list has at most {RULES}", rules.len())));
            }
            put(&mut config, key, rules);
        }
        self.commit(config, switch)
    }
}

#[cfg(test)]
mod tests {
    use api::{Request, verb};

    use super::*;
    use crate::NodeSettings;
    use crate::fake::FakeSwitch;
    use crate::store::network::tests::run;

    fn open(directory: &std::path::Path, switch: &mut FakeSwitch) -> Store {
        Store::open(directory, "", &NodeSettings::default(), switch).unwrap()
    }

    /// What `acl-list` prints of a bridge or a port, without what fills the columns.
    fn list(store: &Store, at: &str) -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        store.acls(at).unwrap().to_string().lines().map(words).collect()
    }

    /// Rules that the switch has, by list.
    fn told(switch: &FakeSwitch) -> Vec<(AclKey, usize)> {
        switch.acls.values().map(|acl| (acl.key, acl.rules.len())).collect()
    }

    #[test]
    fn rules_are_asked_by_priority_and_of_equal_ones_the_first_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = FakeSwitch::default();
        let mut store = open(directory.path(), &mut switch);
        run(&mut store, &mut switch, "add-br br0 -- add-port br0 p1").unwrap();
        for line in [
            "acl-add br0 from-lport 5 udp drop",
            "acl-add br0 from-lport 9 tcp,tp_dst=80 allow-related",
            "acl-add br0 from-lport 5 icmp reject",
            "acl-add p1 to-lport 0  drop",
            "acl-add --may-exist br0 from-lport 5 udp allow",
        ] {
            run(&mut store, &mut switch, line).unwrap();
        }
        let rules =
            ["from-lport 9 (tcp,tp_dst=80) allow-related", "from-lport 5 (udp) drop", "from-lport 5 (icmp) reject"];
        assert_eq!(list(&store, "br0"), rules);
        assert_eq!(list(&store, "p1"), ["to-lport 0 () drop"]);
        let told: Vec<_> = switch.acls.values().flat_map(|acl| acl.rules.iter().map(|rule| rule.priority)).collect();
        assert_eq!(told, [9, 5, 5, 0]);
        drop(store);
        let mut after = FakeSwitch::default();
        let store = open(directory.path(), &mut after);
        assert_eq!((list(&store, "br0"), &after.acls), (rules.map(str::to_owned).to_vec(), &switch.acls));
    }

    #[test]
    fn what_is_refused_names_the_thing_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = FakeSwitch::default();
        let mut store = open(directory.path(), &mut switch);
        run(&mut store, &mut switch, "add-br br0").unwrap();
        run(&mut store, &mut switch, "acl-add br0 from-lport 5 udp drop").unwrap();
        let before = switch.acls.clone();
        for (line, why) in [
            ("acl-add br0 from-lport 5 udp allow", "acl-add: br0: the same rule is there: from-lport 5 (udp)"),
            ("acl-add p9 from-lport 5 udp drop", "acl-add: p9: no bridge or port named p9"),
            ("acl-del br0 from-lport 6 udp", "acl-del: br0: no such rule: from-lport 6 (udp)"),
            ("acl-del br0 to-lport 5 udp", "acl-del: br0: no such rule: to-lport 5 (udp)"),
            ("acl-list p9", "acl-list: p9: no bridge or port named p9"),
        ] {
            assert_eq!(run(&mut store, &mut switch, line).unwrap_err().0, why);
        }
        let same = AclRule::list("1 udp drop\n2 udp drop\n1 udp allow").unwrap();
        let why = store.load_acl("br0", AclWay::ToPort, same, &mut switch).unwrap_err();
        assert_eq!(why.0, "br0: two rules are the same: to-lport 1 (udp)");
        let odd = AclRule {
            priority: 1,
            matches: AclMatch { sport: Some((1, 2)), ..AclMatch::default() },
            action: api::AclAction::Drop,
        };
        let why = store.load_acl("br0", AclWay::ToPort, vec![odd], &mut switch).unwrap_err();
        assert_eq!(why.0, "rule 1: tp_src=1-2: needs tcp, udp or sctp (or tcp6, udp6, sctp6)");
        switch.refuse = true;
        assert!(run(&mut store, &mut switch, "acl-add br0 from-lport 6 udp drop").is_err());
        assert_eq!((&switch.acls, list(&store, "br0").len()), (&before, 1));
        for (line, why) in [
            ("acl-add br0 sideways 5 udp drop", "acl-add: sideways: not one of from-lport, to-lport"),
            ("acl-add br0 from-lport 32768 udp drop", "acl-add: 32768: not a priority from 0 to 32767"),
            ("acl-add br0 from-lport 5 udp deny", "acl-add: deny: not one of allow, allow-related, drop, reject"),
            (
                "acl-add br0 from-lport 5 ip,nw_src=10.0.0.300 drop",
                "acl-add: nw_src=10.0.0.300: not an address or a prefix",
            ),
            ("acl-del br0 from-lport 5", "acl-del: 5: a match is needed behind the priority"),
        ] {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(verb::parse(&words).unwrap_err(), why, "{line}");
        }
        assert!(matches!(verb::parse(&["acl-list", "br0"]), Ok(Request::AclList { .. })));
    }

    #[test]
    fn rules_go_one_by_one_by_direction_with_their_port_and_with_their_bridge() {
        let directory = tempfile::tempdir().unwrap();
        let mut switch = FakeSwitch::default();
        let mut store = open(directory.path(), &mut switch);
        run(&mut store, &mut switch, "add-br br0 -- add-port br0 p1 -- add-port br0 p2").unwrap();
        let fill = |store: &mut Store, switch: &mut FakeSwitch| {
            for at in ["br0", "p1", "p2"] {
                for (way, rule) in
                    [("from-lport", "1 udp drop"), ("from-lport", "2 udp drop"), ("to-lport", "1 udp drop")]
                {
                    run(store, switch, &format!("acl-add --may-exist {at} {way} {rule}")).unwrap();
                }
            }
        };
        fill(&mut store, &mut switch);
        run(&mut store, &mut switch, "acl-del br0 from-lport 1 udp").unwrap();
        assert_eq!(list(&store, "br0"), ["from-lport 2 (udp) drop", "to-lport 1 (udp) drop"]);
        run(&mut store, &mut switch, "acl-del br0 from-lport").unwrap();
        assert_eq!(list(&store, "br0"), ["to-lport 1 (udp) drop"]);
        run(&mut store, &mut switch, "acl-del br0").unwrap();
        assert_eq!((list(&store, "br0").len(), told(&switch).len()), (0, 4));
        store.load_acl("p1", AclWay::ToPort, AclRule::list("7 ip drop\n8 ip allow").unwrap(), &mut switch).unwrap();
        assert_eq!(list(&store, "p1")[2..], ["to-lport 8 (ip) allow", "to-lport 7 (ip) drop"]);
        run(&mut store, &mut switch, "del-port p1").unwrap();
        assert_eq!(told(&switch).len(), 2);
        fill_again(&mut store, &mut switch);
        run(&mut store, &mut switch, "del-br br0").unwrap();
        assert!(switch.acls.is_empty() && switch.ports.is_empty());
        assert_eq!(store.config.check(), Ok(()));
    }

    fn fill_again(store: &mut Store, switch: &mut FakeSwitch) {
        run(store, switch, "acl-add br0 to-lport 3 tcp drop").unwrap();
        assert_eq!(told(switch).len(), 3);
    }
}
