//! What the API server said lately of who may do what.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use super::Right;

/// Most answers that are remembered: about 2 MB.
const MOST: usize = 4096;

/// Who asks for which right.
type Question = (Arc<str>, Right);

#[derive(Clone, Copy, Debug)]
struct Answer {
    allowed: bool,
    until: Instant,
}

/// Answers, each for a short time. The same question is asked once, however many wait for the answer.
#[derive(Debug)]
pub struct Answers {
    known: Mutex<HashMap<Question, Arc<OnceCell<Answer>>>>,
    /// How long a yes counts, and a no.
    lasts: [Duration; 2],
}

impl Answers {
    /// A yes counts for `yes`: a right that was taken away counts so much longer. A no counts for `no`: who was just given a
    /// right waits so long.
    pub fn new(yes: Duration, no: Duration) -> Self {
        Self { known: Mutex::default(), lasts: [yes, no] }
    }

    /// Whether `who` has `right`, as it is known or as `ask` says. An `ask` that fails, or is given up, leaves nothing
    /// behind: the next one asks.
    pub async fn get<E>(
        &self,
        who: &Arc<str>,
        right: &Right,
        ask: impl AsyncFnOnce() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let cell = self.cell((Arc::clone(who), right.clone()));
        let answer = cell.get_or_try_init(|| async {
            let allowed = ask().await?;
            let [yes, no] = self.lasts;
            Ok(Answer { allowed, until: Instant::now() + if allowed { yes } else { no } })
        });
        Ok(answer.await?.allowed)
    }

    fn cell(&self, question: Question) -> Arc<OnceCell<Answer>> {
        let now = Instant::now();
        let counts = |cell: &OnceCell<Answer>| cell.get().is_none_or(|answer| now < answer.until);
        let mut known = self.known.lock();
        if let Some(cell) = known.get(&question).filter(|cell| counts(cell)) {
            return Arc::clone(cell);
        }
        if known.len() >= MOST {
            known.retain(|_, cell| counts(cell));
        }
        // all of them still count: those who wait keep theirs
        if known.len() >= MOST {
            known.clear();
        }
        let cell = Arc::default();
        known.insert(question, Arc::clone(&cell));
        cell
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;

    fn right(name: String) -> Right {
        Right { verb: "design", group: "taskgraph.dev", resource: "taskgraphs", namespace: "team".into(), name }
    }

    #[derive(Default)]
    struct Server(AtomicU32);

    impl Server {
        async fn says(&self, answer: Result<bool, ()>) -> Result<bool, ()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            answer
        }

        fn asked(&self) -> u32 {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once() {
        let (answers, server) = (Answers::new(Duration::from_mins(1), Duration::from_mins(1)), Server::default());
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let (right, other) = (right("a".into()), right("b".into()));
        let all = (0..50).map(|_| answers.get(&alice, &right, async || server.says(Ok(true)).await));
        assert!(join_all(all).await.iter().all(|answer| *answer == Ok(true)));
        assert_eq!(server.asked(), 1);
        // another requester, another right, a no
        assert_eq!(answers.get(&bob, &right, async || server.says(Ok(false)).await).await, Ok(false));
        assert_eq!(answers.get(&alice, &other, async || server.says(Ok(false)).await).await, Ok(false));
        assert_eq!(answers.get(&bob, &right, async || server.says(Ok(true)).await).await, Ok(false));
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_no_answer() {
        let (answers, server) = (Answers::new(Duration::from_mins(1), Duration::from_mins(1)), Server::default());
        let (who, right): (Arc<str>, Right) = ("alice".into(), right(String::new()));
        assert_eq!(answers.get(&who, &right, async || server.says(Err(())).await).await, Err(()));
        let given_up = answers.get(&who, &right, async || std::future::pending::<Result<bool, ()>>().await);
        assert!(tokio::time::timeout(Duration::from_millis(5), given_up).await.is_err());
        assert_eq!(answers.get(&who, &right, async || server.says(Ok(true)).await).await, Ok(true));
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn an_answer_does_not_last() {
        let (answers, server) = (Answers::new(Duration::from_mins(1), Duration::ZERO), Server::default());
        let (who, right): (Arc<str>, Right) = ("alice".into(), right(String::new()));
        for answer in [false, false, true] {
            assert_eq!(answers.get(&who, &right, async || server.says(Ok(answer)).await).await, Ok(answer));
        }
        assert_eq!(answers.get(&who, &right, async || server.says(Ok(false)).await).await, Ok(true), "a yes lasts");
        assert_eq!(server.asked(), 3);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (answers, server) = (Answers::new(Duration::from_mins(1), Duration::ZERO), Server::default());
        let who: Arc<str> = "alice".into();
        for number in 0..3 * MOST {
            // every other answer counts no more when the next comes
            let answer = number % 2 == 0;
            let right = right(number.to_string());
            assert_eq!(answers.get(&who, &right, async || server.says(Ok(answer)).await).await, Ok(answer));
            assert!(answers.known.lock().len() <= MOST);
        }
    }
}
