//! Kubernetes objects: text in, checked objects in force out.
//!
//! ```text
//!   text ─ documents ─→ one object's JSON ─ decode, check ─→ model ─ store ─→ Objects in force, what changed
//!                                                                      │
//!                                                                      └─ journal: what was applied, on the disk
//! ```
//!
//! Each object stands for itself: one that is refused names its field and leaves everything as it was, and all others of
//! the same text are taken.

mod address;
mod check;
mod decode;
mod documents;
pub(crate) mod journal;
pub(crate) mod kind;
mod quantity;
mod show;
pub(crate) mod store;
mod taken;
mod texts;

pub(crate) use decode::{Decoded, Object, decode};
pub(crate) use documents::{TEXT_LIMIT, documents, original};
pub(crate) use show::{get, no_kind};
pub(crate) use store::{Key, Source, Store, parts, told};
pub(crate) use texts::Texts;
