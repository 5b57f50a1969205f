//! Every trigger over every combination of outcomes of up to three dependencies, judged by the rules as design
//! tells them: over lists of outcomes, not over counts.

use super::fixture::*;
use crate::{
    api::{FailurePolicy, TaskGraphStatus, TaskPhase, TaskStatus},
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
    fn is_failure(self) -> bool {
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
        TriggerRule::MinSucceeded(least) => holds || possible < least as usize,
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

#[test]
fn truth_table() {
    use TriggerRule::*;
    let names = ["x", "y", "z"];
    let mut cases = 0;
    for rule in [NoneFailed, AllSucceeded, MinSucceeded(1), MinSucceeded(2), MinSucceeded(3), AllFinished, AnyFailed] {
        for dependencies in (1..=3).flat_map(combinations) {
            let mut build = Build::new();
            let names = &names[..dependencies.len()];
            for (name, is) in names.iter().zip(&dependencies) {
                let task = build.task(name);
                if *is == Is::FailedAllowed {
                    task.allow_failure();
                }
            }
            build.task("t").after(names).trigger(rule);
            let policy =
                |settings: &mut crate::engine::Settings| settings.failure_policy = FailurePolicy::FinishBranches;
            let mut fresh = Driver::new(build);
            fresh.set(policy);
            let tasks = names.iter().zip(&dependencies).map(|(name, is)| stored(name, *is)).collect();
            let status = TaskGraphStatus { start_time: Some(at(0)), tasks, ..TaskGraphStatus::default() };
            let mut driver = fresh.restored_from(&status);
            driver.step([]);
            let (phase, reason) = expected(rule, &dependencies);
            assert_eq!((driver.phase("t"), driver.reason("t")), (phase, reason), "{rule:?} over {dependencies:?}");
            cases += 1;
        }
    }
    assert_eq!(cases, 7 * (7 + 49 + 343));
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
