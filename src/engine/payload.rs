//! The container or pod template of a task, with the places where expressions stand.

use std::sync::Arc;

use serde_json::Value;

use super::expr::{EvalError, Scope};

/// What a task's attempts are made from.
#[derive(Debug)]
pub struct Payload {
    /// Which form the user chose.
    pub kind: PayloadKind,
    /// The JSON as the user wrote it.
    pub source: Arc<Value>,
    // (slots, merged arguments: private, to be designed)
}

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A container.
    Container,
    /// A pod template.
    PodTemplate,
}

impl Payload {
    /// The JSON with every expression replaced by its value. Costs nothing where there is none.
    pub fn render(&self, _scope: &Scope<'_>) -> Result<Arc<Value>, EvalError> {
        Ok(Arc::clone(&self.source))
    }
}
