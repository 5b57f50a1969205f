//! An object of Kubernetes that goes through as it was written.

use std::{
    ops::Deref,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// A JSON object whose type is Kubernetes' own: `container`, `job.template`. A copy costs nothing: a spec, its plan and
/// its checks share one.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque {
    /// Always an object.
    value: Arc<Value>,
}

impl Opaque {
    /// The same, as a value.
    pub fn value(&self) -> &Arc<Value> {
        &self.value
    }
}

impl From<Map<String, Value>> for Opaque {
    fn from(object: Map<String, Value>) -> Self {
        Self { value: Arc::new(Value::Object(object)) }
    }
}

impl Default for Opaque {
    fn default() -> Self {
        Map::new().into()
    }
}

impl Deref for Opaque {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        self.value.as_object().unwrap_or(&EMPTY)
    }
}

impl Serialize for Opaque {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}
