//! Symbols and colours. Every symbol stands beside a word: nothing rests on colour or shape alone.

use anstyle::{AnsiColor, Style as Ansi};

use super::layout::Lines;
use crate::api::{GraphPhase, TaskPhase};

/// How to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// With the characters of ASCII only (what users wrote is shown as it is).
    pub ascii: bool,
}

impl Style {
    /// The text in a colour, if there are colours.
    pub fn paint(self, ansi: Ansi, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("{ansi}{text}{ansi:#}") } else { text.to_owned() }
    }

    /// The text in the background.
    pub fn dim(self, text: &str) -> String {
        self.paint(Ansi::new().dimmed(), text)
    }

    /// The text in the foreground.
    pub fn bold(self, text: &str) -> String {
        self.paint(Ansi::new().bold(), text)
    }

    /// The lines of the tree.
    pub fn lines(self) -> Lines {
        if self.ascii {
            Lines { child: "|-", last: "`-", past: "| ", deep: ": " }
        } else {
            Lines { child: "├ ", last: "└ ", past: "│ ", deep: "⋮ " }
        }
    }

    /// The symbol of a task's phase, one column wide.
    pub fn task_symbol(self, phase: TaskPhase) -> &'static str {
        let (symbol, ascii) = match phase {
            TaskPhase::Pending => ("○", "."),
            TaskPhase::Ready => ("◔", "o"),
            TaskPhase::Running => ("●", "*"),
            TaskPhase::Waiting => ("◷", "w"),
            TaskPhase::Retrying => ("↻", "@"),
            TaskPhase::Succeeded => ("✔", "+"),
            TaskPhase::Failed => ("✘", "x"),
            TaskPhase::Cancelled => ("⊘", "/"),
            TaskPhase::Skipped => ("↷", "-"),
            TaskPhase::Omitted => ("⊖", "="),
        };
        if self.ascii { ascii } else { symbol }
    }

    /// The symbol of a graph's phase, one column wide.
    pub fn graph_symbol(self, phase: GraphPhase) -> &'static str {
        self.task_symbol(match phase {
            GraphPhase::Pending => TaskPhase::Pending,
            GraphPhase::Suspended => TaskPhase::Ready,
            GraphPhase::Running | GraphPhase::Finalizing => TaskPhase::Running,
            GraphPhase::Compensating => TaskPhase::Retrying,
            GraphPhase::Cancelling => TaskPhase::Cancelled,
            GraphPhase::Complete => TaskPhase::Succeeded,
            GraphPhase::Failed => TaskPhase::Failed,
        })
    }
}

/// The colour of a task's phase.
pub fn task_colour(phase: TaskPhase) -> Ansi {
    match phase {
        TaskPhase::Pending | TaskPhase::Skipped => Ansi::new().dimmed(),
        TaskPhase::Ready | TaskPhase::Waiting => Ansi::new(),
        TaskPhase::Running => AnsiColor::Cyan.on_default(),
        TaskPhase::Retrying | TaskPhase::Omitted => AnsiColor::Yellow.on_default(),
        TaskPhase::Succeeded => AnsiColor::Green.on_default(),
        TaskPhase::Failed => AnsiColor::Red.on_default().bold(),
        TaskPhase::Cancelled => AnsiColor::Magenta.on_default(),
    }
}

/// The colour of a graph's phase.
pub fn graph_colour(phase: GraphPhase) -> Ansi {
    match phase {
        GraphPhase::Pending => Ansi::new().dimmed(),
        GraphPhase::Running | GraphPhase::Finalizing => AnsiColor::Cyan.on_default(),
        GraphPhase::Suspended | GraphPhase::Compensating => AnsiColor::Yellow.on_default(),
        GraphPhase::Cancelling => AnsiColor::Magenta.on_default(),
        GraphPhase::Complete => AnsiColor::Green.on_default(),
        GraphPhase::Failed => AnsiColor::Red.on_default().bold(),
    }
}

/// The name of a graph's phase.
pub fn graph_phase_name(phase: GraphPhase) -> &'static str {
    match phase {
        GraphPhase::Pending => "Pending",
        GraphPhase::Running => "Running",
        GraphPhase::Suspended => "Suspended",
        GraphPhase::Cancelling => "Cancelling",
        GraphPhase::Compensating => "Compensating",
        GraphPhase::Finalizing => "Finalizing",
        GraphPhase::Complete => "Complete",
        GraphPhase::Failed => "Failed",
    }
}
