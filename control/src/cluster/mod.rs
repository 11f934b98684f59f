//! The cluster: Kubernetes objects in, changes of the switch's nouns out. The only folder with Kubernetes words.
//!
//! ```text
//!   manifests ──→ objects (read, checked, kept) ──→ endpointslices (made where nobody made them)
//!                                  │ what changed
//!                                  ▼
//!                              compile ──→ Change transactions
//! ```

pub(crate) mod compile;
#[expect(dead_code, reason = "read by what follows")]
pub(crate) mod model;
