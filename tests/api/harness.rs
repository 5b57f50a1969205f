//! The harness itself: what it plays and judges is what it says.

use anyhow::Result;

use crate::support::{ControlPlane, Namespace};

#[tokio::test]
async fn a_control_plane_stands() -> Result<()> {
    let client = ControlPlane::shared().client().await?;
    let namespace = Namespace::new(&client, "harness").await?;
    assert_eq!(namespace.graphs().list(&Default::default()).await?.items.len(), 0);
    Ok(())
}
