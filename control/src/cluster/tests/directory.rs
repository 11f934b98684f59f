//! A directory of manifests: files appear, change, break, vanish.

use std::io::Write;

use super::*;

struct Watched {
    directory: tempfile::TempDir,
    cluster: Cluster,
}

impl Watched {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("m")).unwrap();
        files.iter().for_each(|(name, text)| fs::write(directory.path().join("m").join(name), text).unwrap());
        let cluster = Cluster::open(directory.path(), Some(&directory.path().join("m"))).unwrap();
        Self { directory, cluster }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join("m").join(name)
    }

    fn write(&mut self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        self.cluster.read_manifests();
    }

    /// Names and addresses of services.
    fn services(&self) -> Vec<String> {
        let services = self.cluster.store.objects().services.values();
        services.map(|service| format!("{} {}", service.id.name, service.cluster_ips[0])).collect()
    }
}

#[test]
fn files_appear_change_and_vanish() {
    let mut watched = Watched::new(&[("a.yaml", &service("a", "10.96.0.1")), ("b.txt", &service("b", "10.96.0.2"))]);
    assert_eq!(watched.services(), ["a 10.96.0.1"], "read before anybody is answered");
    watched.write("c.yml", &(service("c", "10.96.0.3") + &service("d", "10.96.0.4")));
    assert_eq!(watched.services(), ["a 10.96.0.1", "c 10.96.0.3", "d 10.96.0.4"]);
    watched.write("c.yml", &(service("c", "10.96.0.3") + &service("ee", "10.96.0.4")));
    assert_eq!(watched.services(), ["a 10.96.0.1", "c 10.96.0.3", "ee 10.96.0.4"]);
    fs::remove_file(watched.path("c.yml")).unwrap();
    watched.cluster.read_manifests();
    assert_eq!(watched.services(), ["a 10.96.0.1"]);
    fs::remove_dir_all(watched.directory.path().join("m")).unwrap();
    watched.cluster.read_manifests();
    assert_eq!(watched.services(), ["a 10.96.0.1"], "a directory that is gone says nothing");
}

#[test]
fn a_file_that_breaks_leaves_the_last_good_version_in_force() {
    let good = service("a", "10.96.0.1") + &service("b", "10.96.0.2");
    let mut watched = Watched::new(&[("a.yaml", &good)]);
    let mut file = fs::File::create(watched.path("a.yaml")).unwrap();
    for octet in good.bytes() {
        watched.cluster.read_manifests();
        assert_eq!(watched.services(), ["a 10.96.0.1", "b 10.96.0.2"], "before {:?}", char::from(octet));
        file.write_all(&[octet]).unwrap();
    }
    drop(file);
    watched.write("a.yaml", &good.replace("10.96.0.1", "10.96.0.999"));
    assert_eq!(watched.services(), ["a 10.96.0.1", "b 10.96.0.2"]);
    watched.write("a.yaml", &(service("b", "10.96.0.2") + "---\n{ [\n"));
    assert_eq!(watched.services(), ["a 10.96.0.1", "b 10.96.0.2"], "nobody knows what the last document was");
    watched.write("a.yaml", &service("b", "10.96.0.2"));
    assert_eq!(watched.services(), ["b 10.96.0.2"]);
}

#[test]
fn an_object_that_was_refused_comes_when_there_is_room() {
    let mut watched = Watched::new(&[("a.yaml", &service("a", "10.96.0.1")), ("b.yaml", &service("b", "10.96.0.1"))]);
    assert_eq!(watched.services(), ["a 10.96.0.1"]);
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.cluster.read_manifests();
    assert_eq!(watched.services(), ["b 10.96.0.1"]);
}

#[test]
fn what_was_applied_is_in_force_then_the_first_file() {
    let mut watched = Watched::new(&[("b.yaml", &service("x", "10.96.0.2")), ("a.yaml", &service("x", "10.96.0.2"))]);
    let port = |watched: &Watched| watched.cluster.store.objects().services.values().next().unwrap().ports[0].port;
    watched.write("a.yaml", &service("x", "10.96.0.2").replace("80", "81"));
    assert_eq!(port(&watched), 81);
    let applied = manifest(&service("x", "10.96.0.2").replace("80", "82"));
    assert_eq!(apply(&mut watched.cluster, &applied), ["service/x configured"]);
    assert_eq!(port(&watched), 82);
    let delete = |watched: &mut Watched| delete(&mut watched.cluster, "svc", "x");
    assert_eq!(delete(&mut watched), ["service/x deleted"]);
    assert_eq!(port(&watched), 81);
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.cluster.read_manifests();
    assert_eq!(port(&watched), 80);
    assert_eq!(delete(&mut watched), ["service/x: b.yaml says it: it goes when that file does not"]);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let why = Cluster::open(directory.path(), Some(Path::new("/nonexistent"))).unwrap_err().0;
    assert_eq!(why, "--cluster /nonexistent: No such file or directory");
}
