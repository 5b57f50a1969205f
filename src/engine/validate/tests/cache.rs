//! `cache` of a task.

use super::*;

#[test]
fn caches() {
    let cache = |cache: Value| {
        with(
            tasks(json!([{"name": "a"}, {"name": "t", "dependsOn": ["a"], "cache": cache}])),
            json!({"arguments": {"day": "x"}}),
        )
    };
    let mounting = |read_only: bool| {
        with(
            tasks(json!([{
                "name": "t", "cache": {"maxAge": "1h"}, "volumes": [{"name": "files", "mountPath": "/files", "readOnly": read_only}],
            }])),
            json!({"volumeClaimTemplates": [{"name": "files", "spec": {}}]}),
        )
    };
    refused(vec![
        (cache(json!({"maxAge": "7d"})), &[]),
        (cache(json!({"maxAge": "7d", "key": "${{ args.day }} ${{ tasks.a.outputs.rows }} v2"})), &[]),
        (
            cache(json!({"maxAge": "soon"})),
            &[
                "spec.tasks[1].cache.maxAge: \"soon\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
            ],
        ),
        (
            cache(json!({"maxAge": "7d", "key": ""})),
            &["spec.tasks[1].cache.key: 0 bytes; write 1 to 2048, or leave it out"],
        ),
        (
            cache(json!({"maxAge": "7d", "key": "${{ attempt }}"})),
            &["spec.tasks[1].cache.key: there is no attempt yet when this is looked at"],
        ),
        (
            cache(json!({"maxAge": "7d", "key": "${{ args.dya }}"})),
            &["spec.tasks[1].cache.key: spec.arguments has no \"dya\" (did you mean \"day\"?)"],
        ),
        (mounting(true), &[]),
        (
            mounting(false),
            &[
                "spec.tasks[0].volumes[0]: what the task leaves on a volume is not kept with its outputs: mount it readOnly, or leave cache out",
            ],
        ),
        (
            with(
                tasks(json!([{"name": "a"}])),
                json!({"finally": [{"name": "f", "container": {}, "cache": {"maxAge": "1h"}}]}),
            ),
            &["spec.finally[0].cache: a task of finally always runs: leave it out"],
        ),
        (
            tasks(json!([{"name": "d", "decision": {"branches": [{"name": "x"}]}, "cache": {"maxAge": "1h"}}])),
            &["spec.tasks[0].cache: a decision has no Job: cache has no meaning"],
        ),
    ]);
}
