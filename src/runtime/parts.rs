//! Parts of the program that run beside its main loop, for as long as it does: watches, the Lease, what sends events and
//! traces. One that breaks would be missed by nobody until it is too late.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use super::health::Health;

/// Runs a part. If it panics, which is logged where it does, the process is not healthy any more: nothing but a fresh start
/// brings the part back, and the kubelet makes one. Until then the others go on.
pub async fn run(health: Health, part: &'static str, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        health.broke(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_noticed_and_one_that_ends_is_not() {
        let health = Health::default();
        run(health.clone(), "the one that ends", async {}).await;
        assert_eq!(health.sick(), [""; 0]);
        run(health.clone(), "the watch of pods", async { panic!("on purpose") }).await;
        assert_eq!(health.sick(), ["the watch of pods panicked, a defect: the process has to be started anew"]);
        assert!(health.unready().iter().any(|problem| problem.starts_with("the watch of pods panicked")));
    }
}
