//! A directory of manifests that is watched by the running loop: what is seen is what clients are told.

use std::time::Instant;

use super::*;

/// Longer than the loop needs for a change that the system tells of.
const SOON: Duration = Duration::from_millis(900);
/// Longer than the loop needs for one that it has to find itself.
const LATER: Duration = Duration::from_secs(8);

fn start(directory: &Path) -> Daemon {
    let manifests = directory.join("m");
    let options = Options { cluster: Some(manifests), ..options(directory) };
    Daemon::start_by(&options, FakeSwitch::default())
}

fn service(name: &str, last: u8) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: 10.96.0.{last}\n  ports:\n  - port: 80\n"
    )
}

impl Daemon {
    /// Names and addresses of services in force.
    fn services(&self) -> Vec<String> {
        let rows = self.say("get services").unwrap();
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.nth(1)?))
        };
        rows.lines().skip(1).filter_map(row).collect()
    }

    /// Wait until these services are in force.
    fn comes_to(&self, wanted: &[&str], within: Duration) {
        let until = Instant::now() + within;
        while self.services() != wanted {
            assert!(Instant::now() < until, "{:?} is not {wanted:?}", self.services());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// These services stay in force.
    fn stays_at(&self, wanted: &[&str], during: Duration) {
        let until = Instant::now() + during;
        while Instant::now() < until {
            assert_eq!(self.services(), wanted);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_loop_follows_files_that_appear_change_break_and_vanish() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", 1)).unwrap();
    let daemon = start(directory.path());
    daemon.comes_to(&["a 10.96.0.1"], Duration::ZERO);
    fs::write(path.join("b.yaml"), service("b", 2) + &service("c", 3)).unwrap();
    daemon.comes_to(&["a 10.96.0.1", "b 10.96.0.2", "c 10.96.0.3"], SOON);
    fs::write(path.join("b.yaml"), service("b", 2) + &service("d", 3)).unwrap();
    daemon.comes_to(&["a 10.96.0.1", "b 10.96.0.2", "d 10.96.0.3"], SOON);
    fs::write(path.join("b.yaml"), service("b", 2) + "---\n{[\n").unwrap();
    daemon.stays_at(&["a 10.96.0.1", "b 10.96.0.2", "d 10.96.0.3"], Duration::from_millis(300));
    fs::rename(path.join("b.yaml"), path.join("b.yaml.off")).unwrap();
    daemon.comes_to(&["a 10.96.0.1"], SOON);
    fs::write(directory.path().join("e"), service("e", 5)).unwrap();
    fs::rename(directory.path().join("e"), path.join("a.yaml")).unwrap();
    daemon.comes_to(&["e 10.96.0.5"], SOON);
    fs::remove_file(path.join("a.yaml")).unwrap();
    daemon.comes_to(&[], SOON);
}

#[test]
fn a_file_that_is_written_slowly_is_read_when_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", 1) + &service("b", 2)).unwrap();
    let daemon = start(directory.path());
    let both = &["a 10.96.0.1", "b 10.96.0.2"];
    daemon.comes_to(both, Duration::ZERO);
    // From the first octet on it is another file, and every line of it is YAML.
    let mut file = fs::File::create(path.join("a.yaml")).unwrap();
    for line in (service("d", 7) + &service("c", 3)).split_inclusive('\n') {
        file.write_all(line.as_bytes()).unwrap();
        daemon.stays_at(both, Duration::from_millis(100));
    }
    // As long as the loop needs to find by itself what has been left alone.
    daemon.stays_at(both, Duration::from_millis(4500));
    drop(file);
    daemon.comes_to(&["c 10.96.0.3", "d 10.96.0.7"], SOON);
    fs::remove_file(path.join("a.yaml")).unwrap();
    fs::write(path.join("a.yaml"), service("a", 7)).unwrap();
    daemon.comes_to(&["a 10.96.0.7"], SOON);
}

#[test]
fn links_that_are_swapped_at_once_are_followed() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m");
    // As kubelet mounts a ConfigMap.
    let version = |number: u8, text: &str| {
        let name = format!("..{number}");
        fs::create_dir_all(path.join(&name)).unwrap();
        fs::write(path.join(&name).join("a.yaml"), text).unwrap();
        symlink(&name, path.join("..new")).unwrap();
        fs::rename(path.join("..new"), path.join("..data")).unwrap();
    };
    version(1, &service("a", 1));
    symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    let daemon = start(directory.path());
    daemon.comes_to(&["a 10.96.0.1"], Duration::ZERO);
    version(2, &(service("b", 2) + &service("c", 3)));
    daemon.comes_to(&["b 10.96.0.2", "c 10.96.0.3"], LATER);
    fs::remove_dir_all(path.join("..2")).unwrap();
    daemon.comes_to(&[], LATER);
}

#[test]
fn a_directory_that_is_replaced_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", 1)).unwrap();
    let daemon = start(directory.path());
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    fs::create_dir(&new).unwrap();
    fs::write(new.join("b.yaml"), service("b", 2)).unwrap();
    fs::rename(&path, &old).unwrap();
    fs::rename(&new, &path).unwrap();
    daemon.comes_to(&["b 10.96.0.2"], LATER);
    fs::write(old.join("b.yaml"), "- nothing of ours").unwrap();
    fs::write(path.join("c.yaml"), service("c", 3)).unwrap();
    daemon.comes_to(&["b 10.96.0.2", "c 10.96.0.3"], SOON);
}
