//! The container or pod template of a task, with the places where expressions stand.

pub(crate) mod mounts;
pub(crate) mod places;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value};

use self::text::Text;
use super::expr::{EvalError, Expression, Scope};
use crate::api::ValueType;

/// What a task's attempts are made from.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Which form the user chose.
    pub kind: PayloadKind,
    /// The JSON as the user wrote it.
    pub source: Arc<Value>,
    pub(crate) slots: Arc<[Slot]>,
    /// The arguments of the template that it comes from; none where the task has the payload itself.
    pub(crate) arguments: Option<Arguments>,
}

/// The two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A container.
    Container,
    /// A pod template.
    PodTemplate,
}

/// A text of the payload with expressions in it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// JSON pointer to the text.
    pub pointer: String,
    /// The text.
    pub text: Text,
    /// Kubernetes expands `$(NAME)` here.
    pub env: bool,
}

impl Payload {
    /// The JSON with every expression replaced by its value as text. Costs nothing where there is none.
    ///
    /// `scope.arguments` are the graph's; a payload that comes from a template sees its own instead.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Arc<Value>, EvalError> {
        let merged;
        let mut scope = *scope;
        if let Some(arguments) = &self.arguments {
            // also where the template looks at none of them: an argument of the wrong type is an error all the same
            merged = arguments.merge(&scope)?;
            scope.arguments = &merged;
        }
        if self.slots.is_empty() {
            return Ok(Arc::clone(&self.source));
        }
        let mut rendered = Value::clone(&self.source);
        for slot in self.slots.iter() {
            let text = slot.text.render(&scope, slot.env)?;
            if let Some(target) = rendered.pointer_mut(&slot.pointer) {
                *target = Value::String(text);
            }
        }
        Ok(Arc::new(rendered))
    }

    /// The expressions that read the graph's arguments: those of a template's payload read the template's own.
    pub fn graph_expressions(&self) -> impl Iterator<Item = &Expression> {
        let own = self.arguments.is_none().then_some(&self.slots).into_iter().flat_map(|slots| slots.iter());
        let given = self.arguments.iter().flat_map(Arguments::expressions);
        own.flat_map(|slot| slot.text.expressions()).chain(given)
    }

    /// All expressions whose values an attempt depends on.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let in_arguments = self.arguments.iter().flat_map(|arguments| arguments.slots.iter().map(|(_, text)| text));
        self.slots.iter().map(|slot| &slot.text).chain(in_arguments).flat_map(|text| &text.0).filter_map(|part| {
            match part {
                text::Part::Expression(expression) => Some(expression),
                text::Part::Literal(_) => None,
            }
        })
    }
}

/// The arguments of a template: what the task gives, over the defaults of the template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// A value for every parameter, expressions as they were written.
    pub values: Map<String, Value>,
    /// The texts with expressions in them, by their JSON pointers.
    pub slots: Vec<(String, Text)>,
    /// Parameters with a type whose value is known only once its expression is.
    pub types: Vec<(String, ValueType)>,
}

impl Arguments {
    /// The expressions in them.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.slots.iter().flat_map(|(_, text)| text.expressions())
    }

    /// The arguments with every expression replaced by its value.
    pub(in crate::engine) fn merge(&self, scope: &Scope<'_>) -> Result<Cow<'_, Map<String, Value>>, EvalError> {
        if self.slots.is_empty() {
            return Ok(Cow::Borrowed(&self.values));
        }
        let mut values = Value::Object(self.values.clone());
        for (pointer, text) in &self.slots {
            let value = text.value(scope)?;
            if let Some(target) = values.pointer_mut(pointer) {
                *target = value;
            }
        }
        let Value::Object(values) = values else { return Ok(Cow::Borrowed(&self.values)) };
        for (name, type_) in &self.types {
            if let Some(value) = values.get(name).filter(|value| !type_.accepts(value)) {
                let given = super::expr::describe(value);
                return Err(EvalError(format!("argument {name:?} is {given}, and must be of type {}", type_.name())));
            }
        }
        Ok(Cow::Owned(values))
    }
}
