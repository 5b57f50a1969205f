//! Every trigger over every combination of outcomes of up to three dependencies, judged by the rules as design
//! tells them: over lists of outcomes, not over counts.

use super::fixture::*;
use crate::{
    api::{DesiredState, FailurePolicy, TaskGraphStatus, TaskPhase, TaskStatus},
    engine::{graph::TriggerRule, reason},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Is {
    Running,
    Succeeded,
    FailedAllowed,
    Failed,
    Cancelled,
    Skipped,
    Omitted,
}

const ALL: [Is; 7] =
    [Is::Running, Is::Succeeded, Is::FailedAllowed, Is::Failed, Is::Cancelled, Is::Skipped, Is::Omitted];

impl Is {
    /// A task in `phase`, as those see it that depend on it.
    pub fn of(phase: TaskPhase, allow_failure: bool) -> Self {
        match phase {
            TaskPhase::Failed if allow_failure => Self::FailedAllowed,
            phase => {
                ALL.into_iter().find(|is| is.phase() == phase && *is != Self::FailedAllowed).unwrap_or(Self::Running)
            }
        }
    }

    fn phase(self) -> TaskPhase {
        match self {
            Self::Running => TaskPhase::Running,
            Self::Succeeded => TaskPhase::Succeeded,
            Self::FailedAllowed | Self::Failed => TaskPhase::Failed,
            Self::Cancelled => TaskPhase::Cancelled,
            Self::Skipped => TaskPhase::Skipped,
            Self::Omitted => TaskPhase::Omitted,
        }
    }

    fn succeeded(self) -> bool {
        matches!(self, Self::Succeeded | Self::FailedAllowed)
    }

    /// What is never laundered.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Omitted)
    }
}

/// The phase and reason that a task must come to; `Pending` while nothing is decided.
pub fn expected(rule: TriggerRule, dependencies: &[Is]) -> (TaskPhase, &'static str) {
    let all_final = !dependencies.contains(&Is::Running);
    let successes = dependencies.iter().filter(|is| is.succeeded()).count();
    let possible = dependencies.iter().filter(|is| is.succeeded() || **is == Is::Running).count();
    let holds = match rule {
        TriggerRule::NoneFailed => !dependencies.iter().any(|is| is.is_failure()) && successes >= 1,
        TriggerRule::AllSucceeded => dependencies.iter().all(|is| is.succeeded()),
        TriggerRule::MinSucceeded(least) => successes >= least as usize,
        TriggerRule::AllFinished => true,
        TriggerRule::AnyFailed => {
            dependencies.iter().any(|is| matches!(is, Is::Failed | Is::FailedAllowed | Is::Omitted))
        }
    };
    let decided = match rule {
        // without a failure it is not known yet whether one is to blame
        TriggerRule::MinSucceeded(least) => {
            let failed = dependencies.iter().any(|is| is.is_failure());
            all_final || holds || (failed && possible < least as usize)
        }
        _ => all_final,
    };
    if !decided {
        (TaskPhase::Pending, "")
    } else if holds {
        (TaskPhase::Running, "")
    } else if dependencies.iter().any(|is| is.is_failure()) {
        (TaskPhase::Omitted, reason::DEPENDENCY_FAILED)
    } else if rule == TriggerRule::AnyFailed {
        (TaskPhase::Skipped, reason::NOTHING_FAILED)
    } else {
        (TaskPhase::Skipped, reason::DEPENDENCY_SKIPPED)
    }
}

fn combinations(length: usize) -> Vec<Vec<Is>> {
    (0..length).fold(vec![vec![]], |known, _| {
        known.iter().flat_map(|head| ALL.map(|last| head.iter().copied().chain([last]).collect())).collect()
    })
}

fn stored(name: &str, is: Is) -> TaskStatus {
    let attempts = u32::from(!matches!(is, Is::Skipped | Is::Omitted));
    let job = (is == Is::Running).then(|| format!("g-{name}"));
    TaskStatus { name: name.into(), phase: is.phase(), attempts, job, start_time: Some(at(0)), ..TaskStatus::default() }
}

const NAMES: [&str; 3] = ["x", "y", "z"];

/// The triggers, in the order of the columns of the table.
const RULES: [TriggerRule; 7] = [
    TriggerRule::NoneFailed,
    TriggerRule::AllSucceeded,
    TriggerRule::MinSucceeded(1),
    TriggerRule::MinSucceeded(2),
    TriggerRule::MinSucceeded(3),
    TriggerRule::AllFinished,
    TriggerRule::AnyFailed,
];

fn outcome(letter: char) -> Is {
    match letter {
        'S' => Is::Succeeded,
        'A' => Is::FailedAllowed,
        'F' => Is::Failed,
        'C' => Is::Cancelled,
        'K' => Is::Skipped,
        'O' => Is::Omitted,
        other => panic!("{other} is no outcome"),
    }
}

/// What a task with this trigger comes to after dependencies that ended so, as the table tells.
fn told(rule: TriggerRule, dependencies: &[Is]) -> (TaskPhase, &'static str) {
    let rows = include_str!("triggers.txt").lines().filter(|line| !line.starts_with('#'));
    let sorted = |dependencies: &mut Vec<Is>| dependencies.sort_by_key(|is| *is as u8);
    let mut wanted = dependencies.to_vec();
    sorted(&mut wanted);
    let mut found = rows.filter_map(|row| {
        let (letters, cells) = row.split_once(' ')?;
        let mut outcomes: Vec<Is> = letters.chars().map(outcome).collect();
        sorted(&mut outcomes);
        (outcomes == wanted).then_some(cells)
    });
    let column = RULES.iter().position(|known| *known == rule).expect("a column");
    let cell = found.next().and_then(|cells| cells.split_whitespace().nth(column));
    assert_eq!(found.next(), None, "two rows for {dependencies:?}");
    match cell {
        Some("+") => (TaskPhase::Running, ""),
        Some("o") => (TaskPhase::Omitted, "DependencyFailed"),
        Some("s") => (TaskPhase::Skipped, "DependencySkipped"),
        Some("n") => (TaskPhase::Skipped, "NothingFailed"),
        other => panic!("{other:?} for {rule:?} over {dependencies:?}"),
    }
}

/// `t` after tasks of which these phases are stored; with `finishing`, those that can end by themselves run still.
fn after(rule: TriggerRule, dependencies: &[Is], finishing: bool) -> Driver {
    let mut build = Build::new();
    let names = &NAMES[..dependencies.len()];
    for (name, is) in names.iter().zip(dependencies) {
        let task = build.task(name);
        if *is == Is::FailedAllowed {
            task.allow_failure();
        }
    }
    build.task("t").after(names).trigger(rule);
    let mut fresh = Driver::new(build);
    fresh.set(|settings| settings.failure_policy = FailurePolicy::FinishBranches);
    let now = |is: Is| if finishing && ends_itself(is) { Is::Running } else { is };
    let tasks = names.iter().zip(dependencies).map(|(name, is)| stored(name, now(*is))).collect();
    let mut driver =
        fresh.restored_from(&TaskGraphStatus { start_time: Some(at(0)), tasks, ..TaskGraphStatus::default() });
    driver.step([]);
    driver
}

/// Whether a task that runs can come to it without a graph that is called off.
fn ends_itself(is: Is) -> bool {
    matches!(is, Is::Succeeded | Is::Failed | Is::FailedAllowed)
}

#[test]
fn truth_table() {
    let mut cases = 0;
    for rule in RULES {
        for dependencies in (1..=3).flat_map(combinations) {
            let driver = after(rule, &dependencies, false);
            let found = (driver.phase("t"), driver.reason("t"));
            assert_eq!(found, expected(rule, &dependencies), "{rule:?} over {dependencies:?}");
            if !dependencies.contains(&Is::Running) {
                assert_eq!(found, told(rule, &dependencies), "{rule:?} over {dependencies:?}, by the table");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 7 * (6 + 36 + 216));
}

#[test]
fn the_order_in_which_dependencies_end_does_not_matter() {
    for rule in RULES {
        for dependencies in (1..=3).flat_map(combinations) {
            if dependencies.contains(&Is::Running) || !dependencies.iter().copied().any(ends_itself) {
                continue;
            }
            for backwards in [false, true] {
                let mut driver = after(rule, &dependencies, true);
                let mut order: Vec<usize> =
                    (0..dependencies.len()).filter(|at| ends_itself(dependencies[*at])).collect();
                if backwards {
                    order.reverse();
                }
                for place in order {
                    match dependencies[place] {
                        Is::Succeeded => driver.ok(NAMES[place]),
                        _ => driver.fail(NAMES[place]),
                    };
                }
                let found = (driver.phase("t"), driver.reason("t"));
                assert_eq!(found, told(rule, &dependencies), "{rule:?} over {dependencies:?}, {backwards}");
            }
        }
    }
}

/// What a guard does to the task behind it, whatever the trigger says; `None`: it lets the trigger decide.
type Verdict = Option<(TaskPhase, &'static str)>;

/// A guard, for each end of its decision.
const GUARDS: [(Is, &str, Verdict); 7] = [
    (Is::Succeeded, "good", None),
    (Is::Succeeded, "poor", Some((TaskPhase::Skipped, "BranchNotTaken"))),
    (Is::FailedAllowed, "", Some((TaskPhase::Skipped, "BranchNotTaken"))),
    (Is::Skipped, "", Some((TaskPhase::Skipped, "DependencySkipped"))),
    (Is::Failed, "", Some((TaskPhase::Omitted, "DependencyFailed"))),
    (Is::Cancelled, "", Some((TaskPhase::Omitted, "DependencyFailed"))),
    (Is::Omitted, "", Some((TaskPhase::Omitted, "DependencyFailed"))),
];

#[test]
fn guards_come_before_triggers() {
    for (decision, branch, barred) in GUARDS {
        for rule in RULES {
            for other in ALL {
                let mut build = Build::new();
                let choice = build.task("choice").decision(&["good", "poor"]);
                if decision == Is::FailedAllowed {
                    choice.allow_failure();
                }
                let task = build.task("x");
                if other == Is::FailedAllowed {
                    task.allow_failure();
                }
                build.task("t").after(&["choice/good", "x"]).trigger(rule);
                let mut fresh = Driver::new(build);
                fresh.set(|settings| settings.failure_policy = FailurePolicy::FinishBranches);
                let branch = Some(branch.to_owned()).filter(|branch| !branch.is_empty());
                let choice = TaskStatus { branch, attempts: 0, ..stored("choice", decision) };
                let tasks = vec![choice, stored("x", other)];
                let status = TaskGraphStatus { start_time: Some(at(0)), tasks, ..TaskGraphStatus::default() };
                let mut driver = fresh.restored_from(&status);
                driver.step([]);
                let wanted = barred.unwrap_or_else(|| match other {
                    Is::Running => expected(rule, &[Is::Succeeded, Is::Running]),
                    other => told(rule, &[Is::Succeeded, other]),
                });
                let found = (driver.phase("t"), driver.reason("t"));
                assert_eq!(found, wanted, "{rule:?} behind {decision:?} {other:?}");
            }
        }
    }
}

#[test]
fn what_happens_to_the_others_later_does_not_touch_a_task_that_started() {
    let mut build = Build::new();
    build.task("x");
    build.task("y");
    build.task("t").after(&["x", "y"]).trigger(TriggerRule::MinSucceeded(1));
    let mut driver = Driver::new(build);
    driver.ok("x");
    assert_eq!(driver.actions(), ["launch t/1"]);
    driver.fail("y");
    assert_eq!(driver.line(), "x=Succeeded y=Failed/Error t=Running");
}

/// What two guards do to the task behind both: the first of this list that one of them says.
fn of_both(one: Verdict, other: Verdict) -> Verdict {
    let told = ["BranchNotTaken", "DependencySkipped", "DependencyFailed"];
    told.iter().find_map(|reason| [one, other].into_iter().flatten().find(|verdict| verdict.1 == *reason))
}

/// Every pair of ends of two decisions, in both orders: the second one runs still when the first one has ended.
#[test]
fn the_order_in_which_guards_are_decided_does_not_matter() {
    for (first, branch, verdict) in GUARDS {
        for (second, other_branch, other_verdict) in GUARDS {
            for backwards in [false, true] {
                let mut build = Build::new();
                for (name, is) in [("x", first), ("y", second)] {
                    let decision = build.task(name).decision(&["good", "poor"]);
                    if is == Is::FailedAllowed {
                        decision.allow_failure();
                    }
                }
                build.task("t").after(&["x/good", "y/good"]).trigger(TriggerRule::AllFinished);
                let mut fresh = Driver::new(build);
                fresh.set(|settings| settings.failure_policy = FailurePolicy::FinishBranches);
                let ended = |name: &str, is: Is, branch: &str| {
                    let branch = Some(branch.to_owned()).filter(|branch| !branch.is_empty());
                    TaskStatus { branch, attempts: 0, ..stored(name, is) }
                };
                let (mut x, mut y) = (ended("x", first, branch), ended("y", second, other_branch));
                let later = if backwards { &mut x } else { &mut y };
                let open = TaskStatus { name: later.name.clone(), ..TaskStatus::default() };
                let end = std::mem::replace(later, open);
                let status = |x: &TaskStatus, y: &TaskStatus, t: TaskStatus| TaskGraphStatus {
                    start_time: Some(at(0)),
                    tasks: vec![x.clone(), y.clone(), t],
                    ..TaskGraphStatus::default()
                };
                let known = if backwards { other_verdict } else { verdict };
                // while one is open, only that is decided which nothing outweighs
                let mut driver =
                    fresh.restored_from(&status(&x, &y, TaskStatus { name: "t".into(), ..TaskStatus::default() }));
                driver.set(|settings| settings.desired_state = DesiredState::Suspend);
                let early = known.filter(|(_, reason)| *reason == "BranchNotTaken").unwrap_or((TaskPhase::Pending, ""));
                let case = format!("{first:?} {branch} and {second:?} {other_branch}, backwards: {backwards}");
                assert_eq!((driver.phase("t"), driver.reason("t")), early, "{case}");
                // and at last
                *(if backwards { &mut x } else { &mut y }) = end;
                let known = driver.status().tasks[2].clone();
                let mut driver = fresh.restored_from(&status(&x, &y, known));
                driver.step([]);
                let wanted = of_both(verdict, other_verdict).unwrap_or((TaskPhase::Running, ""));
                assert_eq!((driver.phase("t"), driver.reason("t")), wanted, "{case}");
            }
        }
    }
}
