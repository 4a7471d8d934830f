use query_messages::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("query-messages", Deps::from_env(&aws), handle).await
}
