//! The cluster: Kubernetes objects in, changes of the switch's nouns out. The only folder with Kubernetes words.
//!
//! ```text
//!   manifests ──→ objects (read, checked, kept) ──→ endpointslices (made where nobody made them)
//!                                  │ what changed
//!                                  ▼
//!                              compile ──→ Change transactions
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use api::reply::{Got, ObjectRow, Outcome};
use api::request::{Manifest, Output};

use crate::store::Store as Network;
use crate::{Refusal, Switch};

pub(crate) mod compile;
mod endpointslices;
pub(crate) mod manifests;
pub(crate) mod model;
mod objects;
#[cfg(test)]
mod tests;

use manifests::Manifests;
use model::{Changed, Named};
use objects::journal::{Event, Journal};
use objects::kind::KindDef;
use objects::store::{Done, Version};
use objects::{Decoded, Key, Source, Store, decode, documents};

/// Octets of all texts of one request at most.
const REQUEST_LIMIT: usize = objects::TEXT_LIMIT;

/// The objects of a cluster, from wherever they come.
#[derive(Debug)]
pub(crate) struct Cluster {
    store: Store,
    journal: Journal,
    /// What a request changed and the disk does not have yet: objects, each as it was before.
    pending: Vec<(Key, Option<Version>)>,
    manifests: Option<Manifests>,
}

/// Which objects are asked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// A kind, or several with commas between them, as typed.
    pub(crate) kind: &'a str,
    /// All when empty.
    pub(crate) names: &'a [String],
    /// `None` for every namespace.
    pub(crate) namespace: Option<&'a str>,
    pub(crate) output: Option<Output>,
}

impl Cluster {
    /// Restore what was applied, and read the directory of manifests, if there is one, for the first time.
    ///
    /// # Errors
    /// When the state or the directory cannot be had: names the file and says what was done.
    pub(crate) fn open(state_dir: &Path, manifests: Option<&Path>) -> Result<Self, Refusal> {
        let mut store = Store::default();
        let journal = Journal::open(state_dir, |event| restore(&mut store, event))?;
        let manifests = manifests.map(Manifests::open).transpose()?;
        let mut cluster = Self { store, journal, pending: Vec::new(), manifests };
        cluster.look_at_manifests();
        cluster.settle();
        Ok(cluster)
    }

    /// Take the objects of manifests; one without a namespace is of `namespace`. Every object stands for itself. To be
    /// followed by [`Self::program`] and [`Self::keep`].
    ///
    /// # Errors
    /// When nothing was taken.
    pub(crate) fn apply(&mut self, texts: &[Manifest], namespace: &str) -> Result<Vec<ObjectRow>, Refusal> {
        within_limit(texts)?;
        let mut rows = Vec::new();
        for Manifest { name, text } in texts {
            for document in documents(text) {
                rows.push(match document {
                    Err(why) => row(name, Outcome::Refused(why)),
                    Ok(json) => self.apply_one(name, &json, namespace),
                });
            }
        }
        Ok(rows)
    }

    fn apply_one(&mut self, name: &str, json: &str, namespace: &str) -> ObjectRow {
        let (label, silent, object) = match decode(json, namespace, &mut self.store.texts) {
            Decoded::Nothing(why) => return row(name, Outcome::Refused(why)),
            Decoded::Unknown { label, kind } => return row(&label, skipped(&kind)),
            Decoded::Known { label, namespace, object, .. } => (label, namespace, object),
        };
        let checked = object.and_then(|object| self.store.check(&object, &Source::Applied).map(|()| object));
        let outcome = match checked {
            Err(why) => Outcome::Refused(why),
            Ok(object) => {
                let text = objects::original(json, silent.as_deref());
                let key = object.key();
                let (done, before) = self.store.put(object, text, &Source::Applied);
                // Also what another source had said just so: from now on it is applied.
                if done != Done::Unchanged || before.is_none() {
                    self.journal.put(self.store.text(&key).unwrap_or_default());
                }
                self.pending.push((key, before));
                match done {
                    Done::Created => Outcome::Created,
                    Done::Configured => Outcome::Configured,
                    Done::Unchanged => Outcome::Unchanged,
                }
            }
        };
        row(&label, outcome)
    }

    /// Bring what was applied and deleted since the last call to the disk. Packets need not wait for that, so the switch
    /// is told before; who asked is answered after.
    ///
    /// # Errors
    /// It is then all taken back, as with [`Self::take_back`].
    pub(crate) fn keep(&mut self) -> Result<(), Refusal> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(why) = self.journal.commit() {
            self.take_back();
            return Err(Refusal(why));
        }
        self.pending.clear();
        self.settle();
        Ok(())
    }

    /// Take back what was applied and deleted and is not on the disk. The switch is to be told again.
    pub(crate) fn take_back(&mut self) {
        self.journal.forget();
        for (key, before) in std::mem::take(&mut self.pending).into_iter().rev() {
            self.store.restore(&key, before, &Source::Applied);
        }
    }

    /// Delete the objects that manifests name. To be followed by [`Self::program`] and [`Self::keep`].
    ///
    /// # Errors
    /// When nothing was deleted.
    pub(crate) fn delete_manifests(&mut self, texts: &[Manifest], namespace: &str) -> Result<Vec<ObjectRow>, Refusal> {
        within_limit(texts)?;
        let (mut rows, mut keys) = (Vec::new(), Vec::new());
        for Manifest { name, text } in texts {
            for document in documents(text) {
                let decoded = document.map(|json| decode(&json, namespace, &mut self.store.texts));
                match decoded {
                    Err(why) | Ok(Decoded::Nothing(why)) => rows.push(row(name, Outcome::Refused(why))),
                    Ok(Decoded::Unknown { label, kind }) => rows.push(row(&label, skipped(&kind))),
                    // What is wrong behind the name does not matter here.
                    Ok(Decoded::Known { key: Some(key), .. }) => keys.push(key),
                    Ok(Decoded::Known { label, object, .. }) => {
                        rows.push(row(&label, Outcome::Refused(object.err().unwrap_or_default())));
                    }
                }
            }
        }
        rows.extend(self.delete_keys(keys));
        Ok(rows)
    }

    /// Delete objects by kind and name. To be followed by [`Self::program`] and [`Self::keep`].
    ///
    /// # Errors
    /// When there is no such kind.
    pub(crate) fn delete(&mut self, kind: &str, names: &[String], namespace: &str) -> Result<Vec<ObjectRow>, Refusal> {
        let def = KindDef::typed(kind).ok_or_else(|| objects::no_kind(kind))?;
        let namespace = if def.namespaced { namespace } else { "" };
        Ok(self.delete_keys(names.iter().map(|name| def.key(namespace, name)).collect()))
    }

    fn delete_keys(&mut self, keys: Vec<Key>) -> Vec<ObjectRow> {
        let mut rows = Vec::new();
        for key in keys {
            let label = objects::told(&key);
            let outcome = match self.store.remove(&key, &Source::Applied) {
                Some(version) => {
                    let (kind, namespace, name) = objects::parts(&key);
                    self.journal.delete(kind.def().name, namespace, name);
                    self.pending.push((key, Some(version)));
                    Outcome::Deleted
                }
                None => Outcome::Refused(self.why_not_there(&key)),
            };
            rows.push(row(&label, outcome));
        }
        rows
    }

    #[cfg(test)]
    pub(crate) fn fill_disk(&mut self) {
        self.journal.fail_next();
    }

    fn why_not_there(&self, key: &Key) -> String {
        let ours = matches!(key, Changed::Slice(id) if self.store.objects().slices.get(id).is_some_and(|s| s.ours));
        match self.store.source(key) {
            Some(source) => format!("{source} says it: it goes when that file does not"),
            None if ours => "made from the pods of its service: it goes with them".to_owned(),
            None => "not found".to_owned(),
        }
    }

    /// Objects in force, as people or programs want them.
    ///
    /// # Errors
    /// When there is no such kind, or none of a name that was given.
    pub(crate) fn get(&self, wanted: &Wanted<'_>) -> Result<Got, Refusal> {
        objects::get(&self.store, wanted)
    }

    /// Every object in force.
    pub(crate) fn objects(&self) -> &model::Objects {
        self.store.objects()
    }

    /// Descriptor that is readable when the directory of manifests may have changed.
    pub(crate) fn manifests(&mut self) -> Option<&mut Manifests> {
        self.manifests.as_mut()
    }

    /// Read what changed in the directory of manifests.
    pub(crate) fn read_manifests(&mut self) {
        self.look_at_manifests();
        self.settle();
    }

    fn look_at_manifests(&mut self) {
        if let Some(manifests) = &mut self.manifests {
            manifests.read(&mut self.store);
        }
    }

    /// Objects have changed, here and on the disk.
    fn settle(&mut self) {
        self.journal.shorten(self.store.applied_size(), self.store.applied());
    }

    /// Pods are attached here, with these addresses, and no others. To be followed by [`Self::program`].
    pub(crate) fn observe(&mut self, given: BTreeMap<Named, Vec<IpAddr>>) {
        self.store.observe(given);
    }

    /// Tell the switch what follows from objects that changed since the last call. The first call tells of all (rule S2).
    ///
    /// # Errors
    /// What is not in force; it is tried again every second.
    pub(crate) fn program(&mut self, network: &mut Network, switch: &mut dyn Switch) -> Result<(), Refusal> {
        let changed: BTreeSet<Changed> = self.store.take_changed();
        network.program(self.store.objects(), &changed, switch)
    }
}

fn restore(store: &mut Store, event: Event<'_>) -> Result<(), String> {
    match event {
        Event::Put(json) => match decode(json, "default", &mut store.texts) {
            Decoded::Known { label, object, .. } => {
                let object = object.map_err(|why| format!("{label}: {why}"))?;
                store.put(object, json.into(), &Source::Applied);
                Ok(())
            }
            Decoded::Unknown { label, .. } => Err(format!("{label}: not a kind that is kept")),
            Decoded::Nothing(why) => Err(why),
        },
        Event::Delete(kind, namespace, name) => {
            let def = KindDef::typed(&kind).ok_or_else(|| objects::no_kind(&kind).0)?;
            store.remove(&def.key(&namespace, &name), &Source::Applied);
            Ok(())
        }
    }
}

fn within_limit(texts: &[Manifest]) -> Result<(), Refusal> {
    match texts.iter().map(|manifest| manifest.text.len()).sum::<usize>() {
        0..=REQUEST_LIMIT => Ok(()),
        len => Err(Refusal(format!("manifests of {len} octets: may have {REQUEST_LIMIT} at a time"))),
    }
}

fn row(object: &str, outcome: Outcome) -> ObjectRow {
    ObjectRow { object: object.to_owned(), outcome }
}

fn skipped(kind: &str) -> Outcome {
    Outcome::Skipped(format!("{kind} is nothing to a switch"))
}
