//! What an expression names of the world around it: `args.source`, `tasks.extract.outputs.rows`.

use std::{borrow::Cow, fmt, sync::Arc};

use serde_json::{Map, Value, json};

use super::{EvalError, Scope};
use crate::engine::graph::TaskId;

/// One thing that an expression names, with the fixed path that follows it. Only this is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where the path begins.
    pub root: Root,
    /// Fixed members and indexes within the JSON of the root.
    pub path: Vec<Key>,
    /// Asks whether the value is there (`has()`) rather than for the value.
    pub presence: bool,
}

/// The variables of expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// `args`
    Arguments,
    /// `graph`, or one of its fields.
    Graph(Option<GraphField>),
    /// `tasks.NAME`, or one of its fields.
    Task {
        /// Which task.
        id: TaskId,
        /// Its name.
        name: Arc<str>,
        /// Which field; none: all of them.
        field: Option<TaskField>,
    },
    /// `attempt`
    Attempt,
    /// `exitCode`
    ExitCode,
    /// `reason`
    Reason,
    /// `item`
    Item,
    /// `index`
    Index,
}

/// Fields of `graph`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphField {
    /// `graph.name`
    Name,
    /// `graph.namespace`
    Namespace,
    /// `graph.uid`
    Uid,
}

/// Fields of `tasks.NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskField {
    /// `tasks.NAME.phase`
    Phase,
    /// `tasks.NAME.outputs`
    Outputs,
    /// `tasks.NAME.attempts`
    Attempts,
}

/// A member of an object or a place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `.name` or `["name"]`
    Member(String),
    /// `[0]`
    Place(usize),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(name) => write!(f, "member {name:?}"),
            Self::Place(place) => write!(f, "element {place}"),
        }
    }
}

impl Root {
    /// The name of the variable.
    pub fn variable(&self) -> &'static str {
        match self {
            Self::Arguments => "args",
            Self::Graph(_) => "graph",
            Self::Task { .. } => "tasks",
            Self::Attempt => "attempt",
            Self::ExitCode => "exitCode",
            Self::Reason => "reason",
            Self::Item => "item",
            Self::Index => "index",
        }
    }
}

impl Reference {
    /// The member of `args` that it names, if it names one.
    pub fn argument(&self) -> Option<&str> {
        match (&self.root, self.path.first()) {
            (Root::Arguments, Some(Key::Member(name))) => Some(name),
            _ => None,
        }
    }

    /// The value it stands for now.
    pub fn value<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, EvalError> {
        match self.look_up(scope) {
            Ok(_) if self.presence => Ok(Cow::Owned(Value::Bool(true))),
            Err(_) if self.presence => Ok(Cow::Owned(Value::Bool(false))),
            found => found.map_err(EvalError),
        }
    }

    fn look_up<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, String> {
        let owned = |value: Value| Ok(Cow::Owned(value));
        match &self.root {
            Root::Arguments => self.within(scope.arguments, |key| format!("there is no argument {key:?}")),
            Root::Graph(field) => {
                let identity = scope.identity;
                owned(match field {
                    Some(GraphField::Name) => identity.name.clone().into(),
                    Some(GraphField::Namespace) => identity.namespace.clone().into(),
                    Some(GraphField::Uid) => identity.uid.clone().into(),
                    None => json!({"name": identity.name, "namespace": identity.namespace, "uid": identity.uid}),
                })
            }
            Root::Task { id, name, field } => {
                let (phase, outputs, attempts) = scope.tasks.task(*id);
                match field {
                    Some(TaskField::Phase) => owned(phase.name().into()),
                    Some(TaskField::Attempts) => owned(attempts.into()),
                    Some(TaskField::Outputs) => self.within(outputs, |key| {
                        format!("task {name:?} has no output {key:?}{}", left_instead(phase.name(), outputs))
                    }),
                    None => owned(json!({"phase": phase.name(), "outputs": outputs, "attempts": attempts})),
                }
            }
            Root::Attempt => scope
                .attempt
                .map(|number| Cow::Owned(number.into()))
                .ok_or_else(|| "there is no attempt here".to_owned()),
            Root::ExitCode => match scope.failure {
                Some((code, _)) => owned(code.into()),
                None => Err("there is no exitCode here".to_owned()),
            },
            Root::Reason => match scope.failure {
                Some((_, reason)) => owned(reason.into()),
                None => Err("there is no reason here".to_owned()),
            },
            Root::Item => match scope.item {
                Some((_, item)) => follow(item, &self.path, "the item").map(Cow::Borrowed),
                None => Err("there is no item here".to_owned()),
            },
            Root::Index => match scope.item {
                Some((index, _)) => owned(index.into()),
                None => Err("there is no index here".to_owned()),
            },
        }
    }

    /// Follows the path from an object on.
    fn within<'a>(
        &self,
        object: &'a Map<String, Value>,
        missing: impl Fn(&str) -> String,
    ) -> Result<Cow<'a, Value>, String> {
        let Some((first, rest)) = self.path.split_first() else {
            return Ok(Cow::Owned(Value::Object(object.clone())));
        };
        let Key::Member(name) = first else {
            return Err(format!("{first} is asked of what is no list"));
        };
        let value = object.get(name).ok_or_else(|| missing(name))?;
        let what = if matches!(self.root, Root::Arguments) { "argument" } else { "output" };
        follow(value, rest, &format!("{what} {name:?}")).map(Cow::Borrowed)
    }
}

/// Follows a path from a value on, which is `what`.
fn follow<'a>(mut value: &'a Value, path: &[Key], what: &str) -> Result<&'a Value, String> {
    for key in path {
        let inner = match key {
            Key::Member(name) => value.get(name),
            Key::Place(place) => value.get(place),
        };
        value = inner.ok_or_else(|| format!("{what} has no {key}"))?;
    }
    Ok(value)
}

/// What a task left, for the message about what it did not leave.
fn left_instead(phase: &str, outputs: &Map<String, Value>) -> String {
    if outputs.is_empty() {
        return format!(": it is {phase} and left none");
    }
    let names: Vec<&str> = outputs.keys().map(String::as_str).take(8).collect();
    format!(": it left {}{}", names.join(", "), if outputs.len() > names.len() { ", …" } else { "" })
}
