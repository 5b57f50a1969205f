use serde_json::json;

use super::*;

fn limits(parallelism: Option<u32>, max_failures: Option<u32>) -> Limits {
    Limits { parallelism, max_failures }
}

fn failure(blame: Blame) -> Failure {
    Failure { reason: "Error".into(), message: Some("no".into()), exit_code: Some(7), blame }
}

fn lost() -> Failure {
    Failure { reason: "JobLost".into(), message: Some("gone".into()), exit_code: None, blame: Blame::Cluster }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// All that may be launched now.
fn take(items: &mut ItemSet) -> Vec<u32> {
    std::iter::from_fn(|| items.take_next()).collect()
}

/// Acts by letter: `s` succeeds, `f` fails by the task's fault, `c` by the cluster's, `r` is refused for good, `l` is lost,
/// `u` goes on.
fn played(limits: Limits, script: &str) -> ItemSet {
    let mut items = ItemSet::new(u32::try_from(script.len()).unwrap(), limits);
    let letters: Vec<char> = script.chars().collect();
    loop {
        let taken = take(&mut items);
        if taken.is_empty() {
            return items;
        }
        for index in taken {
            let letter = letters[index as usize];
            if letter != 'r' {
                items.launched(index);
            }
            match letter {
                's' => _ = items.succeed(index, Map::from_iter([("n".to_owned(), json!(index))])),
                'f' => _ = items.fail(index, failure(Blame::Task)),
                'c' => _ = items.fail(index, failure(Blame::Cluster)),
                'r' => _ = items.fail(index, failure(Blame::Final)),
                'l' => _ = items.fail(index, lost()),
                _ => {}
            }
        }
    }
}

fn told(items: &ItemSet) -> String {
    let of = |word: &str, failure: &Failure| {
        let message = failure.message.as_deref().unwrap_or_default();
        format!("{word} {}/{:?}/{:?}: {message}", failure.reason, failure.blame, failure.exit_code)
    };
    match items.verdict() {
        Verdict::Open => "open".into(),
        Verdict::Succeeded(outputs) => Value::Object(outputs).to_string(),
        Verdict::Failed(failure) => of("failed", &failure),
        Verdict::Stop(failure) => of("stop", &failure),
    }
}

#[test]
fn so_many_at_a_time_the_first_first() {
    let mut items = ItemSet::new(5, limits(Some(2), None));
    assert_eq!(take(&mut items), [0, 1]);
    assert!(items.launched(1) && !items.launched(1), "told once");
    items.succeed(1, Map::new());
    assert_eq!(take(&mut items), [2]);
    assert!(items.fail(0, failure(Blame::Task)) && !items.succeed(0, Map::new()), "the first end counts");
    items.succeed(2, Map::new());
    assert_eq!(take(&mut items), [3, 4], "all are tried");
    assert_eq!(take(&mut ItemSet::new(3, limits(None, None))), [0, 1, 2]);
    // a place that there is not
    assert!(!items.launched(5) && !items.succeed(5, Map::new()) && !items.is_open(5));
}

#[test]
fn what_an_attempt_comes_to() {
    let all_fail = "ItemsFailed/Task/Some(7): 1 of 3 items failed: 1; item 1: Error, exit code 7: no";
    for (max_failures, script, expected) in [
        (None, "sss", r#"{"n":[0,1,2]}"#.to_owned()),
        (None, "ssu", "open".into()),
        (None, "sfu", "open".into()),
        (None, "sfs", format!("failed {all_fail}")),
        (Some(1), "sfs", r#"{"n":[0,null,2]}"#.into()),
        (Some(0), "sfs", format!("failed {all_fail}")),
        // what runs is stopped
        (Some(0), "ufu", format!("stop {all_fail}")),
        (Some(1), "ufu", "open".into()),
        (Some(3), "fff", "{}".into()),
        // the cluster is to blame for all, or it is not
        (
            None,
            "ccs",
            "failed ItemsFailed/Cluster/Some(7): 2 of 3 items failed: 0-1; item 0: Error, exit code 7: no".into(),
        ),
        (
            None,
            "cfs",
            "failed ItemsFailed/Task/Some(7): 2 of 3 items failed: 0-1; item 0: Error, exit code 7: no".into(),
        ),
        // those that are refused would be refused again, unless so many may fail
        (
            None,
            "rss",
            "failed ItemsFailed/Final/Some(7): 1 of 3 items failed: 0; item 0: Error, exit code 7: no".into(),
        ),
        (
            Some(1),
            "rfs",
            "failed ItemsFailed/Task/Some(7): 2 of 3 items failed: 0-1; item 0: Error, exit code 7: no".into(),
        ),
        // one that is lost: nobody knows how it would have ended
        (Some(3), "lss", "failed JobLost/Cluster/None: item 0: JobLost: gone".into()),
        (Some(3), "lsu", "stop JobLost/Cluster/None: item 0: JobLost: gone".into()),
    ] {
        assert_eq!(told(&played(limits(None, max_failures), script)), expected, "{script} {max_failures:?}");
    }
}

#[test]
fn after_too_many_failures_no_more_are_launched() {
    let items = played(limits(Some(1), Some(1)), "fsfss");
    let status = items.status();
    assert_eq!((status.succeeded, status.failed, status.active), (1, 2, 0));
    assert_eq!((status.failed_indexes.as_deref(), status.launched.as_deref()), (Some("0,2"), Some("0-2")));
    let lost = played(limits(Some(1), None), "sls");
    assert_eq!(lost.status().launched.as_deref(), Some("0-1"));
}

#[test]
fn after_a_restart_only_what_was_not_launched_is() {
    let limits = limits(Some(3), None);
    let mut items = ItemSet::restore(6, limits, &Indexes::read(Some("0,2"), 6));
    assert_eq!(items.live().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(take(&mut items), [1]);
    // one that was created, though nobody stored it
    items.launched(4);
    items.succeed(0, Map::new());
    items.succeed(2, Map::new());
    assert_eq!((take(&mut items), items.live().collect::<Vec<_>>()), (vec![3], vec![4]));
    assert_eq!(items.status().active, 1);
    assert_eq!(items.status().launched.as_deref(), Some("0,2,4"));
}

#[test]
fn items_that_do_not_begin_are_late() {
    let mut items = ItemSet::new(3, limits(None, None));
    take(&mut items);
    for index in 0..3 {
        items.launched(index);
        items.created(index, at(100 + i64::from(index)));
    }
    items.created(0, at(500));
    assert_eq!(items.first_due(), Some(at(100)), "the first telling counts");
    items.blocked(1, Block { reason: "ErrImagePull".into(), message: "no such image".into(), cluster: false });
    items.started(0);
    assert_eq!((items.first_due(), items.late(at(100))), (Some(at(101)), None));
    let (index, block) = items.late(at(101)).unwrap();
    assert_eq!((index, block.map(|block| &*block.reason)), (1, Some("ErrImagePull")));
    items.succeed(1, Map::new());
    items.fail(2, failure(Blame::Task));
    assert_eq!(items.first_due(), None);
    // it runs though it was not known to exist, and is not waited for any more
    let mut items = ItemSet::new(1, limits(None, None));
    items.started(0);
    items.created(0, at(1));
    assert_eq!((items.first_due(), items.status().active), (None, 1));
    // nor was one of which its creation is told first
    let mut items = ItemSet::new(1, limits(None, None));
    take(&mut items);
    assert!(items.created(0, at(1)));
    assert!(!items.launched(0));
    assert_eq!((items.first_due(), items.status().active), (Some(at(1)), 1));
}

#[test]
fn outputs_over_their_bound_fail_the_attempt() {
    let mut items = ItemSet::new(1000, limits(None, None));
    take(&mut items);
    for index in 0..1000 {
        items.succeed(index, Map::from_iter([(format!("o{index}"), json!(1))]));
    }
    assert!(told(&items).starts_with("failed OutputsTooLarge/Final"), "{}", told(&items));
}
