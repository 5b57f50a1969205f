//! The operator.

use clap::Parser;
use taskgraph::{operator, runtime::args::Args};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    operator::run(Args::parse()).await
}
