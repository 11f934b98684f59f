//! The bandwidth of a pod: two annotations, which whoever makes sandboxes reads as the bandwidth plugin's `runtimeConfig`.

use std::collections::BTreeMap;

use api::{Bandwidth, Rate};

use super::{Checked, check};
use crate::cluster::objects::quantity::quantity;

/// Bits a second, to the pod and from it.
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// What is reasonable (`pkg/util/bandwidth/utils.go` of Kubernetes): 1k to 1P.
const REASONABLE: std::ops::RangeInclusive<i128> = 1_000..=1_000_000_000_000_000;

/// What the annotations of a pod ask for. They say nothing of bursts: as long as is sane.
pub(super) fn bandwidth(annotations: Option<&BTreeMap<String, String>>) -> Checked<Bandwidth> {
    let rate = |name: &str| -> Checked<Option<Rate>> {
        let Some(text) = annotations.and_then(|annotations| annotations.get(name)) else { return Ok(None) };
        let refuse = |rule: &str| check::fault(format_args!("metadata.annotations[{name}]"), text, rule);
        let bits = quantity(text).ok_or_else(|| refuse("not a quantity, such as 10M"))?;
        if !REASONABLE.contains(&bits) {
            return Err(refuse("must be 1k to 1P bits a second"));
        }
        // It is within the range.
        Ok(u64::try_from(bits).ok().map(|bits| Rate { bits, burst: u64::MAX }))
    };
    Ok(Bandwidth { ingress: rate(INGRESS)?, egress: rate(EGRESS)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ingress: &str, egress: &str) -> Checked<Bandwidth> {
        let annotation = |name: &str, value: &str| (!value.is_empty()).then(|| (name.to_owned(), value.to_owned()));
        let all: BTreeMap<_, _> =
            [annotation(INGRESS, ingress), annotation(EGRESS, egress)].into_iter().flatten().collect();
        bandwidth(Some(&all))
    }

    #[test]
    fn annotations_say_how_much_may_pass() {
        let rate = |bits| Some(Rate { bits, burst: u64::MAX });
        for (ingress, egress, expected) in [
            ("", "", Bandwidth::default()),
            ("10M", "", Bandwidth { ingress: rate(10_000_000), egress: None }),
            ("", "1.5Gi", Bandwidth { ingress: None, egress: rate(1_610_612_736) }),
            ("1k", "1P", Bandwidth { ingress: rate(1_000), egress: rate(1_000_000_000_000_000) }),
        ] {
            assert_eq!(of(ingress, egress), Ok(expected));
        }
        assert_eq!(bandwidth(None), Ok(Bandwidth::default()));
    }

    #[test]
    fn what_is_not_reasonable_is_refused_by_name() {
        let ingress = "metadata.annotations[kubernetes.io/ingress-bandwidth]";
        let egress = "metadata.annotations[kubernetes.io/egress-bandwidth]";
        let range = "must be 1k to 1P bits a second";
        for (pair, says) in [
            (("10Mbit", ""), format!("{ingress}: 10Mbit: not a quantity, such as 10M")),
            (("999", ""), format!("{ingress}: 999: {range}")),
            (("-1M", ""), format!("{ingress}: -1M: {range}")),
            (("1M", "0"), format!("{egress}: 0: {range}")),
            (("", "1.001P"), format!("{egress}: 1.001P: {range}")),
            (("", "1e99999"), format!("{egress}: 1e99999: {range}")),
        ] {
            assert_eq!(of(pair.0, pair.1), Err(says));
        }
    }
}
