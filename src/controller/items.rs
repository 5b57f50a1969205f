//! The items of an attempt with `forEach`, in a `ConfigMap` that lives as long as the attempt.

use std::collections::BTreeMap;

use super::apply::{Hold, Try};
use crate::{
    api::{ANNOTATION_ITEMS_HASH, LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_TASK},
    controller::cluster::CallError,
    engine::{Blame, Failure},
    jobs::{self, ItemsMap, Refused},
};

impl Hold {
    /// Creates the items of the attempt. Its Job comes only after them, so that no pod waits for its item.
    pub(super) async fn try_create_items(&self, map: &ItemsMap, shown: &mut Option<&'static str>) -> Result<(), Try> {
        let created = {
            let _own = self.creates.acquire().await;
            self.hands.cluster.create_config_map(&self.identity.namespace, &map.object).await
        };
        match created {
            Ok(_) => Ok(()),
            Err(CallError::Api { code, reason, message }) => match jobs::refusal(code, &reason, &message) {
                Refused::AlreadyExists => self.meet_existing_items(map).await,
                refused => Err(self.refused(refused, shown)),
            },
            // it may have been created: the next try finds out
            Err(error) => {
                self.failed_call(&error, "creating items");
                Err(Try::Again)
            }
        }
    }

    /// A `ConfigMap` of that name is there: ours, made by an earlier try or another operator, or somebody else's.
    async fn meet_existing_items(&self, map: &ItemsMap) -> Result<(), Try> {
        match self.hands.cluster.get_config_map(&self.identity.namespace, &map.name).await {
            Ok(found) => {
                let (owners, annotations) = (found.metadata.owner_references, found.metadata.annotations);
                let owned = owners.iter().flatten().any(|owner| owner.uid == self.identity.uid);
                let hash = annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_ITEMS_HASH));
                if owned && hash == Some(&map.hash) {
                    return Ok(());
                }
                Err(Try::Done(self.failed(Failure {
                    reason: "NameTaken".into(),
                    message: Some(format!(
                        "a ConfigMap named {} that is not this attempt's stands in its way; delete or rename it",
                        map.name
                    )),
                    exit_code: None,
                    blame: Blame::Task,
                })))
            }
            Err(error) => {
                self.failed_call(&error, "looking at existing items");
                Err(Try::Again)
            }
        }
    }

    /// Deletes the items of the attempt, which is over. What is left in the end goes with the graph.
    pub async fn drop_items(self) {
        // a create that was not answered yet may bring them back
        let _gate = self.gate.write().await;
        let number = self.attempt.number.to_string();
        let labels = BTreeMap::from([
            (LABEL_GRAPH_UID, self.identity.uid.as_str()),
            (LABEL_TASK, &*self.task),
            (LABEL_ATTEMPT, &number),
        ]);
        let delete = || self.hands.cluster.delete_config_maps(&self.identity.namespace, &labels);
        self.hands.insist(delete, |error| self.failed_call(error, "deleting items")).await;
    }
}
