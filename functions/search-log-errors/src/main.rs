use search_log_errors::{Deps, handle};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let aws = runtime::aws_config().await;
    runtime::serve("search-log-errors", Deps::from_env(&aws), handle).await
}
