//! A graph as text: a pure function of the object, the time, the width and the style.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use jiff::Timestamp;

use super::{
    history,
    layout::{Placed, layout},
    style::{Style, graph_colour, graph_phase_name, task_colour},
    words,
};
use crate::{
    api::{GraphPhase, Task, TaskGraph, TaskPhase, TaskStatus},
    cli::text,
};

/// The narrowest and widest that is drawn.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=200;
/// Columns of a phase: the longest names have nine letters.
const PHASE: usize = 9;
/// The most lines on why a task is where it is.
const MAX_WHY: usize = 3;

/// One line of the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text, with colours if the style has them.
    pub text: String,
    /// It shows a task on which something is going on.
    pub active: bool,
}

/// The graph as a tree of its tasks, `width` columns wide, one line break after each line.
pub fn render(graph: &TaskGraph, now: Timestamp, width: usize, style: Style) -> String {
    draw(graph, now, width, style).into_iter().fold(String::new(), |out, line| out + &line.text + "\n")
}

/// The lines of [`render`].
pub fn draw(graph: &TaskGraph, now: Timestamp, width: usize, style: Style) -> Vec<Line> {
    let mut picture = Picture { width: width.clamp(*WIDTHS.start(), *WIDTHS.end()), now, style, lines: Vec::new() };
    picture.header(graph);
    let statuses: BTreeMap<&str, &TaskStatus> =
        graph.status.iter().flat_map(|status| &status.tasks).map(|task| (task.name.as_str(), task)).collect();
    let named: BTreeSet<&str> =
        graph.spec.tasks.iter().chain(&graph.spec.finally).map(|task| task.name.as_str()).collect();
    // a refused edit goes on with the accepted tasks, which the spec may not name any more; those of a template never
    // stand in it
    let others: Vec<Task> = graph
        .status
        .iter()
        .flat_map(|status| &status.tasks)
        .filter(|task| !named.contains(task.name.as_str()))
        .map(|task| Task { name: task.name.clone(), ..Task::default() })
        .collect();
    let template =
        graph.spec.template_ref.as_ref().map(|template| format!("template {}", text::one_line(&template.name)));
    let elsewhere = template.as_deref().unwrap_or("not in the spec");
    let sections = [("", &graph.spec.tasks), ("finally", &graph.spec.finally), (elsewhere, &others)];
    let undone: BTreeMap<&str, TaskStatus> = statuses
        .iter()
        .filter_map(|(name, task)| {
            Some((*name, (**task.compensation.as_ref()?).clone().into_task("compensation".into())))
        })
        .collect();
    let rows: Vec<Vec<Row<'_>>> = sections.iter().map(|(_, tasks)| picture.rows(tasks, &statuses, &undone)).collect();
    let columns = Columns::of(&rows, picture.width);
    for ((title, _), rows) in sections.iter().zip(&rows) {
        if !rows.is_empty() && !title.is_empty() {
            picture.line(&style.bold(title));
        }
        for row in rows {
            picture.row(row, &columns);
        }
    }
    picture.history(graph);
    picture.lines
}

/// One task, or what undoes the one above, its words found but not yet put into columns.
struct Row<'a> {
    placed: Placed,
    name: String,
    phase: TaskPhase,
    status: Option<&'a TaskStatus>,
    attempts: String,
    time: String,
}

/// The widths that all rows share.
struct Columns {
    tree: usize,
    attempts: usize,
    time: usize,
}

impl Columns {
    fn of(sections: &[Vec<Row<'_>>], width: usize) -> Self {
        let widest = |column: fn(&Row<'_>) -> usize| sections.iter().flatten().map(column).max().unwrap_or(0);
        Self {
            // the guides, the symbol, a space, the name
            tree: widest(|row| text::width(&row.placed.guides) + 2 + text::width(&row.name)).min(width * 45 / 100),
            attempts: widest(|row| text::width(&row.attempts)),
            time: widest(|row| text::width(&row.time)),
        }
    }
}

struct Picture {
    width: usize,
    now: Timestamp,
    style: Style,
    lines: Vec<Line>,
}

impl Picture {
    fn line(&mut self, text: &str) {
        self.lines.push(Line { text: text.trim_end().to_owned(), active: false });
    }

    fn header(&mut self, graph: &TaskGraph) {
        let status = graph.status.as_ref();
        let phase = status.and_then(|status| status.phase).unwrap_or(GraphPhase::Pending);
        let (namespace, name) = (graph.metadata.namespace.as_deref(), graph.metadata.name.as_deref());
        let title = format!("{}/{}", namespace.unwrap_or("default"), name.unwrap_or("(no name)"));
        let mut facts = vec![graph_phase_name(phase).to_owned()];
        if let Some(status) = status {
            facts.extend(status.progress.as_deref().map(text::one_line));
            let end = status.completion_time.unwrap_or(self.now);
            facts.extend(status.start_time.map(|start| words::duration(start, end)));
        }
        let facts = facts.join("  ");
        let room = self.width.saturating_sub(text::width(&facts) + 4);
        let title = text::cut(&text::one_line(&title), room);
        let symbol = self.style.paint(graph_colour(phase), self.style.graph_symbol(phase));
        self.line(&format!("{symbol} {}  {}", self.style.bold(&title), self.style.paint(graph_colour(phase), &facts)));
        for words in [graph.spec.display_name.as_deref(), status.and_then(|status| status.message.as_deref())] {
            self.wrapped("  ", "  ", &text::one_line(words.unwrap_or_default()), 4);
        }
        self.refusal(graph);
    }

    fn history(&mut self, graph: &TaskGraph) {
        let lines = history::lines(graph, self.now);
        if !lines.is_empty() {
            let title = self.style.bold("history");
            self.line(&title);
        }
        for line in lines {
            // cut first: the spaces at its beginning are a column
            let line = text::cut(&line, self.width.saturating_sub(2));
            self.line(&format!("  {line}"));
        }
    }

    fn refusal(&mut self, graph: &TaskGraph) {
        let Some(refusal) = words::refusal(graph) else { return };
        let (phase, title) =
            if refusal.refused { (TaskPhase::Failed, "refused") } else { (TaskPhase::Pending, "not accepted yet") };
        self.line(&format!("  {} ({})", self.style.paint(task_colour(phase), title), refusal.reason));
        let symbol = self.style.task_symbol(phase);
        for problem in refusal.problems {
            self.wrapped(&format!("  {symbol} "), "    ", &problem, 8);
        }
    }

    /// A text over several lines, `first` before it and `others` before its further lines.
    fn wrapped(&mut self, first: &str, others: &str, words: &str, lines: usize) {
        let room = self.width.saturating_sub(text::width(first));
        for (index, line) in text::wrap(words, room, lines).into_iter().enumerate() {
            let before = if index == 0 { first } else { others };
            self.line(&format!("{before}{line}"));
        }
    }

    fn rows<'a>(
        &self,
        tasks: &[Task],
        statuses: &BTreeMap<&str, &'a TaskStatus>,
        undone: &'a BTreeMap<&str, TaskStatus>,
    ) -> Vec<Row<'a>> {
        layout(tasks, self.style.lines())
            .into_iter()
            .flat_map(|placed| {
                let name = tasks.get(placed.task).map_or("", |task| task.name.as_str());
                let undo = undone.get(name).map(|undo| {
                    let guides = placed.guides_below.clone();
                    let below = Placed { guides_below: format!("{guides}  "), guides, note: None, ..placed };
                    self.task_row(below, &undo.name, Some(undo))
                });
                std::iter::once(self.task_row(placed, name, statuses.get(name).copied())).chain(undo)
            })
            .collect()
    }

    fn task_row<'a>(&self, placed: Placed, name: &str, status: Option<&'a TaskStatus>) -> Row<'a> {
        let attempts = status.map_or(0, |status| status.attempts);
        let times = if self.style.ascii { "x" } else { "×" };
        Row {
            name: text::one_line(name),
            phase: status.map_or(TaskPhase::Pending, |status| status.phase),
            attempts: if attempts > 1 { format!("{times}{attempts}") } else { String::new() },
            time: status.map_or_else(String::new, |status| words::task_time(status, self.now)),
            status,
            placed,
        }
    }

    fn row(&mut self, row: &Row<'_>, columns: &Columns) {
        let style = self.style;
        let colour = task_colour(row.phase);
        let name = text::cut(&row.name, columns.tree.saturating_sub(text::width(&row.placed.guides) + 2));
        let tree = format!("{}{} {name}", row.placed.guides, style.task_symbol(row.phase));
        let mut line = format!(
            "{}{} {name}{}  {}{}",
            style.dim(&row.placed.guides),
            style.paint(colour, style.task_symbol(row.phase)),
            text::padding(&tree, columns.tree),
            style.paint(colour, row.phase.name()),
            text::padding(row.phase.name(), PHASE),
        );
        let mut used = columns.tree + 2 + PHASE;
        for (words, width) in [(&row.attempts, columns.attempts), (&row.time, columns.time)] {
            if width > 0 {
                let _ = write!(line, "  {words}{}", text::padding(words, width));
                used += 2 + width;
            }
        }
        let details = Details::of(row, self.width.saturating_sub(used + 2));
        let space = if details.beside.is_empty() || details.note.is_empty() { "" } else { " " };
        let _ = write!(line, "  {}{space}{}", details.beside, style.dim(&details.note));
        let active =
            matches!(row.phase, TaskPhase::Ready | TaskPhase::Running | TaskPhase::Waiting | TaskPhase::Retrying);
        self.lines.push(Line { text: line.trim_end().to_owned(), active });
        let below = format!("{}  ", row.placed.guides_below);
        for words in text::wrap(&details.below, self.width.saturating_sub(text::width(&below)), MAX_WHY) {
            self.line(&format!("{}{words}", style.dim(&below)));
        }
    }
}

/// What is said of a task beside its columns, and below it where that is too much.
struct Details {
    beside: String,
    note: String,
    below: String,
}

impl Details {
    /// `room`: columns beside the task.
    fn of(row: &Row<'_>, room: usize) -> Self {
        let why = row.status.and_then(words::why).unwrap_or_default();
        let result = row.status.and_then(words::result).unwrap_or_default();
        let note = row.placed.note.as_deref().map(text::one_line).unwrap_or_default();
        let join =
            |words: &[&str]| words.iter().filter(|words| !words.is_empty()).copied().collect::<Vec<_>>().join(" ");
        if text::width(&join(&[&why, &result, &note])) <= room {
            return Self { beside: join(&[&why, &result]), note, below: String::new() };
        }
        let beside = text::cut(&result, room);
        // a result is worth more than what the task came after
        let left = room.saturating_sub(text::width(&beside) + usize::from(!beside.is_empty()));
        Self { beside, note: text::cut(&note, left), below: why }
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
