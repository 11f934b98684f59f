use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::addresses::Range;
use super::*;

/// A rule of two dimensions.
type Ranges = ((u16, u16), (u16, u16));

fn spans(rules: &[Ranges]) -> (Spans<u16>, Spans<u16>) {
    let by = |pick: fn(&Ranges) -> (u16, u16)| {
        let ranges = rules.iter().enumerate().map(move |(rule, ranges)| (pick(ranges).0, pick(ranges).1, rule));
        Spans::new(rules.len(), ranges)
    };
    (by(|rule| rule.0), by(|rule| rule.1))
}

fn linear(rules: &[Ranges], (a, b): (u16, u16), from: usize) -> Option<usize> {
    let holds = |(first, last): (u16, u16), value| first <= value && value <= last;
    (from..rules.len()).find(|&at| holds(rules[at].0, a) && holds(rules[at].1, b))
}

fn agree(rules: &[Ranges], questions: &[(u16, u16)], from: &[usize]) {
    let (a, b) = spans(rules);
    for &question in questions {
        for &from in from.iter().chain(&[0]) {
            let found = first(&(a.row(question.0), b.row(question.1)), from);
            assert_eq!(found, linear(rules, question, from), "{question:?} from {from}");
        }
    }
}

#[test]
fn the_first_rule_that_matches_in_every_dimension_is_found_and_those_behind_it() {
    let rules = [((5, 9), (0, 9)), ((0, 65535), (7, 7)), ((6, 6), (0, 65535)), ((9, 5), (0, 65535))];
    let (a, b) = spans(&rules);
    let all = |x, y| {
        let mut next = 0;
        std::iter::from_fn(|| {
            let rule = first(&(a.row(x), b.row(y)), next)?;
            next = rule + 1;
            Some(rule)
        })
        .collect::<Vec<_>>()
    };
    assert_eq!((all(6, 7), all(5, 8), all(0, 7), all(6, 10)), (vec![0, 1, 2], vec![0], vec![1], vec![2]));
    assert_eq!((all(0, 0), all(65535, 65535), all(65535, 7)), (vec![], vec![], vec![1]));
}

#[test]
fn rules_of_several_words_of_groups_are_asked_in_order() {
    // 70 groups: the second word of the mask.
    let count = GROUP * 70;
    let build = |rules: &[usize]| {
        let mut build = Build::new(count);
        let row = build.row(rules.iter().copied());
        (build.finish(), row)
    };
    let marks = [0, 511, 512, GROUP * 63 + 17, GROUP * 64, GROUP * 69 + 511];
    let (every, row) = build(&marks);
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(rule) = first(&every.row(row), next) {
        found.push(rule);
        next = rule + 1;
    }
    assert_eq!(found, marks);
    assert_eq!(first(&every.row(row), count), None);
    assert_eq!(first(&every.row(row + 1), 0), None, "there is no such row");
    let (one, at) = build(&[GROUP * 64, 513]);
    assert_eq!(first(&(every.row(row), one.row(at)), 0), Some(GROUP * 64));
    let rows = [every.row(row), one.row(at)];
    assert_eq!(first(&Any(&rows), 512), Some(512));
    assert_eq!(first(&Any(&rows), 513), Some(513));
    assert_eq!(first(&Any::<Row<'_>>(&[]), 0), None);
}

#[test]
fn rules_that_are_chosen_to_fill_every_group_stay_within_the_bound() {
    let count = 10_000;
    // Nested: every rule has ends of its own, and no two values in a group match the same rules.
    let nested = (0..count).map(|rule| (rule as u32 * 7, u32::MAX - rule as u32 * 11, rule));
    let spans = Spans::new(count, nested);
    let groups = count.div_ceil(GROUP);
    assert_eq!(spans.len(), 2 * count - 1, "the first begins and ends with all there is");
    let bound = groups * 1025 * 64 + spans.len() * (4 + 4 * groups + 8) + 64;
    assert!(spans.octets() <= bound, "{} octets of {bound}", spans.octets());
    assert_eq!(first(&spans.row(1_000_000_000), 9_000), Some(9_000));
    assert_eq!(first(&spans.row(6), 0), Some(0));
    assert_eq!(first(&spans.row(7 * 600), 600), Some(600));
    assert_eq!(first(&spans.row(7 * 600), 601), None);
}

#[test]
fn equal_rows_side_by_side_are_one() {
    let spans = Spans::new(2, [(0u16, 9, 0), (10, 19, 0), (5, 15, 0), (30, 65535, 1)]);
    assert_eq!(spans.len(), 3);
    assert!(!spans.is_empty());
    let none: Spans<u128> = Spans::new(0, []);
    assert_eq!((none.len(), first(&none.row(7), 0)), (1, None));
}

#[test]
fn a_prefix_without_its_parts_is_what_is_left() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let four = |a: [u8; 4], b: [u8; 4]| Range::Four(u32::from_be_bytes(a), u32::from_be_bytes(b));
    let parts = [net("10.0.1.0/24"), net("10.0.1.7/32"), net("10.0.255.0/24"), net("fd00::/8")];
    assert_eq!(
        Range::without(net("10.0.0.0/16"), &parts),
        [four([10, 0, 0, 0], [10, 0, 0, 255]), four([10, 0, 2, 0], [10, 0, 254, 255])]
    );
    assert_eq!(Range::without(net("10.0.0.0/16"), &[net("10.0.0.0/16")]), []);
    assert_eq!(Range::without(net("0.0.0.0/0"), &[]), [Range::ALL[0]]);
    let halves = Range::without(net("::/0"), &[net("8000::/1")]);
    assert_eq!(halves, [Range::Six(0, u128::MAX >> 1)]);
}

#[test]
fn addresses_of_the_versions_are_apart() {
    let net = |text: &str| Range::of(text.parse().unwrap());
    let ranges = [(net("10.0.0.0/8"), 0), (net("::a00:0/104"), 1), (Range::ALL[0], 2), (Range::ALL[1], 2)];
    let table = Addresses::new(3, &ranges);
    let found = |text: &str, from| first(&table.row(text.parse::<IpAddr>().unwrap()), from);
    assert_eq!((found("10.1.1.1", 0), found("11.1.1.1", 0), found("::a01:101", 0)), (Some(0), Some(2), Some(1)));
    assert_eq!((found("10.1.1.1", 1), found("::a01:101", 2), found("::1", 0)), (Some(2), Some(2), Some(2)));
    assert!(table.octets() > 0);
}

/// Few values, many of them ends.
fn range() -> impl Strategy<Value = (u16, u16)> {
    prop_oneof![
        2 => (0u16..40, 0u16..40).prop_map(|(a, b)| (a.min(b), a.max(b))),
        1 => (any::<u16>(), 0u16..20).prop_map(|(a, len)| (a, a.saturating_add(len))),
        1 => Just((0, u16::MAX)),
        1 => (0u16..40).prop_map(|a| (a, a)),
        1 => (0u16..300).prop_map(|a| (a, u16::MAX - a)),
    ]
}

fn question() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0u16..42, 1 => any::<u16>(), 1 => Just(u16::MAX)]
}

proptest! {
    #[test]
    fn the_answer_is_that_of_going_through_the_list(
        rules in prop::collection::vec((range(), range()), 0..60),
        questions in prop::collection::vec((question(), question()), 1..30),
        from in prop::collection::vec(0usize..64, 0..3),
    ) {
        agree(&rules, &questions, &from);
    }

    #[test]
    fn also_of_rules_of_several_groups(
        seed in prop::collection::vec((range(), range()), 1..50),
        questions in prop::collection::vec((question(), question()), 1..20),
        from in prop::collection::vec(0usize..1800, 0..3),
        step in 1u16..50,
    ) {
        // The same rules again and again, a little further each time.
        let on = |(a, b): (u16, u16), by: u16| (a.saturating_add(by), b.saturating_add(by).max(a.saturating_add(by)));
        let times = 1700 / seed.len();
        let rules: Vec<Ranges> = (0..times)
            .flat_map(|time| seed.iter().map(move |&(a, b)| (on(a, time as u16 * step), on(b, time as u16))))
            .collect();
        agree(&rules, &questions, &from);
    }

    #[test]
    fn a_rule_of_several_ranges_matches_what_any_of_them_has(
        ranges in prop::collection::vec((range(), 0usize..6), 0..40),
        questions in prop::collection::vec(question(), 1..30),
    ) {
        let spans = Spans::new(6, ranges.iter().map(|&((first, last), rule)| (first, last, rule)));
        for value in questions {
            let has = |rule| ranges.iter().any(|&((first, last), of)| of == rule && first <= value && value <= last);
            let found: Vec<usize> = (0..6).filter(|&rule| first(&spans.row(value), rule) == Some(rule)).collect();
            prop_assert_eq!(found, (0..6).filter(|&rule| has(rule)).collect::<Vec<_>>());
        }
    }
}
