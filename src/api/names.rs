//! Every label, annotation, condition and reserved name, and what a name may be, in one place.

/// API group of all kinds.
pub const GROUP: &str = "taskgraph.dev";
/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// Category under which `kubectl get` lists all kinds. Not `taskgraph`: that is the singular of a kind, and
/// `kubectl get taskgraph NAME` would be refused as naming several resources.
pub const CATEGORY: &str = "taskgraph-all";
/// Field manager of every write, and `managed-by` of what the operator makes.
pub const MANAGER: &str = "taskgraph";

/// Label: name of the graph.
pub const LABEL_GRAPH: &str = "taskgraph.dev/graph";
/// Label: UID of the graph.
pub const LABEL_GRAPH_UID: &str = "taskgraph.dev/graph-uid";
/// Label: what the Job is for; see [`ROLE_TASK`].
pub const LABEL_ROLE: &str = "taskgraph.dev/role";
/// Label: name of the task.
pub const LABEL_TASK: &str = "taskgraph.dev/task";
/// Label: number of the attempt, from 1.
pub const LABEL_ATTEMPT: &str = "taskgraph.dev/attempt";
/// Label: place of the item, from 0, where each has a Job or child graph of its own.
pub const LABEL_ITEM: &str = "taskgraph.dev/item";
/// Label: name of the volume that a claim is.
pub const LABEL_VOLUME: &str = "taskgraph.dev/volume";
/// Label: shard of the graph, 0 to 63.
pub const LABEL_SHARD: &str = "taskgraph.dev/shard";
/// Annotation on a Job or child graph: hash of the task definition that it was made from.
pub const ANNOTATION_HASH: &str = "taskgraph.dev/definition-hash";
/// Annotation on a child graph: the `ControllerRevision` of its parent that holds the templates it runs.
pub const ANNOTATION_REVISION: &str = "taskgraph.dev/revision";
/// Annotation that people set on a graph which was restored from a backup of objects: [`RESTORED_HOLD`] or
/// [`RESTORED_CONTINUE`].
pub const ANNOTATION_RESTORED: &str = "taskgraph.dev/restored";
/// Value of [`ANNOTATION_RESTORED`]: the graph, if it has not begun here, waits for a word.
pub const RESTORED_HOLD: &str = "Hold";
/// Value of [`ANNOTATION_RESTORED`]: the word.
pub const RESTORED_CONTINUE: &str = "Continue";
/// Label that Velero gives to all that it restores.
pub const VELERO_RESTORE: &str = "velero.io/restore-name";
/// Annotation on a graph, written by admission: the user name of whoever created it.
pub const ANNOTATION_CREATED_BY: &str = "taskgraph.dev/created-by";
/// Annotation on a graph, written by admission: the user name of whoever changed last what is run.
pub const ANNOTATION_DESIGNED_BY: &str = "taskgraph.dev/designed-by";
/// Annotation on a graph, written by admission: the user name of whoever changed last its `desiredState` or `rerun`.
pub const ANNOTATION_OPERATED_BY: &str = "taskgraph.dev/operated-by";
/// Annotation on a graph, written by admission: the generation that it had when the last note was taken. Where it has
/// another by now, a change was stored without a note, and nobody knows whose.
pub const ANNOTATION_NOTED_GENERATION: &str = "taskgraph.dev/noted-generation";
/// Annotation on a `ConfigMap`: hash of the items that it holds.
pub const ANNOTATION_ITEMS_HASH: &str = "taskgraph.dev/items-hash";
/// Annotation on a graph: the W3C trace context of whoever made it; its trace is part of that one.
pub const ANNOTATION_TRACEPARENT: &str = "traceparent";
/// The environment variable that hands the trace context of an attempt to its containers.
pub const TRACEPARENT_VARIABLE: &str = "TRACEPARENT";
/// Annotation on a Pod that names its main container.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The main container where no annotation names one.
pub const MAIN_CONTAINER: &str = "main";
/// Every label and annotation of ours starts with this; users may not set them on pods.
pub const LABEL_PREFIX: &str = "taskgraph.dev/";

/// Value of [`LABEL_ROLE`]: an attempt of a task.
pub const ROLE_TASK: &str = "task";
/// Value of [`LABEL_ROLE`]: an attempt of what undoes a task.
pub const ROLE_COMPENSATION: &str = "compensation";

/// Value of [`LABEL_ROLE`]: a success that is remembered.
pub const ROLE_CACHE: &str = "cache";
/// Annotation on a success that is remembered: until when.
pub const ANNOTATION_EXPIRES: &str = "taskgraph.dev/expires";
/// Value of [`LABEL_ROLE`]: a claim of a graph.
pub const ROLE_VOLUME: &str = "volume";

/// Number of shards that graphs are hashed into.
pub const SHARDS: u64 = 64;

/// Prefix of the environment variables that every container of a task has.
pub const ENV_PREFIX: &str = "TASKGRAPH_";

/// Where the item of a task with `forEach` lies in its containers.
pub const ITEM_PATH: &str = "/var/run/taskgraph/item";
/// Name of the volume that holds the items in a pod.
pub const ITEM_VOLUME: &str = "taskgraph-items";
/// The environment variable that Kubernetes sets to the place of an item, from 0.
pub const ITEM_INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Condition: the spec was found valid and its templates are pinned.
pub const CONDITION_ACCEPTED: &str = "Accepted";
/// Condition: every task ended and nothing failed.
pub const CONDITION_COMPLETE: &str = "Complete";
/// Condition: every task ended and something failed.
pub const CONDITION_FAILED: &str = "Failed";
/// Condition: nothing new is started (`desiredState: Suspend`).
pub const CONDITION_SUSPENDED: &str = "Suspended";
/// Condition of kstatus: this generation is not accepted yet.
pub const CONDITION_RECONCILING: &str = "Reconciling";
/// Condition of kstatus: this generation was refused.
pub const CONDITION_STALLED: &str = "Stalled";

/// The longest name of a user that is noted, in characters.
pub const MAX_USER: usize = 253;

/// The name of a user, cut to what is noted of one.
pub fn noted_user(name: &str) -> &str {
    name.char_indices().nth(MAX_USER).and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

/// Whether a text is a DNS label, as RFC 1123 has it and Kubernetes asks of most names.
pub fn is_dns_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}
