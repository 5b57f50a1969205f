//! Where in a container or pod template expressions may stand, and what must not be done with their values.
//!
//! The JSON is read as it comes: whatever has an odd shape is passed over here and refused elsewhere.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{PayloadKind, text::OPEN};
use crate::api::ENV_PREFIX;

/// A text with `${{` in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Spot<'a> {
    /// Field path from the payload on, with the dot or bracket that it begins with.
    pub path: String,
    /// JSON pointer from the payload on.
    pub pointer: String,
    /// The text.
    pub text: &'a str,
    /// Whether it may stand here.
    pub place: Place,
}

/// Kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The value of an environment variable, where Kubernetes expands `$(NAME)`.
    Env,
    /// Another place that expressions may stand in.
    Plain,
    /// A place that they may not stand in.
    Forbidden(&'static str),
}

const ELSEWHERE: &str =
    "`${{ }}` may stand only in env values, image, resources, nodeSelector, labels, annotations and claim names";
const COMMAND: &str = "`${{ }}` may not stand in a command or its args, where its value could be read as code: \
                       put it into an env value and read the variable";
const NAME: &str = "`${{ }}` may not stand in the name of a field";

/// Deepest JSON that is looked into; `serde_json` reads no deeper.
const MAX_DEPTH: usize = 128;

/// One step into JSON.
#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Place(usize),
}

/// Every text with `${{` in it, in order.
pub fn spots(kind: PayloadKind, source: &Value) -> Vec<Spot<'_>> {
    let mut spots = Vec::new();
    walk(source, &mut Vec::new(), &mut |steps, text, is_name| {
        if text.contains(OPEN) {
            let place = if is_name { Place::Forbidden(NAME) } else { place(kind, steps) };
            spots.push(Spot { path: path(steps), pointer: pointer(steps), text, place });
        }
    });
    spots
}

/// Every text with `${{` in it, where none may stand; with its field path.
pub fn any_spots(source: &Value) -> Vec<(String, &str)> {
    let mut spots = Vec::new();
    walk(source, &mut Vec::new(), &mut |steps, text, _| {
        if text.contains(OPEN) {
            spots.push((path(steps), text));
        }
    });
    spots
}

/// Every text with `${{` in `arguments`: field path, JSON pointer, the text, and whether it is the name of a member.
pub fn argument_spots(arguments: &Value) -> Vec<(String, String, &str, bool)> {
    let mut spots = Vec::new();
    walk(arguments, &mut Vec::new(), &mut |steps, text, is_name| {
        if text.contains(OPEN) {
            spots.push((path(steps), pointer(steps), text, is_name));
        }
    });
    spots
}

fn walk<'a>(value: &'a Value, steps: &mut Vec<Step<'a>>, found: &mut impl FnMut(&[Step<'a>], &'a str, bool)) {
    if steps.len() > MAX_DEPTH {
        return;
    }
    match value {
        Value::String(text) => found(steps, text, false),
        Value::Array(list) => {
            for (place, element) in list.iter().enumerate() {
                steps.push(Step::Place(place));
                walk(element, steps, found);
                steps.pop();
            }
        }
        Value::Object(object) => {
            for (name, member) in object {
                steps.push(Step::Member(name));
                found(steps, name, true);
                walk(member, steps, found);
                steps.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn place(kind: PayloadKind, steps: &[Step<'_>]) -> Place {
    use Step::{Member as M, Place as P};
    match (kind, steps) {
        (PayloadKind::Container, steps) => place_in_container(steps),
        (PayloadKind::PodTemplate, [M("spec"), M("containers" | "initContainers"), P(_), rest @ ..]) => {
            place_in_container(rest)
        }
        (
            PayloadKind::PodTemplate,
            [M("metadata"), M("labels" | "annotations"), M(_)]
            | [M("spec"), M("nodeSelector"), M(_)]
            | [M("spec"), M("volumes"), P(_), M("persistentVolumeClaim"), M("claimName")],
        ) => Place::Plain,
        (PayloadKind::PodTemplate, _) => Place::Forbidden(ELSEWHERE),
    }
}

fn place_in_container(steps: &[Step<'_>]) -> Place {
    use Step::{Member as M, Place as P};
    match steps {
        [M("env"), P(_), M("value")] => Place::Env,
        [M("image")] | [M("resources"), M(_), ..] => Place::Plain,
        [M("command" | "args"), ..] => Place::Forbidden(COMMAND),
        steps if steps.iter().any(|step| matches!(step, M("command"))) => Place::Forbidden(COMMAND),
        _ => Place::Forbidden(ELSEWHERE),
    }
}

/// `.env[0].value`
fn path(steps: &[Step<'_>]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Member(name) => path.push_str(&member(name)),
            Step::Place(place) => path.extend(["[", &place.to_string(), "]"]),
        }
    }
    path
}

/// A member in a field path: `.name`, or `["odd/name"]`.
pub fn member(name: &str) -> String {
    let plain =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if plain { format!(".{name}") } else { format!("[{name:?}]") }
}

/// `/env/0/value`
fn pointer(steps: &[Step<'_>]) -> String {
    let mut pointer = String::new();
    for step in steps {
        pointer.push('/');
        match step {
            Step::Member(name) => pointer.push_str(&name.replace('~', "~0").replace('/', "~1")),
            Step::Place(place) => pointer.push_str(&place.to_string()),
        }
    }
    pointer
}

/// What is wrong with the environments of all containers of a payload: field path from the payload on, and a sentence.
pub fn environment_problems(kind: PayloadKind, source: &Value) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    match kind {
        PayloadKind::Container => {
            if let Value::Object(container) = source {
                container_problems(container, "", &mut problems);
            }
        }
        PayloadKind::PodTemplate => {
            for list in ["initContainers", "containers"] {
                let containers = source.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
                for (place, container) in containers.into_iter().flatten().enumerate() {
                    if let Value::Object(container) = container {
                        container_problems(container, &format!(".spec.{list}[{place}]"), &mut problems);
                    }
                }
            }
        }
    }
    problems
}

fn container_problems(container: &Map<String, Value>, at: &str, problems: &mut Vec<(String, String)>) {
    // variables whose value holds an expression, or another such variable
    let mut interpolated: BTreeSet<&str> = BTreeSet::new();
    for (place, variable) in container.get("env").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let Some(name) = variable.get("name").and_then(Value::as_str) else { continue };
        if name.starts_with(ENV_PREFIX) {
            problems.push((
                format!("{at}.env[{place}].name"),
                format!("{name:?}: names that begin with {ENV_PREFIX} are reserved"),
            ));
        }
        let value = variable.get("value").and_then(Value::as_str).unwrap_or_default();
        if value.contains(OPEN) || expanded_names(value).any(|name| interpolated.contains(name)) {
            interpolated.insert(name);
        }
    }
    if interpolated.is_empty() {
        return;
    }
    for (name, value) in container.iter().filter(|(name, _)| *name != "env") {
        let mut steps = vec![Step::Member(name.as_str())];
        walk(value, &mut steps, &mut |steps, text, _| {
            if let Some(variable) = expanded_names(text).find(|variable| interpolated.contains(variable)) {
                let why = format!(
                    "$({variable}) would put the value of an expression here, where it could be read as code: \
                     read the variable {variable} in the program instead (in a shell as \"${variable}\")"
                );
                problems.push((format!("{at}{}", path(steps)), why));
            }
        });
    }
}

/// The names in `$(NAME)`, read as Kubernetes does: `$$` is a dollar sign and opens nothing.
fn expanded_names(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (_, tail) = rest.split_once('$')?;
            if let Some(name_and_more) = tail.strip_prefix('(')
                && let Some((name, after)) = name_and_more.split_once(')')
            {
                rest = after;
                return Some(name);
            }
            rest = tail.strip_prefix('$').unwrap_or(tail);
        }
    })
}

/// What is wrong with the text before an expression in an env value: it must not make Kubernetes read the value as part
/// of a `$(NAME)` of its own.
pub fn opens_expansion(literal: &str) -> bool {
    let mut rest = literal;
    while let Some((_, tail)) = rest.split_once('$') {
        rest = match (tail.strip_prefix('$'), tail.strip_prefix('(')) {
            (Some(after), _) => after,
            (None, Some(inside)) => match inside.split_once(')') {
                Some((_, after)) => after,
                None => return true,
            },
            (None, None) if tail.is_empty() => return true,
            (None, None) => tail,
        };
    }
    false
}
