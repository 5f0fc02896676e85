//! Objects with versions, and what watches tell of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is stored.
#[derive(Default)]
pub(super) struct State {
    version: u64,
    /// By resource and name.
    objects: BTreeMap<(String, String), Value>,
    /// Version, resource, kind of event, object.
    events: Vec<(u64, String, &'static str, Value)>,
    /// Versions below this one are gone.
    compacted: u64,
}

/// Whether an object has the labels of a selector ("a=b,c=d").
pub(super) fn matches(object: &Value, selector: &str) -> bool {
    let mut wanted = selector.split(',').filter_map(|one| one.split_once('='));
    wanted.all(|(key, value)| object["metadata"]["labels"][key] == value)
}

impl State {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
    }

    pub(super) fn all(&self, resource: &str) -> Vec<Value> {
        self.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object.clone()).collect()
    }

    pub(super) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.objects.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    /// Stores or removes; gives the new version.
    pub(super) fn put(&mut self, resource: &str, kind: &'static str, mut object: Value) -> u64 {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (resource.to_owned(), name);
        if kind == "DELETED" {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        self.events.push((self.version, resource.to_owned(), kind, object));
        self.version
    }

    /// The first event after a version; an error if nobody remembers.
    pub(super) fn after(
        &self,
        seen: u64,
        resource: &str,
        selector: &str,
    ) -> Result<Option<(u64, &'static str, Value)>, ()> {
        if seen < self.compacted {
            return Err(());
        }
        let next = self
            .events
            .iter()
            .find(|(version, of, _, object)| *version > seen && of == resource && matches(object, selector));
        Ok(next.map(|(version, _, kind, object)| (*version, *kind, object.clone())))
    }
}
