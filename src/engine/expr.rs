//! Expressions: CEL, in `when` and inside `${{ }}`.

use serde_json::{Map, Value};

use super::graph::{Identity, TaskId};
use crate::api::TaskPhase;

/// What expressions can see. Only what an expression names is looked up.
pub struct Scope<'a> {
    /// `graph.name`, `graph.namespace`, `graph.uid`.
    pub identity: &'a Identity,
    /// `args`.
    pub arguments: &'a Map<String, Value>,
    /// `tasks.NAME`.
    pub tasks: &'a dyn TaskLookup,
    /// `attempt`, where there is one.
    pub attempt: Option<u32>,
    /// `exitCode` and `reason`, in `retry.when`.
    pub failure: Option<(Option<i32>, &'a str)>,
}

/// Gives the state of tasks to expressions.
pub trait TaskLookup {
    /// `tasks.NAME.phase`, `.outputs`, `.attempts`.
    fn task(&self, id: TaskId) -> (TaskPhase, &Map<String, Value>, u32);
}

/// Why an expression gave no value; a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

/// A compiled CEL expression. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expression {}

impl Expression {
    /// Its value.
    pub fn eval(&self, _scope: &Scope<'_>) -> Result<Value, EvalError> {
        unimplemented!()
    }

    /// Its value, which must be a boolean.
    pub fn eval_bool(&self, _scope: &Scope<'_>) -> Result<bool, EvalError> {
        unimplemented!()
    }
}
