//! What was found, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::text;

/// Whether a finding makes the check fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It would be refused.
    Error,
    /// It could not be checked.
    Warning,
}

/// Something found in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1; none if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column, from 1, of a mistake in the syntax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// `KIND/NAME`; none where the document could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Field path; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Whether it makes the check fail.
    pub severity: Severity,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The problems and warnings, in the order of the files.
    pub problems: Vec<Problem>,
    /// How much was looked at.
    pub summary: Summary,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Files.
    pub files: usize,
    /// `TaskGraph`s.
    pub graphs: usize,
    /// `TaskTemplate`s and `ClusterTaskTemplate`s.
    pub templates: usize,
    /// Objects of other kinds, which were not looked at.
    pub ignored: usize,
    /// Problems of severity error.
    pub errors: usize,
    /// Problems of severity warning.
    pub warnings: usize,
}

impl Report {
    /// Adds a problem, and counts it.
    pub fn add(&mut self, problem: Problem) {
        match problem.severity {
            Severity::Error => self.summary.errors += 1,
            Severity::Warning => self.summary.warnings += 1,
        }
        self.problems.push(problem);
    }

    /// A line for each problem, and one that sums up.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&line(problem));
            out.push('\n');
        }
        out.push_str(&self.summary.to_text());
        out.push('\n');
        out
    }
}

/// `FILE:LINE: KIND/NAME: PATH: message`
fn line(problem: &Problem) -> String {
    let mut line = text::one_line(&problem.file);
    for number in [problem.line, problem.column].into_iter().flatten() {
        let _ = write!(line, ":{number}");
    }
    let warning = if problem.severity == Severity::Warning { "warning" } else { "" };
    for part in [warning, problem.object.as_deref().unwrap_or_default(), problem.path.as_str()] {
        if !part.is_empty() {
            line.push_str(": ");
            line.push_str(&text::one_line(part));
        }
    }
    line.push_str(": ");
    line.push_str(&text::one_line(&problem.message));
    line
}

impl Summary {
    fn to_text(&self) -> String {
        let outcome = match (self.errors, self.warnings) {
            (0, 0) => "no problems".to_owned(),
            (0, warnings) => format!("no problems, {}", count(warnings, "warning")),
            (errors, 0) => count(errors, "problem"),
            (errors, warnings) => format!("{}, {}", count(errors, "problem"), count(warnings, "warning")),
        };
        let looked_at = [count(self.graphs, "graph"), count(self.templates, "template")].join(" and ");
        let ignored = match self.ignored {
            0 => String::new(),
            ignored => format!(" ({} of other kinds not looked at)", count(ignored, "object")),
        };
        format!("{looked_at} in {}: {outcome}{ignored}", count(self.files, "file"))
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
