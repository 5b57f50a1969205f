//! Expressions: CEL, in `when` and inside `${{ }}`.
//!
//! A text is checked against fixed bounds ([`limits`]), parsed, and rewritten once ([`compile`]): what it names
//! of the world becomes a [`Reference`](reference::Reference), so that an evaluation converts only that; and every
//! operation whose cost depends on data is replaced by one that draws on a budget ([`functions`]). No expression
//! can therefore run long, whatever the data; and there is no function that reads a clock or draws a number.

pub(crate) mod compile;
mod convert;
mod functions;
pub mod limits;
pub mod reference;
pub(crate) use convert::{cut, describe};
#[cfg(test)]
mod tests;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::{Context, ExecutionError, common::ast::IdedExpr};
use serde_json::{Map, Value};

use self::{
    functions::{Budget, Pattern},
    reference::Reference,
};
use super::graph::{Identity, TaskId};
use crate::api::TaskPhase;

/// What expressions can see. Only what an expression names is looked up.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `graph.name`, `graph.namespace`, `graph.uid`.
    pub identity: &'a Identity,
    /// `args`.
    pub arguments: &'a Map<String, Value>,
    /// `tasks.NAME`.
    pub tasks: &'a dyn TaskLookup,
    /// `attempt`, where there is one.
    pub attempt: Option<u32>,
    /// `index` and `item`, in what runs for one item.
    pub item: Option<(u32, &'a Value)>,
    /// `exitCode` (null where no container ran to its end) and `reason`, in `retry.when`.
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
pub struct Expression(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    /// The text as the user wrote it, without the blanks around it.
    text: Box<str>,
    body: Body,
    references: Vec<Reference>,
    patterns: Vec<Pattern>,
    loops: Vec<Loop>,
}

#[derive(Debug)]
enum Body {
    /// The expression is a reference and nothing else: its JSON goes through as it is.
    Reference,
    /// Anything else, with references replaced by variables.
    Cel(IdedExpr),
}

/// A macro that runs over a list or map.
#[derive(Debug)]
struct Loop {
    /// Size of what is evaluated for each element.
    nodes: u64,
    /// The references in it, by their place, as often as they stand there.
    references: Vec<usize>,
}

impl Expression {
    /// The text, as the user wrote it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// What it names.
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// Its value.
    pub fn eval(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        self.run(scope).map_err(|why| self.explain(&why))
    }

    /// Its value, which must be a boolean.
    pub fn eval_bool(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        match self.eval(scope)? {
            Value::Bool(held) => Ok(held),
            other => {
                Err(self.explain(&format!("the value is {}, and must be true or false", convert::describe(&other))))
            }
        }
    }

    fn explain(&self, why: &str) -> EvalError {
        EvalError(format!("`{}`: {}", convert::cut(self.text(), 120), convert::cut(why, 400)))
    }

    fn run(&self, scope: &Scope<'_>) -> Result<Value, String> {
        match (&self.0.body, self.0.references.first()) {
            (Body::Reference, Some(reference)) => {
                reference.value(scope).map(std::borrow::Cow::into_owned).map_err(|error| error.0)
            }
            (Body::Reference, None) => Err("nothing to look up".to_owned()),
            (Body::Cel(body), _) => {
                // the interpreter is another's code and panics on trees that it did not expect
                catch_unwind(AssertUnwindSafe(|| self.interpret(body, scope)))
                    .unwrap_or_else(|_| Err("the expression could not be evaluated".to_owned()))
            }
        }
    }

    fn interpret(&self, body: &IdedExpr, scope: &Scope<'_>) -> Result<Value, String> {
        let mut context = Context::with_env(functions::environment());
        let budget = Budget::default();
        let mut weights = Vec::with_capacity(self.0.references.len());
        let mut absent = Vec::new();
        for (place, reference) in self.0.references.iter().enumerate() {
            weights.push(match reference.value(scope) {
                Ok(value) => {
                    let weight = convert::weight_of_json(&value);
                    budget.spend(weight).map_err(|error| explain(&error, &absent))?;
                    context.add_variable_as_val(compile::reference_variable(place), convert::to_cel(&value));
                    weight
                }
                // an absent value is an error only where the expression comes to it
                Err(error) => {
                    absent.push((compile::reference_variable(place), error.0));
                    0
                }
            });
        }
        for (place, pattern) in self.0.patterns.iter().enumerate() {
            context.add_variable_as_val(compile::pattern_variable(place), Box::new(pattern.clone()));
        }
        for (place, each) in self.0.loops.iter().enumerate() {
            let named: u64 = each.references.iter().filter_map(|reference| weights.get(*reference)).sum();
            let cost = i64::try_from(each.nodes.saturating_add(named)).unwrap_or(i64::MAX);
            context
                .add_variable_as_val(compile::loop_variable(place), Box::new(cel::common::types::CelInt::from(cost)));
        }
        context.add_variable_as_val(compile::BUDGET_VARIABLE, Box::new(budget));
        // resolve_val would spare a copy, but is inlined here, and takes 50 KB of stack a level where this is not optimised
        let value = cel::Value::resolve(body, &context).map_err(|error| explain(&error, &absent))?;
        convert::to_json(&value)
    }
}

/// An error of the interpreter in words that users know.
fn explain(error: &ExecutionError, absent: &[(String, String)]) -> String {
    match error {
        ExecutionError::UndeclaredReference(name) => {
            match absent.iter().find(|(variable, _)| variable == name.as_str()) {
                Some((_, why)) => why.clone(),
                None => format!("{name} is not known"),
            }
        }
        ExecutionError::NoSuchKey(key) => format!("there is no member {key:?}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchOverload(error) => {
            format!(
                "{} cannot be applied to {}",
                functions::shown(error.function()),
                error.argument_types().join(" and ")
            )
        }
        ExecutionError::UnexpectedType { got, want } => format!("a value is of type {got}, and must be {want}"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        other => other.to_string(),
    }
}
