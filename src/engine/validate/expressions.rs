//! Compiles the expressions of a graph, each distinct text once, and checks what they name.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{names::Names, problems::Problems};
use crate::{
    api::{ITEM_INDEX_VARIABLE, ITEM_PATH, Task},
    engine::{
        expr::{
            Expression, compile,
            reference::{Key, Reference, Root, TaskField},
        },
        graph::{TaskId, order::Ancestors},
        payload::text::{Part, Piece, Text, split},
    },
};

/// Where an expression stands, which decides what it may name.
#[derive(Clone, Copy)]
pub enum Site<'a> {
    /// `when` of a task or of a branch; the place of the task.
    Condition(usize),
    /// A payload or the arguments of a task, or of what undoes one; its place in the graph.
    Attempt(usize),
    /// The same, of a task with a Job or child graph for each item.
    Item(usize),
    /// The items of a task; its place.
    Items(usize),
    /// The payload of a template with these parameters.
    Template(&'a [&'a str]),
    /// `retry.when`
    Retry,
    /// What the graph returns: all its tasks are final.
    Output,
}

/// The expressions of one graph.
pub struct Expressions<'a> {
    names: Names<'a>,
    tasks: Vec<&'a Task>,
    first_finally: usize,
    /// By place behind all tasks: the task that is undone there.
    undone: Vec<usize>,
    ancestors: Ancestors,
    arguments: Option<&'a Map<String, Value>>,
    /// What is said of an argument that is not there.
    missing_argument: &'static str,
    // never iterated over, so its order does not matter
    compiled: HashMap<String, Result<Expression, Vec<String>>>,
}

impl<'a> Expressions<'a> {
    /// No expressions yet, over these tasks and arguments.
    pub fn new(
        names: Names<'a>,
        tasks: Vec<&'a Task>,
        first_finally: usize,
        undone: Vec<usize>,
        ancestors: Ancestors,
        arguments: Option<&'a Map<String, Value>>,
    ) -> Self {
        let missing_argument = "spec.arguments has no";
        Self { names, tasks, first_finally, undone, ancestors, arguments, missing_argument, compiled: HashMap::new() }
    }

    /// The same, in the graph of a template: arguments are those of the template.
    pub fn in_template(self) -> Self {
        Self { missing_argument: "the template has no parameter", ..self }
    }

    /// The expression, if it compiles; what is wrong with it is reported at `path`.
    pub fn expression(
        &mut self,
        text: &str,
        site: Site<'_>,
        path: &str,
        problems: &mut Problems,
    ) -> Option<Expression> {
        let Self { names, compiled, .. } = self;
        // too long a text is not worth keeping
        let known = compiled.get(text.trim()).cloned();
        let result = known.unwrap_or_else(|| {
            let result = compile::compile(text, &mut |name| names.find(name));
            compiled.insert(text.trim().to_owned(), result.clone());
            result
        });
        match result {
            Ok(expression) => {
                let mut wrong: Vec<String> = Vec::new();
                for reference in expression.references() {
                    if let Err(problem) = self.check(reference, &expression, site, problems)
                        && !wrong.contains(&problem)
                    {
                        wrong.push(problem);
                    }
                }
                let fine = wrong.is_empty();
                problems.add_all(path, wrong);
                fine.then_some(expression)
            }
            Err(wrong) => {
                problems.add_all(path, wrong);
                None
            }
        }
    }

    /// A text with `${{ }}` in it.
    pub fn text(&mut self, text: &str, site: Site<'_>, path: &str, problems: &mut Problems) -> Option<Text> {
        let pieces = match split(text) {
            Ok(pieces) => pieces,
            Err(problem) => {
                problems.add(path, problem);
                return None;
            }
        };
        let mut parts = Vec::with_capacity(pieces.len());
        let mut fine = true;
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => parts.push(Part::Literal(literal.into())),
                Piece::Expression(inside) => match self.expression(inside, site, path, problems) {
                    Some(expression) => parts.push(Part::Expression(expression)),
                    None => fine = false,
                },
            }
        }
        fine.then_some(Text(parts))
    }

    fn check(
        &self,
        reference: &Reference,
        expression: &Expression,
        site: Site<'_>,
        problems: &mut Problems,
    ) -> Result<(), String> {
        match (&reference.root, site) {
            (Root::Attempt, Site::Retry | Site::Attempt(_) | Site::Item(_) | Site::Items(_) | Site::Template(_))
            | (Root::ExitCode | Root::Reason, Site::Retry)
            | (Root::Item | Root::Index, Site::Item(_)) => Ok(()),
            (_, Site::Retry) => Err(format!(
                "retry.when knows only exitCode, reason and attempt, and no {:?}",
                reference.root.variable()
            )),
            (Root::Attempt, Site::Condition(_)) => Err("there is no attempt yet when this is looked at".to_owned()),
            (Root::Attempt, Site::Output) => Err("the graph as a whole has no attempts".to_owned()),
            (Root::ExitCode | Root::Reason, _) => {
                Err(format!("{} is known only in retry.when", reference.root.variable()))
            }
            (Root::Item | Root::Index, site) => Err(self.no_item(&reference.root, site)),
            (Root::Graph(_), _) => Ok(()),
            (Root::Arguments, Site::Template(parameters)) => check_argument(
                reference,
                expression,
                parameters.iter().copied(),
                "the template has no parameter",
                problems,
            ),
            (Root::Arguments, _) => {
                let names = self.arguments.into_iter().flat_map(Map::keys).map(String::as_str);
                check_argument(reference, expression, names, self.missing_argument, problems)
            }
            (Root::Task { name, .. }, Site::Template(_)) => Err(format!(
                "a template sees its arguments and no tasks: hand what task {name:?} leaves over as an argument"
            )),
            (
                Root::Task { id, name, field },
                Site::Condition(own) | Site::Attempt(own) | Site::Item(own) | Site::Items(own),
            ) => {
                self.check_task(id.index(), name, own)?;
                self.check_outputs(*id, name, *field, reference)
            }
            (Root::Task { id, name, field }, Site::Output) => self.check_outputs(*id, name, *field, reference),
        }
    }

    /// Why there is no `item` or `index` here, and what to do.
    fn no_item(&self, root: &Root, site: Site<'_>) -> String {
        let variable = root.variable();
        let for_each = |own: usize| self.tasks.get(own).is_some_and(|task| task.for_each.is_some());
        match site {
            Site::Attempt(own) if for_each(own) => {
                let instead = if *root == Root::Item {
                    format!("each pod finds its item in the file {ITEM_PATH}")
                } else {
                    format!("each pod finds its place in the variable {ITEM_INDEX_VARIABLE}")
                };
                format!(
                    "one Job serves all items, so no expression knows {variable}: {instead}; or write `strategy: PerItem`, and each item has its own Job"
                )
            }
            Site::Condition(own) if for_each(own) => {
                format!("this is looked at once for all items: {variable} is known only in what runs for one of them")
            }
            Site::Items(_) => format!("{variable} is known in what runs for an item, not in the list itself"),
            Site::Template(_) => {
                format!("a template sees only its arguments: hand {variable} over as one, `${{{{ {variable} }}}}`")
            }
            _ => format!("{variable} is known only in a task with `forEach` and `strategy: PerItem`"),
        }
    }

    fn check_outputs(
        &self,
        task: TaskId,
        name: &str,
        field: Option<TaskField>,
        reference: &Reference,
    ) -> Result<(), String> {
        let jobless = self.tasks.get(task.index()).and_then(|task| {
            let forms = [
                ("a decision", task.decision.is_some()),
                ("a delay", task.delay.is_some()),
                ("an approval", task.approval.is_some()),
            ];
            forms.into_iter().find(|(_, given)| *given).map(|(form, _)| form)
        });
        match (field, reference.path.first(), jobless) {
            (Some(TaskField::Outputs), Some(Key::Member(output)), Some(form)) => {
                Err(format!("task {name:?} is {form} and leaves no outputs, so no {output:?}"))
            }
            _ => Ok(()),
        }
    }

    fn check_task(&self, named: usize, name: &str, own: usize) -> Result<(), String> {
        if let Some(undone) = own.checked_sub(self.tasks.len()).and_then(|place| self.undone.get(place)) {
            // what undoes a task runs after it, and may read what it left
            let ran = named == *undone || self.ancestors.holds(named, *undone);
            return if ran {
                Ok(())
            } else {
                Err(format!("task {name:?} does not come before the task that is undone, so it may not have run"))
            };
        }
        let in_finally = own >= self.first_finally;
        if named == own {
            return Err("a task cannot look at itself".to_owned());
        }
        if self.ancestors.holds(named, own) || (in_finally && named < self.first_finally) {
            return Ok(());
        }
        if named >= self.first_finally && !in_finally {
            return Err(format!("task {name:?} is in spec.finally, which starts after all of spec.tasks"));
        }
        Err(format!("task {name:?} does not come before this one, so it may not be final: add {name:?} to dependsOn"))
    }
}

/// Refuses an argument that is not there, unless the expression asks whether it is.
fn check_argument<'n>(
    reference: &Reference,
    expression: &Expression,
    known: impl Iterator<Item = &'n str> + Clone,
    missing: &str,
    problems: &mut Problems,
) -> Result<(), String> {
    let Some(name) = reference.argument() else { return Ok(()) };
    let asked = expression.references().iter().any(|other| other.presence && other.argument() == Some(name));
    if asked || known.clone().any(|known| known == name) {
        return Ok(());
    }
    Err(format!("{missing} {name:?}{}", problems.hint(name, known)))
}
