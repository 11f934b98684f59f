#[path = "all/survive/mod.rs"]
mod survive;
