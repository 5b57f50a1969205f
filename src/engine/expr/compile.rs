//! Text → [`Expression`]: parsed, checked and rewritten once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::{
    Body, Compiled, Expression, Loop, convert,
    functions::{self, Pattern},
    limits,
    reference::{GraphField, Key, Reference, Root, TaskField},
};
use crate::engine::{graph::TaskId, validate::suggest};

/// How deep macros may nest in one another.
const MAX_LOOPS: usize = 2;

/// How many levels the tree of an expression may have; the interpreter takes some 5 KB of stack for each.
const MAX_LEVELS: usize = 100;

/// The variable that stands for the budget of an evaluation.
pub const BUDGET_VARIABLE: &str = "@budget";

/// The variable that stands for a reference.
pub fn reference_variable(place: usize) -> String {
    format!("@reference{place}")
}

/// The variable that stands for a regular expression.
pub fn pattern_variable(place: usize) -> String {
    format!("@pattern{place}")
}

/// The variable that stands for what one round of a macro costs.
pub fn loop_variable(place: usize) -> String {
    format!("@loop{place}")
}

const VARIABLES: [&str; 8] = ["args", "tasks", "graph", "attempt", "exitCode", "reason", "item", "index"];
const GRAPH_FIELDS: [(&str, GraphField); 3] =
    [("name", GraphField::Name), ("namespace", GraphField::Namespace), ("uid", GraphField::Uid)];
const TASK_FIELDS: [(&str, TaskField); 3] =
    [("phase", TaskField::Phase), ("outputs", TaskField::Outputs), ("attempts", TaskField::Attempts)];

/// Compiles `text`. `find` turns the name of a task into its id, or says why there is none.
/// What is wrong comes as sentences, all of them.
pub fn compile(text: &str, find: &mut dyn FnMut(&str) -> Result<TaskId, String>) -> Result<Expression, Vec<String>> {
    let text = text.trim();
    limits::check(text).map_err(|problem| vec![problem])?;
    let dashes = names_with_dashes(text, find);
    if !dashes.is_empty() {
        return Err(dashes);
    }
    let tree = parse(text).map_err(|problem| vec![problem])?;
    let mut rewriter = Rewriter {
        find,
        level: 0,
        bound: Vec::new(),
        problems: Vec::new(),
        references: Vec::new(),
        patterns: Vec::new(),
        loops: Vec::new(),
    };
    let tree = rewriter.expression(tree);
    let Rewriter { mut problems, references, patterns, loops, .. } = rewriter;
    if !problems.is_empty() {
        problems.dedup();
        return Err(problems);
    }
    let alone = matches!(&tree.expr, Expr::Ident(name) if *name == reference_variable(0)) && references.len() == 1;
    let body = if alone { Body::Reference } else { Body::Cel(tree) };
    Ok(Expression(Arc::new(Compiled { text: text.into(), body, references, patterns, loops })))
}

fn parse(text: &str) -> Result<IdedExpr, String> {
    // the parser is generated code of another project; a panic in it must not be one of ours
    let parsed = catch_unwind(AssertUnwindSafe(|| functions::environment().parser().parse(text)));
    let errors = match parsed {
        Ok(Ok(tree)) => return Ok(tree),
        Ok(Err(errors)) => errors,
        Err(_) => return Err("the expression does not parse".to_owned()),
    };
    let Some(first) = errors.errors.first() else {
        return Err("the expression does not parse".to_owned());
    };
    let (line, column) = first.pos;
    let message = first.msg.trim().trim_start_matches("Syntax error: ");
    Err(format!("the expression does not parse: line {line}, column {column}: {}", convert::cut(message, 200)))
}

/// `tasks.build-image.outputs` is a subtraction to CEL, and never what was meant.
fn names_with_dashes(text: &str, find: &mut dyn FnMut(&str) -> Result<TaskId, String>) -> Vec<String> {
    let code: Vec<(usize, u8)> = limits::Code::new(text).collect();
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut problems = Vec::new();
    for (at, window) in code.windows(6).enumerate() {
        let before = at.checked_sub(1).and_then(|before| code.get(before)).map(|(_, byte)| *byte);
        let starts = window.iter().map(|(_, byte)| *byte).eq(*b"tasks.")
            && !before.is_some_and(|byte| part_of_name(byte) || byte == b'.');
        if !starts {
            continue;
        }
        let name: String = code
            .iter()
            .skip(at + 6)
            .map(|(_, byte)| *byte)
            .take_while(|byte| part_of_name(*byte) || *byte == b'-')
            .map(char::from)
            .collect();
        if name.contains('-') {
            let mut problem = format!("tasks.{name} is a subtraction: write tasks[{name:?}]");
            if let Err(unknown) = find(&name) {
                problem = format!("{problem}; {unknown}");
            }
            problems.push(problem);
        }
    }
    problems.dedup();
    problems
}

struct Rewriter<'a> {
    find: &'a mut dyn FnMut(&str) -> Result<TaskId, String>,
    level: usize,
    /// Variables of the macros around.
    bound: Vec<String>,
    problems: Vec<String>,
    references: Vec<Reference>,
    patterns: Vec<Pattern>,
    loops: Vec<Loop>,
}

impl Rewriter<'_> {
    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn expression(&mut self, node: IdedExpr) -> IdedExpr {
        if let Some((variable, keys, presence)) = self.chain(&node) {
            return match self.reference(&variable, keys, presence) {
                Ok(reference) => variable_node(self.intern(reference)),
                Err(problem) => {
                    self.problem(problem);
                    IdedExpr { id: node.id, expr: Expr::Literal(LiteralValue::Null) }
                }
            };
        }
        let id = node.id;
        if self.level == MAX_LEVELS {
            self.problem(format!("the expression is more than {MAX_LEVELS} levels deep: its operators or calls follow on each other too long"));
            return IdedExpr { id, expr: Expr::Literal(LiteralValue::Null) };
        }
        self.level += 1;
        let expr = self.parts(node.expr);
        self.level -= 1;
        IdedExpr { id, expr }
    }

    /// Rewrites the parts of what is no reference.
    fn parts(&mut self, expr: Expr) -> Expr {
        match expr {
            Expr::Ident(name) => self.identifier(name),
            Expr::Select(mut select) => {
                select.operand = Box::new(self.expression(*select.operand));
                Expr::Select(select)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(mut list) => {
                list.elements = list.elements.into_iter().map(|element| self.expression(element)).collect();
                Expr::List(list)
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            entry.key = self.expression(std::mem::take(&mut entry.key));
                            entry.value = self.expression(std::mem::take(&mut entry.value));
                        }
                        EntryExpr::StructField(field) => {
                            self.problems.push(format!("{:?} is no member of a map: put it in quotes", field.field));
                        }
                    }
                }
                Expr::Map(map)
            }
            Expr::Struct(structure) => {
                self.problem(format!("there is no type {:?} to make a value of", structure.type_name));
                Expr::Literal(LiteralValue::Null)
            }
            Expr::Comprehension(comprehension) => self.comprehension(*comprehension),
            Expr::Unspecified => {
                self.problem("the expression has an empty part".to_owned());
                Expr::Literal(LiteralValue::Null)
            }
            literal @ Expr::Literal(_) => literal,
        }
    }

    /// The variable and the fixed path that `node` is, if it is one: its members and indexes, and whether it asks for presence.
    fn chain(&self, node: &IdedExpr) -> Option<(String, Vec<Key>, bool)> {
        let mut keys = Vec::new();
        let mut presence = false;
        let mut current = node;
        loop {
            match &current.expr {
                Expr::Select(select) => {
                    // only the outermost selection can be the one that has() asks for
                    if select.test && !std::ptr::eq(current, node) {
                        return None;
                    }
                    presence |= select.test;
                    keys.push(Key::Member(select.field.clone()));
                    current = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX => {
                    let [operand, index] = call.args.as_slice() else { return None };
                    keys.push(match &index.expr {
                        Expr::Literal(LiteralValue::String(name)) => Key::Member(name.inner().to_owned()),
                        Expr::Literal(LiteralValue::Int(place)) => Key::Place(usize::try_from(*place.inner()).ok()?),
                        _ => return None,
                    });
                    current = operand;
                }
                Expr::Ident(name) if VARIABLES.contains(&name.as_str()) && !self.bound.contains(name) => {
                    keys.reverse();
                    return Some((name.clone(), keys, presence));
                }
                _ => return None,
            }
        }
    }

    fn reference(&mut self, variable: &str, mut keys: Vec<Key>, presence: bool) -> Result<Reference, String> {
        let root = match variable {
            "args" => Root::Arguments,
            "graph" => Root::Graph(take_field(&mut keys, &GRAPH_FIELDS, "graph")?),
            "tasks" => {
                let Some(Key::Member(name)) = take_key(&mut keys) else {
                    let how = "as in tasks.NAME.phase or tasks[\"NAME\"].phase";
                    return Err(format!("`tasks` must be followed by the name of a task, {how}"));
                };
                let id = (self.find)(&name)?;
                let field = take_field(&mut keys, &TASK_FIELDS, &format!("tasks[{name:?}]"))?;
                Root::Task { id, name: name.into(), field }
            }
            "attempt" => Root::Attempt,
            "exitCode" => Root::ExitCode,
            "item" => return Ok(Reference { root: Root::Item, path: keys, presence }),
            "index" => Root::Index,
            _ => Root::Reason,
        };
        let has_members = matches!(root, Root::Arguments | Root::Task { field: Some(TaskField::Outputs), .. });
        match keys.first() {
            Some(key) if !has_members => Err(format!("{variable} is used as if it had a {key}, and it has none there")),
            Some(Key::Place(place)) => Err(format!("{variable} is no list: element {place} is asked of it")),
            _ => Ok(Reference { root, path: keys, presence }),
        }
    }

    fn intern(&mut self, reference: Reference) -> usize {
        self.references.iter().position(|known| *known == reference).unwrap_or_else(|| {
            self.references.push(reference);
            self.references.len() - 1
        })
    }

    fn identifier(&mut self, name: String) -> Expr {
        // names with an @ are those that macros expand to; no text can hold one
        let known = name.starts_with('@') || self.bound.contains(&name) || functions::TYPES.contains(&name.as_str());
        if !known {
            let hint = suggest(&name, VARIABLES.iter().copied());
            self.problem(format!("there is no variable {name:?}{}", hint.unwrap_or_default()));
        }
        Expr::Ident(name)
    }

    fn call(&mut self, mut call: CallExpr) -> Expr {
        let optional =
            matches!(call.target.as_deref(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name == "optional");
        let operator = !call.func_name.starts_with(|first: char| first.is_ascii_alphabetic());
        let known: &[&str] = match (&call.target, optional) {
            (_, true) => &functions::OPTIONAL,
            (Some(_), false) => &functions::MEMBERS,
            (None, false) => &functions::GLOBAL,
        };
        if !operator && !known.contains(&call.func_name.as_str()) {
            let hint = suggest(&call.func_name, known.iter().copied());
            self.problem(format!("there is no function {:?}{}", call.func_name, hint.unwrap_or_default()));
        }
        if call.func_name == functions::MATCHES.trim_start_matches('@') {
            return self.matches(call);
        }
        if let (Some(target), false) = (call.target.take_if(|_| !optional), optional) {
            call.target = Some(Box::new(self.expression(*target)));
        }
        call.args = call.args.into_iter().map(|argument| self.expression(argument)).collect();
        // the sum that a macro collects its elements with must stay as it is: the interpreter knows it by its form
        let collects =
            matches!(call.args.first(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name.starts_with("@result"));
        if let Some((_, ours)) = functions::ARITHMETIC.iter().find(|(operator, _)| *operator == call.func_name)
            && !collects
        {
            (*ours).clone_into(&mut call.func_name);
            call.args.push(named(BUDGET_VARIABLE));
        }
        Expr::Call(call)
    }

    /// `text.matches(pattern)` and `matches(text, pattern)`, with the pattern compiled here.
    fn matches(&mut self, call: CallExpr) -> Expr {
        let mut arguments: Vec<IdedExpr> = call.target.into_iter().map(|target| *target).chain(call.args).collect();
        let (Some(pattern), Some(text), true) = (arguments.pop(), arguments.pop(), arguments.is_empty()) else {
            self.problem("matches takes a text and a pattern: text.matches(\"pattern\")".to_owned());
            return Expr::Literal(LiteralValue::Null);
        };
        let text = self.expression(text);
        match &pattern.expr {
            Expr::Literal(LiteralValue::String(pattern)) => match Pattern::new(pattern.inner()) {
                Ok(pattern) => self.patterns.push(pattern),
                Err(problem) => self.problem(problem),
            },
            _ => self.problem("the pattern of matches must be a text in quotes".to_owned()),
        }
        let pattern = named(&pattern_variable(self.patterns.len().saturating_sub(1)));
        Expr::Call(CallExpr { func_name: functions::MATCHES.to_owned(), target: None, args: vec![text, pattern] })
    }

    fn comprehension(&mut self, mut macro_: ComprehensionExpr) -> Expr {
        let name = macro_.iter_var.as_str();
        // `item` and `index` mean something in few places only, and are good names in a macro
        let taken = VARIABLES.contains(&name) && !matches!(name, "item" | "index");
        if taken || functions::TYPES.contains(&name) {
            self.problem(format!(
                "{:?} has a meaning of its own: give the macro's variable another name",
                macro_.iter_var
            ));
        }
        let range = self.expression(macro_.iter_range);
        let depth = self.bound.len() / 2;
        if depth == MAX_LOOPS {
            self.problem(format!("macros nest more than {MAX_LOOPS} deep"));
        }
        self.bound.push(macro_.iter_var.clone());
        self.bound.push(macro_.accu_var.clone());
        macro_.accu_init = self.expression(macro_.accu_init);
        macro_.loop_cond = self.expression(macro_.loop_cond);
        macro_.loop_step = charge_elements(self.expression(macro_.loop_step));
        macro_.result = self.expression(macro_.result);
        self.bound.truncate(depth * 2);

        let mut each = Loop { nodes: 0, references: Vec::new() };
        measure(&macro_.loop_step, &mut each);
        self.loops.push(each);
        let cost = named(&loop_variable(self.loops.len() - 1));
        let args = vec![range, cost, named(BUDGET_VARIABLE)];
        macro_.iter_range = IdedExpr {
            id: 0,
            expr: Expr::Call(CallExpr { func_name: functions::ITEMS.to_owned(), target: None, args }),
        };
        Expr::Comprehension(Box::new(macro_))
    }
}

fn take_key(keys: &mut Vec<Key>) -> Option<Key> {
    (!keys.is_empty()).then(|| keys.remove(0))
}

fn take_field<T: Copy>(keys: &mut Vec<Key>, fields: &[(&str, T)], owner: &str) -> Result<Option<T>, String> {
    let name = match take_key(keys) {
        None => return Ok(None),
        Some(Key::Member(name)) => name,
        Some(key @ Key::Place(_)) => return Err(format!("{owner} is no list: {key} is asked of it")),
    };
    if let Some((_, field)) = fields.iter().find(|(field, _)| *field == name) {
        return Ok(Some(*field));
    }
    let names: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
    let hint = suggest(&name, names.iter().copied());
    Err(format!("{owner} has {}, and no {name:?}{}", names.join(", "), hint.unwrap_or_default()))
}

fn named(name: &str) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) }
}

fn variable_node(place: usize) -> IdedExpr {
    named(&reference_variable(place))
}

/// In the step of a `map` or `filter`, `@result + [x]`, possibly under a condition: makes each `x` draw on the budget.
fn charge_elements(mut step: IdedExpr) -> IdedExpr {
    if let Expr::Call(call) = &mut step.expr {
        if call.func_name == operators::CONDITIONAL {
            if let Some(then) = call.args.get_mut(1) {
                *then = charge_elements(std::mem::take(then));
            }
        } else if call.func_name == operators::ADD
            && let Some(Expr::List(list)) = call.args.get_mut(1).map(|argument| &mut argument.expr)
        {
            for element in &mut list.elements {
                let args = vec![std::mem::take(element), named(BUDGET_VARIABLE)];
                element.expr = Expr::Call(CallExpr { func_name: functions::KEEP.to_owned(), target: None, args });
            }
        }
    }
    step
}

/// Counts the nodes of a tree and the references in it.
fn measure(node: &IdedExpr, each: &mut Loop) {
    each.nodes += 1;
    match &node.expr {
        Expr::Ident(name) => {
            each.references.extend(name.strip_prefix("@reference").and_then(|place| place.parse::<usize>().ok()));
        }
        Expr::Select(select) => measure(&select.operand, each),
        Expr::Call(call) => {
            call.target.iter().map(|target| &**target).chain(&call.args).for_each(|part| measure(part, each));
        }
        Expr::List(list) => list.elements.iter().for_each(|part| measure(part, each)),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    measure(&entry.key, each);
                    measure(&entry.value, each);
                }
            }
        }
        Expr::Comprehension(macro_) => {
            for part in [&macro_.iter_range, &macro_.accu_init, &macro_.loop_cond, &macro_.loop_step, &macro_.result] {
                measure(part, each);
            }
        }
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}
