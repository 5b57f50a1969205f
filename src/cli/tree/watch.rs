//! A graph followed until it finishes.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

use super::{
    Outcome, Screen,
    changes::changes,
    client::Graphs,
    outcome,
    render::{Line, draw},
};
use crate::api::TaskGraph;

/// How often running times are brought up to date on a terminal.
const TICK: Duration = Duration::from_secs(1);

/// Shows every change of the graph until it finishes or is deleted.
pub async fn run(graphs: &Graphs, graph: TaskGraph, screen: Screen) -> Result<ExitCode> {
    let only = watcher::Config::default().fields(&format!("metadata.name={}", graph.name_any()));
    let mut events = watcher::watcher(graphs.api.clone(), only).default_backoff().boxed();
    let mut view = View { screen, drawn: 0 };
    view.show(None, &graph)?;
    let mut current = graph;
    // whether the list that a watch begins with, or begins again with, has named the graph
    let mut listed = false;
    let mut tick = tokio::time::interval(TICK);
    while outcome(&current).is_none() {
        let event = tokio::select! {
            event = events.try_next() => event,
            _ = tick.tick(), if screen.terminal => {
                view.show(Some(&current), &current)?;
                continue;
            }
        };
        match event {
            Ok(Some(Event::Apply(graph) | Event::InitApply(graph))) => {
                listed = true;
                view.show(Some(&current), &graph)?;
                current = graph;
            }
            Ok(Some(Event::Init)) => listed = false,
            Ok(Some(Event::InitDone)) if listed => {}
            Ok(Some(Event::InitDone | Event::Delete(_))) => {
                anstream::eprintln!("the graph was deleted");
                return Ok(ExitCode::FAILURE);
            }
            // the watcher goes on by itself after a pause
            Err(error) => view.note(&format!("the watch was broken off, and is tried again: {error}")),
            Ok(None) => bail!("the watch ended"),
        }
    }
    view.finish(&current)?;
    Ok(if outcome(&current) == Some(Outcome::Complete) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The picture on a terminal, or the lines of a log.
struct View {
    screen: Screen,
    /// Lines of the picture that stands on the terminal now.
    drawn: usize,
}

impl View {
    fn show(&mut self, before: Option<&TaskGraph>, after: &TaskGraph) -> Result<()> {
        let now = Timestamp::now();
        if self.screen.terminal {
            let (width, height) = self.screen.size();
            let lines = draw(after, now, width, self.screen.style);
            // the line below the picture belongs to the cursor
            return self.redraw(&window(&lines, height.saturating_sub(1)));
        }
        let mut out = String::new();
        for line in changes(before, after) {
            let _ = writeln!(out, "{now:.0} {line}");
        }
        io::stdout().lock().write_all(out.as_bytes()).context("cannot print")
    }

    /// The whole picture at the end, however long it is.
    fn finish(&mut self, graph: &TaskGraph) -> Result<()> {
        if !self.screen.terminal {
            return Ok(());
        }
        let lines = draw(graph, Timestamp::now(), self.screen.size().0, self.screen.style);
        self.redraw(&lines.into_iter().map(|line| line.text).collect::<Vec<_>>())
    }

    fn redraw(&mut self, lines: &[String]) -> Result<()> {
        let out = frame(self.drawn, lines);
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()).context("cannot print")
    }

    /// Below the picture, which is then drawn anew beneath.
    fn note(&mut self, message: &str) {
        anstream::eprintln!("{message}");
        self.drawn = 0;
    }
}

/// What to print so that `lines` take the place of the `drawn` lines above the cursor, shown all at once
/// by terminals that know how.
fn frame(drawn: usize, lines: &[String]) -> String {
    let mut out = "\x1b[?2026h".to_owned();
    if drawn > 0 {
        let _ = write!(out, "\x1b[{drawn}F");
    }
    for line in lines {
        let _ = writeln!(out, "{line}\x1b[K");
    }
    out + "\x1b[J\x1b[?2026l"
}

/// As many lines as a terminal has: around the first task on which something is going on, with the
/// number of those above and below.
fn window(lines: &[Line], height: usize) -> Vec<String> {
    let texts = |lines: &[Line]| lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    if lines.len() <= height {
        return texts(lines);
    }
    // the graph's own line, and one each for what is above and below
    let room = height.saturating_sub(3).max(1);
    let active = lines.iter().position(|line| line.active).unwrap_or(1);
    let start = active.saturating_sub(room / 3).clamp(1, lines.len().saturating_sub(room).max(1));
    let end = (start + room).min(lines.len());
    let mut shown = texts(lines.get(..1).unwrap_or_default());
    shown.push(if start > 1 { format!("  … {} lines above", start - 1) } else { String::new() });
    shown.extend(texts(lines.get(start..end).unwrap_or_default()));
    shown.push(if end < lines.len() { format!("  … {} lines below", lines.len() - end) } else { String::new() });
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize, active: usize) -> Vec<Line> {
        (0..count).map(|index| Line { text: format!("l{index}"), active: index == active }).collect()
    }

    #[test]
    fn shows_what_goes_on() {
        assert_eq!(window(&lines(3, 1), 5), ["l0", "l1", "l2"]);
        assert_eq!(
            window(&lines(100, 50), 9),
            ["l0", "  … 47 lines above", "l48", "l49", "l50", "l51", "l52", "l53", "  … 46 lines below"]
        );
        assert_eq!(window(&lines(100, 99), 6), ["l0", "  … 96 lines above", "l97", "l98", "l99", ""]);
        assert_eq!(window(&lines(100, 1), 6), ["l0", "", "l1", "l2", "l3", "  … 96 lines below"]);
        for height in 0..12 {
            assert!(window(&lines(10, 5), height).len() <= height.max(4), "{height}");
        }
    }

    #[test]
    fn redraws_in_place() {
        assert_eq!(frame(0, &["a".into()]), "\x1b[?2026ha\x1b[K\n\x1b[J\x1b[?2026l");
        assert_eq!(frame(2, &["a".into()]), "\x1b[?2026h\x1b[2Fa\x1b[K\n\x1b[J\x1b[?2026l");
    }
}
