//! Every reason that the engine itself gives for a task or a graph, in one place.

/// A task's `when` is false.
pub const CONDITION_FALSE: &str = "ConditionFalse";
/// A decision took another branch.
pub const BRANCH_NOT_TAKEN: &str = "BranchNotTaken";
/// The trigger cannot hold, since dependencies were skipped.
pub const DEPENDENCY_SKIPPED: &str = "DependencySkipped";
/// The trigger cannot hold, since a dependency failed, was cancelled or omitted.
pub const DEPENDENCY_FAILED: &str = "DependencyFailed";
/// The trigger is `AnyFailed`, and nothing failed.
pub const NOTHING_FAILED: &str = "NothingFailed";
/// The graph's failure policy called the task off.
pub const FAILURE_POLICY: &str = "FailurePolicy";
/// The graph was cancelled.
pub const CANCELLED: &str = "Cancelled";
/// The graph's `timeout`, `compensationTimeout` or `finallyTimeout` ran out.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// The task of a compensation did not succeed.
pub const NOTHING_TO_COMPENSATE: &str = "NothingToCompensate";
/// The graph undoes what Succeeded.
pub const COMPENSATING: &str = "Compensating";
/// The outputs are those of an earlier success.
pub const CACHED: &str = "Cached";
/// An expression gave no value.
pub const EXPRESSION_ERROR: &str = "ExpressionError";
/// No branch of a decision holds.
pub const NO_BRANCH: &str = "NoBranch";
/// A delay: its time has not come.
pub const DELAY: &str = "Delay";
/// An approval is waited for.
pub const APPROVAL_PENDING: &str = "ApprovalPending";
/// Somebody approved.
pub const APPROVED: &str = "Approved";
/// Somebody rejected, or nobody decided in time where that means the same.
pub const REJECTED: &str = "Rejected";
/// Nobody decided in time.
pub const APPROVAL_TIMEOUT: &str = "ApprovalTimeout";
/// The list of `forEach` is empty.
pub const NO_ITEMS: &str = "NoItems";
/// More items of `forEach` failed than may.
pub const ITEMS_FAILED: &str = "ItemsFailed";
/// The Job of an attempt, or of an item of it, was deleted while it ran.
pub const JOB_LOST: &str = "JobLost";
/// The same, of a child graph.
pub const CHILD_LOST: &str = "ChildLost";
/// A declared output without default is missing.
pub const OUTPUT_MISSING: &str = "OutputMissing";
/// An output is not of its declared type.
pub const OUTPUT_INVALID: &str = "OutputInvalid";
/// The outputs of the graph are over their limit together.
pub const OUTPUTS_TOO_LARGE: &str = "OutputsTooLarge";
/// The attempt's pod did not start in time.
pub const START_TIMEOUT: &str = "StartTimeout";
/// The same, and the cluster is to blame. Only shown while the attempt is being stopped: it keeps the blame
/// through a restart.
pub const START_TIMEOUT_BY_CLUSTER: &str = "StartTimeoutByCluster";
/// Attempt numbers are used up (only after a status was edited by hand).
pub const TOO_MANY_ATTEMPTS: &str = "TooManyAttempts";
/// The task was removed from the graph.
pub const REMOVED: &str = "Removed";
/// Tasks were told to start afresh; of a task: its last attempt is being stopped before that.
pub const RERUN: &str = "Rerun";
/// The graph was edited.
pub const EDITED: &str = "Edited";
/// The graph failed: a task did.
pub const TASKS_FAILED: &str = "TasksFailed";
/// The graph ended well.
pub const ALL_SUCCEEDED: &str = "AllSucceeded";
/// The graph starts nothing new, by `desiredState`.
pub const SUSPENDED: &str = "Suspended";
/// The graph goes on.
pub const RESUMED: &str = "Resumed";
/// The graph finished.
pub const FINISHED: &str = "Finished";
/// The graph was accepted.
pub const ACCEPTED: &str = "Accepted";

/// Whether what ran was deleted by somebody: how it would have ended is not known.
pub fn is_lost(failure: &super::Failure) -> bool {
    failure.reason == JOB_LOST || failure.reason == CHILD_LOST
}
