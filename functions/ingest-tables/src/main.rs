use ingest_tables::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("ingest-tables", Deps::from_env(&aws), handle).await
}
