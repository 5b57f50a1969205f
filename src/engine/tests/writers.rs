//! The history names whose doing it is.

use serde_json::json;

use super::fixture::*;
use crate::{
    api::DesiredState,
    engine::{Settings, Writers},
};

fn writers(created: &str, designed: Option<&str>, operated: Option<&str>) -> Writers {
    Writers {
        created: Some(created.to_owned()),
        designed: designed.map(str::to_owned),
        operated: operated.map(str::to_owned),
    }
}

fn told(driver: &Driver) -> Vec<(String, Option<String>)> {
    driver.status().history.into_iter().map(|entry| (entry.event, entry.by)).collect()
}

fn expected(entries: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    entries.iter().map(|(event, by)| ((*event).to_owned(), by.map(str::to_owned))).collect()
}

#[test]
fn each_deed_has_its_doer_also_after_a_restart() {
    let graph = |image: &str| json!({"tasks": [{"name": "a", "container": {"image": image}}]});
    let mut driver = Driver::of(graph("localhost/busybox:1"));
    driver.run.set_writers(writers("ann", None, None));
    driver.run.set_writers(writers("ann", Some("bob"), None));
    driver.ok("a");
    driver.edit(graph("localhost/busybox:2"));
    driver.run.set_writers(writers("ann", Some("bob"), Some("eve")));
    driver.rerun(json!({"id": "1", "scope": "All"}));
    driver.ok("a");
    let all = expected(&[
        ("Accepted", Some("ann")),
        ("Finished", None),
        ("Edited", Some("bob")),
        ("Rerun", Some("eve")),
        ("Finished", None),
    ]);
    assert_eq!(told(&driver), all);
    let again = driver.restored_from(&driver.status());
    assert_eq!(told(&again), all);
}

#[test]
fn what_nobody_operated_since_is_as_it_was_created() {
    let mut driver = Driver::of(json!({"tasks": [{"name": "a", "container": {"image": "localhost/busybox:1"}}]}));
    let want = |driver: &mut Driver, state: DesiredState| {
        let settings = driver.run.settings().clone();
        driver.run.set_settings(Settings { desired_state: state, ..settings });
        driver.step([]);
    };
    driver.run.set_writers(writers("ann", None, None));
    want(&mut driver, DesiredState::Suspend);
    driver.run.set_writers(writers("ann", None, Some("eve")));
    want(&mut driver, DesiredState::Run);
    want(&mut driver, DesiredState::Cancel);
    let entries =
        [("Accepted", Some("ann")), ("Suspended", Some("ann")), ("Resumed", Some("eve")), ("Cancelled", Some("eve"))];
    assert_eq!(told(&driver)[..4], expected(&entries));
}

/// Without admission a user may write there what he likes; a status that the API server refuses would keep the graph from its end.
#[test]
fn a_name_is_cut_to_what_a_status_takes() {
    let mut driver = Driver::of(json!({"tasks": [{"name": "a", "container": {"image": "localhost/busybox:1"}}]}));
    let long = "ä".repeat(300);
    driver.run.set_writers(writers(&long, Some(&long), Some(&long)));
    driver.rerun(json!({"id": "1", "scope": "All"}));
    let names: Vec<_> = driver.status().history.into_iter().filter_map(|entry| entry.by).collect();
    assert_eq!(names, vec!["ä".repeat(253); 2]);
}
