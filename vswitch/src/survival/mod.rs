//! What packets wrote and the process outlives: connections at every instant, learned addresses as of a second ago.
//!
//! | file of the run-dir | what | how |
//! |---|---|---|
//! | `connections` | the records of connections | mapped: what a worker writes is there at once |
//! | `learned` | stations of bridges, clients of services with session affinity | replaced as a whole, once a second |
//!
//! Both are of one boot and one layout: anything else is started anew, and said so. What is in them is believed only as
//! far as it makes sense.

pub(crate) mod connections;
pub(crate) mod learned;

use std::io;
use std::path::Path;

/// Which boot of the machine this is: the clock that times in the files are of, and the memory that they are in, are its.
fn boot() -> io::Result<[u8; 16]> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let about = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {why}"));
    let text = std::fs::read_to_string(FILE).map_err(|error| about(error.to_string()))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(|error| about(format!("{text:?}: {error}")))?;
    Ok(number.to_be_bytes())
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
