//! Where each task stands in the tree: a graph is not a tree, so a task with several dependencies is put under
//! the one that is itself the furthest from the start, and says what else it waits for.
//!
//! No recursion: a chain of 2,000 tasks is laid out like any other. A spec that was refused may hold
//! cycles, tasks of one name and dependencies that do not exist; every task is still shown once.

use std::collections::{BTreeMap, VecDeque};

use crate::api::Task;

/// The most levels that are indented; deeper ones stand at the last, and say what they follow.
const MAX_LEVELS: usize = 12;
/// The most dependencies that a note names.
const MAX_NAMED: usize = 6;

/// A task's place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Place of the task in the list that was given.
    pub task: usize,
    /// Lines of the tree before the task, two columns a level.
    pub guides: String,
    /// Lines of the tree before further lines of the same task.
    pub guides_below: String,
    /// What the task comes after, where its place does not say it.
    pub note: Option<String>,
}

/// The characters that the tree is drawn with, two columns each.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// To a child that is not the last.
    pub child: &'static str,
    /// To the last child.
    pub last: &'static str,
    /// Past a child, to one further down.
    pub past: &'static str,
    /// In place of levels that are not indented.
    pub deep: &'static str,
}

/// The tasks in the order in which they are shown.
pub fn layout(tasks: &[Task], lines: Lines) -> Vec<Placed> {
    let parents = parents(tasks);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    let mut roots = Vec::new();
    for (task, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(task),
            None => roots.push(task),
        }
    }
    let mut placed = Vec::with_capacity(tasks.len());
    // what is still to be placed, the next on top: task, guides, guides of what comes below it, level
    let mut open: Vec<(usize, String, String, usize)> =
        roots.into_iter().rev().map(|root| (root, String::new(), String::new(), 0)).collect();
    while let Some((task, guides, below, level)) = open.pop() {
        let deep = level > MAX_LEVELS;
        let list = &children[task];
        for (index, child) in list.iter().enumerate().rev() {
            let is_last = index + 1 == list.len();
            let child_guides = format!("{below}{}", if is_last { lines.last } else { lines.child });
            let child_below = format!("{below}{}", if is_last { "  " } else { lines.past });
            let (child_guides, child_below) = (shorten(child_guides, lines), shorten(child_below, lines));
            open.push((*child, child_guides, child_below, level + 1));
        }
        let guides_below = if list.is_empty() { format!("{below}  ") } else { format!("{below}{}", lines.past) };
        let note = note(&tasks[task], parents[task].is_some(), deep);
        placed.push(Placed { task, guides, guides_below: shorten(guides_below, lines), note });
    }
    placed
}

/// At most [`MAX_LEVELS`] levels: the outermost give way to a mark.
fn shorten(guides: String, lines: Lines) -> String {
    let levels = guides.chars().count() / 2;
    if levels <= MAX_LEVELS {
        return guides;
    }
    let kept = guides.chars().skip(2 * (levels + 1 - MAX_LEVELS));
    lines.deep.chars().chain(kept).collect()
}

/// For each task, the dependency that it is shown under. Tasks in a cycle, and those that know only what lies behind
/// one or does not exist, have none.
fn parents(tasks: &[Task]) -> Vec<Option<usize>> {
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        by_name.entry(task.name.as_str()).or_insert(index);
    }
    let dependencies: Vec<Vec<usize>> = tasks
        .iter()
        .map(|task| task.depends_on.iter().filter_map(|name| by_name.get(task_of(name)).copied()).collect())
        .collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (task, list) in dependencies.iter().enumerate() {
        for dependency in list {
            dependents[*dependency].push(task);
        }
    }
    let mut waits_for: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut depths: Vec<Option<usize>> = vec![None; tasks.len()];
    let mut ready: VecDeque<usize> = (0..tasks.len()).filter(|task| waits_for[*task] == 0).collect();
    while let Some(task) = ready.pop_front() {
        let depth = dependencies[task].iter().filter_map(|dependency| depths[*dependency]).max();
        depths[task] = Some(depth.map_or(0, |depth| depth + 1));
        for dependent in &dependents[task] {
            waits_for[*dependent] -= 1;
            if waits_for[*dependent] == 0 {
                ready.push_back(*dependent);
            }
        }
    }
    let deepest = |list: &Vec<usize>| {
        list.iter().copied().filter(|task| depths[*task].is_some()).max_by_key(|task| depths[*task])
    };
    dependencies.iter().map(deepest).collect()
}

/// The task that a dependency names, without the branch.
fn task_of(dependency: &str) -> &str {
    dependency.split('/').next().unwrap_or(dependency)
}

/// `(after a, b)` where the place in the tree does not tell all.
fn note(task: &Task, has_parent: bool, deep: bool) -> Option<String> {
    let names = &task.depends_on;
    let told_by_place = match names.as_slice() {
        [] => true,
        [only] => has_parent && !deep && !only.contains('/'),
        _ => false,
    };
    if told_by_place {
        return None;
    }
    let shown: Vec<&str> = names.iter().take(MAX_NAMED).map(String::as_str).collect();
    let more = match names.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("(after {}{more})", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINES: Lines = Lines { child: "├ ", last: "└ ", past: "│ ", deep: "⋮ " };

    fn task(name: &str, depends_on: &[&str]) -> Task {
        Task { name: name.into(), depends_on: depends_on.iter().map(ToString::to_string).collect(), ..Task::default() }
    }

    fn shown(tasks: &[Task]) -> Vec<String> {
        layout(tasks, LINES)
            .iter()
            .map(|placed| {
                format!(
                    "{}{}{}",
                    placed.guides,
                    tasks[placed.task].name,
                    placed.note.as_deref().map(|note| format!(" {note}")).unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn puts_a_task_under_its_deepest_dependency() {
        let tasks = [
            task("a", &[]),
            task("b", &["a"]),
            task("c", &["a"]),
            task("e", &["a", "d"]),
            task("d", &["b"]),
            task("f", &["d", "c/x"]),
        ];
        assert_eq!(shown(&tasks), ["a", "├ b", "│ └ d", "│   ├ e (after a, d)", "│   └ f (after d, c/x)", "└ c"]);
    }

    #[test]
    fn shows_every_task_of_a_spec_that_was_refused() {
        let tasks = [
            task("a", &["c"]),
            task("b", &["a"]),
            task("c", &["b"]),
            task("d", &["c"]),
            task("e", &["nobody"]),
            task("e", &[]),
            task("f", &["f"]),
        ];
        assert_eq!(
            shown(&tasks),
            ["a (after c)", "b (after a)", "c (after b)", "d (after c)", "e (after nobody)", "e", "f (after f)"]
        );
    }

    #[test]
    fn lays_out_a_chain_of_two_thousand() {
        let tasks: Vec<Task> = (0..2_000)
            .map(|index| Task {
                name: format!("t{index}"),
                depends_on: if index == 0 { vec![] } else { vec![format!("t{}", index - 1)] },
                ..Task::default()
            })
            .collect();
        let placed = layout(&tasks, LINES);
        assert_eq!(placed.len(), 2_000);
        assert!(placed.iter().all(|placed| placed.guides.chars().count() <= 2 * MAX_LEVELS));
        assert_eq!(placed[1_999].note.as_deref(), Some("(after t1998)"));
        assert_eq!(placed[12].note, None);
        assert_eq!(placed[13].guides, format!("⋮ {}└ ", "  ".repeat(10)));
    }

    proptest! {
        #[test]
        fn every_task_stands_once(edges in prop::collection::vec((0..20_usize, 0..20_usize), 0..60)) {
            let mut tasks: Vec<Task> = (0..20).map(|index| task(&format!("t{index}"), &[])).collect();
            for (from, to) in edges {
                tasks[to].depends_on.push(format!("t{from}"));
            }
            let mut places: Vec<usize> = layout(&tasks, LINES).iter().map(|placed| placed.task).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..20).collect::<Vec<_>>());
        }
    }
}
