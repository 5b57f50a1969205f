//! `spec → Plan`, or every problem with its field path.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::graph::{Graph, Settings};
use crate::api::{TaskGraphSpec, TaskTemplateSpec, TemplateRef};

/// The templates that a graph may use.
pub type Templates = BTreeMap<TemplateRef, Arc<TaskTemplateSpec>>;

/// A graph that was found valid, with its settings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What does not change while it runs.
    pub graph: Arc<Graph>,
    /// What may.
    pub settings: Settings,
}

/// One thing wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Field path, as `spec.tasks[3].dependsOn[0]`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a spec cannot run (yet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong: the user must mend it.
    pub problems: Vec<Problem>,
    /// Templates that are not there: the graph waits for them. Field path of the reference, and the template.
    pub missing: Vec<(String, TemplateRef)>,
}

/// Checks a spec and makes it ready to run.
pub fn compile(_spec: &TaskGraphSpec, _templates: &Templates) -> Result<Plan, Refusal> {
    unimplemented!()
}
