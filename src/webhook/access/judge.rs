//! Asks the API server whether the requester has the rights that a change asks for.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::OnceCell;

use super::{Access, Change, Mode, Right, answers::Answers, required};
use crate::engine::Problem;

/// How many questions of one change are asked side by side: each of 2,000 tasks may name another service account.
const AT_ONCE: usize = 16;
/// How long it counts that somebody has a right. A burst of objects from one requester then costs one question for each right.
const YES_LASTS: Duration = Duration::from_secs(5);
/// How long it counts that somebody has not: one who was refused asks for the right and tries again.
const NO_LASTS: Duration = Duration::from_secs(1);

/// Why the rights of a requester are not known. The change cannot be let through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused to answer, or was not reached.
    #[error("the API server did not answer {question}: {source}")]
    Review {
        /// What it was asked.
        question: &'static str,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The operator has no right to ask.
    pub fn is_forbidden(&self) -> bool {
        let Self::Review { source, .. } = self;
        matches!(&**source, kube::Error::Api(status) if status.code == 403)
    }
}

/// Judges by the rights of the requester.
#[derive(Debug)]
pub struct Judge {
    reviews: Reviews,
    mode: Mode,
    /// The name of the operator's own user, once it is asked for.
    own: OnceCell<String>,
    answers: Answers,
}

impl Judge {
    /// One that asks through `client`, which is the operator's own: as whom it calls the API server is who passes without
    /// being asked for rights, since child graphs and all writes of the operator come from what others wrote and were
    /// asked for.
    pub fn new(client: Client, mode: Mode) -> Self {
        Self { reviews: Reviews(client), mode, own: OnceCell::new(), answers: Answers::new(YES_LASTS, NO_LASTS) }
    }

    /// A problem for each right that the change asks for and the requester has not, in the order of the fields. `None`:
    /// there was nothing to ask the API server about.
    pub async fn judge(&self, change: &Change<'_>) -> Result<Option<Vec<Problem>>, Error> {
        if self.mode == Mode::Disabled {
            return Ok(None);
        }
        let wanted = required(change);
        if wanted.is_empty() || self.is_own(change.user).await? {
            return Ok(None);
        }
        // all that the API server knows of the requester; none of it fails to be written
        let who: Arc<str> = serde_json::to_string(change.user).unwrap_or_default().into();
        let questions: Vec<_> = wanted.iter().map(|access| self.has(&who, change.user, access)).collect();
        let answers: Vec<bool> = stream::iter(questions).buffered(AT_ONCE).try_collect().await?;
        let denied = wanted.iter().zip(answers).filter(|(_, allowed)| !allowed);
        Ok(Some(denied.map(|(access, _)| access.refused(change.user)).collect()))
    }

    async fn is_own(&self, user: &UserInfo) -> Result<bool, Error> {
        self.own.get_or_try_init(|| self.reviews.whoami()).await?;
        Ok(self.knows_as_own(user))
    }

    /// Whether it is known that this is the operator's own user, without asking.
    pub fn knows_as_own(&self, user: &UserInfo) -> bool {
        let own = self.own.get().filter(|own| !own.is_empty());
        own.is_some_and(|own| user.username.as_ref() == Some(own))
    }

    async fn has(&self, who: &Arc<str>, user: &UserInfo, access: &Access) -> Result<bool, Error> {
        let mut allowed = false;
        for right in std::iter::once(&access.right).chain(&access.instead) {
            allowed = allowed || self.answers.get(who, right, async || self.reviews.may(user, right).await).await?;
        }
        Ok(allowed)
    }
}

impl Access {
    fn refused(&self, user: &UserInfo) -> Problem {
        let name = user.username.as_deref().unwrap_or("the requester");
        let Self { path, deed, role, right, .. } = self;
        let kind = match right.group {
            "" => right.resource.to_owned(),
            group => format!("{}.{group}", right.resource),
        };
        let place = if right.namespace.is_empty() { "for the whole cluster" } else { "there" };
        let message = format!(
            "{name} may not {deed}: ask for a role with the verb {} on {kind} {place}, as the ClusterRole {role} has it",
            right.verb
        );
        Problem { path: path.clone(), message }
    }
}

/// Questions to the API server.
struct Reviews(Client);

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviews")
    }
}

impl Reviews {
    async fn whoami(&self) -> Result<String, Error> {
        let api: Api<SelfSubjectReview> = Api::all(self.0.clone());
        let review = SelfSubjectReview::default();
        let answer = api.create(&PostParams::default(), &review).await.map_err(unanswered("who the operator is"))?;
        let user = answer.status.and_then(|status| status.user_info);
        Ok(user.and_then(|user| user.username).unwrap_or_default())
    }

    async fn may(&self, user: &UserInfo, right: &Right) -> Result<bool, Error> {
        let api: Api<SubjectAccessReview> = Api::all(self.0.clone());
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    verb: text(right.verb),
                    group: text(right.group),
                    resource: text(right.resource),
                    namespace: text(&right.namespace),
                    name: text(&right.name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer =
            api.create(&PostParams::default(), &review).await.map_err(unanswered("what the requester may do"))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

fn unanswered(question: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Review { question, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_says() {
        let user = UserInfo { username: Some("alice".into()), ..UserInfo::default() };
        let right = |namespace: &str| Right {
            verb: "create",
            group: "batch",
            resource: "jobs",
            namespace: namespace.into(),
            name: String::new(),
        };
        let access = |namespace: &str, deed: &str| Access {
            right: right(namespace),
            instead: None,
            path: "spec.tasks".into(),
            deed: deed.into(),
            role: "taskgraph-designer",
        };
        assert_eq!(
            access("team", "create Jobs in namespace \"team\"").refused(&user).to_string(),
            "spec.tasks: alice may not create Jobs in namespace \"team\": ask for a role with the verb create on jobs.batch \
             there, as the ClusterRole taskgraph-designer has it"
        );
        let all = access("", "create Jobs in every namespace").refused(&UserInfo::default()).message;
        assert!(all.starts_with("the requester may not") && all.contains("jobs.batch for the whole cluster"), "{all}");
    }
}
