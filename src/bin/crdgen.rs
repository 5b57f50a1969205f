//! Writes the CRDs (temporary).
use kube::CustomResourceExt;
use taskgraph::api::{ClusterTaskTemplate, TaskGraph, TaskTemplate};
fn main() {
    for crd in [TaskGraph::crd(), TaskTemplate::crd(), ClusterTaskTemplate::crd()] {
        println!("{}", serde_json::to_string(&crd).unwrap());
    }
}
