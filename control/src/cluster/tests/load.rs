//! How long a large cluster takes: `cargo test --release -p control large_cluster -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::time::Instant;

use super::*;

/// 10,000 services with a slice of 25 endpoints each, as an API server writes them.
fn text() -> String {
    let mut text = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[".to_owned();
    for n in 0..10_000u32 {
        let (high, low) = (n >> 8, n & 255);
        let _ = write!(
            text,
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"s{n}","namespace":"default","uid":"0"}},"#
        );
        let _ = write!(
            text,
            r#""spec":{{"clusterIP":"10.96.{high}.{low}","ports":[{{"name":"http","port":80,"targetPort":8080}}]}}}},"#
        );
        let _ = write!(
            text,
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{{"#
        );
        let _ = write!(
            text,
            r#""name":"s{n}-abcde","namespace":"default","labels":{{"kubernetes.io/service-name":"s{n}"}}}},"#
        );
        let _ = write!(text, r#""ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],"endpoints":["#);
        for e in 0..25 {
            let _ = write!(
                text,
                r#"{}{{"addresses":["10.{}.{high}.{low}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{}","targetRef":{{"kind":"Pod","name":"s{n}-7f9c-{e}","namespace":"default"}}}}"#,
                if e > 0 { "," } else { "" },
                100 + e,
                (n + e) % 500
            );
        }
        text += if n == 9_999 { "]}" } else { "]}," };
    }
    text + "]}"
}

#[test]
#[ignore = "a measurement"]
fn a_large_cluster_is_applied_in_time() {
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let texts = [manifest(&text())];
    let mut bed = Bed::new();
    let (before, start) = (resident(), Instant::now());
    let rows = bed.cluster.apply(&texts, "default").unwrap();
    bed.cluster.keep().unwrap();
    let took = start.elapsed();
    assert!(rows.len() == 20_000 && rows.iter().all(|row| row.outcome == Outcome::Created));
    println!("apply of {} MiB: {took:?}, {} MiB more resident", texts[0].text.len() >> 20, resident() - before);
    let start = Instant::now();
    let objects: usize = documents(&texts[0].text).into_iter().filter(Result::is_ok).count();
    println!("of which cutting into {objects} objects: {:?}", start.elapsed());
    let one = documents(&texts[0].text)[1].clone().unwrap().replace("\"port\":8080", "\"port\":8081");
    let one = manifest(&one);
    let start = Instant::now();
    assert_eq!(apply(&mut bed.cluster, &one), ["endpointslice.discovery.k8s.io/s0-abcde configured"]);
    println!("one slice of 25: {:?}", start.elapsed());
    let start = Instant::now();
    let bed = bed.reopen();
    println!("restart: {:?}", start.elapsed());
    assert_eq!(bed.cluster.store.objects().slices.len(), 10_000);
}
